"""The printed passes of cells: those in the package, and those that are printed at first use.

A cell is printed into a file if the package has no kernels for it, or if values of its steps are to be kept. The cache
keeps the file under the hash of its text, and the file is imported from there.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .... import cells
from ....cells import BUILT_IN, STAGED, Cell
from ....derive import kernel_cache
from ....derive.equation_hash import identity
from ....derive.expressions import DerivationError
from ....derive.named_values import keeping
from ....derive.print_stages import triton_stages
from ....system import cache as files
from ....version import __version__
from ..device.staged_cells import CELLS
from ..device.staged_tables import Staged

HEAD = f'"""The kernels of a cell, printed at its first use by seqcells {__version__}."""\n'
Kept = tuple[str, ...]
"""The names of a cell's results that are kept for all steps."""


def is_staged(cell: type[Cell], kept: Kept = ()) -> bool:
    """Whether a cell runs by stages. Else it runs as one of `cells`, whose kernels keep no values of steps."""
    return bool(kept) or of_one_stage(cell) is None


@cache
def of_one_stage(cell: type[Cell]) -> str | None:
    """The name of the package's cell whose kernels of one stage run a cell, or None. That is the cell itself, or a cell
    with the same equations."""
    if BUILT_IN.get(cell.name) is cell:
        return cell.name
    try:
        own = identity(cell)
    except DerivationError:
        return None
    alike = (name for name, each in BUILT_IN.items() if each.gates == cell.gates and each.states == cell.states)
    return next((name for name in alike if identity(BUILT_IN[name]) == own), None)


def passes(cell: type[Cell], kept: Kept = ()) -> Staged:
    """A cell's passes; forward leaves the ``kept`` results.

    Raises:
        RuntimeError: the cell has no passes; see `why_not`.
    """
    found = _found(cell, kept)
    if isinstance(found, str):
        raise RuntimeError(f"Triton's plans cannot run the {cell.name} cell: {found}")
    return found


def why_not(cell: type[Cell], kept: Kept = ()) -> str | None:
    """Why a cell has no passes, or None. This prints them if they have not been printed before."""
    found = _found(cell, kept)
    return found if isinstance(found, str) else None


def report() -> list[str]:
    """For `seqcells.info`: the cells that were printed at first use."""
    folder, there = kernel_cache.kept(".py")
    never = kernel_cache.why_not_allowed()
    return [*([f"none is printed now, {never}"] if never else []), f"kept in {folder}: {len(there)} printed cells"]


def _found(cell: type[Cell], kept: Kept) -> Staged | str:
    there = None if kept else _in_package(cell)
    if there is None and kernel_cache.why_not_allowed():
        return f"no kernels have been derived for the {cell.name} cell, and {kernel_cache.why_not_allowed()}"
    return there or _passes_or_reason(cell, kept)


def _in_package(cell: type[Cell]) -> Staged | None:
    """The passes of a cell of the package, perhaps with another number of heads, which no printed text depends on. A
    cell that is made from a package's cell, and has its base, is not in the package."""
    base = cell.base
    if (
        base.__name__ not in STAGED
        or getattr(cells, base.__name__) is not base
        or base.configurations.get(cell.words) is not cell
    ):
        return None
    own, its = ({**each.options, "heads": None} for each in (cell, base))
    return CELLS[base.name] if own == its else None


@cache
def _passes_or_reason(cell: type[Cell], kept: Kept) -> Staged | str:
    try:
        text = HEAD + triton_stages([keeping(cell, kept) if kept else cell], kept)
        (path,) = kernel_cache.made([f"{kernel_cache.key(text)}.py"], _writer(text))
    except (DerivationError, TimeoutError) as reason:
        return f"no kernels can be derived for the {cell.name} cell: {reason}"
    return _imported(path).CELLS[cell.name]


def _writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        files.write(folder / f"{kernel_cache.key(text)}.py", text)

    return write


def _imported(path: Path) -> ModuleType:
    """The module of a printed file. Triton's compiler takes the source of kernels from the file."""
    spec = spec_from_file_location(f"seqcells_printed_{path.stem}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
