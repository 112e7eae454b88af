"""The persistent plan: one launch for all steps, forward and backward.

It runs where the recurrent weights fit on the chip, divided among programs that are all there at once, and the hidden
state is not projected. Where one program holds all of them it needs no others, and no two ever meet.

Of each step and unit an LSTM's training keeps six numbers in the storage dtype (output, c and four values), and with
`seqcells.settings(recompute=True)` two; a GRU's five, or one. The input's projection, four and three, there is besides
while forward runs, and its gradient while backward does; recomputing, both are of a `recomputed.Window` alone.
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
from ..host.recomputed import Window
from . import stepwise
from .shape import Shape
from .stepwise import saved_like

__all__ = [
    "backward",
    "forward",
    "nobody_to_meet",
    "refuses",
    "refuses_backward",
    "saved_like",
    "seconds",
    "slower",
]


def refuses(shape: Shape) -> str | None:
    """Why the plan cannot run a layer, or None."""
    if shape.layers > 1 and not shape.recurrent:
        # What the layer above waits for is a sum of steps, whose terms say the same only where programs keep step.
        return "the programs of a layer without a recurrent product do not wait for each other"
    if shape.projected:
        return "a projection is a product of its own in each step"
    found = division_of(shape, 1)
    return why_no_programs_meet(shape) or (found if isinstance(found, str) else None)


def why_no_programs_meet(shape: Shape) -> str | None:
    """Why none do of any layer on that device, of that dtype, or None."""
    if not (interpreted() or configurations.nvidia()):
        return "its kernels are for NVIDIA's GPUs, in whose assembly its barrier is"
    if shape.dtype == torch.float64 and not interpreted():
        return "its kernels spill in float64, where the compiler takes them at all"
    return None


def refuses_backward(shape: Shape) -> str | None:
    """Why the plan cannot run a layer backward, which `stepwise` then does, or None."""
    found = division_of(shape, shape.recurrent, len(shape.cell.gates))
    return found if isinstance(found, str) else None


def nobody_to_meet(shape: Shape) -> str | None:
    """Why a layer is not for several programs, or None."""
    found = division_of(shape, 1)
    return None if isinstance(found, str) or found.meet else "a single program has all of its units"


def seconds(shape: Shape, gradients: bool = False) -> float | None:
    """What a layer takes by the model of a step, `configurations.step_cycles`; backward too with ``gradients``. None
    where the plan cannot."""
    total = 0.0
    backwards = shape.recurrent, len(shape.cell.gates)
    for sums in ((1, 1), backwards) if gradients else ((1, 1),):
        found = division_of(shape, *sums)
        if isinstance(found, str):
            return None
        steps = shape.steps + shape.layers - 1
        total += configurations.START_SECONDS + steps * found.cycles / configurations.CLOCK_RATE
    return total


def slower(shape: Shape) -> str | None:
    """Why another plan is likely the faster of those that run a layer, or None: by the model of `seconds`."""
    flops = 2 * shape.batch * shape.directions * shape.recurrent * shape.hidden**2
    step = max(configurations.STEP_SECONDS, flops / configurations.PRODUCT_RATE[shape.dtype.itemsize])
    found = division_of(shape, 1)
    if isinstance(found, str):
        return found
    return None if seconds(shape) < shape.steps * step else "launching each of its steps takes less time"


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """A layer, or a stack → output (T, B, D·H), final states, what backward needs."""
    shape = Shape.of(q)
    why_not = refuses(shape)
    if why_not:
        raise RuntimeError(f"the persistent plan cannot run this layer: {why_not}")
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
        fresh=q.each(q.fresh()),
        output=output,
        final=tuple(final),
        led=False,
        saved=saved and some(saved.values),
        after=saved and some(saved.after),
        **q.counts(recompute),
    )
    kept = list(saved or ())
    if q.is_stack:
        # Of what layers give each other the caller gets the highest one's, and is not to keep the others'.
        output, kept = q.parts(output)[-1].contiguous(), [*kept, output] if save else []
    return output, final, kept


def _backward(q: Problem, division: configurations.Division, given: Backward) -> list[Tensor | None]:
    output, saved, grad_output = given.output, Saved(*given.saved), given.grad_output.contiguous()
    recompute = len(q.kernels.saved) > len(saved.values)
    states = {"first": q.each(q.states), "after": some(saved.after), "fresh": q.each(q.fresh())}
    window = Window(q, output, **states) if recompute else None
    # One product with it, as in prepared calls, whose bits are then the same.
    reads = q.bounded or (q.recurrent and not q.is_stack)
    before = q.hidden_before(output) if reads and not window else None
    d = Gradients(q, given, window.steps if window else q.steps)
    d.read = None  # the kernel adds what came through the product to the rest
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
            grad_fresh=d.fresh,
            grad_parameters=d.parameters,
            grad_x=d.x,
            grad_r=None if q.shared else d.r,
            shared=q.shared,
            **states,
            **q.counts(recompute),
        )
        d.gather(begin, end, output, window.before[: end - begin] if window else before)
    return d.flat(saved.raw)


def division_of(shape: Shape, planes: int, between: int = 1) -> configurations.Division | str:
    """How programs divide a layer whose products sum over ``planes`` times its units, and in a stack those with what
    another layer gives over ``between`` times, or why they cannot."""
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
    """A kernel on all rows of the batch and directions."""
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
    """What the programs of one pass meet by: see `sequence`."""

    groups: int
    flags: bool
    counters: int
    """Numbers of int32 that count arrivals; behind them lies the ring."""
    room: int
    """Numbers of int32 in all, to be set to zero at once; 0 where no two programs meet."""

    @staticmethod
    def of(division: configurations.Division, batch: int, directions: int, dtype: torch.dtype, stack: bool) -> Meeting:
        rows = division.tile["ROWS"]
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
    """The launches of a pass: grid, first row and the one behind the last, and what else each is given: one, or one
    after the other where its programs would not all be there at once."""
    rows = division.tile["ROWS"]
    groups = triton.cdiv(batch, rows)
    common: dict[str, Any] = {"groups": meeting.groups, "FLAGS": meeting.flags, "precision": precision.mode(dtype)}
    # Without stages the compiler keeps no second copy of what it loads for steps to come.
    common |= {"num_stages": 1, **configurations.registers(), "launch_cooperative_grid": division.meet}
    if division.meet:
        # With the assertion of those that have waited in vain, but none that numbers do not overflow.
        common |= {"patience": configurations.PATIENCE, "debug": True, "sanitize_overflow": False}
    for direction, first in product(range(0, directions, division.directions), range(0, groups, division.groups)):
        grid = division.blocks, min(division.groups, groups - first), division.directions
        stop = min(batch, (first + division.groups) * rows)
        yield grid, first * rows, stop, {**division.tile, **common, "first_direction": direction}
