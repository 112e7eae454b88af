"""Cells are compiled at first use: once for their equations, safely, and with a reason where compiling fails."""

import os
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from support import needs_compiler

import seqcells
from seqcells import cells
from seqcells.cells.activations import sigmoid, tanh
from seqcells.derive import kernel_cache
from seqcells.kernels import cpu

if not cpu.why_not_available():
    from seqcells.kernels.cpu import compiled, library

ROOT = Path(__file__).parents[1]
FLOAT = torch.float32
pytestmark = [needs_compiler, pytest.mark.usefixtures("compiling", "forgotten")]


class Leaky(cells.Cell):
    """A cell that is quick to compile."""

    name = "leaky_of_the_tests"
    gates = ("n",)
    states = ("h",)

    @staticmethod
    def step(x, r, s, p):
        return s.h + 0.5 * (tanh(x.n + r.n) - s.h)


class Other(Leaky):
    """Another cell of the same name."""

    @staticmethod
    def step(x, r, s, p):
        return s.h + 0.5 * (sigmoid(x.n + r.n) - s.h)


@pytest.fixture
def forgotten(monkeypatch, tmp_path):
    """A cache of the test's own, and no remembered results."""
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "cache"))

    def forget():
        for each in (
            compiled._passes_or_reason,
            compiled._systems_compiler,
            compiled._version,
            kernel_cache._own_folder,
        ):
            each.cache_clear()

    forget()
    yield forget
    forget()


def kept(path=None):
    folder = Path(path or os.environ["SEQCELLS_CACHE"], "kernels")
    return sorted(each.name for each in folder.glob("*.so"))


def test_once(forgotten, capfd):
    assert compiled.why_not(Leaky, FLOAT) is None
    said, first = capfd.readouterr().err, kept()
    target = compiled.BASES.get(library.target, library.target)
    assert said == f"seqcells: compiling leaky_of_the_tests for {target}, float32, once; this takes some seconds\n"
    assert len(first) == 2
    forgotten()
    assert compiled.why_not(Leaky, FLOAT) is None
    assert (kept(), capfd.readouterr().err) == (first, "")
    assert compiled.why_not(Leaky, torch.bfloat16) is None  # bfloat16 is only storage: the same kernels
    assert (kept(), capfd.readouterr().err) == (first, "")


class Pass(Leaky):
    """The same equations under names that the engine's headers use, or that C++ cannot print."""

    name = 'Stage "of" \\ the tests'


def test_names_are_not_printed(capfd):
    assert compiled.why_not(Leaky, FLOAT) is compiled.why_not(Pass, FLOAT) is None
    assert capfd.readouterr().err.count("compiling") == 1
    assert len(kept()) == 2


@pytest.mark.heavy
def test_the_key_is_what_a_cell_is_and_not_its_name():
    assert compiled.why_not(Leaky, FLOAT) is compiled.why_not(Other, FLOAT) is None
    assert len(kept()) == 4
    one, other = (compiled.passes(cell, FLOAT).forward.address for cell in (Leaky, Other))
    assert one != other


def test_what_no_compiler_compiles_is_the_references(forgotten, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    layer = seqcells.define(Leaky)[0](3, 4)
    with pytest.warns(
        UserWarning, match="the reference runs the leaky_of_the_tests cell on the CPU.*no C\\+\\+ compiler"
    ):
        choice = layer.plan(torch.randn(2, 1, 3))
    assert choice.backend == "reference" and "no C++ compiler was found" in choice.reason
    layer.backend = "cpu"
    with pytest.raises(RuntimeError, match=r"backend='cpu' cannot run this call: .*no C\+\+ compiler was found"):
        layer(torch.randn(2, 1, 3))


@pytest.mark.heavy
def test_without_a_compiler_what_was_compiled_before_runs(forgotten, monkeypatch):
    assert compiled.why_not(Leaky, FLOAT) is None
    forgotten()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiled.why_not(Leaky, FLOAT) is None
    with pytest.warns(UserWarning, match="the reference runs"):
        assert "no C++ compiler" in compiled.why_not(Other, FLOAT)


@pytest.mark.filterwarnings("ignore:the reference runs")
def test_a_compiler_that_fails_is_quoted(forgotten, monkeypatch, tmp_path):
    fails = tmp_path / "fails"
    fails.write_text("#!/bin/sh\necho 'unit.cpp:1: error: it is Sunday' >&2\nexit 3\n")
    fails.chmod(fails.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(fails))
    line = Leaky.step.__code__.co_firstlineno
    words = f"{__file__}:{line}: step of Leaky: {fails} fails: unit.cpp:1: error: it is Sunday"
    assert compiled.why_not(Leaky, FLOAT).endswith(words)
    assert kept() == []


@pytest.mark.filterwarnings("ignore:the reference runs")
def test_headers_must_be_those_of_the_extension(monkeypatch):
    monkeypatch.setattr(compiled._engine, "headers", "others")
    assert "built from other headers" in compiled.why_not(Leaky, FLOAT)


def test_never(monkeypatch):
    monkeypatch.setenv("SEQCELLS_COMPILE", "never")
    assert compiled.why_not(Leaky, FLOAT).endswith("SEQCELLS_COMPILE=never")
    assert kept() == []


@pytest.mark.heavy
def test_where_the_cache_cannot_be_written_kernels_are_the_processs_own(forgotten, monkeypatch, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "file"))  # a file, because root may write to any folder
    assert compiled.why_not(Leaky, FLOAT) is None
    assert "SEQCELLS_CACHE" in capfd.readouterr().err


