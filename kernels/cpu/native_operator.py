"""The sources of a library with the operator seqcells::recurrence, for programs that run without Python.

One file has the layers of the programs, see native_operator.h. One file for each instruction set has the forward passes
of their cells.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch

from ...cells import Cell
from ...derive.named_values import keeping
from ...derive.print_loop import STRUCT
from ...request.recurrence import Recurrence
from .call_fields import Compiled
from .compiled import TYPES, Pass, Passes, printed
from .layer_call import LayerCall, cell_of_loop, named

SHARED = "memory_pool.cpp", "team.cpp", "openmp.cpp"
"""The engine's source files that are the same for all instruction sets."""
STEPS, BATCH = "STEPS", "BATCH_SIZE"
_AXES = {"T": STEPS, "B": BATCH}
_STORED = {torch.float32: "Float", torch.float64: "Double", torch.bfloat16: "BFloat16"}


class Node(NamedTuple):
    """A layer of a program: the operator's arguments that matter, and the layer that they describe, for any number of
    time steps and sequences."""

    cell: str
    program: str
    names: tuple[str, ...]
    kept: str
    reverse: bool
    layer: Recurrence


def sources(schema: str, nodes: Sequence[Node], targets: Sequence[str]) -> dict[str, str]:
    """The texts of the files by name.

    Args:
        schema: the operator's schema.
        targets: instruction sets, best first.

    Raises:
        ValueError: the loop has no such dtype.
        DerivationError: the loop cannot run a cell.
    """
    passes: dict[tuple[str, str], int] = {}
    layers = dict.fromkeys(_layer(node, passes) for node in nodes)
    declared = "\n".join(f"namespace {target} {{ extern const Forward forwards[]; }}" for target in targets)
    sets = ", ".join(f"{{has_{target}, {target}::forwards}}" for target in targets)
    main = [
        '#include "native_operator.h"\n#include "processor.h"',
        f"namespace seqcells {{\n{declared}",
        f"static const std::vector<Instructions> instructions{{{sets}}};",
        f"static const std::vector<Layer> layers{{\n{','.join(layers)}}};\n}}",
        f'SEQCELLS_OPERATOR("{_escaped(schema)}", seqcells::instructions, seqcells::layers)\n',
    ]
    return {"layers.cpp": "\n\n".join(main)} | {f"{each}.cpp": _forwards(each, [*passes]) for each in targets}


def _forwards(target: str, passes: Sequence[tuple[str, str]]) -> str:
    """The file of one instruction set."""
    structs = [f"namespace cell_{k} {{\n{struct}}}" for k, (struct, _) in enumerate(passes)]
    rows = [
        f"    {{run_directions<Loop<{type}>>, pass_of<cell_{k}::{STRUCT}::Forward, {type}>()}},"
        for k, (_, type) in enumerate(passes)
    ]
    heads = f"target_{target}.h", "directions.h", "native_library.h", "loop.h", "cell_library.h"
    table = ["extern const Forward forwards[];", "const Forward forwards[] = {", *rows, "};"]
    return "\n\n".join(
        [
            "\n".join(f'#include "{head}"' for head in heads),
            "SEQCELLS_CELL_BEGIN",
            *structs,
            "SEQCELLS_CELL_END",
            "\n".join([f"namespace seqcells {{\nnamespace {target} {{", *table, "}\n}\n"]),
        ]
    )


def _layer(node: Node, passes: dict[tuple[str, str], int]) -> str:
    """A layer in C++. Its cell's pass gets an index among ``passes``."""
    q = node.layer
    if q.outside.dtype not in _STORED:
        raise ValueError(f"a library has layers of {', '.join(map(str, _STORED))}, not of {q.outside.dtype}")
    # Passes are printed, not compiled: another processor than this one may run them.
    cell = keeping(cell_of_loop(q), q.kept)
    both, struct = printed(cell, q.kept)
    call = LayerCall(q, kernels=Compiled(cell, Passes(*(Pass(each, (*each.arrays,), 0) for each in both))))
    forward = passes.setdefault((struct, TYPES[call.working]), len(passes))
    stored, fields = _STORED[q.outside.dtype], call.fields(False)
    count = call.kernels.count
    calls = [_trimmed([0, 0, *fields[d * count + 2 : (d + 1) * count]]) for d in range(call.directions)]
    given = [_given(q, name, stored) for name in node.names]
    made = [f"{{Type::{stored}, {{{_sizes(sizes)}}}}}" for sizes in _made(q)]
    parts = [
        ", ".join([*map(_quoted, (node.cell, node.program, " ".join(node.names), node.kept))]),
        f"{str(node.reverse).lower()}, {forward}",
        f"{{{', '.join(given)}}}",
        f"{{{', '.join(made)}}}",
        f"{{{', '.join(f'call_of({{{_sizes(each)}}})' for each in calls)}}}",
        f"{{{', '.join(f'{{{_sizes(each)}}}' for each in _addresses(node, call))}}}",
    ]
    return "{" + ",\n ".join(parts) + "}"


