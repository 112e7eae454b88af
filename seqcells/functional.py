"""Recurrent layers as functions, for callers that hold the weights themselves. The modules call these functions.

There are three functions, each with the option ``backend`` (see `seqcells.call.choose`):

* `layers`: a stack of layers, in one or two directions, from input to output;
* `recurrence`: one layer in one direction, from the projected input;
* `step`: one time step of a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor
from torch.nn.functional import dropout as dropout_
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .backends import torch_ops
from .call import choose, run
from .call.describe import call_of
from .cells import Cell
from .derive.transformed_cells import for_engines
from .request import checks, precision
from .request.boundaries import valid_steps
from .request.keep_argument import by_layer, by_name, values
from .request.recurrence import Recurrence
from .request.streams import NONE, Layout, check_known, check_names, laid_out, of_paths, of_rows, without_padding
from .request.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from .request.keep_argument import Names

    class _Given(TypedDict, total=False):
        streams: Mapping[str, Tensor]
        backend: str

    class _OfSteps(_Given, total=False):
        lengths: Any
        reset: Tensor | None
        reset_states: Sequence[Tensor] | None

    class _OfRecurrence(_OfSteps, total=False):
        reverse: bool

    class _OfLayers(_OfSteps, total=False):
        batch_sizes: Tensor | None
        bidirectional: bool
        batch_first: bool
        dropout: float
        training: bool


Results = tuple[Tensor, tuple[Tensor, ...]]
"""Output and final states."""
Kept = dict[str, Tensor]
"""Kept values, by name."""
WithKept = tuple[Tensor, tuple[Tensor, ...], Kept]


# fmt: off
@overload
def layers(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Sequence[Weights], *, keep: tuple[()] = (),
    **given: Unpack[_OfLayers],
) -> Results: ...
@overload
def layers(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Sequence[Weights], *, keep: Names,
    **given: Unpack[_OfLayers],
) -> WithKept: ...
@overload
def layers(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Sequence[Weights], *, keep: Sequence[str],
    **given: Unpack[_OfLayers],
) -> Results | WithKept: ...
# fmt: on
def layers(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Weights],
    *,
    batch_sizes: Tensor | None = None,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    training: bool = False,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reset_states: Sequence[Tensor] | None = None,
    streams: Mapping[str, Tensor] = NONE,
    keep: Sequence[str] = (),
    backend: str = "auto",
) -> Results | WithKept:
    """Run a stack of recurrent layers; T steps, N sequences, D directions, L layers, H hidden units.

    Args:
        cell: the cell's class, from `seqcells.cells`.
        input: (T, N, input size); (N, T, input size) with ``batch_first``; with ``batch_sizes`` the data of a
            PackedSequence, (sum of lengths, input size).
        states: the initial states in the order of ``cell.states``, (L·D, N, size) each. The size is H, or proj_size for
            the first state, or as the cell declares.
        weights: L·D records, first all directions of the lowest layer.
        batch_sizes: as in PackedSequence. Default: None, the input is not packed
        bidirectional: whether D is 2, with a second direction that reads backwards. Default: False
        batch_first: whether input and output are (N, T, ·). Default: False
        dropout: probability of zeroing an output of any layer but the last, if ``training``. Default: 0
        training: whether ``dropout`` is applied. Default: False
        lengths: (N,) integers, as a tensor of any integer dtype, an array or a list. Steps past a sequence's length do
            not change its state and give zeros. Default: all sequences have T steps
        reset: (T, N) bool, also with ``batch_first``: a boundary between t-1 and t that nothing crosses. Default: none
        reset_states: the states after a boundary, shaped as ``states``. Default: zeros.
        streams: further inputs of the cell by name, in the axes that the cell declares, also with ``batch_first``:
            (T, N, ·) for "TB…". All layers and directions share them, unless one more axis comes first,
            (L·D, T, N, ·).
        keep: names of values that are also returned for all steps, see `seqcells.request.keep_argument`. Default: none.
        backend: see `seqcells.call.choose`. Default: ``"auto"``

    Returns:
        The output, in the input's layout, and the final states. Under autocast their dtypes are the dtypes of
        torch.nn's layer, for every backend, and also with arguments that torch.nn does not have. With ``keep`` also a
        dict of the kept values by name, each in the output's layout and dtype.

    Raises:
        RuntimeError, TypeError, ValueError: for tensors that do not match, and for invalid lengths.
    """
    written = cell
    if not cell.direct:
        cell, weights = for_engines(cell), [w.made(cell) for w in weights]
    directions = 2 if bidirectional else 1
    # Most calls keep nothing, and need no search for names.
    wanted = ((),) * (len(weights) // directions) if keep == () else by_layer(cell, keep, len(weights) // directions)
    sizes = {"packed": batch_sizes, "batch_first": batch_first, "directions": directions}
    stack = {"layers": len(weights) // directions, "dropout": bool(dropout and training)}
    call = call_of(cell, "layers", input, weights[0], lengths=lengths, reset=reset, keep=keep, **sizes, **stack)
    choice = choose.choose(call, backend)
    if choice.backend == "torch":
        if streams:
            check_names(cell, streams)
        return torch_ops.layers(
            cell,
            input,
            states,
            weights,
            batch_sizes=batch_sizes,
            num_layers=len(weights) // directions,
            batch_first=batch_first,
            dropout=dropout,
            training=training,
        )
    checks.same_device_and_dtype(input, [*states, *(reset_states or ())], weights[0].first)
    dtypes = torch_ops.autocast_dtypes(call, input, states)

    if batch_sizes is not None:
        checks.no_lengths_besides(lengths)
        input, lengths = pad_packed_sequence(PackedSequence(input, batch_sizes))
        lengths = lengths.to(input.device)
    elif batch_first:
        input = input.transpose(0, 1)
    checks.has_steps(input)
    for state in (*states, *(reset_states or ())):
        if state.shape[:2] != (len(weights), input.shape[1]):
            checks.size("hidden", state, (len(weights), input.shape[1], state.shape[-1]))
    if lengths is not None and batch_sizes is None:
        lengths = checks.lengths(lengths, input.shape[0], input.shape[1], input.device)

    input, states, weights, reset_states = precision.under_autocast(input, states, weights, reset_states)

    if streams or cell.streams:
        streams = laid_out(written, streams, input, _layout(cell, input, states, weights, directions))
        streams = of_rows(written, streams, input.shape[1])
    valid = None
    if lengths is not None:
        # Values past a length may be NaN. They must not reach the weights' gradients.
        valid = valid_steps(lengths, input.shape[0])
        input = torch.where(valid.unsqueeze(-1), input, 0)
        streams = without_padding(cell, streams, valid)

    tensors = [input, *states, *(reset_states or ())]
    at_once = 1 if keep else run.layers_at_once(choice, call, tensors, weights)
    finals: list[Sequence[Tensor]] = []
    kept: dict[str, Tensor] = {}
    with precision.without_autocast(input.device):
        for first in range(0, len(weights), directions * at_once):
            place = slice(first, min(first + directions * at_once, len(weights)))
            own_resets = None if reset_states is None else [state[place] for state in reset_states]
            q = Recurrence(
                cell,
                None,
                [state[place] for state in states],
                weights[place],
                lengths,
                reset,
                own_resets,
                stacked=place.stop - first > directions,
                input=input,
                streams={name: of_paths(cell.streams[name], stream, place) for name, stream in streams.items()},
                kept=values(wanted[first // directions]),
            )
            input, others = run.layer(q, choice, backend)
            finals.append(others[: len(states)])
            kept |= by_name(wanted[first // directions], others[len(states) :])
            if dropout and training and place.stop < len(weights):
                # For a packed input, draw only for the steps within sequences, as torch.nn does.
                if batch_sizes is None:
                    input = dropout_(input, dropout)
                else:
                    input = torch.zeros_like(input).index_put((valid,), dropout_(input[valid], dropout))

    def as_input(values: Tensor) -> Tensor:
        """The values in the input's layout."""
        if batch_sizes is not None:
            # Rows are sorted by length, so the mask selects steps in the order of packed data.
            values = values[valid]
        elif batch_first:
            values = values.transpose(0, 1)
        return values if dtypes is None else values.to(dtypes[0])

    final = tuple(torch.cat(state) if len(finals) > 1 else state[0] for state in zip(*finals, strict=True))
    results = as_input(input), final if dtypes is None else _in(dtypes, final)
    return (*results, {name: as_input(kept[name]) for name in keep}) if keep else results


