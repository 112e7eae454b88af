"""The stepwise plan: at each step one product by the GEMM library, and one kernel for all the rest.

It runs every cell at any size. A cell without a recurrent product has no such steps: one launch runs them all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...cells import Cell
from ...weights import Weights
from . import configurations, gates
from .gradients import Gradients
from .launch import Launch
from .problem import PROJECTION, PROJECTION_COUNTS, Problem, Saved
from .products import multiply


def saved_like(cell: type[Cell], gates_x: Tensor, states: Sequence[Tensor], weights: Weights) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    return list(Problem(cell, gates_x, states, weights).saved(configurations.recompute))


def forward(*arguments: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Arguments as in `seqcells.ops` → output (T, B, P), final states, what backward needs."""
    *arguments, save = arguments
    with torch.cuda.device_of(arguments[1]):
        return _forward(Problem(*arguments), save)


def backward(*arguments: Any) -> list[Tensor]:
    """Arguments as in `seqcells.ops` → gradients of gates_x, states, weights, reset states."""
    *arguments, output, saved, grad_output, grad_final = arguments
    with torch.cuda.device_of(output):
        return _backward(Problem(*arguments), output, Saved(*saved), grad_output.contiguous(), grad_final)


def _forward(q: Problem, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    output = q.empty(q.steps, q.batch, q.width)
    saved = q.saved(configurations.recompute) if save else None
    states, fresh = q.stacked(q.states, q.work), q.fresh()
    product = q.empty(q.batch, q.recurrent * q.hidden, dtype=q.work) if q.recurrent else None
    # A product reads the output before it, but for boundaries: then a ring of two states, this step's and the next's.
    ring = q.empty(2, q.batch, q.width) if q.bounded and q.recurrent else None
    common = {"slots": 2, "reset": q.reset, "lengths": q.lengths}
    result = {"output": output, "hidden": ring}
    raw = projected = project = None
    if q.projected:
        raw = saved.raw[0] if saved else q.empty(q.steps, q.batch, q.hidden)
        if q.bounded:
            projected = q.states[0].to(q.work, copy=True)
            reads = {"x": output, "states": projected, "fresh": fresh and fresh[0].to(q.work)}
            reads = {"cell": PROJECTION.forward, **reads, **PROJECTION_COUNTS}
            project = _launch(gates.forward, q, q.width, **reads, **result, **common)
        result = {"output": raw}
    step = _launch(
        gates.forward,
        q,
        q.hidden,
        cell=q.kernels.forward,
        x=q.gates_x,
        product=product,
        bias=q.weights.bias_hh,
        states=states,
        parameters=q.parameters,
        fresh=fresh and q.stacked(fresh, q.work),
        saved=saved and _some(saved.values),
        after=saved and _some(saved.after),
        **q.counts(configurations.recompute),
        **result,
        **common,
    )

    hidden = q.states[0]
    if fresh:
        hidden = torch.where(q.boundary_before(0), fresh[0], hidden)
    if not q.recurrent and not q.projected:
        step(0, q.steps)
    else:
        outputs = output.unbind()
        for i, t in enumerate(q.times):
            if q.recurrent:
                multiply(hidden, q.weights.hh.T, product)
            step(i, i + 1)
            if q.projected:
                multiply(raw[t], q.weights.hr.T, outputs[t])
            if project:
                project(i, i + 1)
            hidden = outputs[t] if ring is None else ring[(i + 1) % 2]

    final = list(states)
    if q.projected:
        final[0] = output[q.times[-1]] if projected is None else projected
    return output, [torch.empty_like(s).copy_(f) for s, f in zip(q.states, final, strict=True)], list(saved or ())


def _backward(
    q: Problem, output: Tensor, saved: Saved, grad_output: Tensor, grad_final: Sequence[Tensor]
) -> list[Tensor]:
    recompute = len(q.kernels.saved) > len(saved.values)
    previous = q.previous(recompute)
    before = q.hidden_before(output) if q.bounded or previous[0] or (recompute and q.recurrent) else None
    fresh = q.fresh()
    d = Gradients(q, grad_final)
    common = {"reset": q.reset, "lengths": q.lengths}
    result = {"grad_output": grad_output, "grad_read": d.read, "result": output}
    project = None
    if q.projected:
        reads = {"cell": PROJECTION.backward, "previous": PROJECTION.previous, "next": PROJECTION.next, "values": 0}
        writes = {"grad_states": d.hidden, "grad_fresh": d.fresh_hidden, "grad_x": d.projected, "uncut": 0}
        project = _launch(gates.backward, q, q.width, **reads, **writes, **result, **common, **PROJECTION_COUNTS)
        result = {"result": saved.raw[0]}
    window, product = _recomputed(q) if recompute and q.recurrent else (1, None)
    step = _launch(
        gates.backward,
        q,
        q.hidden,
        cell=q.kernels.backward,
        again=q.kernels.forward if recompute else None,
        x=q.gates_x,
        product=product,
        bias=q.weights.bias_hh,
        window=window,
        saved=_some(saved.values),
        values=len(q.kernels.saved),
        before=before,
        first=q.stacked(q.states, q.gates_x.dtype),
        after=_some(saved.after),
        previous=previous,
        next=q.kernels.next,
        parameters=q.parameters,
        fresh=fresh and q.stacked(fresh, q.work),
        grad_states=d.states,
        grad_fresh=d.fresh,
        grad_parameters=d.parameters,
        grad_x=d.x,
        grad_r=None if q.shared else d.r,
        uncut=int(q.projected),
        **q.counts(recompute),
        **result,
        **common,
    )

    if not q.recurrent and not q.projected:
        step(0, q.steps)
    else:
        held = None
        for i, t in reversed(list(enumerate(q.times))):
            if product is not None and held != t // window:
                held = t // window
                read = before[held * window : (held + 1) * window]
                multiply(read.flatten(0, 1), q.weights.hh.T, product[: len(read)].flatten(0, 1))
            if project:
                project(i, i + 1)
                multiply(d.projected[t], q.weights.hr, d.states[0])
            step(i, i + 1)
            if q.recurrent:
                multiply(d.r[t], q.weights.hh, d.read)
    return d.flat(q, output, saved.raw, before)


def _recomputed(q: Problem) -> tuple[int, Tensor]:
    """Memory for the recurrent products of a number of steps, computed once more → that number, (window, B, R·H)."""
    bytes_of_a_step = q.batch * q.recurrent * q.hidden * q.work.itemsize
    window = min(q.steps, configurations.RECOMPUTE_BYTES // max(1, bytes_of_a_step) or 1)
    return window, q.empty(window, q.batch, q.recurrent * q.hidden, dtype=q.work)


def _launch(kernel: Any, q: Problem, size: int, **arguments: Any) -> Launch:
    """A gates kernel over the tiles of (B, size)."""
    arguments = {"steps": q.steps, "batch": q.batch, "size": size, "reverse": q.reverse, **arguments}
    return Launch(kernel, **configurations.gates(q.batch, size, q.work), **arguments)


def _some(stack: Tensor) -> Tensor | None:
    """None in place of an empty stack."""
    return stack if len(stack) else None
