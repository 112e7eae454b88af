"""Exported programs without the package's operator, for where there is no seqcells."""

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
from .steps import parts, stepper


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The same program of torch's own operators: each layer a loop over the cell's step, slower than ours.

    It is saved, loaded and run without seqcells, with as dynamic time steps and sequences as before. For inference:
    torch's `scan`, which it is made of, has gradients of its own.

    Args:
        program: of torch.export.export.

    Raises:
        TypeError: it is none.
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
    """Final states, outputs and what is kept of all steps."""
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
        return [value.clone() for value in (*new, *found)]  # none may be another, or an input

    # The operator knows one direction. It is called as it is: torch's function would have dynamo read `stepper`.
    scanned = [value.flip(0) if backwards else value for value in steps.values()]
    found = scan_op(combine, begin, scanned, tuple(others.values()))
    outputs = [value.flip(0) if backwards else value for value in found[count:]]
    return [*found[:count], *outputs]
