"""torch.distributed around the layers: several processes come to the losses and weights of one.

Real processes, by torchrun over gloo on the CPU. Each start runs many checks of `distributed_programs`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import needs_compiler
from torch import distributed

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("distributed_programs.py")
heavy = pytest.mark.heavy
pytestmark = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(), reason="torch was built without gloo"
)


def torchrun(processes, *arguments):
    """A finished run of a program by so many processes, one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=900
    )


def run_group(processes, group, folder, subtests):
    """Each check of a group is a subtest. What counts is what they found: gloo may abort a process that has ended."""
    done = torchrun(processes, PROGRAM, group, folder)
    found = folder / f"{group}.json"
    assert found.exists(), done.stderr[-5000:]
    told = json.loads(found.read_text())
    assert told
    for name, wrong in told.items():
        with subtests.test(name):
            assert not wrong, wrong


@pytest.mark.parametrize(
    "processes, group",
    [
        (2, "quick"),
        pytest.param(2, "training", marks=heavy),
        pytest.param(4, "training", marks=heavy),
        pytest.param(2, "compiled", marks=[heavy, needs_compiler]),
    ],
)
def test_many_processes_equal_one(processes, group, tmp_path, subtests):
    """Losses of several steps and evaluations, and final weights."""
    run_group(processes, group, tmp_path, subtests)


@heavy
@pytest.mark.parametrize("before, after", [(2, 4), (4, 2)])
def test_what_some_ranks_saved_others_load(before, after, tmp_path, subtests):
    """Sharded state dicts of a model and its optimizer; the curve goes on as one process's."""
    run_group(before, "saves", tmp_path, subtests)
    run_group(after, "loads", tmp_path, subtests)
