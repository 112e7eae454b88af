"""Triton's form of the functions in seqcells/cells/activations.py, under the same names, for float32 and float64.

They use only what both the compiler and the interpreter have on every device; the interpreter has no libdevice. Each
function is finite wherever its limit is finite. Each is accurate near zero, where terms such as 1 - exp(x) would lose
digits.
"""

import triton
import triton.language as tl


@triton.jit
def where(condition, a, b):
    return tl.where(condition, a, b)


@triton.jit
def stop(x):
    return x


@triton.jit
def maximum(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def exp(x):
    return tl.exp(x)


@triton.jit
def rsqrt(x):
    return 1.0 / (tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x))


@triton.jit
def floor(x):
    return tl.floor(x)


@triton.jit
def expm1(x):
    """A Taylor series where exp(x) - 1 would lose digits by cancellation."""
    terms: tl.constexpr = 18 if x.dtype == tl.float64 else 11
    series = tl.zeros_like(x) + 1.0
    for k in tl.static_range(terms, 1, -1):
        series = 1.0 + x * series * (1.0 / k)
    return tl.where((x > -0.5) & (x < 1.1), x * series, tl.exp(x) - 1.0)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Below 0.625 Cephes' rational function (double) or polynomial (float), else 1 - 2 / (exp(2|x|) + 1)."""
    size = tl.abs(x)
    square = x * x
    if x.dtype == tl.float64:
        top = (-9.64399179425052238628e-1 * square - 9.92877231001918586564e1) * square - 1.61468768441708447952e3
        low = ((square + 1.12811678491632931402e2) * square + 2.23548839060100448583e3) * square
        small = x + x * square * (top / (low + 4.84406305325125486048e3))
    else:
        series = (-5.70498872745e-3 * square + 2.06390887954e-2) * square - 5.37397155531e-2
        small = x + x * square * ((series * square + 1.33314422036e-1) * square - 3.33332819422e-1)
    large = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    return tl.where(size < 0.625, small, tl.where(x < 0, -large, large))


@triton.jit
def _log1p_exp(x):
    """log(1 + exp(x)) for x <= 0, as 2 atanh(u / (2 + u)) with u = exp(x): the series in (u / (2 + u))² <= 1/9."""
    terms: tl.constexpr = 16 if x.dtype == tl.float64 else 7
    u = tl.exp(x)
    ratio = u / (2.0 + u)
    square = ratio * ratio
    series = tl.zeros_like(x)
    for k in tl.static_range(terms, -1, -1):
        series = series * square + 1.0 / (2 * k + 1)
    return 2.0 * ratio * series


@triton.jit
def softplus(x):
    return relu(x) + _log1p_exp(-tl.abs(x))


@triton.jit
def log_sigmoid(x):
    return -softplus(-x)


@triton.jit
def softsign(x):
    return x / (1.0 + tl.abs(x))


@triton.jit
def relu(x):
    return tl.where(x < 0, 0.0, x)


@triton.jit
def leaky_relu(x):
    return tl.where(x < 0, 0.01 * x, x)


@triton.jit
def elu(x):
    return tl.where(x < 0, expm1(x), x)


@triton.jit
def hard_sigmoid(x):
    y = (x + 3.0) * (1.0 / 6.0)
    return tl.where(y < 0, 0.0, tl.where(y > 1, 1.0, y))
