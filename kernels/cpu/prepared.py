"""Calls of a stack of layers that differ only in the addresses of their tensors, prepared once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...request import check_recurrence
from ...request.recurrence import Recurrence
from ...request.streams import names
from . import library
from .layer_call import LayerCall, kernels_of, named
from .library import maker, pooled, precision, threads
from .prepared_passes import StackPasses
from .run_list import MEMORY, At, Block, RunList, are_read_in_place, arguments_of, streams_of


def _circumstances(storage: torch.dtype) -> tuple[int, str, str]:
    """What a prepared call depends on besides its tensors: threads, target and precision."""
    return threads(), library.target, precision(storage)


class Inference:
    """A stack's inference, prepared for all calls that differ only in the addresses of their tensors.

    The input's part of the gates never exists as a whole: the thread that uses it computes it for a few steps at a
    time. Weights are read where they lie, so a change between two calls counts in the second.

    Args:
        layers: the layers from the first to the last. Only the shapes and dtypes of inputs and states count.
        versions: the weights' versions, which the caller compares; if given, packed copies of the weights are kept.
            Default: no copies are kept
        batch_first: whether the input, and streams with steps and sequences, lie as (B, T, ·). Default: False
        zeros: whether initial states will be None. This engine need not know: they may be None in any call
    """

    def __init__(
        self,
        layers: Sequence[Recurrence],
        versions: Any = None,
        batch_first: bool = False,
        zeros: bool = False,
    ) -> None:
        self.versions, self.packs_weights = versions, versions is not None
        self._kept: list[Tensor] = []
        self._storage = layers[0].input.dtype
        self._made_for = _circumstances(self._storage)
        cell = layers[0].cell
        self.in_place, memory, input = True, Block(MEMORY), At("input")
        inside = kernels_of(layers[0]).gates_inside
        calls = [LayerCall(q, inside=True) for q in layers]
        ends = [(end, state) for end in ("initial", "final") for state in range(len(cell.states))]
        weights = [arguments_of(call, k, d) for k, call in enumerate(calls) for d in range(call.directions)]
        arguments = [argument for each in weights for argument in each.values()]
        arguments = [*ends, *(("output", k) for k in range(len(layers))), *arguments]
        runs = RunList(["input", *(("stream", name) for name in names(cell)), *arguments])
        streams: dict[str, At] = {}
        for k, (q, call) in enumerate(zip(layers, calls, strict=True)):
            check_recurrence.check(q)
            self.in_place &= are_read_in_place(q, call)
            size, features = call.dtype.itemsize, q.input.shape[2]
            if batch_first and not k:
                input = runs.steps_first(call, features * size, memory, input)
            source = At(("output", k - 1)) if k else input
            streams = streams_of(runs, q, call, source, batch_first, memory)
            own = [
                {name: At(argument) for name, argument in arguments_of(call, k, d).items()}
                for d in range(call.directions)
            ]
            made = not inside and cell.gates
            gates = runs.projected(call, source, features, own, memory) if made else []
            directions = []
            for d, at in enumerate(own):
                at |= streams | ({"gates_x": gates[d]} if gates else {"input": source} if inside else {})
                at["output"] = At(("output", k), d * call.output_width * size)
                for state, (name, like) in enumerate(zip(cell.states, call.states, strict=True)):
                    ahead = (k * call.directions + d) * like[0].numel() * size
                    at |= {f"{end}.{name}": At((end, state), ahead) for end in ("initial", "final")}
                directions.append(at)
            fields = call.fields(False, features if inside else 0)
            if self.packs_weights and self.in_place:
                self._pack(call, fields)
            runs.layer(False, call, fields, directions)
        self._run = runs.done(memory.bytes)

    def _pack(self, call: LayerCall, fields: list[int]) -> None:
        """Pack each direction's weights into copies that live as long as this object, and put their addresses among the
        fields."""
        places, count = call.kernels.places[False], call.kernels.count
        for d in range(call.directions):
            own = fields[d * count : (d + 1) * count]
            for name, tensor in named(call.cell, call.weights[d]).items():
                own[places[name]] = tensor.data_ptr()
            memory = pooled((-(-call.kernels.pack(own, 0) // 4),), torch.float32)
            call.kernels.pack(own, memory.data_ptr())
            self._kept.append(memory)
            fields[d * count + places["packed"]] = memory.data_ptr()

    def __call__(self, *tensors: Tensor | None) -> None:
        """Run the stack. The arguments are the input, streams in the cell's order, initial states (None for zeros),
        final states, each layer's output, and each direction's `present` weights. All are contiguous and of the working
        dtype. No result may overlap a tensor that is read; only the last output of a single step may be its final
        hidden state."""
        self._run(*tensors)

    def still_valid(self) -> bool:
        """Whether the same call would be prepared in the same way now."""
        return self._made_for == _circumstances(self._storage)


class Training:
    """A stack's forward and backward, prepared for all calls that differ only in the addresses of their tensors.

    Args:
        layers: the layers from the first to the last, without lengths, resets and projections, in float32 or float64.
            Only the tensors' shapes and dtypes count.
        wanted: the same layers, with a bool in place of each tensor: whether its gradient is wanted.
        batch_first: whether the input, its gradient and streams lie as (B, T, ·). Default: False
        reads_output: whether backward may read the output; it need not after a single step. Default: True
    """

    def __init__(
        self,
        layers: Sequence[Recurrence],
        wanted: Sequence[Recurrence[bool]],
        batch_first: bool = False,
        zeros: bool = False,
        reads_output: bool = True,
    ) -> None:
        self._dtype = layers[0].input.dtype
        self._made_for = _circumstances(self._dtype)
        passes = StackPasses(layers, wanted, batch_first, reads_output)
        self.in_place = passes.in_place
        if self.in_place:
            self._forward, self._backward = passes.forward(), passes.backward()
            self._empty_kept = maker(torch.empty(max(1, passes.kept.bytes // self._dtype.itemsize), dtype=self._dtype))

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Run forward. It reads the input, streams, initial states (None for zeros), and the weights as they are
        `present`. It writes final states and the output, which may be the final hidden state of a single step. Returns
        what backward needs besides these tensors."""
        kept = self._empty_kept()
        self._forward(*tensors, kept)
        return kept

    def backward(
        self,
        tensors: Sequence[Tensor | None],
        makers: Sequence[Callable[[], Tensor] | None],
        as_made: bool = True,
    ) -> list[Tensor | None]:
        """Run backward. It reads the input, streams, initial states, the output (None if backward does not read it),
        and what forward returned. It also reads the gradients of the output and final states, and the weights. Returns
        the gradients of the input, initial states and weights: each is a tensor from ``makers``, or None without a
        maker. ``as_made`` tells whether the output lies where it was made; only other engines need it."""
        found = [None if make is None else make() for make in makers]
        self._backward(*tensors, *found)
        return found

    def still_valid(self) -> bool:
        """Whether the same call would be prepared in the same way now."""
        return self._made_for == _circumstances(self._dtype)