def _layout(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Sequence[Weights], directions: int
) -> Layout:
    """The layout of streams for an input (T, N, ·)."""
    if not cell.streams:
        return Layout({})
    lowest = Recurrence(cell, None, [state[:directions] for state in states], weights[:directions], input=input)
    return Layout(lowest.sizes | dict(zip("TB", input.shape, strict=False)), len(weights))


# fmt: off
@overload
def recurrence(
    cell: type[Cell], gates_x: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: tuple[()] = (),
    **given: Unpack[_OfRecurrence],
) -> Results: ...
@overload
def recurrence(
    cell: type[Cell], gates_x: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: Names,
    **given: Unpack[_OfRecurrence],
) -> WithKept: ...
@overload
def recurrence(
    cell: type[Cell], gates_x: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: Sequence[str],
    **given: Unpack[_OfRecurrence],
) -> Results | WithKept: ...
# fmt: on
def recurrence(
    cell: type[Cell],
    gates_x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    *,
    lengths: Tensor | None = None,
    reset: Tensor | None = None,
    reset_states: Sequence[Tensor] | None = None,
    reverse: bool = False,
    streams: Mapping[str, Tensor] = NONE,
    keep: Sequence[str] = (),
    backend: str = "auto",
) -> Results | WithKept:
    """Run one layer in one direction, from the projected input; T steps, N sequences, G gates, H hidden units.

    Args:
        cell: the cell's class, from `seqcells.cells`.
        gates_x: (T, N, G·H): W_ih x_t + b_ih for all steps.
        states: the initial states in the order of ``cell.states``, each (N, H), the first (N, P) with a
            projection ``weights.hr``.
        weights: one record. Only the weights of the time loop are read: ``hh``, ``bias_hh``, ``hr`` and ``own``.
        lengths: (N,) integers, as for `layers`, 0 allowed. Default: all sequences have T steps
        reset: (T, N) bool. ``reset[t]`` is a boundary between t-1 and t: before step t the states become
            ``reset_states``. With ``reverse``, it is before step t-1. Default: none
        reset_states: the states after a boundary, shaped as ``states``. Default: zeros.
        reverse: whether to go from the last step to the first. Default: False
        streams: further inputs of the cell by name, with the axes that the cell declares. If the cell reads the layer's
            ``input``, it is one of them.
        keep: names of values that are also returned for all steps, as for `layers`. Default: none.
        backend: see `seqcells.call.choose`; ``"torch"`` has no such operator. Default: ``"auto"``

    Returns:
        The output (T, N, H or P) and the final states. With ``keep`` also a dict of the kept values, (T, N, ·) each.

    Raises:
        RuntimeError, TypeError, ValueError: for tensors that do not match, and for invalid lengths.
    """
    if not cell.direct:
        streams = of_rows(cell, streams, gates_x.shape[1])
        cell, weights = for_engines(cell), weights.made(cell)
    checks.has_steps(gates_x)
    if lengths is not None:
        lengths = checks.lengths(lengths, gates_x.shape[0], gates_x.shape[1], gates_x.device)
    check_known(cell, streams, cell.streams)
    (wanted,) = by_layer(cell, keep, 1)
    call = call_of(cell, "recurrence", gates_x, weights, lengths=lengths, reset=reset, keep=keep)
    choice = choose.choose(call, backend)
    one = [state.unsqueeze(0) for state in states]
    reset_states = None if reset_states is None else [state.unsqueeze(0) for state in reset_states]
    q = Recurrence(cell, gates_x, one, (weights,), lengths, reset, reset_states, reverse, kept=values(wanted))
    q = q._replace(streams={name: streams[name].unsqueeze(0) for name in cell.streams if name in streams})
    output, others = run.layer(q, choice, backend)
    final = tuple(state.squeeze(0) for state in others[: len(one)])
    return (output, final, by_name(wanted, others[len(one) :])) if keep else (output, final)


