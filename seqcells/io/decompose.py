"""Exported programs without the package's operator, which run where seqcells is not installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.export import ExportedProgram

from ..call.graph_cells import cell_of
from ..cells import Cell
from ..request.boundaries import boundaries, valid_steps
from .single_step import parts, stepper


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The same program with torch's own operators only: each layer becomes a loop over the cell's step.

    The result can be saved, loaded and run without seqcells, but is slower than our operator. Dynamic numbers of time
    steps and sequences stay dynamic. The result is for inference: gradients would be those of torch's `scan`.

    Args:
        program: a result of torch.export.export.

    Raises:
        TypeError: ``program`` is no ExportedProgram.
    """
    if not isinstance(program, ExportedProgram):
        raise TypeError(f"program should be a torch.export.ExportedProgram, got: {type(program).__name__}")
    return program.run_decompositions({torch.ops.seqcells.recurrence.default: _recurrence})


def _recurrence(
    cell: str, hash: str, tensors: Sequence[Tensor], names: str, reverse: bool, backend: str, kept: str = ""
) -> list[Tensor]:
    kind, given = cell_of(cell, hash), dict(zip(names.split(), tensors, strict=True))
    directions, count = given[f"state_{kind.states[0]}"].shape[0], len(kind.states)
    sides = [_direction(kind, given, d, reverse or d == 1, tuple(kept.split())) for d in range(directions)]
    finals = [torch.stack(each) for each in zip(*(side[:count] for side in sides), strict=True)]
    output, *others = (torch.cat(each, -1) for each in zip(*(side[count:] for side in sides), strict=True))
    return [output, *finals, *others]


def _direction(cell: type[Cell], given: dict[str, Any], d: int, backwards: bool, kept: tuple[str, ...]) -> list[Tensor]:
    """The final states of one direction, then the outputs and the kept values of all time steps."""
    masks = {}
    if "lengths" in given:
        masks["valid"] = valid_steps(given["lengths"], given["gates_x"].shape[0])
    if "reset" in given:
        masks["boundary"] = boundaries(given["reset"], masks.get("valid"), backwards)
    states, steps, others, layout = parts(cell, given, d, kept, masks, lambda v, k: v[k], lambda v, a, b: v[..., a:b])
    begin, count = [state.clone() for state in states.values()], len(states)

    def combine(*tensors: Tensor) -> list[Tensor]:
        before, now, own = tensors[:count], tensors[count : count + len(steps)], tensors[count + len(steps) :]
        new, found = stepper(layout, own)(before, now)
        return [value.clone() for value in (*new, *found)]  # results must not alias each other or an argument

    # The operator runs in one direction only, so reversed sequences are flipped. It is called directly, since torch's
    # function `scan` would let dynamo trace `stepper`.
    scanned = [value.flip(0) if backwards else value for value in steps.values()]
    found = scan_op(combine, begin, scanned, tuple(others.values()))
    outputs = [value.flip(0) if backwards else value for value in found[count:]]
    return [*found[:count], *outputs]
