"""The oracle: any cell over time as a loop of its `step` in torch.

Runs in any dtype on any device, under any transform of torch.func, and is differentiable any number of
times. Every other backend is judged by it; where none of them can run, it does. Of float16 and bfloat16 it rounds to
the storage's dtype what it gives, outputs and gradients, and nothing in between, as cuDNN keeps sums in float32.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import linear

from .boundaries import boundaries, valid_steps
from .cells import Cell
from .precision import WORKING_DTYPE
from .recurrence import Recurrence
from .weights import Weights

STEPS_OF_A_SUM = 4
"""Of the input's projection."""


def stepping(
    cell: type[Cell], weights: Weights, hidden: int
) -> Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]:
    """One step for all rows: of the gates' parts from the input and of the states, (B, H) each, it makes new states."""
    own, each = weights.named(cell), hidden // cell.heads()
    matrices = _made(cell, {name: own.get(f"weight_{name}", weights.hh) for name in cell.every_product})
    biases = {name: own.get(f"bias_{name}") for name in cell.rows_of_products()} | {"hh": weights.bias_hh}

    def multiply(name: str, operand: Tensor) -> Sequence[Tensor]:
        rows, (out, into), _, heads = cell.every_product[name]
        # Numbers of heads are stored one for each head, and computed with one for each unit.
        operand = operand[..., ::each] if into == "N" else operand
        parts = _product(operand, matrices[name], biases[name], len(rows), heads)
        return [part.repeat_interleave(each, -1) for part in parts] if out == "N" else parts

    parameters = [row for name in cell.parameters for row in own[f"weight_{name}"].unbind(0)]
    sizes = cell.row_sizes.values()
    parameters = [p.repeat_interleave(each) if size == "N" else p for p, size in zip(parameters, sizes, strict=True)]
    given = cell.given(parameters + [own[f"weight_{name}"] for name in cell.scalars], multiply)

    def step(x: Sequence[Tensor], states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        r = multiply("hh", states[0]) if cell.recurrent_gates else ()
        new = cell.advance(x, r, states, given)
        return new if weights.hr is None else (linear(new[0], weights.hr), *new[1:])

    return step


def _made(cell: type[Cell], learnt: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `step` multiplies by: the learnt ones, but for those that the cell makes of them."""
    if cell.weights is Cell.weights:
        return learnt
    blocks = {name: len(product.rows) * product.heads for name, product in cell.every_product.items()}
    parted = {name: weight.unflatten(0, (blocks[name], -1)) for name, weight in learnt.items()}
    made = {name: weight.flatten(0, 1) for name, weight in cell.weights(SimpleNamespace(**parted)).items()}
    for name, weight in made.items():
        if name not in learnt or weight.shape != learnt[name].shape:
            raise RuntimeError(f"weights of {cell.__name__} makes {name}, which is no weight or has another size")
    return learnt | made


def _product(operand: Tensor, weight: Tensor, bias: Tensor | None, blocks: int, heads: int) -> Sequence[Tensor]:
    """The row blocks of W v + b, each (B, units out); W has for each head a diagonal block."""
    if heads == 1:
        return linear(operand, weight, bias).chunk(blocks, -1)
    by_head = weight.unflatten(0, (blocks, heads, -1))
    parts = torch.einsum("...ni,knoi->k...no", operand.unflatten(-1, (heads, -1)), by_head).flatten(-2)
    return parts.unbind(0) if bias is None else [part + b for part, b in zip(parts, bias.chunk(blocks), strict=True)]


def layer(q: Recurrence) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All directions of a layer, or all layers of a stack → output, final states."""
    storage = q.outside.dtype
    work = WORKING_DTYPE.get(storage, storage)
    # The input and its weights too: else each short sum of `_gates_x` would round its part of their gradients.
    q = q.replaced([tensor.to(work) for tensor in q.differentiable()])
    if q.input is not None:
        q = q._replace(gates_x=_gates_x(q), input=None)
    output, final = _stack(q) if q.stacked else _directions(q)
    return output.to(storage), tuple(state.to(storage) for state in final)


def _directions(q: Recurrence) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs, finals = [], []
    for d, gates_x in enumerate(q.gates_x.chunk(len(q.weights), -1)):
        output, final = recurrence(
            q.cell,
            gates_x,
            [state[d] for state in q.states],
            q.weights[d],
            lengths=q.lengths,
            reset=q.reset,
            reset_states=None if q.reset_states is None else [state[d] for state in q.reset_states],
            reverse=q.reversed(d),
        )
        outputs.append(output)
        finals.append(final)
    return torch.cat(outputs, -1), tuple(torch.stack(state) for state in zip(*finals, strict=True))


def _gates_x(q: Recurrence) -> Tensor:
    """In short sums. Its gradients in sums over all steps and both directions, of which some libraries make one
    chain, would be further from the truth than torch.nn's."""
    weights = q.weights[:1] if q.stacked else q.weights
    steps = [torch.cat([linear(x, w.ih, w.bias_ih) for w in weights], -1) for x in q.input.split(STEPS_OF_A_SUM)]
    return torch.cat(steps)


def _stack(q: Recurrence) -> tuple[Tensor, tuple[Tensor, ...]]:
    output, finals = q.gates_x, []
    for k, w in enumerate(q.weights):
        gates_x = linear(output, w.ih, w.bias_ih) if k else q.gates_x
        states = [state[k : k + 1] for state in q.states]
        fresh = None if q.reset_states is None else [state[k : k + 1] for state in q.reset_states]
        own = q._replace(gates_x=gates_x, states=states, weights=[w], reset_states=fresh, stacked=False)
        output, final = _directions(own)
        finals.append(final)
    return output, tuple(torch.cat(state) for state in zip(*finals, strict=True))


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
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One layer in one direction; arguments as `seqcells.functional.recurrence` → output, final states."""
    current, weights = tuple(states), weights.recurrent
    steps = gates_x.shape[0]

    valid = None if lengths is None else valid_steps(lengths, steps)
    boundary = None
    if reset is not None:
        boundary = boundaries(reset, valid, reverse).unsqueeze(-1)
        fresh = [torch.zeros_like(s) for s in current] if reset_states is None else reset_states
    if valid is not None:
        valid = valid.unsqueeze(-1)

    inputs, step = gates_x.unbind(0), stepping(cell, weights, gates_x.shape[-1] // len(cell.gates))
    outputs: list[Tensor] = [gates_x] * steps
    order = range(steps)[::-1] if reverse else range(steps)
    for t in order:
        if boundary is not None:
            current = tuple(torch.where(boundary[t], f, s) for f, s in zip(fresh, current, strict=True))
        new = step(inputs[t].chunk(len(cell.gates), -1), current)
        if t == order[0] and not torch.jit.is_tracing():  # sizes are tensors there
            _check(cell, new, current)
        outputs[t] = new[0]
        if valid is not None:
            new = tuple(torch.where(valid[t], n, s) for n, s in zip(new, current, strict=True))
            outputs[t] = torch.where(valid[t], outputs[t], 0)
        current = new
    return torch.stack(outputs), current


def _check(cell: type[Cell], new: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """RuntimeError where `step` returns other states than there were."""
    if len(new) != len(before):
        raise RuntimeError(f"step of {cell.__name__} returns {len(new)} of its {len(before)} states")
    for name, after, state in zip(cell.states, new, before, strict=True):
        if after.shape != state.shape:
            found, expected = list(after.shape), tuple(state.shape)
            raise RuntimeError(f"step of {cell.__name__} returns {name} of size {found}, expected {expected}")
