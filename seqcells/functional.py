"""Recurrent layers as functions: what the modules call, for those who hold the weights themselves.

Three forms of the same thing, each with the one knob ``backend`` (see `seqcells.call.choose`):

* `layers`: a stack of layers, one or two directions, from input to output;
* `recurrence`: one layer in one direction, the input already projected;
* `step`: one step of a cell.
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
from .call.called import call_of
from .cells import Cell
from .derive.transformed import for_engines
from .request import checks, precision
from .request.boundaries import valid_steps
from .request.kept import by_layer, by_name, values
from .request.recurrence import Recurrence
from .request.streams import NONE, Layout, check_known, check_names, laid_out, of_paths, of_rows, without_padding
from .request.weights import Weights

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from .request.kept import Names

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
"""What is kept, by name."""
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
    """A stack of recurrent layers; T steps, N sequences, D directions, L layers, H hidden units.

    Args:
        cell: the cell's class, from `seqcells.cells`.
        input: (T, N, input size); (N, T, input size) with ``batch_first``; the data of a PackedSequence
            (sum of lengths, input size) with ``batch_sizes``.
        states: the initial states in the order of ``cell.states``, each (L·D, N, H, proj_size or what the cell says).
        weights: L·D of them, a layer's directions side by side.
        batch_sizes: as in PackedSequence.
        dropout: probability of zeroing an output of any layer but the last, where ``training``.
        lengths: (N,) integers, a tensor of any dtype of them, an array or a list: steps past a sequence's length leave
            its state alone and give zeros.
        reset: (T, N) bool, whatever ``batch_first``: a boundary between t-1 and t that nothing crosses.
        reset_states: what the states become at a boundary, shaped as ``states``. Default: zeros.
        streams: by name, what the cell reads besides its input, whatever ``batch_first``: as their axes say, (T, N, ·)
            for "TB…", the same for all layers and directions, or after one axis more of these, (L·D, T, N, ·).
        keep: the names of values of all steps that are wanted besides, see `seqcells.request.kept`. Default: none.
        backend: see `seqcells.call.choose`.

    Returns:
        The output, in the input's layout, and the final states. Under autocast their dtypes are those that torch.nn's
        layer gives, whichever backend runs and whatever torch.nn has no argument for. With ``keep`` also a dict of
        those values, each in the output's layout and dtype.

    Raises:
        RuntimeError, TypeError, ValueError: for tensors that do not fit together, and lengths that are none.
    """
    written = cell
    if not cell.direct:
        cell, weights = for_engines(cell), [w.made(cell) for w in weights]
    directions = 2 if bidirectional else 1
    # Most calls keep nothing, and are called for nothing besides.
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
        # What lies past a length may be anything, NaN included: it must not reach the weights' gradients.
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
            fresh = None if reset_states is None else [state[place] for state in reset_states]
            q = Recurrence(
                cell,
                None,
                [state[place] for state in states],
                weights[place],
                lengths,
                reset,
                fresh,
                stacked=place.stop - first > directions,
                input=input,
                streams={name: of_paths(cell.streams[name], stream, place) for name, stream in streams.items()},
                kept=values(wanted[first // directions]),
            )
            input, others = run.layer(q, choice, backend)
            finals.append(others[: len(states)])
            kept |= by_name(wanted[first // directions], others[len(states) :])
            if dropout and training and place.stop < len(weights):
                # Of a packed input as many numbers are drawn as torch.nn draws, for the steps that exist.
                if batch_sizes is None:
                    input = dropout_(input, dropout)
                else:
                    input = torch.zeros_like(input).index_put((valid,), dropout_(input[valid], dropout))

    def as_input(values: Tensor) -> Tensor:
        """In the input's layout."""
        if batch_sizes is not None:
            # In time order the steps that exist are exactly the packed ones: rows are sorted by length.
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
    """How streams lie for an input of (T, N, ·)."""
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
    """One layer in one direction, the input's part of the gates given; G gates, H hidden units.

    Args:
        cell: the cell's class, from `seqcells.cells`.
        gates_x: (T, N, G·H): W_ih x_t + b_ih for all steps.
        states: the initial states in the order of ``cell.states``, each (N, H), the first (N, P) with a
            projection ``weights.hr``.
        weights: only what the time loop uses is read: ``hh``, ``bias_hh``, ``hr`` and ``own``.
        lengths: (N,) integers, as for `layers`, 0 allowed.
        reset: (T, N) bool. ``reset[t]`` is a boundary between t-1 and t: before step t the states become
            ``reset_states``; with ``reverse``, before step t-1.
        reset_states: each shaped as its state. Default: zeros.
        reverse: whether to go from the last step to the first.
        streams: by name, each as its axes say; the layer's ``input`` too, of a cell that reads it.
        keep: the names of values of all steps that are wanted besides, as for `layers`. Default: none.
        backend: see `seqcells.call.choose`; ``"torch"`` has no such operator.

    Returns:
        The output (T, N, H or P) and the final states; with ``keep`` also a dict of those values, (T, N, ·) each.

    Raises:
        RuntimeError, TypeError, ValueError: for tensors that do not fit together, and lengths that are none.
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
    fresh = None if reset_states is None else [state.unsqueeze(0) for state in reset_states]
    q = Recurrence(cell, gates_x, one, (weights,), lengths, reset, fresh, reverse, kept=values(wanted))
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
    """One step: input (N, input size) and states (N, H) each → the new states.

    ``streams`` have the axes that the cell says, but for T. With ``keep`` there is also a dict of values of the step by
    name, (N, ·) each.
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
    """As `step`, with the dict whatever a call keeps."""
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
    # No views, whose `detach_` autograd forbids: nothing else reads the memory that these lie in.
    others = tuple(torch.ops.aten._unsafe_view.default(each, each.shape[1:]) for each in others)
    final, kept = others[: len(one)], by_name(wanted, others[len(one) :])
    if dtypes is not None:
        final, kept = _in(dtypes, final), {name: value.to(dtypes[0]) for name, value in kept.items()}
    return final, kept


def _in(dtypes: Sequence[torch.dtype], states: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Each state in its dtype."""
    return tuple(state.to(dtype) for state, dtype in zip(states, dtypes, strict=True))
