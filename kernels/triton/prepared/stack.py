"""Prepared calls of a stack of layers: calls that differ only in the addresses of their tensors. The layers run by the
persistent plan, one after the other, or by the single-step plan. A later call only makes its products and launches. It
allocates one block of memory for each of its results, one for what backward needs, and one for the barrier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ....request import check_recurrence
from ....request.call import Call
from ....request.recurrence import Recurrence
from ....system.settings import current_settings
from ..host import precision
from ..plans import persistent, wavefront
from ..plans.persistent import division_of
from ..plans.plan import plan
from ..plans.shape import Shape
from .layer import aligned
from .sequence import PreparedSequence
from .step import PreparedStep

Makers = Sequence[Callable[[], Tensor] | None]

PLANS = ("single step", "single launch", "persistent")
"""The plans whose calls are prepared."""
_NOTHING = nullcontext()


def maker(like: Tensor) -> Callable[[], Tensor]:
    """A function that makes uninitialised tensors like one."""
    return partial(torch.empty, like.shape, dtype=like.dtype, device=like.device)


def output_maker(like: Tensor, steps: int) -> Callable[[], Tensor]:
    """The same for a layer's output in training, which lacks the axis of the batch if the call's input lacks it."""
    return maker(like) if steps == 1 else led_maker(like, steps)  # the single-step plan reads nothing around the output


def led_maker(like: Tensor, steps: int) -> Callable[[], Tensor]:
    """The same, with room for a step before the output's first and one after its last: see `sequence.forward`."""
    step, shape, strides = like.numel() // steps, like.shape, like.contiguous().stride()
    ahead = aligned(step, like.dtype)
    whole = partial(torch.empty, ahead + (steps + 1) * step, dtype=like.dtype, device=like.device)

    def make() -> Tensor:
        tensor = whole()
        # No view: autograd forbids much for a view that it allows for other tensors.
        return tensor.set_(tensor.untyped_storage(), ahead, shape, strides)

    return make


class _Prepared:
    """What inference and training have in common.

    Args:
        layers: the layers, the lowest first, each given by its input, without lengths, resets and projections. Only the
            shapes, dtypes and device of their tensors count.
        batch_first: whether the input lies as (B, T, features).
        zeros: whether there are no initial states.
        wanted: the same layers, with a bool in the place of each tensor: whether its gradient is wanted. Default: no
            gradient is wanted
        reads_output: whether backward may read the output. If not, there is a single step, and the output is its first
            final state. Default: True
    """

    by_name = False
    """Whether the persistent plan was asked for by name, and runs every layer that it can run."""

    def __init__(
        self,
        layers: Sequence[Recurrence],
        batch_first: bool,
        zeros: bool,
        wanted: Sequence[Recurrence[bool]] | None = None,
        reads_output: bool = True,
    ) -> None:
        for q in layers:
            check_recurrence.check(q)
        self._dtype, self._batch_first, self._states = layers[0].input.dtype, batch_first, len(layers[0].states)
        self._shape = layers[0].input.shape  # (T, B, features)
        self._mode = precision.mode(self._dtype)
        self.in_place = not _are_at_once(layers, wanted is not None)
        self.in_place &= all(self._why_not(q, wanted is not None) is None for q in layers)
        self.in_place &= reads_output or not self.by_name  # by name, the output and the room around it are read
        self._zeros, self._layers = zeros, []
        with torch.cuda.device_of(layers[0].input):  # kernels are compiled for this device
            self._prepare(layers if self.in_place else (), wanted, reads_output)

    def _prepare(
        self, layers: Sequence[Recurrence], wanted: Sequence[Recurrence[bool]] | None, reads_output: bool
    ) -> None:
        weights, kept = 0, None if wanted is None else 0
        for k, q in enumerate(layers):
            asked = {"zeros": self._zeros, "wanted": wanted is not None and any(wanted[k].states)}
            if q.input.shape[0] == 1 and not self.by_name:
                layer = PreparedStep(q, k, weights, kept, **asked, reads_output=reads_output)
            else:
                layer = PreparedSequence(q, k, weights, kept, **asked)
            weights, kept = layer.end, layer.kept_end
            self._layers.append(layer)
        self._kept = kept

    def _why_not(self, q: Recurrence, trains: bool) -> str | None:
        """Why a layer's calls are not prepared, or None."""
        shape = Shape.of(q)
        if shape.staged:
            return "its cell runs by stages, each with memory of its own"
        if q.cell.parameters or not shape.recurrent:
            return "its cell has parameters of each unit, or no recurrent product"
        if current_settings().recompute or torch.version.hip:
            return "backward computes values once more, or addresses are of two kinds"
        if persistent.why_not(shape) if self.by_name else plan(shape).name not in PLANS:
            return "its steps are launched one by one"
        alone = shape.steps == 1 and not self.by_name
        if trains and not alone and isinstance(division_of(shape, shape.recurrent, len(q.cell.gates)), str):
            return "the persistent plan has no backward for it"
        return None

    def still_valid(self) -> bool:
        """Whether the precision is still the one that the calls were prepared for."""
        return self._mode == precision.mode(self._dtype)

    def _precision(self) -> AbstractContextManager[None]:
        """Inside, torch's products have the precision of the kernels."""
        return precision.obeyed_by_torch(self._mode) if self._dtype == torch.float32 else _NOTHING

    def _steps_first(self, input: Tensor) -> Tensor:
        """The input as (T, B, features). A single step may lack the axis of time, or have it second."""
        if self._batch_first:
            return input.transpose(0, 1).contiguous()
        a_step = self._shape[0] == 1 and input.dim() > 1 and not self.by_name
        as_it_lies = a_step or input.shape == self._shape
        return input if as_it_lies else input.view(self._shape)


