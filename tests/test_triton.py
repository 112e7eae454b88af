"""The Triton engines without a GPU: the suites run in a child process whose kernels Triton interprets in Python."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
    pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="this is the child process"),
]

# Interpreted, a launch takes 40 ms: of the suites, enough to have run every kernel, cell, dtype and option once.
QUICK = (
    "test_recurrence.py",
    "test_parity.py -k 'as_near and plain and (lstm or gru)'",
    "test_sequences.py -k 'any_size and (gru or peephole) or extreme and rnn'",
    "test_transforms.py -k 'same_bits and lstm'",
    "test_recompute.py -k '3-at and boundaries and (gru or peephole)'",
)


def run_interpreted(arguments: str, only: str) -> None:
    """pytest on some tests, those of backends called ``only``."""
    file, _, chosen = arguments.partition(" -k ")
    chosen = f"{only} and ({chosen.strip(chr(39))})" if chosen else only
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / file), "-k", chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("tests", QUICK)
def test_interpreted(tests):
    run_interpreted(tests, "triton-stepwise")


# One program alone; several together are in test_triton_persistent.py.
QUICK_PERSISTENT = (
    "test_recurrence.py -k 'both-both or nothing'",
    "test_parity.py -k 'as_near and plain and lstm'",
    "test_sequences.py -k 'any_size and gru or extreme and rnn'",
)


@pytest.mark.parametrize("tests", QUICK_PERSISTENT)
def test_persistent_interpreted(tests):
    run_interpreted(tests, "triton-persistent")


@pytest.mark.heavy
@pytest.mark.parametrize(
    "file", [f"test_{name}.py" for name in ("boundaries", "gradcheck", "ops", "parity", "recompute", "sequences")]
)
@pytest.mark.parametrize("backend", ("triton-stepwise", "triton-persistent"))
def test_every_suite_interpreted(file, backend):
    run_interpreted(file, backend)


def test_seqcells_without_triton_says_what_is_missing():
    program = (
        "import sys; sys.modules['triton'] = None; import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch, seqcells\n"
        "seqcells.LSTM(2, 3)(torch.randn(4, 1, 2))\n"
        "try: seqcells.LSTM(2, 3, backend='triton')(torch.randn(4, 1, 2))\n"
        "except RuntimeError as error: assert 'triton is not installed' in str(error), error\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=HERE.parent)
