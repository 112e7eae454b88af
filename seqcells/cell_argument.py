"""The common part of commands about a cell: finding the cell that a command line names."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from .cells import Cell
from .derive.trace import code_of

SPELLING = "module:Cell, or module:Cell[depth=5] with options; a layer's or a module's class stands for its cell"


def cell_named(spelled: str) -> type[Cell]:
    """The cell of ``module:Cell``, imported from the current folder or from an installed package.

    Raises:
        argparse.ArgumentTypeError: there is no such module, the module has no such cell, or an option is wrong or
            missing.
    """
    module, colon, name = spelled.partition(":")
    name, _, words = name.partition("[")
    if not colon or not name:
        raise argparse.ArgumentTypeError(f"{spelled!r} is not of the form {SPELLING}")
    sys.path[:0] = [] if "" in sys.path else [""]
    try:
        imported = import_module(module)
    except Exception as problem:  # the import runs the author's own code
        words = f"{module} cannot be imported: {type(problem).__name__}: {problem}"
        raise argparse.ArgumentTypeError(words) from None
    if not hasattr(imported, name):
        raise argparse.ArgumentTypeError(f"{module} has no {name}")
    there = getattr(imported, name)
    cell = getattr(there, "_declared", getattr(there, "cell", there))
    if isinstance(cell, property):
        raise argparse.ArgumentTypeError(f"{spelled} has several cells: name one, as seqcells.cells:RNNTanh")
    if not (isinstance(cell, type) and issubclass(cell, Cell)):
        raise argparse.ArgumentTypeError(f"{spelled} is no cell, no layer and no module of one: {cell!r}")
    try:
        cell = cell.with_words(words.removesuffix("]")).configured()
    except (TypeError, ValueError) as problem:
        raise argparse.ArgumentTypeError(f"{spelled}: {problem}") from None
    unset = ",".join(f"{option}=…" for option, value in cell.options.items() if value is None)
    if unset:
        raise argparse.ArgumentTypeError(f"{cell.name} needs options: {name}[{unset}]")
    return cell


def place_of(cell: type[Cell]) -> str:
    """The file and line of a cell's `step`."""
    code = code_of(cell)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}"
