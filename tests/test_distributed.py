"""torch.distributed around the layers: several processes reach the losses and weights of one process.

Real processes are started by torchrun, with gloo on the CPU. Each start runs many checks of `distributed_programs`.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import needs_compiler, plain_if
from torch import distributed
from torch._dynamo.utils import counters

ROOT = Path(__file__).parents[1]
PROGRAM = Path(__file__).with_name("distributed_programs.py")
heavy = pytest.mark.heavy
pytestmark = [
    pytest.mark.skipif(
        not distributed.is_available() or not distributed.is_gloo_available(), reason="torch was built without gloo"
    ),
    # nn.Linear's, which is never modified
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module .* returned a view"),
]


def torchrun(processes, *arguments):
    """A finished run of a program by ``processes`` processes, with one thread each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=900
    )


def run_group(processes, group, folder, subtests):
    """Run each check of a group as a subtest. Only the checks' results count, because gloo may abort a process that has
    ended."""
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
        pytest.param(4, "training of LSTM", marks=heavy),
        pytest.param(2, "compiled", marks=[heavy, needs_compiler]),
    ],
)
def test_many_processes_equal_one(processes, group, tmp_path, subtests):
    """Losses of several steps and evaluations, and final weights, equal those of one process."""
    run_group(processes, group, tmp_path, subtests)


@heavy
def test_what_some_ranks_saved_others_load(tmp_path, subtests):
    """Sharded state dicts of a model and its optimizer; the loss curve continues like that of one process."""
    for chapter, processes in enumerate((2, 4, 2)):
        run_group(processes, f"chapter {chapter}", tmp_path, subtests)


# The example.

EXAMPLE = ROOT / "examples" / "train_distributed.py"
SMALL = ["--dtype=float64", "--hidden=12", "--batch=8", "--length=12", "--characters=1500", "--every=5"]
STEPS = 22
"""More than the 15 windows of the text, so that the text is read again."""


@pytest.fixture
def one_process(examples_on_path):
    """A function that trains in one process, from a folder's checkpoint if there is one, and returns the losses."""
    example = importlib.import_module("train_distributed")
    return lambda *options, steps=STEPS: example.main([*SMALL, f"--steps={steps}", *map(str, options)]).losses


def losses_of(folder, steps=STEPS):
    """The losses of a training that has reached its end; the folder holds nothing else."""
    [checkpoint] = folder.iterdir()
    assert checkpoint.name == f"step-{steps:08d}"
    return json.loads((checkpoint / "progress.json").read_text())["losses"]


@heavy
@pytest.mark.parametrize(
    "options",
    [["--parallel=ddp"], ["--parallel=fsdp", "--accumulate=2", "--cell=gru"]],
    ids=lambda options: options[0][11:],
)
def test_the_example_equals_one_process(options, tmp_path, one_process):
    done = torchrun(2, EXAMPLE, *SMALL, f"--steps={STEPS}", f"--checkpoint={tmp_path}", *options)
    expected = one_process(*options)
    assert tmp_path.exists() and [*tmp_path.iterdir()], done.stderr[-5000:]
    assert losses_of(tmp_path) == pytest.approx(expected, rel=0, abs=1e-9)
    assert len(expected) == STEPS and expected[-1] < expected[0]
    assert f"{STEPS}/{STEPS}" in done.stdout and done.stdout.count("loss") == 1  # one rank alone prints its progress


@heavy
@pytest.mark.parametrize(
    "moment, count, left, after, options",
    [
        ("step", 13, "step-00000010", 2, ["--parallel=ddp"]),
        ("save", 2, "step-00000005", 2, ["--parallel=fsdp"]),
        ("rename", 3, "step-00000010", 1, ["--parallel=ddp", "--accumulate=2"]),
    ],
)
def test_training_goes_on_where_a_rank_was_killed(moment, count, left, after, options, tmp_path, one_process):
    """Training continues with as many processes as before, or with one. The rank is killed in a step, or while a
    checkpoint is written."""
    arguments = [*SMALL, f"--steps={STEPS}", f"--checkpoint={tmp_path}", *options]
    done = torchrun(2, PROGRAM.with_name("killed_ranks.py"), moment, count, *arguments)
    assert done.returncode and "SIGKILL" in done.stderr, done.stderr[-5000:]
    assert [path.name for path in tmp_path.glob("step-*")] == [left]
    if after == 1:
        one_process(f"--checkpoint={tmp_path}", *options)
    else:
        torchrun(after, EXAMPLE, *arguments)
    assert losses_of(tmp_path) == pytest.approx(one_process(*options), rel=0, abs=1e-9)


@heavy
def test_many_go_on_where_one_has_stopped(tmp_path, one_process):
    one_process(f"--checkpoint={tmp_path}", steps=11)
    torchrun(2, EXAMPLE, *SMALL, f"--steps={STEPS}", f"--checkpoint={tmp_path}", "--parallel=fsdp")
    assert losses_of(tmp_path) == pytest.approx(one_process(), rel=0, abs=1e-9)


@plain_if(lambda parallel, layer, stop: layer == "seqcells" and (parallel == "fsdp") == (stop == 15))
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("layer", ["seqcells", "torch"])
@pytest.mark.parametrize("stop", [5, 15])  # inside the text, and at its end
def test_one_process_goes_on_to_the_bit(parallel, layer, stop, tmp_path, one_process):
    options = f"--parallel={parallel}", f"--layer={layer}"
    one_process(f"--checkpoint={tmp_path}", *options, steps=stop)
    assert one_process(f"--checkpoint={tmp_path}", *options) == one_process(*options)


@pytest.mark.parametrize(
    "options",
    [
        ["--parallel=ddp", "--precision=bfloat16"],
        ["--parallel=fsdp", "--precision=bfloat16"],
        pytest.param(["--parallel=ddp", "--compile"], marks=[heavy, needs_compiler]),
    ],
    ids=lambda options: options[0][11:] + options[1],
)
def test_precision_and_compiling_change_the_curve_little(options, tmp_path, one_process):
    """And training resumes to the bit, from states that bfloat16 can hold."""
    options = ["--dtype=float32", *options]
    plain, frames = one_process("--dtype=float32"), counters["frames"]["ok"]
    found = one_process(*options)
    if "bfloat16" in options[-1]:
        assert found == pytest.approx(plain, rel=0, abs=0.02) and found != pytest.approx(plain, rel=0, abs=1e-6)
    else:
        assert found == pytest.approx(plain, rel=0, abs=1e-4) and counters["frames"]["ok"] > frames
    one_process(f"--checkpoint={tmp_path}", *options, steps=7)
    assert one_process(f"--checkpoint={tmp_path}", *options) == pytest.approx(found, rel=0, abs=1e-6)


@pytest.mark.parametrize("option", ["--every=0", "--accumulate=0", "--precision=float16", "--parallel=fsdp1"])
def test_the_example_refuses(option, one_process, capsys):
    with pytest.raises(SystemExit):
        one_process(option)
    assert option.partition("=")[0] in capsys.readouterr().err
