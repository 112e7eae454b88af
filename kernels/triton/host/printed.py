"""The printed passes of cells: those that the package has, and those that are printed at first use.

A cell that the package has no kernels for, or of which steps are to be kept, is printed into a file, which the cache
keeps under the hash of its text, and imported from there.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from .... import cells
from ....cells import BUILT_IN, STAGED, Cell
from ....derive import build
from ....derive.expressions import DerivationError
from ....derive.identity import identity
from ....derive.keeping import keeping
from ....derive.print_stages import triton_stages
from ....system import cache as files
from ....version import __version__
from ..device.staged_cells import CELLS
from ..device.tables import Staged

HEAD = f'"""The kernels of a cell, printed at its first use by seqcells {__version__}."""\n'
Kept = tuple[str, ...]
"""The names of a cell's results that are kept of all steps."""


def runs(cell: type[Cell], kept: Kept = ()) -> bool:
    """Whether a cell runs by stages, and not as one of `cells`, whose kernels keep nothing of steps."""
    return bool(kept) or of_one_stage(cell) is None


@cache
def of_one_stage(cell: type[Cell]) -> str | None:
    """The cell of the package, by name, whose kernels of one stage a cell has: itself, or one of the same equations."""
    if BUILT_IN.get(cell.name) is cell:
        return cell.name
    try:
        own = identity(cell)
    except DerivationError:
        return None
    alike = (name for name, each in BUILT_IN.items() if each.gates == cell.gates and each.states == cell.states)
    return next((name for name in alike if identity(BUILT_IN[name]) == own), None)


def passes(cell: type[Cell], kept: Kept = ()) -> Staged:
    """A cell's passes, of which forward leaves the ``kept`` results.

    Raises:
        RuntimeError: there are none; see `why_not`.
    """
    found = _found(cell, kept)
    if isinstance(found, str):
        raise RuntimeError(f"Triton's plans cannot run the {cell.name} cell: {found}")
    return found


def why_not(cell: type[Cell], kept: Kept = ()) -> str | None:
    """Why there are no passes of a cell, or None; they are printed for that, unless they were before."""
    found = _found(cell, kept)
    return found if isinstance(found, str) else None


def report() -> list[str]:
    """For `seqcells.info`: what is there of cells that were printed at first use."""
    folder, there = build.kept(".py")
    never = build.forbidden()
    return [*([f"none is printed now, {never}"] if never else []), f"kept in {folder}: {len(there)} printed cells"]


def _found(cell: type[Cell], kept: Kept) -> Staged | str:
    there = None if kept else _in_package(cell)
    if there is None and build.forbidden():
        return f"no kernels have been derived for the {cell.name} cell, and {build.forbidden()}"
    return there or _passes_or_reason(cell, kept)


def _in_package(cell: type[Cell]) -> Staged | None:
    """Those of a cell of the package, or of it with another number of heads, which no printed text knows. A cell that
    is made of it, and has its base, is another."""
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
        (path,) = build.made([f"{build.key(text)}.py"], _writer(text))
    except (DerivationError, TimeoutError) as reason:
        return f"no kernels can be derived for the {cell.name} cell: {reason}"
    return _imported(path).CELLS[cell.name]


def _writer(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        files.write(folder / f"{build.key(text)}.py", text)

    return write


def _imported(path: Path) -> ModuleType:
    """The module of a printed file, of whose text the compiler of kernels takes what it compiles."""
    spec = spec_from_file_location(f"seqcells_printed_{path.stem}", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
