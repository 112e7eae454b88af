"""The persistent plan: one launch for all time steps, forward and backward.

It runs layers whose hidden state is not projected and whose recurrent weights fit on the chip. The weights are divided
among programs that are all on the device at once. Where one program holds all weights, no programs meet.

For each step and unit, training keeps numbers in the storage dtype. An LSTM keeps six (output, c and four values), or
two with `seqcells.settings(recompute=True)`. A GRU keeps five, or one. The projected input, four numbers for an LSTM
and three for a GRU, exists besides while forward runs. Its gradient exists while backward runs. In a backward that
recomputes, both hold a `recompute_window.Window` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ....request.recurrence import Backward, Recurrence
from ....system.settings import current_settings
from .. import interpreted
from ..device import barrier, sequence
from ..host import configurations, precision
from ..host.gradients import Gradients
from ..host.launch import Launch
from ..host.problem import Problem, Saved, some
from ..host.recompute_window import Window
from . import stepwise
from .shape import Shape
from .stepwise import saved_like

__all__ = [
    "backward",
    "forward",
    "saved_like",
    "seconds",
    "why_not",
    "why_not_backward",
    "why_not_faster",
    "why_not_several_programs",
]


def why_not(shape: Shape) -> str | None:
    """Why the plan cannot run a layer, or None."""
    if shape.layers > 1 and not shape.recurrent:
        # A layer of a stack waits for the sum of its neighbour's steps over all programs. That sum tells how far each
        # program is only if programs keep step with each other.
        return "a layer without a recurrent product needs no grid barrier"
    if shape.has_projection:
        return "a projection is a product of its own in each step"
    found = division_of(shape, 1)
    return why_not_cooperative(shape) or (found if isinstance(found, str) else None)


def why_not_cooperative(shape: Shape) -> str | None:
    """Why programs cannot meet on that device in that dtype, whatever the layer, or None."""
    if not (interpreted() or configurations.nvidia()):
        return "its grid barrier is written in the assembly of NVIDIA's GPUs"
    if shape.dtype == torch.float64 and not interpreted():
        return "its float64 kernels spill, or do not compile"
    return None


def why_not_backward(shape: Shape) -> str | None:
    """Why the plan cannot run a layer's backward, which `stepwise` then runs, or None."""
    found = division_of(shape, shape.recurrent, len(shape.cell.gates))
    return found if isinstance(found, str) else None


def why_not_several_programs(shape: Shape) -> str | None:
    """Why a layer does not need several programs, or None."""
    found = division_of(shape, 1)
    return None if isinstance(found, str) or found.meet else "a single program has all of its units"


def seconds(shape: Shape, gradients: bool = False) -> float | None:
    """Seconds of a layer by the model of a step, `configurations.step_cycles`; ``gradients``: with backward. None where
    the plan cannot run the layer."""
    total = 0.0
    backwards = shape.recurrent, len(shape.cell.gates)
    for sums in ((1, 1), backwards) if gradients else ((1, 1),):
        found = division_of(shape, *sums)
        if isinstance(found, str):
            return None
        steps = shape.steps + shape.layers - 1
        total += configurations.START_SECONDS + steps * found.cycles / configurations.CLOCK_RATE
    return total


