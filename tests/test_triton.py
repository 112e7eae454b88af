"""The Triton engines without a GPU: the suites run in a child process whose kernels Triton interprets in Python."""

import os
import shlex
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

# The parts of the suites that have run every kernel with every cell, dtype and option, forward and backward, at odd
# sizes. All parts would take hours, because an interpreted launch takes 40 ms. The quick suites have a cell or two for
# each family of kernels, in one process. The heavy suites leave out some cells, and the exhaustive suites are the rest;
# a GPU runs all.
ONE = "gru and not ligru and not mingru"
LSTM = "lstm and not peephole and not slstm"
QUICK = (
    "test_recurrence.py test_triton_kernels.py test_recompute.py -k '"
    f"test_recurrence and triton and both-both and {ONE}"
    f" or test_triton_kernels and (options and (float32 or bfloat16) and {ONE} or products or plans)"
    f" or test_recompute and stepwise and 3-at and boundaries and {ONE}'",
    "test_memory.py test_wanted_gradients.py test_settings.py -k '"
    "test_memory or test_wanted_gradients and persistent and after or test_settings and outside and stepwise'",
)
HEAVY = (
    f"test_recurrence.py -k 'triton and ({ONE} or indrnn or both-both)'",
    "test_triton_kernels.py -m 'not exhaustive'",
    "test_parity.py -k 'triton and cells_equal or (stepwise or persistent) and (as_near and plain or 2-1-1-1)"
    f" and ({LSTM} or {ONE})'",
    f"test_sequences.py -k 'triton and (any_size and {ONE} or one_step or extreme)'",
    f"test_boundaries.py -k '(stepwise or persistent) and ({ONE} or peephole and deep) and not any_lengths'",
    f"test_ops.py -k 'triton and opcheck and ({ONE} or indrnn)'",
    f"test_ops.py -k 'triton-stepwise and compiled_whole and plain and {ONE}'",
    f"test_transforms.py -k 'triton and same_bits and {ONE}'",
    f"test_recompute.py -k '(triton-stepwise or triton-persistent) and {ONE}'",
    "test_wanted_gradients.py -k 'triton and (cpu-gru and alone or autocast and once)'",
)
EXHAUSTIVE = (
    "test_parity.py -k '(stepwise or persistent) and (as_near and plain or 2-1-1-1)'",
    "test_recurrence.py -k 'triton'",
    "test_triton_kernels.py test_triton_persistent.py test_triton_prepared.py test_triton_wavefront.py -m exhaustive",
    "test_boundaries.py -k '(stepwise or persistent) and not any_lengths'",
    "test_sequences.py -k 'triton and (any_size or one_step or extreme)'",
    "test_gradcheck.py -k 'triton and operator and gru'",
    "test_transforms.py -k 'triton and same_bits'",
    "test_recompute.py -k 'triton-stepwise or triton-persistent'",
    "test_wanted_gradients.py -k 'triton'",
)
SUITES = [
    *QUICK,
    *(pytest.param(tests, marks=pytest.mark.heavy) for tests in HEAVY),
    *(pytest.param(tests, marks=pytest.mark.exhaustive) for tests in EXHAUSTIVE),
]


def run_interpreted(tests: str) -> None:
    """Run pytest with these arguments in a process that interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [str(HERE / each) if each.endswith(".py") else each for each in shlex.split(tests)]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.parametrize("tests", SUITES)
def test_interpreted(tests):
    run_interpreted(tests)


BFLOAT16 = """
import torch, seqcells
ours, theirs = seqcells.LSTM(16, 32, dtype=torch.bfloat16), torch.nn.LSTM(16, 32, dtype=torch.float64)
theirs.load_state_dict(ours.state_dict())
input = torch.randn(3, 2, 16, dtype=torch.bfloat16)
expected, _ = theirs(input.double())
wanted = torch.autograd.grad(expected.sum(), theirs.weight_hh_l0)[0]
for ours.backend in ("triton", "triton-stepwise", "triton-persistent"):
    output, _ = ours(input)
    found = torch.autograd.grad(output.float().sum(), ours.weight_hh_l0)[0]
    assert (output - expected).abs().max() < 0.02, ours.backend
    assert (found - wanted).norm() < 0.05 * wanted.norm(), ours.backend
"""


def test_bfloat16_is_right_for_who_interprets_outside_of_the_tests():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", BFLOAT16], env=environment, cwd=HERE.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


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
