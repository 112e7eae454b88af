"""Activations in torch, Triton and C++ are accurate over the whole range, and so are their gradients."""

import pytest
import torch
from elementwise import compiled_activation, interpreted, needs_compiler, needs_triton

from seqcells.cells.activations import ACTIVATIONS, floor, maximum, stop, where

UNARY = {name: a for name, a in ACTIVATIONS.items() if name not in ("where", "maximum", "stop")}
UNBOUNDED = ("exp", "expm1", "rsqrt")
WHOLE = 1e4


def points(dtype: torch.dtype) -> torch.Tensor:
    """Points of every magnitude up to 1e4, evenly spread over bit patterns, subnormal numbers included."""
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    top = torch.tensor([WHOLE], dtype=dtype).view(integers).item()
    by_bits = torch.arange(0, top, top // 30_000, dtype=integers).view(dtype)
    ordinary = torch.linspace(0, 100, 30_000, dtype=dtype)
    positive = torch.cat([by_bits, ordinary, torch.tensor([WHOLE], dtype=dtype)])
    return torch.cat([-positive, positive])


def error(actual: torch.Tensor, truth: torch.Tensor, least: float) -> float:
    """The largest error in units of rounding at the size of ``truth``, which counts as at least ``least``."""
    finite = truth.abs() < torch.finfo(actual.dtype).max
    scale = torch.finfo(actual.dtype).eps * truth.abs().clamp_min(least)
    return ((actual.double() - truth).abs() / scale)[finite].max().item()


def domain(name: str, dtype: torch.dtype) -> torch.Tensor:
    """The points at which a function has a value."""
    x = points(dtype)
    return x[x > 0] if name == "rsqrt" else x


def check(name: str, x: torch.Tensor, y: torch.Tensor) -> None:
    if name not in UNBOUNDED:
        assert y.isfinite().all()
    torchs, least = UNARY[name].tensor(x), torch.finfo(x.dtype).tiny
    if x.dtype == torch.float32:
        truth = UNARY[name].tensor(x.double())
        assert error(y, truth, least) <= error(torchs, truth, least) + 2
    else:
        least = 2.0**-53 if name == "sigmoid" else least  # 1 + exp(-x) drops smaller values
        assert error(y, torchs, least) <= 6


@pytest.fixture(scope="module")
def by_triton() -> dict:
    keys = [(name, dtype) for dtype in (torch.float32, torch.float64) for name in UNARY]
    results = interpreted([("activation", name, {"x": domain(name, dtype)}) for name, dtype in keys])
    return {key: result["y"] for key, result in zip(keys, results, strict=True)}


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", UNARY)
def test_triton_in_the_interpreter(name, dtype, by_triton):
    check(name, domain(name, dtype), by_triton[name, dtype])


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", UNARY)
def test_cpp(name, dtype):
    check(name, domain(name, dtype), compiled_activation(name, domain(name, dtype)))
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0], dtype=dtype)
    if name != "softsign":  # ∞ / ∞ is NaN, as in torch's softsign
        torch.testing.assert_close(compiled_activation(name, special), UNARY[name].tensor(special), equal_nan=True)


@pytest.mark.parametrize("name", [name for name in UNARY if name != "floor"])
def test_gradient(name):
    """Gradients from the rounded value, to a rounding of one, or of the gradient where it is larger than one."""
    x = domain(name, torch.float32)
    x = x[x > 1e-12] if name == "rsqrt" else x[(x.abs() < 80) if name in UNBOUNDED else x != 0]

    def torchs(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(UNARY[name].tensor(x).sum(), x)[0]

    truth = torchs(x.double())
    ours = UNARY[name].pullback(torch.ones_like(x), UNARY[name].tensor(x), x)
    assert ours.isfinite().all()
    assert error(ours, truth, 1.0) <= error(torchs(x), truth, 1.0) + 2


def test_where_and_maximum_and_what_passes_no_gradient():
    a = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    b = torch.tensor([3.0, 2.0, 1.0], requires_grad=True)
    d = torch.tensor([5.0, 6.0, 7.0])
    torchs = torch.autograd.grad(maximum(a, b), (a, b), d)
    assert all(map(torch.equal, maximum.pullback(d, maximum(a, b), a, b), torchs))
    torchs = torch.autograd.grad(where(a > b, a, b), (a, b), d)
    condition, *ours = where.pullback(d, where(a > b, a, b), a > b, a, b)
    assert condition is None
    assert all(map(torch.equal, ours, torchs))
    assert stop.pullback(d, stop(a), a) is None
    assert floor.pullback(d, floor(a), a) is None
    assert not torch.autograd.grad(floor(a / 2).sum(), a)[0].any()
    assert not stop(a).requires_grad


def test_what_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match="tanh is given no tensor"):
        ACTIVATIONS["tanh"](0.5)
