"""What a cell's step is given of the outside besides the gates: from a call's arguments, as its axes say."""

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
    """How the streams of a call lie.

    * ``sizes``: of the axes T and B and of units, by letter;
    * ``paths``: the number of layers and directions;
    * ``batch_first``: whether sequences come before steps;
    * ``batched``: whether there is an axis of sequences; ``steps``: whether there is one of steps;
    * ``order``: how the rows of a packed input are sorted, None for no change.
    """

    sizes: Mapping[str, int]
    paths: int = 1
    batch_first: bool = False
    batched: bool = True
    steps: bool = True
    order: Tensor | None = None


def names(cell: type[Cell]) -> list[str]:
    """Those that a call gives by name: all but the layer's own input."""
    return [name for name in cell.streams if name != "input"]


def laid_out(cell: type[Cell], given: Mapping[str, Any], input: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The streams of a call by name, each with the axes that the cell says, perhaps after one of layers and directions.

    Args:
        given: by name, tensors, arrays or lists. Truths and integers count as the input's kind of numbers.
        input: whose device and dtype they must have, the dtype but under autocast.

    Raises:
        TypeError: one is missing, is none of the cell's, or is no tensor.
        RuntimeError: one has the wrong size, dtype or device.
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
    """The streams of one step as a call of one step is given them, which has an axis of steps."""
    found = dict(given)
    for name, stream in given.items():
        axes = cell.streams.get(name, "")
        if "T" in axes:
            stream = checks.as_tensor(name, stream)
            begin = int(stream.dim() > len(axes) - 1)
            found[name] = stream.unsqueeze(begin + int(batch_first and "B" in axes))
    return found


def of_one_sequence(cell: type[Cell], given: Mapping[str, Any]) -> dict[str, Any]:
    """The streams of one step, without an axis of sequences, as a step of sequences is given them."""
    found = dict(given)
    for name, stream in given.items():
        if "B" in cell.streams.get(name, ""):
            found[name] = checks.as_tensor(name, stream).unsqueeze(0)
    return found


def of_rows(cell: type[Cell], streams: Mapping[str, Tensor], batch: int) -> dict[str, Tensor]:
    """Laid-out streams, those that all sequences of a step share repeated for each; as `for_engines` reads them."""
    found = dict(streams)
    for name in cell.shared:
        if name in streams:
            axis = streams[name].dim() - len(cell.streams[name]) + 1
            shape = [*streams[name].shape]
            found[name] = streams[name].unsqueeze(axis).expand(*shape[:axis], batch, *shape[axis:])
    return found


def of_paths(axes: str, stream: Tensor, place: slice) -> Tensor:
    """A laid-out stream for some of all layers and directions, first of all the axis of these."""
    return stream[place] if stream.dim() > len(axes) else stream.expand(place.stop - place.start, *stream.shape)


def without_padding(cell: type[Cell], streams: Mapping[str, Tensor], valid: Tensor) -> dict[str, Tensor]:
    """Zeros past the ends of sequences, where laid-out streams may hold anything; ``valid``: (T, B) bool."""
    found = dict(streams)
    for name, stream in streams.items():
        axes = cell.streams[name]
        if axes.startswith("TB"):
            found[name] = torch.where(valid if axes == "TB" else valid.unsqueeze(-1), stream, 0)
    return found


def check_names(cell: type[Cell], given: Mapping[str, Any]) -> None:
    """TypeError where a call gives other streams than the cell's `names`."""
    wanted = names(cell)
    check_known(cell, given, wanted)
    for name in wanted:
        if given.get(name) is None:
            raise TypeError(f"the {cell.name} cell is missing a required keyword argument: {name!r}")


def check_known(cell: type[Cell], given: Mapping[str, Any], known: Collection[str]) -> None:
    """TypeError where a call gives a stream that is not among the known ones."""
    for name in given:
        if name not in known:
            raise TypeError(f"the {cell.name} cell got an unexpected keyword argument {name!r}")


def _numbers(name: str, given: Any, input: Tensor) -> Tensor:
    """A tensor of the input's dtype; RuntimeError for one of other numbers, or on another device."""
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
