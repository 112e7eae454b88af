"""The stepwise plan: at each step one product by the GEMM library, and one kernel for all the rest.

It runs every cell at any size. A cell without a recurrent product has no such steps: one launch runs them all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...recurrence import Recurrence
from . import configurations, gates
from .gradients import Gradients
from .launch import Launch
from .problem import PROJECTION, PROJECTION_COUNTS, Problem, Saved
from .products import multiply


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves, those of each direction after one another."""
    return [tensor for one in _directions(q) for tensor in one.saved(configurations.recompute)]


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """As in `seqcells.ops`."""
    with torch.cuda.device_of(q.gates_x):
        found = [_forward(one, save) for one in _directions(q)]
    output = torch.cat([output for output, _, _ in found], -1)
    final = [torch.stack(states) for states in zip(*(final for _, final, _ in found), strict=True)]
    return output, final, [tensor for _, _, saved in found for tensor in saved]


def backward(
    q: Recurrence, output: Tensor, saved: Sequence[Tensor], grad_output: Tensor, grad_final: Sequence[Tensor]
) -> list[Tensor]:
    """As in `seqcells.ops`."""
    ones, n = _directions(q), len(Saved._fields)
    outputs, grads = output.chunk(len(ones), -1), grad_output.chunk(len(ones), -1)
    gates_x, states, weights, reset = [], [], [], []
    with torch.cuda.device_of(output):
        for d, one in enumerate(ones):
            kept = Saved(*saved[d * n : (d + 1) * n])
            final = [g[d] for g in grad_final]
            flat = iter(_backward(one, outputs[d].contiguous(), kept, grads[d].contiguous(), final))
            gates_x.append(next(flat))
            states.append([next(flat) for _ in one.states])
            weights += [next(flat) for _ in one.weights.present()]
            reset.append(list(flat))
    stacked = [[torch.stack(each) for each in zip(*parts, strict=True)] for parts in (states, reset)]
    return [torch.cat(gates_x, -1), *stacked[0], *weights, *stacked[1]]


def _directions(q: Recurrence) -> list[Problem]:
    return [
        Problem(
            q.cell,
            gates_x,
            [state[d] for state in q.states],
            q.weights[d].recurrent,
            q.lengths,
            q.reset,
            None if q.reset_states is None else [state[d] for state in q.reset_states],
            q.reversed(d),
        )
        for d, gates_x in enumerate(q.gates_x.chunk(len(q.weights), -1))
    ]


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
