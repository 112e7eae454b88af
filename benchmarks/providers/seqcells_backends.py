"""seqcells, with a row for each backend by name, so that the rows show more than ``auto``."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import seqcells
from seqcells import functional
from seqcells.backends import BACKENDS
from seqcells.call import choose
from seqcells.cells import RNN_BY_NONLINEARITY
from seqcells.kernels.triton.plans.shape import Shape
from seqcells.request.call import Call, Choice
from seqcells.request.weights import Weights

from .. import formats
from ..case import Case, Inputs
from .base import Prepared, Provider, States, streamed, through_autograd
from .torch_nn import as_hx, as_tuple, loaded_cell, loaded_layers


def module_class(case: Case, base: type[nn.Module]) -> partial:
    """Our layer or cell module (``base`` says which) for the case's cell."""
    for nonlinearity, cell in RNN_BY_NONLINEARITY.items():
        if cell is case.cell:
            return partial(
                seqcells.RNN if base is seqcells.RecurrentLayer else seqcells.RNNCell, nonlinearity=nonlinearity
            )
    exported = (getattr(seqcells, name) for name in seqcells.__all__)
    classes = (c for c in exported if isinstance(c, type) and issubclass(c, base))
    return partial(next(c for c in classes if getattr(c, "cell", None) is case.cell))


def modelled(case: Case) -> list[str]:
    """The persistent plan's own estimate of the recurrence, as a note beside the measured time."""
    from seqcells.kernels.triton.plans import persistent

    steps = 1 if case.suite.streaming else case.shape.steps
    sizes = steps, case.shape.batch, 1, case.shape.hidden, case.shape.hidden
    seconds = persistent.seconds(Shape(case.cell, torch.device(case.device), case.dtype, *sizes), case.suite.gradients)
    return [] if seconds is None else [f"by its model {formats.seconds(seconds)}, the input's product left out"]


class Seqcells(Provider):
    """Our layers with one backend."""

    ours = True

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.name = f"seqcells {backend}"

    def why_not_available(self, device: str) -> str | None:
        return None if self.backend == "auto" else BACKENDS[self.backend].why_not_available()

    def why_not(self, case: Case) -> str | None:
        form = "recurrence" if case.suite.projected else self._form
        options = ("lengths",) if case.suite.lengths else ()
        call = Call(case.cell, form, torch.device(case.device), case.dtype, options)
        try:
            choose.choose(call, self.backend)
        except RuntimeError as refusal:
            return str(refusal).partition(": ")[2]
        return None

    _form = "layers"

    def release(self) -> None:
        seqcells.empty_cache()

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        if case.suite.projected:

            def recurrence(given: Inputs) -> tuple[Tensor, States]:
                return functional.recurrence(case.cell, given.gates_x, zeros, weights, backend=self.backend)

            zeros = case.zero_states()
            chosen = choose.choose(functional.call_of(case.cell, "recurrence", inputs[0].x, weights), self.backend)
            return through_autograd(case, recurrence, [], inputs, self._notes(case, chosen))

        layer = loaded_layers(module_class(case, seqcells.RecurrentLayer), case, weights, backend=self.backend)
        if case.suite.lengths:
            inputs = [given._replace(lengths=given.lengths.to(case.device)) for given in inputs]
        # The plan is asked under the conditions of the call: the choice depends on gradients and on the number of
        # steps.
        with torch.set_grad_enabled(case.suite.gradients):
            first = inputs[0].x[:1] if case.suite.streaming else inputs[0].x
            notes = self._notes(case, layer.plan(first, lengths=inputs[0].lengths))
        if case.suite.streaming:

            def step(x: Tensor, states: States) -> tuple[Tensor, States]:
                output, hx = layer(x.unsqueeze(0), as_hx(states))
                return output, as_tuple(hx)

            zeros = tuple(state.unsqueeze(0) for state in case.zero_states())
            return streamed(case, step, zeros, inputs, list(layer.parameters()), notes)

        def forward(given: Inputs) -> tuple[Tensor, States]:
            output, hx = layer(given.x, lengths=given.lengths)
            return output, as_tuple(hx)

        return through_autograd(case, forward, list(layer.parameters()), inputs, notes)

    def _notes(self, case: Case, chosen: Choice) -> list[str]:
        modelled_too = case.device == "cuda" and not case.suite.memory and case.suite.layers == 1
        if self.backend == "triton-persistent" and modelled_too:
            return modelled(case)
        return [f"auto took {chosen.backend}"] if self.backend == "auto" else []


class SeqcellsFlags(Seqcells):
    """The persistent plan with flags, beside its row with the barrier."""

    def __init__(self) -> None:
        super().__init__("triton-persistent")
        self.name += " flags"

    def why_not(self, case: Case) -> str | None:
        return super().why_not(case) or self._alone(case)

    def _alone(self, case: Case) -> str | None:
        from seqcells.kernels.triton.host import configurations, precision

        layer = case.shape.hidden, len(case.cell.recurrent_gates), case.dtype, precision.mode(case.dtype)
        return "a program that has all units waits for nobody" if configurations.alone(*layer) else None

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        prepared = super().prepare(case, weights, inputs)

        def run(index: int) -> Any:
            with seqcells.settings(flags=True):
                return prepared.run(index)

        return prepared._replace(run=run)


class SeqcellsCell(Seqcells):
    """Our cell modules, one call per step."""

    _form = "step"

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.name = f"seqcells {backend} cell"

    def why_not(self, case: Case) -> str | None:
        return super().why_not(case) if case.suite.streaming else "a cell is for streaming"

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        cell = loaded_cell(module_class(case, seqcells.RecurrentCell), case, weights, backend=self.backend)

        def step(x: Tensor, states: States) -> tuple[Tensor, States]:
            states = as_tuple(cell(x, as_hx(states)))
            return states[0], states

        with torch.set_grad_enabled(case.suite.gradients):
            notes = self._notes(case, cell.plan(inputs[0].x[0]))
        return streamed(case, step, case.zero_states(), inputs, list(cell.parameters()), notes)


class SeqcellsStream(Seqcells):
    """``layer.stream()``, on the CPU by our engine. It holds the states, and its outputs are valid for two steps."""

    def __init__(self) -> None:
        super().__init__("auto")
        self.name = "seqcells stream"

    @staticmethod
    def _layers(device: str) -> Seqcells:
        return Seqcells("cpu" if device == "cpu" else "auto")

    def why_not_available(self, device: str) -> str | None:
        return self._layers(device).why_not_available(device)

    def why_not(self, case: Case) -> str | None:
        if case.suite.gradients or not case.suite.streaming:
            return "a stream is for streaming, without gradients"
        return self._layers(case.device).why_not(case)

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        backend = self._layers(case.device).backend
        layer = loaded_layers(module_class(case, seqcells.RecurrentLayer), case, weights, backend=backend)
        stream, begin = layer.stream(case.shape.batch), tuple(s.unsqueeze(0) for s in case.zero_states())

        def step(x: Tensor, states: States) -> tuple[Tensor, States]:
            if states is begin:
                stream.reset()
            return stream(x).clone(), ()

        prepared = streamed(case, step, begin, inputs)
        run = prepared.run
        return prepared._replace(run=lambda index: (run(index)[0], as_tuple(stream.state)))
