"""How a graph identifies a cell: by the cell's name, and by the hash of the cell's equations at that time."""

from ..cells import Cell
from ..derive.transformed_cells import cells_of
from ..system.untraced import constant


@constant
def program(cell: type[Cell]) -> str:
    """The hash of a cell's equations. It is ``""`` for a cell that cannot be derived: only the reference runs it."""
    from ..derive.equation_hash import identity
    from ..derive.expressions import DerivationError

    try:
        return identity(cell)
    except DerivationError:
        return ""


def cell_of(name: str, hash: str) -> type[Cell]:
    """The cell with that name and that hash of equations. An earlier definition under this name counts too.

    Raises:
        RuntimeError: no cell of that name has or had these equations.
    """
    found = next((cell for cell in cells_of(name) if program(cell) == hash), None)
    if found:
        return found
    raise RuntimeError(f"the graph was made with other equations of the {name} cell than it has now")
