"""The cluster plan: one launch for all time steps. The blocks of a thread-block cluster exchange the operands of
products through each other's shared memory, without a barrier in global memory. Its kernels are in kernels/cuda."""

import ctypes
from collections.abc import Mapping
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from ....cells import Cell
from ....request.recurrence import Backward, Recurrence
from ...cuda import division, nvrtc, source
from ...cuda.division import Device, Division, Wanted
from ...cuda.driver import DriverError, Launch
from ...cuda.kernel_cache import architecture, clusters, code, function
from ...cuda.nvrtc import CannotCompileError
from ...cuda.source import Given, How
from ..device.staged_tables import Pass, Staged
from ..host import precision
from ..host.cluster_tables import cluster_tables
from ..host.staged_memory import StagedLayer, Steps
from . import staged
from .shape import Shape

__all__ = ["backward", "forward", "in_words", "saved_like", "why_not", "why_not_backward"]

SPARE = -24, -12, 0, 16, 32, 64
"""Registers to spare: a kernel that spills is tried again with more. Weights that get no registers are in shared
memory."""


def why_not(shape: Shape) -> str | None:
    """Why the plan cannot run a layer forward, or None."""
    return _why_not_by_clusters(shape) or _reason(division_of(shape, "forward"))


def why_not_backward(shape: Shape) -> str | None:
    """Why the plan cannot run a layer's backward, which then raises, or None."""
    return _why_not_by_clusters(shape) or _reason(division_of(shape, "backward"))


def in_words(shape: Shape) -> str:
    """How clusters divide a layer, in each pass that a call is likely to need."""
    words = []
    for which in ("forward", "backward") if torch.is_grad_enabled() else ("forward",):
        found = _why_not_by_clusters(shape) or division_of(shape, which)
        if isinstance(found, str):
            words.append(f"{which} it cannot: {found}")
        else:
            words.append(f"{which} by clusters of {found.blocks} blocks for {found.rows} sequences")
    return "; ".join(words)


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return staged.saved_like(q, _passes(q))


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer. Returns output (T, B, D·H), final states, tensors that backward needs."""
    shape = Shape.of(q)
    reason = why_not(shape)
    if reason:
        raise RuntimeError(f"the cluster plan cannot run this layer: {reason}")
    if save:
        _check_backward(shape)
    return staged.forward(q, save, partial(_run, shape, "forward"), _passes(q))


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    shape = Shape.of(q)
    _check_backward(shape)
    return staged.backward(q, given, partial(_run, shape, "backward"), _passes(q))


def _check_backward(shape: Shape) -> None:
    reason = why_not_backward(shape)
    if reason:
        raise RuntimeError(f"the cluster plan cannot run this layer backward: {reason}")


def division_of(shape: Shape, which: str) -> Division | str:
    """How clusters divide a layer in a pass, or why they cannot."""
    sizes = shape.hidden, shape.batch, shape.directions
    try:
        device = device_of(shape)
    except (CannotCompileError, DriverError) as reason:
        return str(reason)
    return _division(shape.cell, shape.kept, which, sizes, shape.dtype, device, SPARE[0])


def device_of(shape: Shape) -> Device:
    """The properties of the layer's GPU."""
    index = shape.device.index
    return clusters(torch.cuda.current_device() if index is None else index)


@cache
def _division(
    cell: type[Cell],
    kept: tuple[str, ...],
    which: str,
    sizes: tuple[int, int, int],
    dtype: torch.dtype,
    device: Device,
    spare: int,
) -> Division | str:
    layout = source.printed(cell, kept).layout(which)
    return division.divide(Wanted(layout, *sizes, dtype.itemsize, spare), device)


def _why_not_by_clusters(shape: Shape) -> str | None:
    """Why clusters cannot run such a layer on its device, in its dtype or for its cell, whatever its sizes, or None."""
    if shape.dtype not in source.STORAGE:
        return f"its kernels take {', '.join(map(str, source.STORAGE))}, not {shape.dtype}"
    if shape.dtype == torch.float32 and precision.mode(shape.dtype) != "tf32":
        return "its float32 products use TF32, which the settings do not allow here"
    if shape.has_projection:
        return "a projection is a product of its own in each step"
    if shape.layers > 1:
        return "it runs one layer at a time"
    return why_not_on(shape.device) or source.why_not(shape.cell, shape.kept)


def why_not_on(device: torch.device) -> str | None:
    """Why a device has no clusters, or why no kernel can be made for it here, or None."""
    if device.type != "cuda" or torch.version.hip:
        return f"only NVIDIA's GPUs have thread-block clusters, and the input is on {device}"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    if torch.cuda.get_device_capability(device) < (9, 0):
        return "thread-block clusters need compute capability 9.0"
    return nvrtc.why_not_available()


def _reason(found: Division | str) -> str | None:
    return found if isinstance(found, str) else None


def _passes(q: Recurrence) -> Staged:
    return cluster_tables(q.cell, q.kept)


def _run(shape: Shape, which: str, steps: Steps) -> None:
    """Run all steps of a pass."""
    layer = steps.layer
    if not layer.batch:
        return
    begin, end = ("initial", "final") if which == "forward" else ("grad_final", "grad_initial")
    states = {"initial": layer.states, begin: steps.carried, end: steps.left}
    tensors = {
        f"{name}.{state}": tensor
        for name, some in states.items()
        for state, tensor in zip(layer.cell.states, some, strict=True)
    }
    try:
        call = _Call(shape, which, layer, steps.of, {**tensors, **steps.arrays})
        launch(call.kernel.text, call.launch, call.arguments())
    except (CannotCompileError, DriverError) as reason:
        raise RuntimeError(f"the cluster plan cannot run this layer {which}: {reason}") from None


