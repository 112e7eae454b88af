"""Last: the plans as source text, in Triton and in C++."""

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence

from ..cells import Cell
from ..cells.activations import Activation
from .plan import Block, Plan
from .trace import Expression, reachable

# What both printed files say first.
CONTRACT = """\
The cells' kernels, one step forward and backward. Made from seqcells/cells by `make cells`: do not edit.

Elementwise, in float32 or float64, over {what}:

    {forward}
    {backward}

in the order in which the cell names their parts. x: W_ih x_t + b_ih for each gate; r: W_hh h_(t-1) + b_hh for
each recurrent gate; s: the states before the step; p: the rows of the per-unit parameters; n: the new states,
before any projection; d: the gradients of n. ds lacks what comes through r; dp is to be summed over time and
batch.

Of each cell: saved, what forward keeps for backward; shared, for each recurrent gate the gate whose dx is the
same as its dr (`step` has only their sum), or -1; previous and next, which of s and n backward reads: the others
may hold anything."""

TRITON_HEAD = '''\
"""{contract}
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from .activations import {activations}


class Kernels(NamedTuple):
    """A cell's functions, and what an engine has to keep for them; see the top of this file."""

    forward: Any
    backward: Any
    saved: tuple[str, ...]
    shared: tuple[int, ...]
    previous: tuple[bool, ...]
    next: tuple[bool, ...]'''

CPP_HEAD = """\
{contract}

#pragma once

#include <array>

#include "activations.h"

namespace seqcells {{
namespace {{"""

# Names that C++ keeps to itself and Python does not.
CPP_WORDS = """
asm auto bool catch char class const default delete do double enum explicit export extern float friend goto inline
int long mutable namespace new operator private protected public register short signed sizeof static struct switch
template this throw typedef typename union unsigned using virtual void volatile true false case"""


# How tightly each operator binds; the right operand of a binary one has to bind more tightly.
BINDS = {">": 0, "+": 1, "-": 1, "*": 2, "/": 2, "neg": 3}


def triton(plans: Sequence[Plan]) -> str:
    """The text of kernels/triton/cells.py."""
    blocks = [block for plan in plans for block in (plan.forward, plan.backward)]
    used = {v.op.name for block in blocks for v in reachable(block.roots) if isinstance(v.op, Activation)}
    contract = CONTRACT.format(
        what="tuples of tiles of one shape",
        forward="forward(x, r, s, p) -> n, saved",
        backward="backward(saved, s, n, p, d) -> dx, dr, ds, dp",
    )
    parts = [TRITON_HEAD.format(contract=contract, activations=", ".join(sorted(used)))]
    for plan in plans:
        parts.append(_triton_function(plan, "forward", "x, r, s, p", plan.forward))
        parts.append(_triton_function(plan, "backward", "saved, s, n, p, d", plan.backward))
    rows = "".join(_triton_row(plan) for plan in plans)
    return "\n\n\n".join(parts) + f"\n\n\nCELLS = {{\n{rows}}}\n"


def _triton_function(plan: Plan, kind: str, arguments: str, block: Block) -> str:
    lines = ["@triton.jit", f"def {plan.cell.name}_{kind}({arguments}):"]
    about = _about(plan, kind)
    text = "\n".join(about) + ("\n" if len(about) > 1 else "")
    lines += [f"    {line}".rstrip() for line in f'"""{text}"""'.splitlines()]
    for record, fields in _fields(plan).items():
        read = {v.args[0]: block.names[v] for v in block.leaves if v.op == record}
        if len(read) == len(fields) > 1:
            lines.append(f"    {', '.join(read[field] for field in fields)} = {record}")
        else:
            lines += [f"    {read[field]} = {record}[{i}]" for i, field in enumerate(fields) if field in read]
    lines += [f"    {block.names[v]} = {formula(v, block, repr, whole=True)}" for v in block.assigned]
    if any(value is None for values in block.results.values() for value in values):
        lines.append("    zero = tl.zeros_like(d[0])")
    results = [_tuple(["zero" if v is None else block.names[v] for v in vs]) for vs in block.results.values()]
    return "\n".join([*lines, f"    return {', '.join(results)}"])


def _triton_row(plan: Plan) -> str:
    name = plan.cell.name
    values = {
        "forward": f"{name}_forward",
        "backward": f"{name}_backward",
        "saved": _tuple([f'"{saved}"' for saved in plan.saved]),
        **{field: _tuple(map(str, getattr(plan, field))) for field in ("shared", "previous", "next")},
    }
    return f'    "{name}": Kernels(\n' + "".join(f"        {k}={v},\n" for k, v in values.items()) + "    ),\n"


def _tuple(items: Iterable[str]) -> str:
    items = list(items)
    return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"


