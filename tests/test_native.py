"""Programs that run without Python: a library of their layers, in a process without the package, and in C++."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exported_layers import SIZES, F, H, Wrapped, inputs, keep, program_of, run_elsewhere
from support import needs_compiler

import seqcells
from seqcells import compile
from seqcells.io import native
from seqcells.kernels import cpu

pytestmark = [
    pytest.mark.usefixtures("own_registry", "compiling"),
    needs_compiler,
    pytest.mark.skipif(
        bool(cpu.why_not_available()), reason="the CPU engine, of which libraries are made, is not built"
    ),
]
ROOT = Path(__file__).parents[1]
HERE = None if cpu.why_not_available() else compile.here()[0]
"""The best instruction set of this processor."""


def defined(cell, **options):
    return seqcells.define(cell)[0](F, H, **options)


MODELS = {
    "LSTM, two layers both ways, lengths": (lambda: seqcells.LSTM(F, H, 2, bidirectional=True), "lengths", {}),
    "GRU, reset": (lambda: seqcells.GRU(F, H, bidirectional=True), "reset", {}),
    "RNN, batch first": (lambda: seqcells.RNN(F, H, batch_first=True), None, {}),
    "projection": (lambda: seqcells.LSTM(F, H, proj_size=2, bidirectional=True), "lengths", {}),
    "kept values": (lambda: seqcells.LSTM(F, H, 2), None, {"keep": ("c", "c_l0", "forget")}),
    "no bias, float64": (lambda: seqcells.GRU(F, H, bias=False, dtype=torch.float64), None, {}),
    "bfloat16": (lambda: seqcells.LSTM(F, H, dtype=torch.bfloat16), "reset", {}),
    "numbers and rows of its own": (lambda: seqcells.PeepholeLSTM(F, H), "reset", {}),
    "normalised": (lambda: defined(seqcells.cells.LayerNormLSTM), "lengths", {}),
    "heads": (lambda: defined(seqcells.cells.MultiHeadSLSTM, heads=2), "reset", {}),
    "a stream": (lambda: defined(seqcells.cells.ContinuousTimeRNN, bidirectional=True), "elapsed", {}),
    "its input once more": (lambda: defined(seqcells.cells.UGRNN), None, {}),
}


def module_of(label):
    torch.manual_seed(0)
    make, name, always = MODELS[label]
    layer = make()
    layer.backend = "cpu"
    return Wrapped(layer, name, **always).eval(), name


def given_to(module, name, size, seed=0):
    dtype = next(module.parameters()).dtype
    given = inputs(name, *size, seed, module.layer.batch_first)
    return tuple(each.to(dtype) if each.is_floating_point() else each for each in given)


def run_without_the_package(folder, labels, targets):
    """Run programs of some models by one library in a process of its own.

    Yields each model's label, its results there, and its results here.
    """
    programs = []
    for label in labels:
        module, name = module_of(label)
        calls = [given_to(module, name, size, seed) for seed, size in enumerate(SIZES)]
        programs.append(program_of(module, name, module.layer.batch_first, given=calls[0]))
        # A program projects the input by torch's product, which rounds bfloat16 differently.
        keep(folder, label, programs[-1], module, calls, near(label))
    library = native.library(*programs, path=folder / "liblayers.so", targets=targets)
    for label, found, expected in run_elsewhere(folder, str(library)):
        for each in zip(found, expected, strict=True):
            yield label, *each


def near(label):
    """The relative and absolute tolerance for numbers that are summed in another order."""
    return (2e-2, 2e-2) if label == "bfloat16" else (1e-5, 1e-6)


@pytest.mark.heavy
def test_a_library_gives_the_same_bits_without_the_package(tmp_path, monkeypatch):
    """For any number of time steps and sequences."""
    # The compiler's choice of multiply-adds must be the same as when the engine was built.
    monkeypatch.delenv("CXXFLAGS", raising=False)
    for label, found, expected in run_without_the_package(tmp_path, [*MODELS][:2], [HERE]):
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=label)


@pytest.mark.heavy
def test_every_kind_of_layer_runs_by_a_library(tmp_path):
    for label, found, expected in run_without_the_package(tmp_path, MODELS, [HERE]):
        rtol, atol = near(label)
        torch.testing.assert_close(
            found, expected, rtol=rtol, atol=atol, msg=lambda words, label=label: f"{label}: {words}"
        )


def small(tmp_path, targets=("portable",)):
    """A program of one GRU, and its library."""
    module, name = module_of("GRU, reset")
    program = program_of(module, name)
    calls = [given_to(module, name, size, 7) for size in SIZES]
    keep(tmp_path, "gru", program, module, calls)
    return program, native.library(program, path=tmp_path / "libgru.so", targets=targets)


def test_a_library_of_any_processor(tmp_path):
    _, library = small(tmp_path)
    for label, found, expected in run_elsewhere(tmp_path, str(library)):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=label)


@pytest.mark.heavy
def test_nothing_is_compiled_for_this_processor(tmp_path, monkeypatch):
    """A library may be for other processors, and layers may have any backend."""
    from seqcells.kernels.cpu import compiled  # where the extension is not built it cannot be imported

    monkeypatch.setattr(compiled, "_compiled", lambda *given: pytest.fail(f"{given[0].name} was compiled"))
    module = Wrapped(defined(seqcells.cells.JANET, backend="reference"))
    assert native.library(program_of(module, None), path=tmp_path / "lib.so", targets=["portable"]).exists()


def test_the_command_makes_the_library_of_a_saved_program(tmp_path, capsys):
    module, name = module_of("GRU, reset")
    torch.export.save(program_of(module, name), tmp_path / "gru.pt2")
    path = tmp_path / "libgru.so"
    assert native.main([str(tmp_path / "gru.pt2"), str(path), "--target", "portable"]) == 0
    assert str(path) in capsys.readouterr().out
    assert path.exists()
    (tmp_path / "text.pt2").write_text("no program")
    for name in ("none.pt2", "text.pt2"):
        assert native.main([str(tmp_path / name), str(path)]) == 1
        assert "not made" in capsys.readouterr().err


def test_what_no_library_can_have(tmp_path):
    path = tmp_path / "lib.so"
    module, name = module_of("GRU, reset")
    program = program_of(module, name)
    with pytest.raises(ValueError, match="unknown target 'sse'"):
        native.library(program, path=path, targets=["sse"])
    with pytest.raises(ValueError, match="got none"):
        native.library(program, path=path, targets=[])
    with pytest.raises(TypeError, match="a sequence of names, got: 'avx2'"):
        native.library(program, path=path, targets="avx2")
    with pytest.raises(TypeError, match="got: Wrapped"):
        native.library(module, path=path)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        native.library(program, path=tmp_path / "nowhere" / "lib.so")
    heads = Wrapped(seqcells.define(seqcells.cells.MemoryBlockLSTM)[0](F, H, backend="reference"))
    with pytest.raises(ValueError, match="no kernels run a layer of the programs"):
        native.library(program_of(heads, None), path=path)
    linear = torch.export.export(torch.nn.Linear(F, H), (torch.zeros(2, F),))
    with pytest.raises(ValueError, match="no layers of seqcells"):
        native.library(linear, path=path)
    half = Wrapped(seqcells.LSTM(F, H, dtype=torch.float16, backend="cpu"))
    with pytest.raises(ValueError, match=r"not of torch\.float16"):
        native.library(program_of(half, None, given=given_to(half, None, SIZES[0])), path=path)
    assert not path.exists()


def test_a_compiler_is_needed(tmp_path, monkeypatch):
    module, name = module_of("GRU, reset")
    program = program_of(module, name)
    monkeypatch.setenv("SEQCELLS_COMPILE", "never")
    with pytest.raises(RuntimeError, match="cannot be made: SEQCELLS_COMPILE=never"):
        native.library(program, path=tmp_path / "lib.so")


OTHERS = """
import sys, torch
torch.ops.load_library(sys.argv[1])
torch.ops.load_library(sys.argv[2])
program, given = torch.export.load(sys.argv[3]), torch.load(sys.argv[4])

