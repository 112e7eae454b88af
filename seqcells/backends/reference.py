"""The reference backend: any cell over time, as a loop over its `step` in torch.

The reference runs in any dtype on any device, under any transform of torch.func, and is differentiable any number of
times. Every other backend is compared with it, and it runs the calls that no other backend can run. For float16 and
bfloat16 it rounds only outputs and gradients to the storage's dtype, and computes in float32, as cuDNN does in sums.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.jit._trace import is_tracing
from torch.nn.functional import linear

from ..cells import Cell
from ..request.boundaries import boundaries, valid_steps
from ..request.precision import WORKING_DTYPE
from ..request.recurrence import Recurrence, letters_of
from ..request.weights import Weights

STEPS_OF_A_SUM = 4
"""Time steps of the input that one product projects: see `_gates_x`."""


def stepping(
    cell: type[Cell], weights: Weights, hidden: int
) -> Callable[[Sequence[Tensor], Sequence[Tensor]], dict[str, Tensor]]:
    """A function that runs one step for all sequences.

    Its first argument has the input's gates and the streams, its second argument the states, (B, ·) each. It returns
    the cell's results by name, the new states first.
    """
    weights = weights.made(cell)
    own, each = weights.named(cell), hidden // cell.heads()
    matrices = {name: own[f"weight_{name}"] for name in cell.rows_of_products()}
    if weights.hh is not None:
        matrices["hh"] = weights.hh
    biases = {name: own.get(f"bias_{name}") for name in cell.rows_of_products()} | {"hh": weights.bias_hh}

    # A number of each head is stored once for each head, but repeated for each of the head's units in computations.
    def spread(v: Tensor, size: str) -> Tensor:
        return v.repeat_interleave(each, -1) if size == "N" else v

    def stored(v: Tensor, size: str) -> Tensor:
        return v[..., ::each] if size == "N" and v.shape[-1] == hidden else v

    def multiply(name: str, operand: Tensor) -> Sequence[Tensor]:
        rows, (out, into), _, heads = cell.every_product[name]
        parts = _product(stored(operand, into), matrices[name], biases[name], len(rows), heads)
        return [spread(part, out) for part in parts]

    parameters = [row for name in cell.parameters for row in own[f"weight_{name}"].unbind(0)]
    parameters = [spread(p, size) for p, size in zip(parameters, cell.row_sizes.values(), strict=True)]
    given = cell.given(parameters + [own[f"weight_{name}"] for name in cell.scalars], multiply)
    letters = {**letters_of(cell, " ".join(cell.results)), **cell.state_sizes}
    of_x = [*("H" for _ in cell.gates), *(axes.strip("TB") for axes in cell.streams.values())]

    def step(x: Sequence[Tensor], states: Sequence[Tensor]) -> dict[str, Tensor]:
        x = [spread(value, size) for value, size in zip(x, of_x, strict=True)]
        before = [spread(state, size) for state, size in zip(states, cell.state_sizes.values(), strict=True)]
        r = multiply("hh", cell.fed_back(x, before)) if cell.recurrent_gates else ()
        new = cell.advance(x, r, before, given)
        if len(new) != len(cell.results):
            what = "states" if len(cell.results) == len(states) else f"results ({', '.join(cell.results)})"
            raise RuntimeError(f"step of {cell.__name__} returns {len(new)} of its {len(cell.results)} {what}")
        found = {name: stored(v, letters[name]) for name, v in zip(cell.results, new, strict=True)}
        return found if weights.hr is None else found | {cell.states[0]: linear(found[cell.states[0]], weights.hr)}

    return step


def _product(operand: Tensor, weight: Tensor, bias: Tensor | None, blocks: int, heads: int) -> Sequence[Tensor]:
    """The row blocks of W v + b, each (B, units out); with several heads, W has one diagonal block for each head."""
    if heads == 1:
        return linear(operand, weight, bias).chunk(blocks, -1)
    by_head = weight.unflatten(0, (blocks, heads, -1))
    parts = torch.einsum("...ni,knoi->k...no", operand.unflatten(-1, (heads, -1)), by_head).flatten(-2)
    return parts.unbind(0) if bias is None else [part + b for part, b in zip(parts, bias.chunk(blocks), strict=True)]


def layer(q: Recurrence) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All directions of a layer, or all layers of a stack → output, final states and kept values."""
    storage = q.outside.dtype
    work = WORKING_DTYPE.get(storage, storage)
    # The input and its weights are converted too: otherwise each short sum of `_gates_x` would round its part of their
    # gradients.
    q = q.replaced([tensor.to(work) for tensor in q.differentiable()])
    if q.input is not None:
        q = q.projected(_gates_x(q, q.input))
    output, *others = _stack(q) if q.stacked else _directions(q)
    return output.to(storage), tuple(each.to(storage) for each in others)