# fmt: off
@overload
def step(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: tuple[()] = (),
    **given: Unpack[_Given],
) -> tuple[Tensor, ...]: ...
@overload
def step(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: Names,
    **given: Unpack[_Given],
) -> tuple[tuple[Tensor, ...], Kept]: ...
@overload
def step(
    cell: type[Cell], input: Tensor, states: Sequence[Tensor], weights: Weights, *, keep: Sequence[str],
    **given: Unpack[_Given],
) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], Kept]: ...
# fmt: on
def step(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    *,
    streams: Mapping[str, Tensor] = NONE,
    keep: Sequence[str] = (),
    backend: str = "auto",
) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], Kept]:
    """Compute one time step: input (N, input size) and states (N, H) each → the new states.

    ``streams`` have the axes that the cell declares, without T. With ``keep``, a dict of the kept values by name,
    (N, ·) each, is also returned.
    """
    final, kept = step_and_kept(cell, input, states, weights, streams, keep, backend)
    return (final, kept) if keep else final


def step_and_kept(
    cell: type[Cell],
    input: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    streams: Mapping[str, Tensor] = NONE,
    keep: Sequence[str] = (),
    backend: str = "auto",
) -> tuple[tuple[Tensor, ...], Kept]:
    """As `step`, but the dict of kept values is always returned. It may be empty."""
    written = cell
    if not cell.direct:
        cell, weights = for_engines(cell), weights.made(cell)
    (wanted,) = by_layer(cell, keep, 1)
    call = call_of(cell, "step", input, weights, keep=keep)
    choice = choose.choose(call, backend)
    if choice.backend == "torch":
        if streams:
            check_names(cell, streams)
        return torch_ops.step(cell, input, states, weights), {}
    checks.step_sizes(cell, input, states, weights)
    checks.same_device_and_dtype(input, states, weights.first)
    dtypes = torch_ops.autocast_dtypes(call, input, states)
    input, states, (weights,), _ = precision.under_autocast(input, states, [weights], None)
    one = [state.unsqueeze(0) for state in states]
    layout = _layout(cell, input.unsqueeze(0), one, (weights,), 1)._replace(steps=False)
    streams = of_rows(written, laid_out(written, streams, input, layout), len(input))
    streams = {name: of_paths(cell.streams[name], stream, slice(0, 1)) for name, stream in streams.items()}
    q = Recurrence(cell, None, one, (weights,), input=input.unsqueeze(0), streams=streams, kept=values(wanted))
    with precision.without_autocast(input.device):
        _, others = run.layer(q, choice, backend)
    # `_unsafe_view` makes no views, for which autograd forbids `detach_`. Nothing else reads their memory.
    others = tuple(torch.ops.aten._unsafe_view.default(each, each.shape[1:]) for each in others)
    final, kept = others[: len(one)], by_name(wanted, others[len(one) :])
    if dtypes is not None:
        final, kept = _in(dtypes, final), {name: value.to(dtypes[0]) for name, value in kept.items()}
    return final, kept


def _in(dtypes: Sequence[torch.dtype], states: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The states, each converted to its dtype."""
    return tuple(state.to(dtype) for state, dtype in zip(states, dtypes, strict=True))
