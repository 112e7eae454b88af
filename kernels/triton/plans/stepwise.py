"""The stepwise plan: at each time step one GEMM of the library, and one kernel for everything else.

It runs every cell at any size. A cell with neither a recurrent product nor a projection has no GEMM in a step: one
launch runs all steps. Both directions of a layer share one launch and one GEMM; only a projection has a GEMM for each
direction.

In fused steps the kernel makes the product too, so a step is one launch. Backward is the same for both kinds of steps.
A cell of several stages has such a step for each stage: see `staged_stepwise`.
"""

from typing import Any

import torch
from torch import Tensor

from ....request.recurrence import Backward, Recurrence
from ....system.settings import current_settings
from ..device import gates
from ..host import configurations, precision, printed_kernels
from ..host.gemm import multiply
from ..host.gradients import Gradients
from ..host.launch import Launch
from ..host.problem import PROJECTION, PROJECTION_COUNTS, Problem, Saved, some
from ..host.recompute_window import Window
from . import staged_stepwise
from .shape import Shape

__all__ = ["backward", "forward", "saved_like", "why_not"]


def why_not(shape: Shape) -> None:
    """Always None: this plan takes any size."""


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors of the shapes that `forward` saves."""
    if printed_kernels.is_staged(q.cell, q.kept):
        return staged_stepwise.saved_like(q)
    return list(Problem(q).saved(current_settings().recompute))


def forward(q: Recurrence, save: bool, fused: bool = False) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer, by fused steps if ``fused``. Returns output (T, B, D·P), final states, tensors that backward
    needs."""
    if printed_kernels.is_staged(q.cell, q.kept):
        return staged_stepwise.forward(q, save)
    with torch.cuda.device_of(q.outside), precision.obeyed_by_torch(precision.mode(q.outside.dtype)):
        return _forward(Problem(q), save, fused)


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    if printed_kernels.is_staged(q.cell, q.kept):
        return staged_stepwise.backward(q, given)
    with torch.cuda.device_of(given.output), precision.obeyed_by_torch(precision.mode(given.output.dtype)):
        return _backward(Problem(q), given)