def why_not_faster(shape: Shape) -> str | None:
    """Why the stepwise plan is likely faster, by the model of `seconds`, or None."""
    flops = 2 * shape.batch * shape.directions * shape.recurrent * shape.hidden**2
    step = max(configurations.STEP_SECONDS, flops / configurations.PRODUCT_RATE[shape.dtype.itemsize])
    found = division_of(shape, 1)
    if isinstance(found, str):
        return found
    return None if seconds(shape) < shape.steps * step else "launching each of its steps takes less time"


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a layer or a stack. Returns output (T, B, D·H), final states, tensors that backward needs."""
    shape = Shape.of(q)
    reason = why_not(shape)
    if reason:
        raise RuntimeError(f"the persistent plan cannot run this layer: {reason}")
    with torch.cuda.device_of(q.outside):
        return _forward(Problem(q), division_of(shape, 1), save)


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """The gradients of ``q.differentiable()``, in its order; a gradient that is not wanted may be None."""
    shape = Shape.of(q)
    division = division_of(shape, shape.recurrent, len(shape.cell.gates))
    if q.stacked:
        *saved, output = given.saved
        given = given._replace(output=output, saved=saved)
        if isinstance(division, str):
            raise RuntimeError("precision was changed between a stack's forward and its backward")
    if isinstance(division, str):
        return stepwise.backward(q, given)
    with torch.cuda.device_of(given.output), precision.obeyed_by_torch(precision.mode(given.output.dtype)):
        return _backward(Problem(q), division, given)


def _forward(q: Problem, division: configurations.Division, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    output = q.empty(q.steps, q.batch, q.directions * q.hidden)
    recompute = current_settings().recompute
    saved = q.saved(recompute) if save else None
    final = [torch.empty_like(state) for state in q.states]
    _run(
        sequence.forward,
        q,
        division,
        cell=q.kernels.forward,
        x=q.gates_x(),
        bias=q.bias,
        weight_ih=q.ih,
        bias_ih=q.bias_ih,
        initial=q.each(q.states),
        reset_states=q.each(q.reset_states_or_zeros()),
        output=output,
        final=tuple(final),
        led=False,
        saved=saved and some(saved.values),
        after=saved and some(saved.after),
        **q.counts(recompute),
    )
    kept = list(saved or ())
    if q.is_stack:
        # The caller gets the highest layer's output alone. The outputs of all layers are kept for backward only.
        output, kept = q.parts(output)[-1].contiguous(), [*kept, output] if save else []
    return output, final, kept


def _backward(q: Problem, division: configurations.Division, given: Backward) -> list[Tensor | None]:
    output, saved, grad_output = given.output, Saved(*given.saved), given.grad_output.contiguous()
    recompute = len(q.kernels.saved) > len(saved.values)
    states = {"first": q.each(q.states), "after": some(saved.after), "reset_states": q.each(q.reset_states_or_zeros())}
    window = Window(q, output, **states) if recompute else None
    # With `before` the weight's gradient is one GEMM. Prepared calls make the same GEMM, so that both give the same
    # bits.
    reads = q.bounded or (q.recurrent and not q.is_stack)
    before = q.hidden_before(output) if reads and not window else None
    d = Gradients(q, given, window.steps if window else q.steps)
    d.read = None  # the kernel itself adds the part that comes through the product
    for begin, end in window.compute() if window else ((0, q.steps),):
        _run(
            sequence.backward,
            q,
            division,
            cell=q.kernels.backward,
            weight_ih=q.ih,
            begin=begin,
            end=end,
            saved=window.saved if window else some(saved.values),
            window=window and window.steps,
            values=len(q.kernels.saved),
            before=window.before if window else before if q.bounded else None,
            result=output,
            previous=q.kernels.previous,
            next=q.kernels.next,
            grad_output=grad_output,
            grad_states=d.states,
            grad_reset_states=d.reset_states,
            grad_parameters=d.parameters,
            grad_x=d.x,
            grad_r=None if q.dr_is_dx else d.r,
            dr_is_dx=q.dr_is_dx,
            **states,
            **q.counts(recompute),
        )
        d.gather(begin, end, output, window.before[: end - begin] if window else before)
    return d.flat(saved.raw)


def division_of(shape: Shape, planes: int, between: int = 1) -> configurations.Division | str:
    """How programs divide a layer whose products sum over ``planes`` times its units, or why they cannot. In a stack,
    products with another layer's values sum over ``between`` times the units."""
    stack = (shape.layers, between) if shape.layers > 1 else ()
    return configurations.persistent(
        shape.hidden,
        shape.batch,
        shape.directions,
        len(shape.cell.gates),
        shape.recurrent,
        planes,
        shape.dtype,
        precision.mode(shape.dtype),
        *configurations.processors(shape.device),
        *stack,
    )


def _run(kernel: Any, q: Problem, division: configurations.Division, **arguments: Any) -> None:
    """Launch a kernel for all rows of the batch and all directions."""
    common = {"weight": q.hh, "parameters": q.parameters, "lengths": q.lengths, "reset": q.reset}
    common |= {"steps": q.steps, "batch": q.batch, "size": q.hidden}
    common |= {"directions": q.directions, "reverse": int(q.reverse)}
    meeting = Meeting.of(division, q.batch, q.directions, q.dtype, q.is_stack)
    if division.meet:
        room = torch.zeros(meeting.room, dtype=torch.int32, device=q.device)
        common |= {"arrived": room, "ring": room[meeting.counters :].view(q.dtype)}
    for grid, start, stop, more in launches(division, meeting, q.batch, q.directions, q.dtype):
        Launch(kernel, grid, **more, **common, **arguments)(start, stop)


class Meeting(NamedTuple):
    """How the programs of one pass meet: see `sequence`."""

    groups: int
    flags: bool
    counters: int
    """How many int32 numbers count arrivals. The ring lies behind them."""
    room: int
    """How many int32 numbers there are in all, set to zero at once; 0 where no programs meet."""

    @staticmethod
    def of(division: configurations.Division, batch: int, directions: int, dtype: torch.dtype, stack: bool) -> Meeting:
        rows = division.tile["BLOCK_B"]
        groups = triton.cdiv(batch, rows) * directions
        flags = division.meet and current_settings().flags and not stack
        if not division.meet:
            return Meeting(groups, flags, 0, 0)
        exchanged = 2 * groups * rows * sum(division.tile["CHUNKS"]) * dtype.itemsize
        counters = groups * (division.blocks if flags else 1) * barrier.APART.value
        return Meeting(groups, flags, counters, counters + exchanged // 4)


def launches(
    division: configurations.Division, meeting: Meeting, batch: int, directions: int, dtype: torch.dtype
) -> Iterator[tuple[tuple[int, int, int], int, int, dict[str, Any]]]:
    """The launches of a pass: each one's grid, its first row, the row behind its last, and further arguments. There are
    several, one after the other, if the programs of all rows and directions would not be on the device at once."""
    rows = division.tile["BLOCK_B"]
    groups = triton.cdiv(batch, rows)
    common: dict[str, Any] = {"groups": meeting.groups, "FLAGS": meeting.flags, "precision": precision.mode(dtype)}
    # With one stage the compiler keeps no second copy of what it loads for later steps.
    common |= {"num_stages": 1, **configurations.registers(), "launch_cooperative_grid": division.meet}
    if division.meet:
        # ``debug`` compiles the assertion that fails when a program has waited in vain. Checks of integer overflow stay
        # off.
        common |= {"patience": configurations.PATIENCE, "debug": True, "sanitize_overflow": False}
    for direction, first in product(range(0, directions, division.directions), range(0, groups, division.groups)):
        grid = division.blocks, min(division.groups, groups - first), division.directions
        stop = min(batch, (first + division.groups) * rows)
        yield grid, first * rows, stop, {**division.tile, **common, "first_direction": direction}