def launch(text: str, how: Launch, arguments: ctypes.Array) -> None:
    """Launch the kernel of a source text."""
    function(text, how.shared_bytes)(how, arguments)


def stack_bytes(text: str, device: torch.device) -> int:
    """Bytes of memory that each thread uses instead of registers, because the kernel spills."""
    return code(text, architecture(device)).stack_bytes


class Kernel(NamedTuple):
    """A kernel's source, and how it divides the layer."""

    text: str
    division: Division


@cache
def _kernel(
    cell: type[Cell], kept: tuple[str, ...], which: str, batch: int, device: torch.device, has: Device, how: How
) -> Kernel:
    """The first kernel that does not spill, tried with more and more registers to spare; else the kernel that spills
    least."""
    found, printed = {}, source.printed(cell, kept)
    for spare in SPARE:
        divided = _division(cell, kept, which, (how.hidden, batch, how.directions), how.dtype, has, spare)
        if isinstance(divided, str):
            break
        text = source.text(printed, which, divided, how)
        spilled = stack_bytes(text, device)
        found.setdefault(spilled, Kernel(text, divided))
        if not spilled:
            break
    return found[min(found)]


class _Table(NamedTuple):
    """The arrays that a pass gets from its caller."""

    names: tuple[str, ...]
    axes: Mapping[str, str]
    """The axes of the arrays that hold values; a product's weight has none."""
    copied: frozenset[str]
    """The arrays that are copied into the ring."""


@cache
def _table(cell: type[Cell], kept: tuple[str, ...], which: str) -> _Table:
    layout = source.printed(cell, kept).layout(which)
    slots = [*layout.slots.values(), *(each.slot for some in layout.results for each in some)]
    copied = {name for column in division.ring_columns(layout) for name in (column.array, column.initial)}
    return _Table(tuple(layout.arrays), {slot.array: slot.axes for slot in slots}, frozenset(copied))


class _Call:
    """One pass of a layer, with the arguments that its kernel takes."""

    def __init__(self, shape: Shape, which: str, layer: StagedLayer, of: Pass, arrays: Mapping[str, Tensor]) -> None:
        self.layer, self.table = layer, _table(shape.cell, shape.kept, which)
        parameters = {name: layer.parameter(name) for name in self.table.names if name.startswith(("weight_", "bias_"))}
        found = {**parameters, **arrays}
        self.tensors = {name: found[name] for name in self.table.names if found.get(name) is not None}
        self.sums = arrays.get("sums")
        self.lengths = None if layer.lengths is None else layer.lengths.to(torch.int64)
        how = How(
            layer.hidden,
            layer.directions,
            layer.dtype,
            tuple(map(self._given, self.tensors)),
            layer.bounded,
            self._sum_columns(of),
            self._copy(),
            max(tensor.numel() + 16 * tensor.shape[-1] for tensor in self.tensors.values()) >= 1 << 31,
        )
        self.kernel = _kernel(shape.cell, shape.kept, which, shape.batch, layer.device, device_of(shape), how)

    @property
    def launch(self) -> Launch:
        """The launch: clusters for all rows, directions side by side."""
        divided, layer = self.kernel.division, self.layer
        blocks = -(-layer.batch // divided.rows) * divided.blocks
        return Launch(blocks, layer.directions, divided.blocks, divided.threads, divided.shared_bytes)

    def arguments(self) -> ctypes.Array:
        """The arguments in the order of value_access.cuh, 8 bytes each."""
        layer, names = self.layer, self.table.names
        columns = 0 if self.sums is None else self.sums.shape[2] // layer.hidden
        scalars = [layer.steps, layer.batch, int(layer.backwards[0])]
        scalars += [_address(tensor) for tensor in (self.lengths, layer.reset, self.sums)] + [columns]
        addresses = [_address(self.tensors.get(name)) for name in names]
        each = [*scalars, *addresses, *[0] * (source.MOST_ARRAYS - len(names))]
        return (ctypes.c_int64 * len(each))(*each)

    def _given(self, name: str) -> Given:
        tensor, axes, directions = self.tensors[name], self.table.axes.get(name), self.layer.directions
        units = self.layer.hidden if axes is None or axes.endswith("H") else 1
        if axes and "B" in axes:
            columns = tensor.shape[-1] // (units * (directions if "T" in axes else 1))
        else:
            columns = tensor.numel() // (units * directions)
        apart = tensor.numel() // directions if axes is None else 0
        return Given(name, tensor.dtype != self.layer.dtype, columns, apart)

    def _sum_columns(self, of: Pass) -> tuple[int, ...]:
        """For each sum its column of ``sums``; -1 where it is summed up from a history."""
        return tuple(each.column if each.array == "sums" else -1 for each in of.sums)

    def _copy(self) -> int:
        """How many bytes may be copied at once."""
        bits = self.layer.hidden * self.layer.dtype.itemsize
        for name in self.table.copied:
            bits |= _address(self.tensors.get(name))
        return next(each for each in (16, 8, 4, 2) if bits % each == 0)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
