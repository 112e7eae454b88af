"""float32 products of the Triton engine follow torch's switches for recurrent layers, and leave the switches
unchanged."""

import ast
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import seqcells
from seqcells.kernels.triton import interpreted
from seqcells.kernels.triton.device import tiles
from seqcells.kernels.triton.host import gemm, precision

KERNELS = Path(seqcells.__file__).parents[1] / "kernels" / "triton"
BACKENDS = torch.backends


@pytest.fixture(autouse=True)
def exact_products():
    """Overrides the fixture, because these tests are about the switches."""


@pytest.fixture(autouse=True)
def defaults():
    """Restores torch's own defaults before and after each test."""

    def restore():
        BACKENDS.cudnn.allow_tf32 = True
        BACKENDS.cuda.matmul.allow_tf32 = False
        for switch in (BACKENDS, BACKENDS.cudnn, BACKENDS.cuda.matmul):
            switch.fp32_precision = "none"

    restore()
    yield
    restore()


def test_tf32_is_torchs_default_for_recurrent_layers_of_float32_alone():
    assert precision.mode(torch.float32) == "tf32"
    assert [precision.mode(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)] == ["ieee"] * 3


def test_the_switches_that_cudnn_obeys():
    BACKENDS.cudnn.rnn.fp32_precision = "ieee"
    assert precision.mode(torch.float32) == "ieee"
    BACKENDS.cudnn.rnn.fp32_precision = "tf32"
    assert precision.mode(torch.float32) == "tf32"
    BACKENDS.cudnn.allow_tf32 = False
    assert precision.mode(torch.float32) == "ieee"


@pytest.mark.parametrize("broader", (BACKENDS, BACKENDS.cudnn), ids=("all", "cudnn"))
def test_what_is_not_set_for_recurrent_layers_is_inherited(broader):
    BACKENDS.cudnn.rnn.fp32_precision = "none"
    for mode in ("tf32", "ieee"):
        broader.fp32_precision = mode
        assert precision.mode(torch.float32) == mode


def test_the_switch_of_products_alone_is_another():
    BACKENDS.cuda.matmul.fp32_precision = "ieee"
    assert precision.mode(torch.float32) == "tf32"


def test_three_products_in_place_of_one_are_asked_for_by_a_setting():
    with seqcells.settings(precision="tf32x3"):
        assert precision.mode(torch.float32) == "tf32x3" and precision.mode(torch.float64) == "ieee"


def matmul():
    return BACKENDS.cuda.matmul.fp32_precision


@pytest.mark.parametrize("given", ("none", "ieee", "tf32"))
@pytest.mark.parametrize("mode", ("ieee", "tf32", "tf32x3"))
def test_torchs_products_obey_and_the_switch_is_as_before(mode, given):
    BACKENDS.cuda.matmul.fp32_precision = given
    with precision.obeyed_by_torch(mode):
        assert (matmul() == "tf32") == (mode == "tf32")
    assert matmul() == given
    with pytest.raises(KeyError), precision.obeyed_by_torch(mode):
        raise KeyError
    assert matmul() == given


def test_what_was_inherited_is_inherited_afterwards():
    with precision.obeyed_by_torch("tf32"):
        pass
    BACKENDS.cudnn.fp32_precision = "tf32"
    assert matmul() == "tf32"
    with precision.obeyed_by_torch("ieee"):
        assert matmul() == "ieee"
    BACKENDS.cudnn.fp32_precision = "ieee"
    assert matmul() == "ieee"


def test_the_older_switch_can_still_be_read():
    for allowed in (True, False):
        BACKENDS.cuda.matmul.allow_tf32 = allowed
        with precision.obeyed_by_torch("ieee" if allowed else "tf32"):
            pass
        assert BACKENDS.cuda.matmul.allow_tf32 == allowed


def test_threads_take_turns():
    """A thread does not restore a switch that another thread has just begun to rely on."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    def first():
        with precision.obeyed_by_torch("tf32"):
            inside.set()
            leave.wait(10)

    def second():
        inside.wait(10)
        with precision.obeyed_by_torch("tf32"):
            seen.append(matmul())

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert seen == ["tf32"] and matmul() == "none"


def test_every_dot_of_the_kernels_says_its_precision():
    found = 0
    for path in KERNELS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tl.dot":
                found += 1
                assert any(keyword.arg == "input_precision" for keyword in node.keywords), (path.name, node.lineno)
    assert found


@pytest.mark.parametrize("mode", ("ieee", "tf32"))
def test_the_projection_of_the_input_too(mode, monkeypatch):
    """The engine's own products with the input's weights, forward and for their gradients."""
    seen, real = [], precision.obeyed_by_torch
    monkeypatch.setattr(precision, "obeyed_by_torch", lambda mode: seen.append(mode) or real(mode))
    BACKENDS.cudnn.rnn.fp32_precision = mode
    input, weight, bias = torch.randn(3, 2, 4), torch.randn(5, 4), torch.randn(5)
    torch.testing.assert_close(gemm.linear(input, weight, bias), torch.nn.functional.linear(input, weight, bias))
    assert seen == [mode] and matmul() == "none"


@triton.jit
def _product(h, weight, output, batch, size, precision: tl.constexpr):
    rows = tl.arange(0, 16)[:, None].to(tl.int64)
    units = tl.arange(0, 16)[None, :]
    sums = tiles.product_of_rows(
        h, weight, 1, size, size, rows, units, rows < batch, tl.float32, precision, 16, 16, 32, True
    )
    tl.store(output + rows * 16 + units, sums[0])


@pytest.mark.skipif(interpreted(), reason="interpreted kernels cannot be compiled")
@pytest.mark.parametrize("mode", ("ieee", "tf32", "tf32x3"))
def test_the_precision_reaches_the_compiler(mode):
    signature = {"h": "*fp32", "weight": "*fp32", "output": "*fp32", "batch": "i32", "size": "i32"}
    source = ASTSource(_product, {**signature, "precision": "constexpr"}, {(5,): mode})
    text = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    (dot,) = (line for line in text.splitlines() if "tt.dot" in line)
    # The exact mode is the language's default, which is not printed.
    expected = ", inputPrecision = " + mode + " :" if mode != "ieee" else " :"
    assert f"{expected} tensor<16x32xf32>" in dot
