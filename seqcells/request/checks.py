"""Checks of a caller's input. They raise torch.nn's messages where torch.nn has one.

The modules borrow from the installed torch the checks of sizes that are methods of torch.nn's layers. This file has the
other checks: of the constructor's arguments, of the input, and of our own arguments. It repeats the checks of torch's
operators, because other backends do not call these operators.
"""

import numbers
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from ..cells import Cell
from . import precision
from .weights import Weights


def probability(dropout: Any) -> None:
    """torch.nn's check of a layer's dropout."""
    if not is_number(dropout) or not 0 <= dropout <= 1:
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an element being zeroed"
        )


def is_number(value: object) -> bool:
    """Whether a value is a number, and not a bool."""
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def constructor(
    input_size: Any, hidden_size: Any, num_layers: Any, bias: Any, batch_first: Any, dropout: Any, proj_size: Any
) -> None:
    """torch.nn's checks of a layer's arguments, in its order and words."""
    probability(dropout)
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
            f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
            stacklevel=_outside(),
        )
    for name, value, kind in (
        ("bias", bias, bool),
        ("batch_first", batch_first, bool),
        ("input_size", input_size, int),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
    if input_size <= 0:
        raise ValueError("input_size must be greater than zero")
    if not isinstance(hidden_size, int):
        raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
    if hidden_size <= 0:
        raise ValueError("hidden_size must be greater than zero")
    if num_layers <= 0:
        raise ValueError("num_layers must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


def cell(kind: type[Cell]) -> None:
    """TypeError if an option of the cell has no value, or if no tensor of the cell tells the number of hidden units."""
    for option, value in kind.options.items():
        if value is None:
            raise TypeError(f"the {kind.name} cell is missing a required keyword argument: {option!r}")
    if not kind.gates and "H" not in kind.state_sizes.values():
        raise TypeError(f"the {kind.name} cell needs gates or a state of size H, which tell its hidden units")


def features(kind: type[Cell], hidden_size: int, sizes: Sequence[int]) -> None:
    """ValueError if the cell does not allow these numbers of input features, one for each layer of the stack."""
    letter = kind.streams.get("input", "F").removeprefix("TB")
    wanted = sizes[0] if letter == "F" else kind.sizes_by_letter(hidden_size)[letter]
    others = [name for name, size in kind.state_sizes.items() if size == "F"]
    others += [name for name, axes in kind.streams.items() if axes.endswith("F") and name != "input"]
    if letter != "F" and sizes[0] != wanted:
        raise ValueError(f"the {kind.name} cell's input is as large as its state: expected {wanted}, got {sizes[0]}")
    if (letter != "F" or others) and any(size != wanted for size in sizes):
        what = ", ".join(others) or "the input"
        raise ValueError(
            f"every layer of the {kind.name} cell needs {wanted} input features, because {what} has the size of the "
            f"input; got {list(sizes)}"
        )


def sizes(kind: type[Cell], hidden_size: int) -> None:
    """ValueError if a size among the cell's options is not positive, or if heads do not divide the hidden units."""
    for option in kind.sizes.values():
        if kind.options[option] <= 0:
            raise ValueError(f"{option} must be greater than zero")
    heads = kind.heads()
    if heads <= 0:
        raise ValueError("heads must be greater than zero")
    if hidden_size % heads:
        raise ValueError(f"hidden_size must be divisible by heads, got {hidden_size} and {heads}")


def _outside() -> int:
    """The ``stacklevel`` for `warnings.warn` in the caller that points to the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "seqcells":
        level, frame = level + 1, frame.f_back
    return level


def input(input: Tensor, batch_sizes: Tensor | None, input_size: int, dtype: torch.dtype) -> None:
    """torch.nn's checks of a layer's input. Without autocast its dtype must be ``dtype``, the dtype of the weights."""
    if input.dtype != dtype and not torch._C._is_any_autocast_enabled():
        raise ValueError(
            f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). "
            f"Convert input: input.to({dtype}), or convert model: model.to({input.dtype})"
        )
    rank = 3 if batch_sizes is None else 2
    if input.dim() != rank:
        raise RuntimeError(f"input must have {rank} dimensions, got {input.dim()}")
    if input.size(-1) != input_size:
        raise RuntimeError(f"input.size(-1) must be equal to input_size. Expected {input_size}, got {input.size(-1)}")


def weights(names: Iterable[str], tensors: Sequence[Tensor | None]) -> Sequence[Tensor]:
    """The same tensors. Raises TypeError if one is None."""
    there = [tensor for tensor in tensors if tensor is not None]
    if len(there) < len(tensors):
        missing = next(name for name, tensor in zip(names, tensors, strict=True) if tensor is None)
        raise TypeError(f"expected {missing} to be a tensor, got None")
    return there


def size(name: str, tensor: Tensor, size: Sequence[int]) -> None:
    """RuntimeError if the tensor has another size than ``size``."""
    if tensor.shape != size:
        raise RuntimeError(f"Expected {name} of size {tuple(size)}, got {list(tensor.shape)}")


def stream(name: str, tensor: Tensor, size: Sequence[int], paths: int) -> None:
    """RuntimeError if the stream's size is neither ``size`` nor ``(paths, *size)``, with ``paths`` = L·D."""
    size = tuple(size)
    if tensor.shape != size and tensor.shape != (paths, *size):
        each = f", or {(paths, *size)} with one for each layer and direction" if paths > 1 else ""
        raise RuntimeError(f"Expected {name} of size {size}{each}, got {list(tensor.shape)}")


def has_steps(input: Tensor) -> None:
    """RuntimeError if the sequence has no time steps."""
    if input.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")


def same_device_and_dtype(input: Tensor, states: Sequence[Tensor], weight: Tensor | None) -> None:
    """RuntimeError if states or the weight differ from the input in device, or in dtype outside of autocast."""
    tensors = [("hidden", state) for state in states] + ([] if weight is None else [("parameter", weight)])
    autocast = precision.autocast_dtype(input.device) is not None
    for what, tensor in tensors:
        if tensor.device != input.device:
            raise RuntimeError(
                f"Input and {what} tensors are not at the same device, "
                f"found input tensor at {input.device} and {what} tensor at {tensor.device}"
            )
        if tensor.dtype != input.dtype and not autocast:
            raise RuntimeError(
                f"Input and {what} tensors are not the same dtype, "
                f"found input tensor with {input.dtype} and {what} tensor with {tensor.dtype}"
            )


DTYPES = torch.float32, torch.float64, torch.bfloat16, torch.float16
"""The dtypes that layers accept."""


def dtype(dtype: torch.dtype) -> None:
    """NotImplementedError, in torch's words, for a dtype that layers do not accept."""
    if dtype not in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        raise NotImplementedError(
            f"\"recurrence\" not implemented for '{kind}': it takes {', '.join(map(str, DTYPES))}"
        )


def step_sizes(cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights) -> None:
    """RuntimeError if a cell module's input or states have a wrong size, or states a wrong rank; in torch's order."""
    sizes = {"F": input.shape[1]}
    if weights.ih is not None:
        input_size, hidden_size = weights.ih.shape[1], weights.ih.shape[0] // len(cell.gates)
        if input.shape[1] != input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.shape[1]} expected {input_size}")
        sizes |= cell.sizes_by_letter(hidden_size)
    for index, (state, letter) in enumerate(zip(states, cell.state_sizes.values(), strict=True)):
        if input.shape[0] != state.shape[0]:
            raise RuntimeError(
                f"Input batch size {input.shape[0]} doesn't match hidden{index} batch size {state.shape[0]}"
            )
        expected = sizes.get(letter)
        if state.dim() > 1 and expected not in (None, state.shape[1]):
            raise RuntimeError(f"hidden{index} has inconsistent hidden_size: got {state.shape[1]}, expected {expected}")
        if state.dim() != 2:
            raise RuntimeError(f"Expected 2D hidden{index} (batch x hidden_size), but got {state.dim()}D tensor")


def as_tensor(name: str, given: Any) -> Tensor:
    """The argument, which may also be an array or a list, as a tensor.

    Raises:
        TypeError: no tensor can be made of the argument, or the tensor is sparse or quantized.
    """
    try:
        # Arrays and lists go to the CPU, whatever torch's default device is. A tensor keeps its device.
        tensor = given if isinstance(given, Tensor) else torch.as_tensor(given, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} should be a tensor, an array or a list, got {type(given).__name__}: {error}") from None
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else tensor.layout
        raise TypeError(f"{name} should be a dense tensor, got a {kind} one")
    return tensor


def rows(given: Any, batch: int | None, device: torch.device) -> Tensor:
    """The mask of the chosen sequences of a batch, (N,) bool, on a device. ``batch`` is N, or None for any number.

    Raises:
        TypeError: the dtype is not bool, or no tensor can be made of ``given``.
        RuntimeError: the size is not (N,).
    """
    chosen = as_tensor("rows", given).to(device)
    if chosen.dtype != torch.bool:
        raise TypeError(f"rows should be of dtype torch.bool, got: {chosen.dtype}")
    size = "(N,)" if batch is None else (batch,)
    if chosen.shape != (batch,) and not (batch is None and chosen.dim() == 1):
        raise RuntimeError(f"Expected rows of size {size}, got {list(chosen.shape)}")
    return chosen


INTEGERS = {
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
}
"""The dtypes that lengths may have. torch has integer dtypes of fewer bits too, but no operations for them."""


def integers(name: str, tensor: Tensor) -> None:
    """TypeError if the tensor is not of an integer dtype."""
    if tensor.dtype not in INTEGERS:
        raise TypeError(f"{name} should be integers, got: {tensor.dtype}")


def no_lengths_besides(lengths: Any) -> None:
    """ValueError if ``lengths`` is given, for calls with a packed input."""
    if lengths is not None:
        raise ValueError("lengths should not be given with a PackedSequence, which has its own")


def lengths(given: Any, steps: int, batch: int, device: torch.device) -> Tensor:
    """Lengths as (batch,) int64 on the input's device, without waiting for a GPU.

    Values are checked only if ``given`` is on the CPU, where reading them needs no synchronisation. Elsewhere, values
    outside of 0 to T act like the nearest of these two.
    """
    given = as_tensor("lengths", given)
    integers("lengths", given)
    lengths = given.to(torch.int64)  # torch has no minimum or comparison for most unsigned integer dtypes
    size("lengths", lengths, (batch,))
    if _readable(lengths) and batch and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(f"lengths should be between 0 and the number of steps {steps}, got: {given.tolist()}")
    return lengths.to(device, non_blocking=True)


def _readable(tensor: Tensor) -> bool:
    """Whether the tensor's values may be read: on the CPU, and outside of tracing and transforms."""
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not _makes_a_graph()
        and peek_interpreter_stack() is None
        and not isinstance(tensor, torch._subclasses.FakeTensor)
    )


def _makes_a_graph() -> bool:
    """Whether make_fx is tracing, before autograd or after it."""
    key = torch._C._TorchDispatchModeKey.PROXY
    modes = torch._C._get_dispatch_mode(key), torch._ops._get_dispatch_mode_pre_dispatch(key)
    return any(mode is not None for mode in modes)


def reset(reset: Tensor, shape: tuple[int, int], batch_first: bool, device: torch.device) -> Tensor:
    """``reset``, given with the input's layout and ``shape``, in the layout (T, batch) and on ``device``.

    Raises:
        TypeError: the dtype is not bool.
        RuntimeError: the size is not ``shape``.
    """
    if reset.dtype != torch.bool:
        raise TypeError(f"reset should be of dtype torch.bool, got: {reset.dtype}")
    size("reset", reset, shape)
    return (reset.transpose(0, 1) if batch_first else reset).to(device, non_blocking=True)
