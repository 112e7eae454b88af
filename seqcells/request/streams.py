"""Streams: inputs of a cell's step besides its gates. They are checked and laid out with the axes the cell declares."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..cells import Cell
from . import checks, precision

NONE: Mapping[str, Tensor] = MappingProxyType({})
"""No streams."""


class Layout(NamedTuple):
    """The layout of a call's streams.

    * ``sizes``: the sizes of the axes T and B and of units, by letter;
    * ``paths``: L·D, the number of layers times the number of directions;
    * ``batch_first``: whether the axis of sequences comes before the axis of steps;
    * ``batched``: whether there is an axis of sequences; ``steps``: whether there is an axis of steps;
    * ``order``: the indices that sort the sequences of a packed input, or None to keep their order.
    """

    sizes: Mapping[str, int]
    paths: int = 1
    batch_first: bool = False
    batched: bool = True
    steps: bool = True
    order: Tensor | None = None


def names(cell: type[Cell]) -> list[str]:
    """The streams that a call gives by name. The layer's own input is not among them."""
    return [name for name in cell.streams if name != "input"]


def laid_out(cell: type[Cell], given: Mapping[str, Any], input: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The streams of a call by name, with the axes that the cell declares. An axis of size L·D may come before these.

    Args:
        given: tensors, arrays or lists by name. Bools and integers are converted to the input's dtype.
        input: the tensor whose device and dtype streams must have. Under autocast the dtype may differ.

    Raises:
        TypeError: a stream is missing, unknown to the cell, or no tensor can be made of it.
        RuntimeError: a stream has the wrong size, dtype or device.
    """
    check_names(cell, given)
    found = {}
    for name in names(cell):
        axes = cell.streams[name]
        stream = _numbers(name, given[name], input)
        lies = axes if layout.batched else axes.replace("B", "")
        lies = lies if layout.steps else lies.replace("T", "")
        lies = lies.replace("TB", "BT") if layout.batch_first else lies
        begin = int(stream.dim() > len(lies))
        checks.stream(name, stream, [layout.sizes[axis] for axis in lies], layout.paths)
        if lies.startswith("BT"):
            stream = stream.transpose(begin, begin + 1)
        if "T" in axes and not layout.steps:
            stream = stream.unsqueeze(begin)
        if "B" in axes:
            axis = begin + axes.index("B")
            stream = stream if layout.batched else stream.unsqueeze(axis)
            stream = stream if layout.order is None else stream.index_select(axis, layout.order)
        found[name] = stream
    return found


def of_one_step(cell: type[Cell], given: Mapping[str, Any], batch_first: bool) -> dict[str, Any]:
    """The streams of one step with an axis of steps of size 1, for a call of a layer with T = 1."""
    found = dict(given)
    for name, stream in given.items():
        axes = cell.streams.get(name, "")
        if "T" in axes:
            stream = checks.as_tensor(name, stream)
            begin = int(stream.dim() > len(axes) - 1)
            found[name] = stream.unsqueeze(begin + int(batch_first and "B" in axes))
    return found


def of_one_sequence(cell: type[Cell], given: Mapping[str, Any]) -> dict[str, Any]:
    """The streams of an unbatched step with an axis of sequences of size 1."""
    found = dict(given)
    for name, stream in given.items():
        if "B" in cell.streams.get(name, ""):
            found[name] = checks.as_tensor(name, stream).unsqueeze(0)
    return found


def of_rows(cell: type[Cell], streams: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
    """Laid-out streams in the form that `for_engines` reads: streams that all sequences share get an axis B."""
    found = dict(streams)
    for name in cell.shared:
        if name in streams:
            axis = streams[name].dim() - len(cell.streams[name]) + 1
            shape = [*streams[name].shape]
            found[name] = streams[name].unsqueeze(axis).expand(*shape[:axis], batch, *shape[axis:])
    return found


def of_paths(axes: str, stream: Tensor, place: slice) -> Tensor:
    """A laid-out stream for the layers and directions in ``place``, which are its first axis."""
    return stream[place] if stream.dim() > len(axes) else stream.expand(place.stop - place.start, *stream.shape)


def without_padding(cell: type[Cell], streams: Mapping[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
    """Laid-out streams with zeros past the ends of sequences. ``valid``: (T, B) bool, the steps within sequences."""
    found = dict(streams)
    for name, stream in streams.items():
        axes = cell.streams[name]
        if axes.startswith("TB"):
            found[name] = torch.where(valid if axes == "TB" else valid.unsqueeze(-1), stream, 0)
    return found


def check_names(cell: type[Cell], given: Mapping[str, Any]) -> None:
    """TypeError if the streams that a call gives are not exactly the cell's `names`."""
    wanted = names(cell)
    check_known(cell, given, wanted)
    for name in wanted:
        if given.get(name) is None:
            raise TypeError(f"the {cell.name} cell is missing a required keyword argument: {name!r}")


def check_known(cell: type[Cell], given: Mapping[str, Any], known: Collection[str]) -> None:
    """TypeError if a call gives a stream whose name is not in ``known``."""
    for name in given:
        if name not in known:
            raise TypeError(f"the {cell.name} cell got an unexpected keyword argument {name!r}")


def _numbers(name: str, given: Any, input: Tensor) -> Tensor:
    """A stream as a tensor of the input's dtype.

    Raises:
        RuntimeError: the tensor is on another device, or has another floating-point dtype without autocast.
    """
    stream = checks.as_tensor(name, given)
    if not isinstance(given, Tensor):
        stream = stream.to(input.device)
    elif stream.device != input.device:
        raise RuntimeError(
            f"Input and {name} tensors are not at the same device, "
            f"found input tensor at {input.device} and {name} tensor at {stream.device}"
        )
    exact = not (stream.is_floating_point() or stream.is_complex())
    autocast = precision.autocast_dtype(input.device) is not None
    if exact or autocast or not isinstance(given, Tensor):
        return stream.to(input.dtype)
    if stream.dtype != input.dtype:
        raise RuntimeError(
            f"Input and {name} tensors are not the same dtype, "
            f"found input tensor with {input.dtype} and {name} tensor with {stream.dtype}"
        )
    return stream