def _directions(q: Recurrence) -> list[Tensor]:
    sides = [_direction(q, d, gates_x) for d, gates_x in enumerate(q.outside.chunk(len(q.weights), -1))]
    results, after = [*zip(*sides, strict=True)], 1 + len(q.states)
    together = [torch.cat(result, -1) for result in (results[0], *results[after:])]
    return [together[0], *map(torch.stack, results[1:after]), *together[1:]]


def _gates_x(q: Recurrence, input: Tensor) -> Tensor:
    """The projection of the input, `STEPS_OF_A_SUM` time steps at a time.

    One product over all steps would have gradients that sum over all steps and both directions. Some libraries compute
    such a sum as one chain, with larger rounding errors than torch.nn's gradients have.
    """
    weights = q.weights[:1] if q.stacked else q.weights
    if weights[0].ih is None:
        return input[..., :0]
    pairs = [(w.ih, w.bias_ih) for w in weights if w.ih is not None]
    return torch.cat([torch.cat([linear(x, *pair) for pair in pairs], -1) for x in input.split(STEPS_OF_A_SUM)])


def _stack(q: Recurrence) -> list[Tensor]:
    output, finals = q.outside, []
    for k, w in enumerate(q.weights):
        gates_x = q.outside if not k else output[..., :0] if w.ih is None else linear(output, w.ih, w.bias_ih)
        states = [state[k : k + 1] for state in q.states]
        reset_states = None if q.reset_states is None else [state[k : k + 1] for state in q.reset_states]
        own = q._replace(gates_x=gates_x, states=states, weights=[w], reset_states=reset_states, stacked=False)
        output, *final = _directions(own)
        finals.append(final)
    return [output, *map(torch.cat, zip(*finals, strict=True))]


def _direction(q: Recurrence, d: int, gates_x: Tensor) -> list[Tensor]:
    """One direction of a layer → output, final states and kept values."""
    cell, weights, current = q.cell, q.weights[d].recurrent, tuple(state[d] for state in q.states)
    if q.kept:
        from ..derive.named_values import keeping

        cell = keeping(cell, q.kept)
    steps, batch = gates_x.shape[:2]

    valid = None if q.lengths is None else valid_steps(q.lengths, steps)
    boundary, reset_states = None, current
    if q.reset is not None:
        boundary = boundaries(q.reset, valid, q.reversed(d)).unsqueeze(-1)
        reset_states = (
            [torch.zeros_like(s) for s in current] if q.reset_states is None else [s[d] for s in q.reset_states]
        )
    if valid is not None:
        valid = valid.unsqueeze(-1)

    inputs, step = _inputs(q, d, gates_x), stepping(cell, weights, q.hidden)
    # The output may also be a state or a kept value. A value that is no state may have to be expanded for the result.
    wanted = q.output, *q.kept
    widths = {name: q.width(name) for name in wanted if name not in cell.states}
    found: list[list[Tensor]] = [[gates_x] * steps for _ in wanted]
    order = range(steps)[::-1] if q.reversed(d) else range(steps)
    for t in order:
        if boundary is not None:
            current = tuple(torch.where(boundary[t], f, s) for f, s in zip(reset_states, current, strict=True))
        results = step(inputs(t), current)
        new = tuple(results[name] for name in cell.states)
        if t == order[0] and not is_tracing():  # under torch.jit.trace sizes are tensors
            _check(cell, new, current)
        for name, values in zip(wanted, found, strict=True):
            values[t] = results[name].expand(batch, widths[name]) if name in widths else results[name]
        if valid is not None:
            new = tuple(torch.where(valid[t], n, s) for n, s in zip(new, current, strict=True))
            for values in found:
                values[t] = torch.where(valid[t], values[t], 0)
        current = new
    return [torch.stack(found[0]), *current, *map(torch.stack, found[1:])]


def _inputs(q: Recurrence, d: int, gates_x: Tensor) -> Callable[[int], list[Tensor]]:
    """A function of a time step t: the input's gates and the streams at t, for one direction."""
    gates, count = gates_x.unbind(0), len(q.cell.gates)
    streams = []
    for name, axes in q.cell.streams.items():
        stream = q.streams[name][d]
        streams.append(("T" in axes, stream if axes.strip("TB") else stream.unsqueeze(-1)))

    def at(t: int) -> list[Tensor]:
        parts = [*gates[t].chunk(count, -1)] if count else []
        return parts + [stream[t] if of_steps else stream for of_steps, stream in streams]

    return at


def _check(cell: type[Cell], new: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Raise a RuntimeError if `step` returns states of other shapes than it was given."""
    for name, after, state in zip(cell.states, new, before, strict=True):
        if after.shape != state.shape:
            found, expected = list(after.shape), tuple(state.shape)
            raise RuntimeError(f"step of {cell.__name__} returns {name} of size {found}, expected {expected}")