def cpp(plans: Sequence[Plan]) -> str:
    """The text of kernels/cpu/cells.h."""
    names = " ".join(f"X({plan.cell.__name__})" for plan in plans)
    tail = ["// All of them: X is applied to each struct.", f"#define SEQCELLS_CELLS(X) {names}"]
    structs = [_cpp_struct(plan) for plan in plans]
    contract = CONTRACT.format(
        what="arrays of vectors V (results may be written over arguments)",
        forward="forward(x, r, s, p, n, saved)                  computes n, saved",
        backward="backward(saved, s, n, p, d, dx, dr, ds, dp)    computes dx, dr, ds, dp",
    )
    head = CPP_HEAD.format(contract=_commented(contract.splitlines()))
    return "\n\n".join([head, *structs, "}  // namespace\n}  // namespace seqcells", "\n".join(tail)]) + "\n"


def _cpp_struct(plan: Plan) -> str:
    cell, fields = plan.cell, _fields(plan)
    counts = {"gates": "x", "recurrent_gates": "r", "states": "s", "parameters": "p", "saves": "saved"}
    numbers = ", ".join(f"{name} = {len(fields[record])}" for name, record in counts.items())
    lines = [f"struct {cell.__name__} {{", f'    static constexpr const char* name = "{cell.name}";']
    lines.append(f"    static constexpr int {numbers};")
    for kind, name in (("int", "shared"), ("bool", "previous"), ("bool", "next")):
        values = [str(value).lower() for value in getattr(plan, name)]
        lines.append(f"    static constexpr std::array<{kind}, {len(values)}> {name}{{{', '.join(values)}}};")
    lines += ["", *_cpp_function(plan, "forward", "x r s p", "n saved", plan.forward)]
    lines += ["", *_cpp_function(plan, "backward", "saved s n p d", "dx dr ds dp", plan.backward)]
    return "\n".join([*lines, "};"])


def _cpp_function(plan: Plan, kind: str, arguments: str, results: str, block: Block) -> list[str]:
    names = {v: f"{name}_" if re.search(rf"\b{name}\b", CPP_WORDS) else name for v, name in block.names.items()}
    block = block._replace(names=names)
    text = {v: formula(v, block, "T({!r})".format, whole=True) for v in block.assigned}
    parameters = [f"const V* {a}" for a in arguments.split()] + [f"V* {a}" for a in results.split()]
    lines = [
        *_commented(_about(plan, kind)).splitlines(),
        "template <class V>",
        f"SEQCELLS_INLINE static void {kind}({', '.join(parameters)}) {{",
    ]
    if any("T(" in line for line in text.values()):
        lines.append("    using T = scalar<V>;")
    for record, fields in _fields(plan).items():
        read = {v.args[0]: names[v] for v in block.leaves if v.op == record}
        loads = [f"{read[field]} = {record}[{i}]" for i, field in enumerate(fields) if field in read]
        if loads:
            lines.append(f"    const V {', '.join(loads)};")
    lines += [f"    const auto {names[v]} = {text[v]};" for v in block.assigned]
    for target, values in zip(results.split(), block.results.values(), strict=True):
        written = [f"{target}[{i}] = {'V{}' if v is None else names[v]};" for i, v in enumerate(values)]
        if written:
            lines.append(f"    {' '.join(written)}")
    lines.append("}")
    return [f"    {line}".rstrip() for line in lines]


def formula(value: Expression, block: Block, literal: Callable[[float], str], whole: bool = False) -> str:
    """An expression in the spelling that both languages share; ``whole`` spells it out though it has a name."""
    if value.op == "constant":
        return literal(value.args[0])
    if value in block.names and not whole:
        return block.names[value]
    if isinstance(value.op, Activation):
        return f"{value.op.name}({', '.join(formula(arg, block, literal) for arg in value.args)})"

    def operand(arg: Expression, least: int) -> str:
        text = formula(arg, block, literal)
        closed = arg in block.names or BINDS.get(arg.op, least) >= least
        return text if closed else f"({text})"

    level = BINDS[value.op]
    if value.op == "neg":
        return f"-{operand(value.args[0], level)}"
    return f"{operand(value.args[0], level)} {value.op} {operand(value.args[1], level + 1)}"


def _commented(lines: Iterable[str]) -> str:
    return "\n".join(f"// {line}".rstrip() for line in lines)


def _fields(plan: Plan) -> dict[str, tuple[str, ...]]:
    """What the records hold, in order."""
    cell, states = plan.cell, plan.cell.states
    fields = {"x": cell.gates, "r": cell.recurrent_gates, "saved": plan.saved}
    return {**fields, "s": states, "n": states, "p": cell.P._fields, "d": states}


def _about(plan: Plan, kind: str) -> list[str]:
    """A printed function's documentation."""
    if kind == "backward":
        return [f"Gradients of {plan.cell.name}_forward, from what it saved: {', '.join(plan.saved) or 'nothing'}."]
    return [inspect.getdoc(plan.cell).splitlines()[0], "", *_equations(plan.cell)]


def _equations(cell: type[Cell]) -> list[str]:
    """The lines of a cell's `step`, as its author wrote them; none where there is no source to be found."""
    try:
        lines = textwrap.dedent(inspect.getsource(cell.step)).splitlines()
    except OSError:
        return []
    start = next(i for i, line in enumerate(lines) if line.rstrip().endswith(":")) + 1
    return textwrap.dedent("\n".join(lines[start:])).splitlines()
