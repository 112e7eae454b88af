"""Reductions over all units of a sequence, `units.mean(v)`, or of each head, `units.mean(v, heads)`.

There are also functions written with reductions, such as layer normalisation and softmax. A reduction can be merged
from the reductions of parts, so it takes one gather. Variance is merged from (count, mean, sum of squares about the
mean), logsumexp from (maximum, sum). If one reduction reads another, both together take two gathers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from .activations import Activation, exp, maximum, rsqrt, where


class Reduction(Activation):
    """A function that reduces the units of a sequence, or of each head, to one number.

    In equations the result counts as a vector of equal units, or of units that are equal within a head. ``pullback`` is
    as in `Activation`, with the number of heads as a further argument. Its d and y are such results, and it returns a
    vector.
    """

    heads: int
    pullback_of_heads: Callable[..., Any]

    def __init__(self, name: str, tensor: Callable[..., Tensor], pullback: Callable[..., Any], heads: int = 1) -> None:
        super().__init__(name, tensor, lambda d, y, v: pullback(d, y, v, heads))
        self.heads, self.pullback_of_heads = heads, pullback

    # A reduction has one argument, and in equations the number of heads after it.
    def __call__(self, v: Any, heads: int = 1) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(v) if heads == self.heads else _by_head(self, heads)(v, heads)


@cache
def _by_head(whole: Reduction, heads: int) -> Reduction:
    def tensor(v: Tensor) -> Tensor:
        parted = v.unflatten(-1, (heads, -1))
        return whole.tensor(parted).expand_as(parted).flatten(-2)

    return Reduction(whole.name, tensor, whole.pullback_of_heads, heads)


def count(v: Any, heads: int = 1) -> Any:
    """The number of units of a vector, or of one head of it."""
    number = v.shape[-1] if isinstance(v, Tensor) else v.units()
    return number if heads == 1 else number / heads


def _pullback_of_max(d: Any, y: Any, v: Any, heads: int) -> Any:
    """The gradient of max: equal maxima share it, as in torch's amax."""
    largest = where(y > v, 0.0, 1.0)
    return d * largest / maximum(sum(largest, heads), 1.0)  # in ended sequences y may exceed all of v


sum: Reduction = Reduction("sum", lambda v: v.sum(-1, keepdim=True), lambda d, y, v, heads: d)
mean: Reduction = Reduction("mean", lambda v: v.mean(-1, keepdim=True), lambda d, y, v, heads: d / count(v, heads))
max: Reduction = Reduction("max", lambda v: v.amax(-1, keepdim=True), _pullback_of_max)
variance: Reduction = Reduction(
    "variance",
    lambda v: v.var(-1, correction=0, keepdim=True),
    lambda d, y, v, heads: d * (v - mean(v, heads)) * (2 / count(v, heads)),
)
logsumexp: Reduction = Reduction(
    "logsumexp", lambda v: v.logsumexp(-1, keepdim=True), lambda d, y, v, heads: d * exp(v - y)
)


def normalised(*vectors: Any, epsilon: float = 1e-5) -> list[Any]:
    """Layer normalisation of several vectors together, such as all gates, as if they were one; without gain and bias.

    Args:
        epsilon: the number that is added to the variance. Default: 1e-5, as in torch.nn.LayerNorm
    """
    number = len(vectors)
    means = [mean(v) for v in vectors]
    centre = _added(means) / number
    spread = _added([variance(v) + (m - centre) * (m - centre) for v, m in zip(vectors, means, strict=True)]) / number
    scale = rsqrt(spread + epsilon)
    return [(v - centre) * scale for v in vectors]


def layer_norm(v: Any, gain: Any, bias: Any, epsilon: float = 1e-5, heads: int = 1) -> Any:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450) of a vector or of each head, as in torch.nn.LayerNorm."""
    return (v - mean(v, heads)) * rsqrt(variance(v, heads) + epsilon) * gain + bias


def softmax(v: Any, heads: int = 1) -> Any:
    """Softmax over all units, or over the units of each head."""
    return exp(v - logsumexp(v, heads))


def _added(values: list[Any]) -> Any:
    first, *others = values
    for value in others:
        first = first + value
    return first