class Inference(_Prepared):
    """A stack's inference, prepared for all calls that differ only in the addresses of their tensors. It packs no
    weights."""

    packs_weights, versions = False, None

    def __init__(self, layers: Sequence[Recurrence], versions: Any, batch_first: bool, zeros: bool) -> None:
        super().__init__(layers, batch_first, zeros)

    def __call__(self, *tensors: Tensor | None) -> None:
        """Read the input, initial states (None for zeros) and weights; write final states and each layer's output. That
        is also the order of ``tensors``, with the weights last, as they are `present` in each direction. All are
        contiguous."""
        input, *rest = tensors
        initial, final, rest = rest[: self._states], rest[self._states : 2 * self._states], rest[2 * self._states :]
        outputs, weights = rest[: len(self._layers)], rest[len(self._layers) :]
        with self._precision(), torch.cuda.device_of(input):
            x = self._steps_first(input)
            for layer, output in zip(self._layers, outputs, strict=True):
                layer.forward(x, None if self._zeros else initial, final, output, None, weights)
                x = output


class Training(_Prepared):
    """A stack's forward and backward, prepared in the same way."""

    def __init__(
        self,
        layers: Sequence[Recurrence],
        wanted: Sequence[Recurrence[bool]],
        batch_first: bool,
        zeros: bool,
        reads_output: bool,
    ) -> None:
        super().__init__(layers, batch_first, zeros, wanted, reads_output)
        self._wanted = wanted
        # The outputs of all layers but the highest are kept too, each with room around it.
        self._below = []
        for layer in self._layers[:-1]:
            steps, batch, width = layer.size
            first = self._kept + aligned(batch * width, self._dtype)
            self._below.append((layer.size, (batch * width, width, 1), first))
            self._kept = first + aligned((steps + 1) * batch * width, self._dtype)

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Read the input and initial states (None for zeros); write final states and the output, which `output_maker`
        has made; read the weights as they are `present`. Returns what else backward needs."""
        input, *rest = tensors
        initial, final, rest = rest[: self._states], rest[self._states : 2 * self._states], rest[2 * self._states :]
        output, *weights = rest
        with self._precision(), torch.cuda.device_of(input):
            kept = input.new_empty(self._kept)
            x = self._steps_first(input)
            for layer, each in zip(self._layers, [*self._outputs(kept), output], strict=True):
                layer.forward(x, None if self._zeros else initial, final, each, kept, weights)
                x = each
        return kept

    def backward(self, tensors: Sequence[Tensor | None], makers: Makers, as_made: bool) -> list[Tensor | None]:
        """Read the input, initial states, the output, what forward returned, the gradients of the output and of final
        states, and the weights. A gradient of a final state may be None for zeros. Returns the wanted gradients of the
        input, of initial states, and of weights.

        Args:
            makers: for the input and each initial state, a function that makes its gradient, or None where it is not
                wanted. The input's is not used.
            as_made: whether the output lies where `output_maker` made it.
        """
        count = self._states
        input, *rest = tensors
        initial, (output, kept, grad_output), rest = rest[:count], rest[count : count + 3], rest[count + 3 :]
        given, weights = rest[:count], rest[count:]
        grad_final = None
        if any(grad is not None for grad in given):
            likes = zip(given, initial, strict=True)
            grad_final = [torch.zeros_like(state) if grad is None else grad for grad, state in likes]
        of_states, grad_initial = makers[1 : 1 + count], None
        if any(of_states):
            pairs = zip(of_states, initial, strict=True)
            grad_initial = [torch.empty_like(state) if make is None else make() for make, state in pairs]
        of_weights: list[Tensor | None] = []
        with self._precision(), torch.cuda.device_of(input):
            inputs = [self._steps_first(input), *self._outputs(kept)]
            outputs = [*inputs[1:], output]
            for k in reversed(range(len(self._layers))):
                grad_output, own = self._layers[k].backward(
                    inputs[k],
                    None if self._zeros else initial,
                    outputs[k],
                    as_made or k + 1 < len(self._layers),
                    kept,
                    grad_output,
                    grad_final,
                    grad_initial,
                    weights,
                    self._wanted[k] if k == 0 else self._wanted[k]._replace(input=True),
                )
                of_weights = own + of_weights
        if grad_output is not None and grad_output.shape != input.shape:
            grad_output = grad_output.transpose(0, 1) if self._batch_first else grad_output.view(input.shape)
        pairs = zip(of_states, grad_initial or of_states, strict=True)
        return [grad_output, *(None if make is None else grad for make, grad in pairs), *of_weights]

    def _outputs(self, kept: Tensor) -> list[Tensor]:
        """The outputs that are kept."""
        return [kept.as_strided(*place) for place in self._below]


def _are_at_once(layers: Sequence[Recurrence], gradients: bool) -> bool:
    """Whether several layers run in one launch."""
    first = layers[0]
    sizes = dict(zip(("steps", "rows"), first.input.shape, strict=False))
    sizes |= {"directions": len(first.weights), "hidden": first.hidden, "width": first.hidden, "layers": len(layers)}
    call = Call(first.cell, "layers", first.input.device, first.input.dtype, **sizes)
    return wavefront.at_once(call, gradients) > 1
