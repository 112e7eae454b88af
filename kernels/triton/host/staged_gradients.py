"""The gradients of a layer of a cell that runs by stages: their memory while steps run, and their sums over steps."""

import torch
from torch import Tensor

from ....request.recurrence import Backward
from ....request.weights import Weights
from ..device.staged_tables import Term
from .gemm import multiply, sum_of_products, sum_of_rows
from .staged_memory import StagedLayer, adds


class StagedGradients:
    """The gradients of a layer.

    * ``arrays``: what backward reads and writes, by the names of its table;
    * ``states``: the gradients of the initial states, in their dtype.
    """

    def __init__(self, layer: StagedLayer, given: Backward) -> None:
        self._layer, self._wanted, self._pass = layer, given.wanted, layer.passes.backward
        saved = dict(zip(layer.saved_names, given.saved, strict=True))
        self.states = [torch.empty_like(state) for state in layer.states]
        self.arrays = {"output": given.output, "grad_output": given.grad_output.contiguous(), **saved}
        of_kept = zip(layer.recurrence.kept, given.grad_final[len(self.states) :], strict=True)
        self.arrays |= {f"grad_kept.{name}": grad.contiguous() for name, grad in of_kept}
        self.arrays["previous"] = layer.hidden_before(given.output)
        self.arrays |= {f"before.{name[6:]}": tensor for name, tensor in saved.items() if name.startswith("after.")}
        written = {(name, k) for stage in self._pass.stages for name, each in stage.writes.items() for k in each}
        for name, (axes, columns) in self._pass.arrays.items():
            units = columns * (layer.hidden if "H" in axes else 1)
            if name in ("grad_gates_x", "grad_products", "multiplied") or (name.startswith("grad_x.") and "T" in axes):
                self.arrays[name] = layer.empty(layer.steps, layer.batch, layer.directions * units)
                if any((name, k) not in written for k in range(columns)):  # a column that only conditions read
                    self.arrays[name].zero_()
            elif adds(name, axes) and (layer.reset_states or not name.startswith("grad_reset_state.")):
                self.arrays[name] = layer.empty(layer.directions, layer.batch, units, dtype=layer.work).zero_()
        self._sums: dict[str, Tensor] = {}

    def flat(self) -> list[Tensor | None]:
        """All wanted gradients, in their tensors' dtype and in the order of an engine's `backward`."""
        layer = self._layer
        like, found = [*layer.states], [*self.states]
        for d, (w, want) in enumerate(zip(layer.weights, self._wanted.used, strict=True)):
            like += w.present()
            found += w.matching(self._of_weights(d, w, want))
        for state, reset_state in zip(layer.cell.states, layer.reset_states or (), strict=False):
            like.append(reset_state)
            found.append(self.arrays.get(f"grad_reset_state.{state}", torch.zeros_like(reset_state)))
        for name, stream in layer.recurrence.streams.items():
            like.append(stream)
            found.append(self._of_stream(name, stream))
        each = [None if g is None else g.to(t.dtype).reshape(t.shape) for t, g in zip(like, found, strict=True)]
        return [self._of_outside(), *each]

    def _of_outside(self) -> Tensor | None:
        """The gradient of the input, or of its projection."""
        layer, of_gates = self._layer, self.arrays["grad_gates_x"]
        if layer.input is None or not self._wanted.outside:
            return of_gates
        found = layer.empty(*layer.outside.shape)
        multiply(of_gates.flatten(0, 1), layer.input_weights[0], found.flatten(0, 1))
        if "input" in layer.cell.streams:
            found += self._of_stream("input", found.expand(layer.directions, *found.shape)).sum(0)
        return found

    def _of_stream(self, name: str, like: Tensor) -> Tensor:
        """The gradient of a stream, in the stream's shape (D, ·)."""
        layer, axes = self._layer, self._layer.cell.streams[name]
        array = f"grad_x.{name}"
        if "B" not in axes and "T" not in axes:
            each = [self._of_parameter(f"x.{name}", like[d], d) for d in range(layer.directions)]
            return torch.stack(each)
        if array not in self.arrays:  # the cell makes nothing of the stream
            return torch.zeros(like.shape, dtype=layer.work, device=layer.device)
        if "T" not in axes:
            return self.arrays[array]
        found = torch.stack(layer.parts(self.arrays[array]))
        if "B" in axes:
            return found
        return (found if "H" in axes else found.flatten(2)).sum(2, dtype=layer.work)

    def _of_weights(self, d: int, w: Weights, want: Weights) -> Weights:
        """The wanted gradients of one direction's weights, in the working dtype."""
        layer, ih = self._layer, None
        own = zip(w.named(layer.cell).items(), want.own, strict=True)
        if want.ih:
            ih = sum_of_products([(layer.parts(self.arrays["grad_gates_x"])[d], layer.input)], layer.work)
        return Weights(
            ih=ih,
            hh=self._of_parameter("weight_hh", w.hh, d) if want.hh else None,
            bias_ih=self._of_parameter("bias_ih", w.bias_ih, d) if want.bias_ih else None,
            bias_hh=self._of_parameter("bias_hh", w.bias_hh, d) if want.bias_hh else None,
            own=tuple(self._of_parameter(name, tensor, d) if wanted else None for (name, tensor), wanted in own),
        )

    def _of_parameter(self, name: str, like: Tensor, d: int) -> Tensor:
        """The gradient of a parameter: the sum of the table's terms and sums for it, zero without any."""
        found = torch.zeros(like.shape, dtype=self._layer.work, device=like.device)
        for term in self._pass.terms:
            if term.weight == name:
                self._add_products(found, term, d)
        for array, column, to in self._pass.sums:
            for target, row, axes in to:
                if target == f"grad_{name}":
                    total = self._column(self._sum(array)[d], array, column)
                    rows = found.view(-1, self._layer.hidden) if axes == "H" else found.view(-1, 1)
                    rows[row] += total if axes == "H" else total.sum()
        return found

    def _add_products(self, found: Tensor, term: Term, d: int) -> None:
        """Add a term to its row block: for each head one product over all steps and sequences."""
        layer, heads = self._layer, self._layer.hidden // found.shape[1]
        left, right = (
            self._column(layer.parts(self.arrays[array])[d], array, column).flatten(0, 1).unflatten(1, (heads, -1))
            for array, column in (term.d, term.operand)
        )
        block = found.view(-1, layer.hidden, found.shape[1])[term.block].view(heads, -1, found.shape[1])
        block += multiply(left.permute(1, 2, 0), right.transpose(0, 1), torch.empty_like(block))

    def _sum(self, array: str) -> Tensor:
        """An array's sum over all steps and sequences (D, columns · units)."""
        if array not in self._sums:
            tensor = self.arrays[array]
            if array.startswith("sums"):
                self._sums[array] = tensor.sum(1)
            else:
                parts = self._layer.parts(tensor)
                self._sums[array] = torch.stack([sum_of_rows(part, self._layer.work) for part in parts])
        return self._sums[array]

    def _column(self, tensor: Tensor, array: str, column: int) -> Tensor:
        """A column (…, units) of a tensor (…, columns · units)."""
        units = self._layer.hidden if "H" in self._pass.arrays.get(array, ("H",))[0] else 1
        return tensor[..., column * units : (column + 1) * units]