def _forward(q: Problem, save: bool, fused: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    output = q.empty(q.steps, q.batch, q.directions * q.width)
    recompute = current_settings().recompute
    saved = q.saved(recompute) if save else None
    states, reset_states, hidden = q.stacked(q.states, q.work), q.reset_states_or_zeros(), q.first_hidden()
    product = ring = None
    if q.recurrent and not fused:
        product = q.empty(q.directions, q.batch, q.recurrent * q.hidden, dtype=q.work)
    # A product reads the output of the step before, unless boundaries come between, or two directions are at two times.
    # Then it reads a ring of two hidden states, this step's and the next step's. A fused step reads that ring too, in
    # its kernel.
    if q.recurrent and (q.bounded or q.directions > 1 or fused):
        ring = q.empty(2, q.directions, q.batch, q.width)
        ring[0].copy_(hidden)
    common = {"slots": 2, "reset": q.reset, "lengths": q.lengths}
    result = {"output": output, "hidden": ring}
    raw = projected = project = None
    if q.has_projection:
        raw = saved.raw[0] if saved else q.empty(q.steps, q.batch, q.directions * q.hidden)
        if q.bounded or q.directions > 1:
            projected = q.states[0].to(q.work, copy=True)
            reads = {"x": output, "states": projected, "reset_states": reset_states and (reset_states[0],)}
            reads = {"cell": PROJECTION.forward, **reads, **PROJECTION_COUNTS}
            project = _launch(gates.forward, q, q.width, **reads, **result, **common)
        result = {"output": raw}
    own_product = {"product": product}
    if fused:
        mode = precision.mode(output.dtype)
        own_product = configurations.fused_step(q.batch, q.hidden, q.directions, output.dtype, mode)
        own_product |= {"weight": q.hh, "precision": mode}
    step = _launch(
        gates.forward,
        q,
        q.hidden,
        cell=q.kernels.forward,
        x=q.gates_x(),
        bias=q.bias,
        states=states,
        parameters=q.parameters,
        reset_states=q.each(reset_states),
        saved=saved and some(saved.values),
        after=saved and some(saved.after),
        **own_product,
        **q.counts(recompute),
        **result,
        **common,
    )

    if not q.recurrent and not q.has_projection:
        step(0, q.steps)
    else:
        outputs, raws = q.at_steps(output), q.at_steps(raw) if q.has_projection else ()
        slots = None if ring is None else [q.single(slot) for slot in ring]
        read = q.single(hidden)
        for i in range(q.steps):
            if product is not None:
                multiply(read, q.single(q.hh).mT, q.single(product))
            step(i, i + 1)
            if q.has_projection:
                for a, w, out in zip(raws[i], q.weights, outputs[i], strict=True):
                    multiply(a, w.hr.mT, out)
            if project:
                project(i, i + 1)
            read = outputs[i][0] if slots is None else slots[(i + 1) % 2]

    final = list(states)
    if q.has_projection:
        final[0] = outputs[-1][0].unsqueeze(0) if projected is None else projected
    return output, [torch.empty_like(s).copy_(f) for s, f in zip(q.states, final, strict=True)], list(saved or ())


def _backward(q: Problem, given: Backward) -> list[Tensor | None]:
    output, saved, grad_output = given.output, Saved(*given.saved), given.grad_output.contiguous()
    recompute = len(q.kernels.saved) > len(saved.values)
    previous = q.previous(recompute)
    window = Window(q, output) if recompute else None
    before = q.hidden_before(output) if q.bounded and not window else None
    reset_states = q.reset_states_or_zeros()
    d = Gradients(q, given, window.steps if window else q.steps)
    common = {"reset": q.reset, "lengths": q.lengths}
    result = {"grad_output": grad_output, "grad_read": d.read, "result": output}
    project = None
    if q.has_projection:
        reads = {"cell": PROJECTION.backward, "previous": PROJECTION.previous, "next": PROJECTION.next, "values": 0}
        writes = {"grad_states": d.hidden, "grad_reset_states": d.reset_hidden, "grad_x": d.projected, "uncut": 0}
        project = _launch(gates.backward, q, q.width, **reads, **writes, **result, **common, **PROJECTION_COUNTS)
        result = {"result": saved.raw[0]}
    step = _launch(
        gates.backward,
        q,
        q.hidden,
        cell=q.kernels.backward,
        again=q.kernels.forward if recompute else None,
        x=window and window.x,
        product=window and window.product,
        bias=q.bias,
        window=window and window.steps,
        saved=some(saved.values),
        values=len(q.kernels.saved),
        before=window.before if window else before,
        first=q.each(q.states),
        after=some(saved.after),
        previous=previous,
        next=q.kernels.next,
        parameters=q.parameters,
        reset_states=q.each(reset_states),
        grad_states=d.states,
        grad_reset_states=d.reset_states,
        grad_parameters=d.parameters,
        grad_x=d.x,
        grad_r=None if q.dr_is_dx else d.r,
        grad_product=d.product,
        uncut=int(q.has_projection),
        **q.counts(recompute),
        **result,
        **common,
    )

    reached, inner = (q.at_steps(d.projected), d.states[0].unbind()) if q.has_projection else ((), ())
    for first, stop in window.compute() if window else ((0, q.steps),):
        gradients = q.at_steps(d.r[: stop - first]) if q.recurrent and d.product is None else None
        if not q.recurrent and not q.has_projection:
            step(first, stop)
        for i in reversed(range(first, stop) if q.recurrent or q.has_projection else ()):
            if project:
                project(i, i + 1)
                for a, w, out in zip(reached[i], q.weights, inner, strict=True):
                    multiply(a, w.hr, out)
            step(i, i + 1)
            if q.recurrent:
                dr = d.product if gradients is None else gradients[i - first][0]
                multiply(dr, q.single(q.hh), q.single(d.read))
        d.gather(first, stop, output, window.before[: stop - first] if window else before)
    return d.flat(saved.raw)


def _launch(kernel: Any, q: Problem, size: int, **arguments: Any) -> Launch:
    """A gates kernel over the tiles of (D, B, size)."""
    common = {"steps": q.steps, "batch": q.batch, "size": size, "directions": q.directions, "reverse": int(q.reverse)}
    return Launch(kernel, **{**configurations.gates(q.batch, size, q.directions, q.work), **common, **arguments})
