"""The base class of providers, and what providers that run torch's autograd share."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from ..parity import forward_results, gradient_results

States = tuple[Tensor, ...]


class Prepared(NamedTuple):
    """A provider that is ready to be timed."""

    run: Callable[[int], Any]
    """Does the whole work on the inputs with this index. Timed."""
    results: Callable[[Any], dict[str, Tensor]]
    """Translates the result of ``run`` into the names of `parity`. Not timed."""
    notes: Sequence[str] = ()
    """What a reader of the figure should know."""


class Provider:
    """Someone's implementation of recurrent layers: a subclass for each implementation, an instance for each row."""

    name: str
    ours = False
    everyday = True
    """Whether the quick run takes the provider by default."""
    packages: tuple[str, ...] = ()
    """Modules that the provider needs beside torch."""
    environment: dict[str, str] = {}
    """Environment variables of the provider's process, set after torch is imported and before anything else."""

    def why_not_available(self, device: str) -> str | None:
        """Why the provider cannot run on this machine and device, or None."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(missing)}" if missing else None

    def why_not(self, case: Case) -> str | None:
        """Why the provider cannot run this case, or None."""
        raise NotImplementedError

    def threads(self, given: int) -> int:
        """The provider's number of threads, where the run has ``given`` threads."""
        return given

    def release(self) -> None:
        """Free memory that is kept between calls, because the memory suite counts what a call takes."""

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        """Convert weights and inputs, compile, allocate: all that is not timed."""
        raise NotImplementedError


def through_autograd(
    case: Case,
    forward: Callable[[Inputs], tuple[Tensor, States]],
    parameters: Sequence[Tensor],
    inputs: list[Inputs],
    notes: Sequence[str] = (),
    translate: Callable[[Tensor, Any], tuple[Tensor, Any]] = lambda output, others: (output, others),
) -> Prepared:
    """Inference or training of a ``forward`` that gives the output (T, B, H) and the final states (B, H).

    ``parameters`` are in the order of the case's roles. For a provider with other layouts, ``translate`` turns its
    results into ours and is not timed. It gets the output, and the final states or the gradients (the input's first).
    """
    if not case.suite.gradients:

        def infer(index: int) -> tuple[Tensor, States]:
            with torch.no_grad():
                return forward(inputs[index])

        return Prepared(infer, lambda done: forward_results(case, *translate(*done)), notes)

    inputs = [given._replace(x=given.x.detach().requires_grad_()) for given in inputs]
    for parameter in parameters:
        parameter.requires_grad_()

    def train(index: int) -> tuple[Tensor, States]:
        given = inputs[index]
        output, _ = forward(given)
        return output, torch.autograd.grad(output, [given.x, *parameters], given.grad)

    return Prepared(train, lambda done: gradient_results(case, *translate(*done)), notes)


def streamed(
    case: Case,
    step: Callable[[Tensor, States], tuple[Tensor, States]],
    states: States,
    inputs: list[Inputs],
    parameters: Sequence[Tensor] = (),
    notes: Sequence[str] = (),
) -> Prepared:
    """Call ``step`` once for each time step: input (B, features) and states → output, states, in any layout.

    With gradients an output is (…, B, H), and ``parameters`` are in the order of the case's roles.
    """

    def steps(rows: Sequence[Tensor]) -> tuple[list[Tensor], States]:
        current, outputs = states, []
        for x in rows:
            output, current = step(x, current)
            outputs.append(output)
        return outputs, current

    if case.suite.gradients:

        def forward(given: Inputs) -> tuple[Tensor, States]:
            outputs, current = steps(given.x.unbind(0))
            return torch.stack(outputs).view(given.grad.shape), current

        return through_autograd(case, forward, parameters, inputs, notes)

    slices = [given.x.unbind(0) for given in inputs]

    def stream(index: int) -> tuple[list[Tensor], States]:
        with torch.no_grad():
            return steps(slices[index])

    return Prepared(stream, lambda done: forward_results(case, torch.stack(done[0]), done[1]), notes)


ONE_FEATURE = "cannot take gates_x: an input of one feature instead"
ONE_LAYER = "one layer in one direction at a time"
