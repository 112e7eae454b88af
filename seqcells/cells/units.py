"""What one step may make of all units of a sequence: reductions, as `units.mean(v)`, and what is written with them.

A reduction is whatever is merged from parts, and so takes one gather: variance from (count, mean, sum of squares about
it), logsumexp from (maximum, sum). Two reductions of which the second reads the first take two gathers.
"""

from typing import Any

from torch import Tensor

from .activations import Activation, exp, maximum, rsqrt, where


class Reduction(Activation):
    """One number of each sequence, made of its units; it counts as a vector of equal units.

    ``pullback`` is an `Activation`'s: d and y are such numbers, the gradient of the argument is a vector.
    """


def count(v: Any) -> Any:
    """The number of a vector's units."""
    return v.shape[-1] if isinstance(v, Tensor) else v.units()


def _pullback_of_max(d: Any, y: Any, v: Any) -> Any:
    """Equal maxima share the gradient, as torch's amax has it."""
    largest = where(y > v, 0.0, 1.0)
    return d * largest / maximum(sum(largest), 1.0)  # at least one also in sequences that have ended


sum = Reduction("sum", lambda v: v.sum(-1, keepdim=True), lambda d, y, v: d)
mean = Reduction("mean", lambda v: v.mean(-1, keepdim=True), lambda d, y, v: d / count(v))
max = Reduction("max", lambda v: v.amax(-1, keepdim=True), _pullback_of_max)
variance = Reduction(
    "variance",
    lambda v: v.var(-1, correction=0, keepdim=True),
    lambda d, y, v: d * (v - mean(v)) * (2 / count(v)),
)
logsumexp = Reduction("logsumexp", lambda v: v.logsumexp(-1, keepdim=True), lambda d, y, v: d * exp(v - y))


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


def layer_norm(v: Any, gain: Any, bias: Any, epsilon: float = 1e-5) -> Any:
    """Layer normalisation (Ba et al. 2016, arXiv:1607.06450) of one vector, as torch.nn.LayerNorm."""
    return (v - mean(v)) * rsqrt(variance(v) + epsilon) * gain + bias


def softmax(v: Any) -> Any:
    """Softmax over the units."""
    return exp(v - logsumexp(v))


def _added(values: list[Any]) -> Any:
    first, *others = values
    for value in others:
        first = first + value
    return first
