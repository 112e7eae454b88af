"""What a loop is, and what several have in common."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

sig, tanh = torch.sigmoid, torch.tanh


class Loop(NamedTuple):
    """A step of torchrecurrent, and the cell of ours that should equal it.

    Args:
        cell: our cell's name.
        options: our cell's options.
        step: (w, x, *states) → the output and the states, in our order, of a batch; a bare value where they are one.
        weights: our parameters by their names → what ``w`` holds. What is called ``own_…`` torchrecurrent has not.
        theirs: the name of their cell, or "" where no cell of theirs can be made that has this step.
        arguments: those of their cell besides the sizes.
        call: (their cell, x, *states) → what it returns.
    """

    cell: str
    options: Mapping[str, Any]
    step: Callable[..., Any]
    weights: Callable[[Mapping[str, Tensor]], dict[str, Any]]
    theirs: str
    arguments: Mapping[str, Any]
    call: Callable[..., Any]

    def __call__(self, weights: Mapping[str, Any], x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """The output and the states after a step."""
        found = self.step(SimpleNamespace(**weights), x, *states)
        return found if isinstance(found, tuple) else (found, found)


LOOPS: dict[str, Loop] = {}
"""All loops, by the names of our cells with their options."""


def called(module, x, *states):
    return module(x, states if len(states) > 1 else states[0])


def loop(cell, theirs="", weights=dict, arguments=(), call=called, **options):
    """Makes the step that it decorates the loop of a cell with these options."""

    def keep(step):
        words = ",".join(f"{name}={getattr(value, 'name', value)}" for name, value in options.items())
        name = f"{cell}[{words}]" if words else cell
        LOOPS[name] = Loop(cell, options, step, weights, theirs, dict(arguments), call)
        return step

    return keep


def joined(**names):
    """Our weights and biases of several names, one below the other, under the one name that they have there."""

    def weights(w):
        made = dict(w)
        for theirs, ours in names.items():
            for kind in ("weight", "bias"):
                found = [made.pop(f"{kind}_{name}") for name in ours.split() if f"{kind}_{name}" in made]
                if found:
                    made[f"{kind}_{theirs}"] = torch.cat(found)
        return made

    return weights


def ih(w, x):
    return x @ w.weight_ih.T + w.bias_ih


def hh(w, h):
    return h @ w.weight_hh.T + w.bias_hh