def attempt(run):
    try:
        run()
    except RuntimeError as error:
        print(error)

attempt(lambda: program.module()(*given))
known = torch.load(sys.argv[5])
call = torch.ops.seqcells.recurrence
for change in (lambda t: t.double(), lambda t: t[:, :1], lambda t: t[:0], lambda t: t[0]):
    attempt(lambda: call(known[0], known[1], [change(known[2][0]), *known[2][1:]], *known[3:]))
print(call(*known)[0].shape)
"""


def test_what_the_library_has_not_is_refused_by_an_error(tmp_path):
    """Errors for another layer and for other tensors. A second library reports that torch has the operator, and leaves
    the first library in use."""
    program, library = small(tmp_path)
    shutil.copy(library, tmp_path / "libtwin.so")
    module, name = module_of("RNN, batch first")
    torch.export.save(program_of(module, name, True), tmp_path / "other.pt2")
    torch.save(given_to(module, name, SIZES[0]), tmp_path / "other.calls")
    (node,) = (n for n in program.graph.nodes if n.target == torch.ops.seqcells.recurrence.default)
    like = [n.meta["val"] for n in node.args[2]]
    tensors = [torch.zeros([s if isinstance(s, int) else 2 for s in each.shape], dtype=each.dtype) for each in like]
    torch.save([*node.args[:2], tensors, *node.args[3:]], tmp_path / "known.calls")
    arguments = [library, *(tmp_path / each for each in ("libtwin.so", "other.pt2", "other.calls", "known.calls"))]
    command = [sys.executable, "-W", "ignore", "-c", OTHERS, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "torch has the operator already" in done.stderr
    other, *wrong, shape = done.stdout.splitlines()
    assert other.startswith("this library of seqcells has no rnn_tanh layer of gates_x")
    assert len(wrong) == 4 and "Double(" in wrong[0]
    assert shape == "torch.Size([2, 2, 8])"


@pytest.mark.heavy
def test_a_library_beside_the_package_is_not_used(tmp_path):
    _, library = small(tmp_path)
    code = "import sys, seqcells, torch; torch.ops.load_library(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(library)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "torch has the operator already" in done.stderr


@pytest.mark.heavy
def test_a_package_of_aotinductor_runs_in_python_and_in_a_program_of_cpp(tmp_path, monkeypatch):
    """The example's model: LSTM, GRU and a cell that torch lacks. The C++ program runs without Python in its
    environment."""
    monkeypatch.syspath_prepend(ROOT / "examples" / "without_python")
    example = importlib.import_module("package")
    torch.manual_seed(0)
    model, runner = example.Tagger(), tmp_path / "run"
    package, library = example.package(model, tmp_path)
    subprocess.run(example.compile_command(runner), check=True)
    from_python = torch._inductor.aoti_load_package(str(package))
    inputs, outputs = tmp_path / "inputs.pt", tmp_path / "outputs.pt"
    for size in SIZES:
        given = example.example(*size)
        torch.save([*given], inputs)
        command = [*map(str, (runner, library, package, inputs, outputs))]
        done = subprocess.run(command, env={"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with torch.no_grad():
            expected = model(*given)
            torch.testing.assert_close(from_python(*given), expected, rtol=1e-5, atol=1e-6)
        (found,) = torch.load(outputs)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
