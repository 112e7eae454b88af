"""Published cells that the equation language must be able to express, and a few invented cells that use all its
features.

Most published cells are in the package, `seqcells.cells.LIBRARY`.
"""

import importlib
from pathlib import Path

from seqcells import cells
from seqcells.cells import LIBRARY, Cell


def every() -> dict[str, type[Cell]]:
    """The cells of this folder and of the library by name."""
    found = {cell.name: cell for cell in (getattr(cells, name) for name in LIBRARY)}
    for file in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = importlib.import_module(f"{__name__}.{file.stem}")
        own = (value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__)
        found |= {cell.name: cell for cell in own if isinstance(cell, type)}
    return found
