"""The engine's functions, as `seqcells.execute` has them, and what prepares many calls at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...precision import WORKING_DTYPE
from ...recurrence import Backward, Recurrence
from ...weights import Weights
from .call import EngineCall, has_path, several_steps
from .library import kernels, maker, pooled
from .linear import gemm, linear, linear_gradients
from .prepared import Inference, Training


def output_maker(like: Tensor, steps: int) -> Callable[[], Tensor]:
    """What makes a layer's output in training."""
    return maker(like)


__all__ = ["Inference", "Training", "backward", "forward", "kernels", "maker", "output_maker", "saved_like"]


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """As `seqcells.execute` has it. The input is projected inside the loop unless several steps are to be
    differentiated."""
    inside = q.input is not None and not (save and several_steps(q))
    call = EngineCall(q, inside)
    output, final = call.empty_output(), call.empty_states()
    saved = _saved(q, pooled) if save else []
    if inside:
        x = {"input": call.plain(q.input), "features": q.input.shape[2]}
        x |= {"weight_ih": [w.ih for w in call.weights], "bias_ih": [w.bias_ih for w in call.weights]}
    else:
        gates_x = q.gates_x if q.input is None else linear(q.input, *q.input_weights)
        x = {"gates_x": call.each(call.plain(gates_x))}
    call.run(
        False,
        **x,
        output=call.each(output),
        final=_by_direction(final),
        saved=list(saved[0].unbind()) if saved else None,
        path=_paths(call, saved[1:]),
    )
    return call.stored(output), [call.stored(state) for state in final], saved


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """As `seqcells.execute` has it."""
    call, wanted = EngineCall(q), given.wanted
    values, *path = given.saved
    output = call.plain(given.output)
    previous = [call.previous_hidden(part, d) for d, part in enumerate(call.each(output))]
    grad_gates_x = call.empty(*output.shape[:2], call.directions * len(call.cell.gates) * call.hidden)
    width = call.kernels.shared.count(-1) * call.hidden
    grad_product = [call.empty(call.steps, call.batch, width) for _ in q.weights]
    grad_states = [call.working_like(state) for state in call.states]
    grad_reset = None if q.reset_states is None else [call.working_like(state) for state in call.states]
    grads = [
        Weights(
            bias_ih=call.working_like(w.bias_ih) if want.bias_ih else None,
            bias_hh=call.working_like(w.bias_hh) if want.bias_hh else None,
            hr=None if w.hr is None else call.empty(call.steps, call.batch, call.projected),
            own=() if unit is None else (call.working_like(unit),),
        )
        for w, want, unit in zip(q.weights, wanted.weights, call.unit, strict=True)
    ]
    call.run(
        True,
        output=call.each(output),
        saved=list(values.unbind()),
        path=_paths(call, path),
        previous_hidden=previous,
        grad_output=call.each(call.plain(given.grad_output)),
        grad_final=_by_direction([call.plain(g) for g in given.grad_final]),
        grad_gates_x=call.each(grad_gates_x),
        grad_product=grad_product,
        grad_projected=[g.hr for g in grads],
        grad_initial=_by_direction(grad_states),
        grad_reset=_by_direction(grad_reset),
        grad_unit=[next(iter(g.own), None) for g in grads],
        grad_bias_ih=[g.bias_ih for g in grads],
        grad_bias_hh=[g.bias_hh for g in grads],
    )
    outside, grad_ih = call.stored(grad_gates_x), None
    if q.input is not None:
        both = wanted.input, any(want.ih for want in wanted.weights)
        outside, grad_ih = linear_gradients(outside, q.input, q.input_weights[0], both)
    flat = [outside, *grad_states]
    for d, (w, g, grad_x) in enumerate(zip(call.weights, grads, call.each(grad_gates_x), strict=True)):
        want = wanted.weights[d]
        if want.ih:
            g = g._replace(ih=grad_ih.chunk(call.directions)[d])
        if want.hh:
            g = g._replace(hh=_grad_hh(call, w, previous[d], grad_x, grad_product[d]))
        if w.hr is not None:
            g = g._replace(hr=gemm(g.hr.flatten(0, 1).T, call.plain(path[0][d].flatten(0, 1))))
        if w.own:
            g = g._replace(own=g.own[0].split([len(rows) for rows in w.own]))
        flat += q.used[d].matching(g)
    return [grad if grad is None else call.stored(grad) for grad in [*flat, *(grad_reset or ())]]


def _grad_hh(
    call: EngineCall, weights: Weights, previous: Tensor, grad_gates_x: Tensor, grad_product: Tensor
) -> Tensor:
    """The gradient of weight_hh: one product over all steps for each run of gates that lie together."""
    grad, rows = torch.empty_like(weights.hh), call.hidden
    for run in call.kernels.runs():
        source = (grad_product if run.own else grad_gates_x).flatten(0, 1)
        part = source[:, run.column * rows : (run.column + run.count) * rows]
        gemm(part.T, previous.flatten(0, 1), out=grad[run.first * rows : (run.first + run.count) * rows])
    return grad


def saved_like(q: Recurrence) -> list[Tensor]:
    """As `seqcells.execute` has it: the values of all units (D, T, B, A·H), then the paths (D, T, B, H) that backward
    reads."""
    return _saved(q, lambda shape, dtype: q.outside.new_empty(shape, dtype=dtype))


def _saved(q: Recurrence, empty: Callable[[Sequence[int], torch.dtype], Tensor]) -> list[Tensor]:
    dtype = WORKING_DTYPE.get(q.outside.dtype, q.outside.dtype)
    row, directions, hidden = kernels(q.cell.name), len(q.weights), q.hidden
    steps, batch, _ = q.outside.shape
    counts = (row.saves, *[1] * sum(has_path(row, q.weights[0])))
    return [empty((directions, steps, batch, k * hidden), dtype) for k in counts]


def _paths(call: EngineCall, kept: Sequence[Tensor]) -> list[list[Tensor | None]]:
    """For each direction, each state's path or None."""
    rest = iter(kept)
    stacks = [next(rest, None) if has else None for has in has_path(call.kernels, call.weights[0])]
    return [[None if stack is None else stack[d] for stack in stacks] for d in range(call.directions)]


def _by_direction(states: Sequence[Tensor] | None) -> list[list[Tensor]] | None:
    """(D, B, ·) of each state → of each direction its states."""
    # By unbind: to iterate over a tensor asks first whether somebody watches, which a short sequence feels.
    return None if states is None else [list(parts) for parts in zip(*(s.unbind() for s in states), strict=True)]