@pytest.mark.heavy
def test_threads_compile_once(capfd):
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: compiled.why_not(Leaky, FLOAT), range(4))] == [None] * 4
    assert capfd.readouterr().err.count("compiling") == 1


@pytest.mark.heavy
def test_processes_compile_once():
    code = textwrap.dedent("""
        import torch, seqcells
        from seqcells import cells
        layer = seqcells.define(cells.MGU)[0](3, 4, backend="cpu")
        print(layer(torch.ones(2, 1, 3))[0].shape)
    """)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(4)
    ]
    said = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert sum(words.count("compiling") for words in said) == 1


@pytest.mark.heavy
def test_a_killed_compiler_leaves_nothing_that_is_loaded(forgotten):
    code = "from seqcells import cells; from seqcells.kernels.cpu import compiled; import torch;"
    code += "compiled.why_not(cells.MGU, torch.float32)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert "compiling" in process.stderr.readline()
    process.kill()
    process.wait()
    assert kept() == []
    assert compiled.why_not(cells.MGU, FLOAT) is None
    assert len(kept()) == 2


@pytest.mark.heavy
def test_what_a_killed_process_left_is_cleared_away(forgotten, tmp_path):
    """No process waits for these files or loads them, and they are removed in time."""
    compiled.why_not(Leaky, FLOAT)
    folder = tmp_path / "cache" / "kernels"
    name = next(path.stem for path in sorted(folder.glob("*.so")))
    names = [path.stem for path in folder.glob("*.so")]
    for path in folder.glob("*.so"):
        path.unlink()
    for each in names:
        (folder / f".{each}-left").mkdir()
        (folder / f".{each}-left" / f"{name}.so").write_bytes(b"half")
        os.utime(folder / f".{each}-left", (0, 0))
    (tmp_path / "cache" / "locks" / f"{name}.lock").write_text("")
    forgotten()
    assert compiled.why_not(Leaky, FLOAT) is None
    assert sorted(path.stem for path in folder.glob("*.so")) == sorted(names)
    assert len([*folder.glob(".*")]) == 1, "of the two libraries the first one's name is the lock's"


FULL = """
    import resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as if there were no more room
    import warnings, torch, seqcells
    warnings.simplefilter("ignore")
    layer = seqcells.define(seqcells.cells.MGU)[0](3, 4)
    choice = layer.plan(torch.ones(2, 1, 3))
    assert choice.backend == "reference", choice
    print(choice.reason)
"""


@pytest.mark.heavy
def test_a_full_disk_leaves_nothing_and_is_told():
    code = textwrap.dedent(FULL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "cannot compile it" in done.stdout
    assert kept() == []


LOADED = """
    import sys
    import torch
    import seqcells
    from torch.utils.data import DataLoader, Dataset

    MGU, MGUCell = seqcells.define(seqcells.cells.MGU)


    class Made(Dataset):
        def __init__(self):
            torch.manual_seed(0)
            self.layer = MGU(3, 4, backend="cpu").requires_grad_(False)

        def __len__(self):
            return 6

        def __getitem__(self, k):
            return self.layer(torch.full((5, 1, 3), float(k)))[0]


    if __name__ == "__main__":
        data = Made()
        how = None if sys.argv[1] == "alone" else sys.argv[1]
        loader = DataLoader(data, num_workers=0 if how is None else 3, multiprocessing_context=how)
        print(*(f"{output.sum():.6f}" for output in loader))
"""


@pytest.mark.heavy
def test_workers_of_a_loader_compile_and_run(tmp_path):
    """Workers are forked and spawned, with a cold cache and with a warm one."""
    (tmp_path / "loaded.py").write_text(textwrap.dedent(LOADED))
    found = []
    for how in ("fork", "spawn", "alone"):
        command = [sys.executable, str(tmp_path / "loaded.py"), how]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
        assert done.stderr.count("compiling") == (how == "fork")
    assert len({*found}) == 1


RANKS = """
    import torch, seqcells
    import torch.distributed as dist

    dist.init_process_group("gloo")
    torch.manual_seed(0)
    layer = seqcells.define(seqcells.cells.MGU)[0](3, 4, backend="cpu")
    total = layer(torch.ones(5, 1, 3))[0].sum().detach()
    whole = total.clone()
    dist.all_reduce(whole)
    assert torch.allclose(whole, total * dist.get_world_size())
    dist.destroy_process_group()
"""


@pytest.mark.heavy
def test_eight_ranks_start_from_a_cold_cache(tmp_path):
    (tmp_path / "ranks.py").write_text(textwrap.dedent(RANKS))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*run, str(tmp_path / "ranks.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("seqcells: compiling") == 1


@pytest.mark.heavy
def test_a_forked_child_runs_what_its_parent_loaded():
    layer = seqcells.define(Leaky)[0](3, 4, backend="cpu")
    x = torch.randn(5, 2, 3)
    expected = layer(x)[0].sum().item()
    child = os.fork()
    if not child:
        os._exit(layer(x)[0].sum().item() != expected)
    assert os.waitpid(child, 0)[1] == 0
