"""Print: the functions of cells of one stage as Triton source, and the text of an expression in Triton and in C++."""

import ast
import inspect
import math
import textwrap
from collections.abc import Mapping, Sequence

from ..cells import Cell
from ..cells.activations import Activation, where
from .expressions import Expression
from .one_stage import Block, OneStage

TRITON = """
from collections import namedtuple

import triton
import triton.language as tl

from .activations import {activations}

Kernels = namedtuple("Kernels", "forward backward saved same_dx previous next")


{functions}


CELLS = {{
{rows}
}}
"""

# The arguments of each printed function.
SIGNATURES = {"forward": "x r s p", "backward": "saved s n p d"}

# Precedence of the operators. The right operand of a binary operator needs a higher precedence, or parentheses.
BINDS = {">": 0, "+": 1, "-": 1, "*": 2, "/": 2, "neg": 3}


def triton(derived: Sequence[OneStage]) -> str:
    """The text of kernels/triton/device/cells.py below its hand-written head."""
    values = [value for one in derived for block in (one.forward, one.backward) for value in block.values]
    return TRITON.format(
        activations=", ".join(sorted({value.op.name for value in values if isinstance(value.op, Activation)})),
        functions="\n\n\n".join(_triton_function(one, kind) for one in derived for kind in SIGNATURES),
        rows="\n".join(_triton_row(one) for one in derived),
    )


def _triton_function(one: OneStage, kind: str) -> str:
    block, about = _spelled(getattr(one, kind)), _about(one, kind)
    lines = [f"{', '.join(loads)} = {', '.join(loads.values())}" for loads in _loads(one, block)]
    lines += [f"{block.names[v]} = {formula(v, block.names, whole=True)}" for v in block.assigned]
    results = [_tuple(*("zero" if v is None else block.names[v] for v in vs)) for vs in block.results.values()]
    if any("zero" in result for result in results):
        lines.append("zero = tl.zeros_like(d[0])")
    head = f"@triton.jit\ndef {one.cell.name}_{kind}({SIGNATURES[kind].replace(' ', ', ')}):\n"
    return head + textwrap.indent("\n".join([f'"""{about}"""', *lines, f"return {', '.join(results)}"]), "    ")


def _triton_row(one: OneStage) -> str:
    name, saved = one.cell.name, _tuple(*(f'"{field}"' for field in one.fields["saved"]))
    values = [f"forward={name}_forward", f"backward={name}_backward", f"saved={saved}"]
    values += [f"{k}={_tuple(*map(str, getattr(one, k)))}" for k in ("same_dx", "previous", "next")]
    return "\n".join([f'    "{name}": Kernels(', *(f"        {value}," for value in values), "    ),"])


def _tuple(*items: str) -> str:
    return f"({', '.join(items)}{',' * (len(items) == 1)})"


def _loads(one: OneStage, block: Block) -> list[dict[str, str]]:
    """For each record that a function reads: the leaves' names, and the place of each leaf in the record."""
    read = {v.args[0]: name for v, name in block.names.items() if v.op == "leaf"}
    places = ({f"{k}.{f}": f"{k}[{i}]" for i, f in enumerate(fields)} for k, fields in one.fields.items())
    return [loads for at in places if (loads := {read[leaf]: place for leaf, place in at.items() if leaf in read})]


def _spelled(block: Block) -> Block:
    """The block with the text of each constant among its names."""
    numbers = {v: number_in_python(v.args[0]) for v in block.values if v.op == "constant"}
    return block._replace(names=block.names | numbers)


def number_in_python(value: float) -> str:
    """The text of a number in Triton source."""
    return repr(value).replace("e+", "e") if math.isfinite(value) else f'float("{value}")'


def formula(value: Expression, names: Mapping[Expression, str], whole: bool = False, number: str = "{}") -> str:
    """The text of an expression, in Triton and in C++.

    Args:
        names: the names of values, which are printed in place of the values' own formulas.
        whole: whether the formula of ``value`` itself is printed although it has a name. Default: False
        number: the format of a constant that is an argument of a function. Default: the constant's name
    """
    if value in names and not whole:
        return names[value]
    if isinstance(value.op, Activation):
        # A boundary's `where` also takes plain numbers, so its constants are not written in the format `number`.
        chosen = value.op is where and value.args[0].args[0] in ("valid", "reset")
        texts = [(arg.op == "constant" and not chosen, formula(arg, names, number=number)) for arg in value.args]
        return f"{value.op.name}({', '.join(number.format(text) if wide else text for wide, text in texts)})"

    def operand(arg: Expression, least: int) -> str:
        text = formula(arg, names, number=number)
        return text if arg in names or BINDS.get(arg.op, least) >= least else f"({text})"

    level = BINDS[value.op]
    if value.op == "neg":
        return f"-{operand(value.args[0], level)}"
    return f"{operand(value.args[0], level)} {value.op} {operand(value.args[1], level + 1)}"


def _about(one: OneStage, kind: str) -> str:
    """The docstring of a printed function."""
    if kind == "backward":
        return f"Gradients of {one.cell.name}_forward, which saved {', '.join(one.fields['saved']) or 'nothing'}."
    return equations_of(one.cell)


def equations_of(cell: type[Cell]) -> str:
    """The first line of a cell's docstring, and the body of its `step` as source."""
    title = (inspect.getdoc(cell) or cell.__name__).splitlines()[0]
    try:
        source = textwrap.dedent(inspect.getsource(cell.step))
        body = next(node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)).body
    except (OSError, SyntaxError, StopIteration):  # the source is not in a file, or `step` is no `def`
        return title
    lines = source.splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
    # The text before the first statement is indentation, or a `def` on the same line, which is replaced by spaces.
    lines[0] = " " * body[0].col_offset + lines[0][body[0].col_offset :]
    equations = textwrap.dedent("\n".join(lines))
    return f"{title}\n\n{equations.rstrip()}\n"