def _given(q: Recurrence, name: str, stored: str) -> str:
    """The C++ of one of the operator's tensors: the type and the sizes that a call must have."""
    type = {"lengths": "Long", "reset": "Bool"}.get(name, stored)
    return f"{{Type::{type}, {{{_sizes(_axes(q, name))}}}}}"


def _axes(q: Recurrence, name: str) -> Sequence[int | str]:
    """The sizes of one of the operator's tensors, with names for the time steps and sequences."""
    if name in ("lengths", "reset"):
        return (BATCH,) if name == "lengths" else (STEPS, BATCH)
    if name == "gates_x":
        return STEPS, BATCH, q.gates_x.shape[2]
    kind, _, rest = name.partition("_")
    if kind == "stream":
        sizes = (len(q.weights), *q.streams[rest].shape[1:])
        return sizes[0], *(_AXES.get(axis, size) for axis, size in zip(q.cell.streams[rest], sizes[1:], strict=True))
    if kind in ("state", "reset"):
        state = q.states[q.cell.states.index(rest.removeprefix("state_"))]
        return state.shape[0], BATCH, state.shape[2]
    role, _, d = name.rpartition("_")
    return named(q.cell, q.weights[int(d)])[role].shape


def _made(q: Recurrence) -> Iterator[Sequence[int | str]]:
    """The sizes of the results."""
    states = [shape[2] for shape in q.shapes()[1 : 1 + len(q.states)]]
    output, *kept = (shape[2] for shape in [q.shapes()[0], *q.shapes()[1 + len(states) :]])
    yield STEPS, BATCH, output
    for units in states:
        yield len(q.weights), BATCH, units
    for units in kept:
        yield STEPS, BATCH, units


def _addresses(node: Node, call: LayerCall) -> Iterator[tuple[int | str, ...]]:
    """Which tensor's address belongs in which field, for each direction. Tensors that the operator makes count after
    the tensors given."""
    q, places, made = node.layer, call.kernels.places[False], len(node.names)
    results = ["output", *(f"final.{name}" for name in q.cell.states), *(f"kept.{name}" for name in q.kept)]
    width = {"gates_x": q.gates_x.shape[2], **dict(zip(results, (shape[2] for shape in q.shapes()), strict=True))}
    for d in range(call.directions):
        arrays = [_array(q.cell, name, d) for name in node.names]
        for k, array in chain(enumerate(arrays), enumerate(results, made)):
            if array not in places:
                continue
            side_by_side = array in width and not array.startswith("final.")
            whole = array in ("lengths", "reset") or array.startswith(("weight_", "bias_"))
            whole |= array in call.weights[d].named(q.cell)
            column = d * (width[array] // call.directions) if side_by_side else 0 if whole else "PART"
            yield d, places[array], k, column


def _array(cell: type[Cell], name: str, d: int) -> str | None:
    """The loop's array that one of the operator's tensors is in a direction, or None."""
    if name in ("gates_x", "lengths", "reset"):
        return name
    for kind, array in (("reset_state_", "reset_state."), ("state_", "initial."), ("stream_", "x.")):
        if name.startswith(kind):
            return array + name.removeprefix(kind)
    role, _, direction = name.rpartition("_")
    return role if direction == str(d) else None


def _trimmed(fields: Sequence[int]) -> Sequence[int]:
    """The fields without trailing zeros."""
    last = max((k for k, each in enumerate(fields) if each), default=-1)
    return fields[: last + 1]


def _sizes(values: Sequence[int | str]) -> str:
    return ", ".join(map(str, values))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
