"""Rooflines: the least time a row can take on this machine, from measured rates and a model of the work.

Symbols: T time steps, B sequences, H hidden units, I features, G gates (R of them with a recurrent product). A time
step takes 2·B·R·H² operations for the recurrence; the input takes 2·T·B·G·H·I for all steps. A backward pass computes
the step's products once more, for dh. The gradients of the weights and of the input are products over all steps at
once. Stacked layers and the two directions may run at once, each layer a step behind the layer below.

* CPU: a step does its products at the GEMM's rate or reads its weights, and the slower one counts. The weights come
  from the level of memory that holds a working set of that size. The step ends in a thread barrier. One thread has no
  barrier, and the roofline is the lower one of one thread's and all threads'. One streaming call has all its
  products in one step.
* CUDA: a step does its products at the GEMM's rate, with weights resident on the chip. The step ends in a barrier of
  the whole grid. Input and output pass through memory at the rate of a copy, once in inference, three times in
  training. There is one launch.

Elementwise work is left out, and so is sharing a cache with other data, so a roofline may be out of reach. A roofline
is no law either: a kernel with weights in registers reads no weights. A small layer on one multiprocessor has no grid
barrier.
"""

import bisect
from typing import Any, NamedTuple

from seqcells.cells import REGISTRY

from ..schema import Roofline, Row
from ..shapes import Shape
from ..suites import SUITES

BYTES = {"float64": 8, "float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}


class Work(NamedTuple):
    """The work of one run, or of one call in streaming suites."""

    steps: int
    """Dependent steps, one after another; forward and backward steps count separately."""
    step_flops: float
    step_bytes: float
    """Bytes of weights that a step reads."""
    flops: float
    """Operations outside the steps."""
    bytes: float
    """Bytes of input and output."""


def measure(device: str, threads: int, dtypes: list[str]) -> dict[str, Any]:
    """Measure the machine's rates, in the form that `model` reads."""
    if device == "cuda":
        from . import cuda

        return cuda.measure(dtypes)
    from . import cpu

    return cpu.measure(threads, dtypes)


def work(row: Row) -> Work:
    """The first half of the model: the amount of work of a row."""
    suite, cell, size = SUITES[row.suite], REGISTRY[row.cell], BYTES[row.dtype]
    shape = Shape(row.batch, row.hidden, row.steps)
    # Lengths that are spread evenly from T/10 to T leave 0.55 of the products.
    rows = row.batch * (0.55 if suite.lengths else 1)
    widths = [suite.features(shape)] + [suite.directions * row.hidden] * (suite.layers - 1)
    recurrent = suite.layers * suite.directions * len(cell.recurrent_gates) * row.hidden**2
    inward = 0 if suite.projected else suite.directions * len(cell.gates) * row.hidden * sum(widths)
    if suite.streaming:
        step, weights = 2 * rows * (recurrent + inward), (recurrent + inward) * size
        # The gradients of the weights take one more product of the step's size.
        return Work(2, step, weights, step, 0) if suite.gradients else Work(1, step, weights, 0, 0)
    step, once = 2 * rows * recurrent, 2 * rows * row.steps * inward
    wide = len(cell.gates) * row.hidden if suite.projected else suite.features(shape)
    through = row.steps * rows * (wide + suite.directions * row.hidden) * size
    if suite.gradients:
        return Work(2 * row.steps, step, recurrent * size, 3 * once + row.steps * step, 3 * through)
    return Work(row.steps, step, recurrent * size, once, through)


def model(row: Row, measured: dict[str, Any]) -> Roofline | None:
    """The roofline of a row, or None if a rate that it needs was not measured."""
    todo = work(row)
    kinds = [_cpu(todo, row, rates) for rates in measured.get("by_threads", [])]
    kinds += [_cuda(todo, row, measured)] if "grid_barrier" in measured else []
    rooflines = [Roofline(sum(parts.values()), parts) for parts in kinds if parts]
    return min(rooflines, key=lambda roofline: roofline.seconds, default=None)


def _cpu(todo: Work, row: Row, rates: dict[str, Any]) -> dict[str, float] | None:
    gemm = rates["gemm_flops"].get(row.dtype)
    if not gemm or (rates["threads"] > 1 and rates["barrier"] is None):
        return None
    reading = todo.step_bytes / bandwidth(rates["read"], todo.step_bytes)
    step = max(todo.step_flops / gemm, reading)
    parts = {"weights" if step == reading else "products": todo.steps * step, "input": todo.flops / gemm}
    if rates["threads"] > 1 and not SUITES[row.suite].streaming:
        parts["barriers"] = todo.steps * rates["barrier"]
    return parts


def _cuda(todo: Work, row: Row, rates: dict[str, Any]) -> dict[str, float] | None:
    gemm = rates["gemm_flops"].get(row.dtype)
    if not gemm or rates["grid_barrier"] is None:
        return None
    return {
        "products": todo.steps * todo.step_flops / gemm,
        "input": todo.flops / gemm,
        "memory": todo.bytes / rates["copy"],
        "barriers": (todo.steps - 1) * rates["grid_barrier"],
        "launch": rates["launch"],
    }


def bandwidth(measured: list[list[float]], size: float) -> float:
    """Bytes a second at a working set of ``size``, interpolated between the measured sizes: [[bytes, rate], …] in
    order."""
    sizes = [each[0] for each in measured]
    place = bisect.bisect_left(sizes, size)
    if place == 0:
        return measured[0][1]
    if place == len(measured):
        return measured[-1][1]
    (low, slow), (high, fast) = measured[place - 1], measured[place]
    return slow + (fast - slow) * (size - low) / (high - low)
