"""The functions that a cell's equations may use, each defined once by its form on tensors and its gradient.

An activation is called on the values on which `step` runs. On tensors it is torch's function. On symbols, from which
kernels are derived, it calls their method `apply`. Its Triton and C++ forms are the functions of the same name in
kernels/triton/device/activations.py and kernels/cpu/activations.h.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


class Activation:
    """A named elementwise function.

    Args:
        name: the function's name in printed kernels.
        tensor: the function on tensors.
        pullback: ``(d, y, *arguments)`` → the gradients of the arguments, not in a tuple if there is one; d is the
            gradient of the value y. None stands for no gradient. The pullback uses the operations that a cell's `step`
            may use. It uses y alone if that loses no accuracy, so that the arguments need not be kept for backward.
    """

    def __init__(self, name: str, tensor: Callable[..., torch.Tensor], pullback: Callable[..., Any]) -> None:
        self.name = name
        self.tensor = tensor
        self.pullback = pullback

    def __call__(self, *values: Any) -> Any:
        if any(isinstance(value, torch.Tensor) for value in values):
            return self.tensor(*values)
        for value in values:
            if hasattr(value, "apply"):
                return value.apply(self, *values)
        raise TypeError(f"{self} is given no tensor")

    def __repr__(self) -> str:
        return self.name


# The first value where a condition such as `x > 0` holds, else the second. `>` and `<` are the only conditions.
where: Activation = Activation("where", torch.where, lambda d, y, c, a, b: (None, where(c, d, 0.0), where(c, 0.0, d)))

exp: Activation = Activation("exp", torch.exp, lambda d, y, x: d * y)
expm1: Activation = Activation("expm1", torch.expm1, lambda d, y, x: d * (y + 1))

rsqrt: Activation = Activation("rsqrt", torch.rsqrt, lambda d, y, x: -0.5 * d * y * y * y)
# A step function: its gradient is zero wherever it exists, so there is none.
floor: Activation = Activation("floor", torch.floor, lambda d, y, x: None)

sigmoid: Activation = Activation("sigmoid", torch.sigmoid, lambda d, y, x: d * y * (1 - y))
tanh: Activation = Activation("tanh", torch.tanh, lambda d, y, x: d * (1 - y * y))
softsign: Activation = Activation("softsign", functional.softsign, lambda d, y, x: d * _square(1 - where(y > 0, y, -y)))
log_sigmoid: Activation = Activation("log_sigmoid", functional.logsigmoid, lambda d, y, x: -d * expm1(y))
# With torch's default threshold of 20, float64 would lose half of its digits.
softplus: Activation = Activation(
    "softplus", lambda x: functional.softplus(x, threshold=40.0), lambda d, y, x: -d * expm1(-y)
)

relu: Activation = Activation("relu", torch.relu, lambda d, y, x: where(y > 0, d, 0.0))
leaky_relu: Activation = Activation("leaky_relu", functional.leaky_relu, lambda d, y, x: where(y > 0, d, 0.01 * d))
elu: Activation = Activation("elu", functional.elu, lambda d, y, x: where(y > 0, d, d * (y + 1)))
# torch's own hardsigmoid computes 1/6 in float32, even in the gradient for float64.
hard_sigmoid: Activation = Activation(
    "hard_sigmoid", lambda x: functional.relu6(x + 3) / 6, lambda d, y, x: where(y * (1 - y) > 0, d / 6, 0.0)
)

# If the arguments of maximum are equal, each gets half of the gradient, as in torch.


def _maximum(a: Any, b: Any) -> torch.Tensor:
    like = a if isinstance(a, torch.Tensor) else b
    return torch.maximum(*(v if isinstance(v, torch.Tensor) else like.new_full((), v) for v in (a, b)))


maximum: Activation = Activation(
    "maximum",
    _maximum,
    lambda d, y, a, b: (where(a > b, d, where(b > a, 0.0, d / 2)), where(b > a, d, where(a > b, 0.0, d / 2))),
)
# The value itself, without a gradient.
stop: Activation = Activation("stop", torch.Tensor.detach, lambda d, y, x: None)

ACTIVATIONS = {a.name: a for a in list(globals().values()) if isinstance(a, Activation)}


def _square(value: Any) -> Any:
    return value * value
