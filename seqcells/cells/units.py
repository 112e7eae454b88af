"""What one step may make of all units of a sequence, or of all units of a head: reductions, as `units.mean(v)` and
`units.mean(v, heads)`, and what is written with them.

A reduction is whatever is merged from parts, and so takes one gather: variance from (count, mean, sum of squares about
it), logsumexp from (maximum, sum). Two reductions of which the second reads the first take two gathers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from .activations import Activation, exp, maximum, rsqrt, where


class Reduction(Activation):
    """One number of each sequence, made of its units, or of each head, made of the head's.

    It counts as a vector of equal units, or of units that are equal in each head. ``pullback`` is an `Activation`'s and
    is given the heads besides: d and y are such numbers, the gradient of the argument is a vector.
    """

    heads: int
    pullback_of_heads: Callable[..., Any]

    def __init__(self, name: str, tensor: Callable[..., Tensor], pullback: Callable[..., Any], heads: int = 1) -> None:
        super().__init__(name, tensor, lambda d, y, v: pullback(d, y, v, heads))
        self.heads, self.pullback_of_heads = heads, pullback

    # Of one argument; the heads come after it in equations.
    def __call__(self, v: Any, heads: int = 1) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(v) if heads == self.heads else _by_head(self, heads)(v, heads)


@cache
def _by_head(whole: Reduction, heads: int) -> Reduction:
    def tensor(v: Tensor) -> Tensor:
        parted = v.unflatten(-1, (heads, -1))
        return whole.tensor(parted).expand_as(parted).flatten(-2)

    return Reduction(whole.name, tensor, whole.pullback_of_heads, heads)


def count(v: Any, heads: int = 1) -> Any:
    """The number of a vector's units, or of those of a head."""
    number = v.shape[-1] if isinstance(v, Tensor) else v.units()
    return number if heads == 1 else number / heads


def _pullback_of_max(d: Any, y: Any, v: Any, heads: int) -> Any:
    """Equal maxima share the gradient, as torch's amax has it."""
    largest = where(y > v, 0.0, 1.0)
    return d * largest / maximum(sum(largest, heads), 1.0)  # at least one also in sequences that have ended


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
    """Layer normalisation of several vectors, such as all gates, as if they were one; without gain and bias.

    Args:
        epsilon: what is added to the variance. Default: 1e-5, as torch.nn.LayerNorm
    """
    number = len(vectors)
    means = [mean(v) for v in vectors]
    centre = _added(means) / number
    spread = _added([variance(v) + (m - centre) * (m - centre) for v, m in zip(vectors, means, strict=True)]) / number
    scale = rsqrt(spread + epsilon)
    return [(v - centre) * scale for v in vectors]


def layer_norm(v: Any, gain: Any, bias: Any, epsilon: float = 1e-5, heads: int = 1) -> Any:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450) of one vector, as torch.nn.LayerNorm; or of each head."""
    return (v - mean(v, heads)) * rsqrt(variance(v, heads) + epsilon) * gain + bias


def softmax(v: Any, heads: int = 1) -> Any:
    """Softmax over the units, or over those of each head."""
    return exp(v - logsumexp(v, heads))


def _added(values: list[Any]) -> Any:
    first, *others = values
    for value in others:
        first = first + value
    return first
