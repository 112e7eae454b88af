"""How long a call on the CPU would take by torch's own operator and by ours, from tables of measured seconds.

A table is kept for a class of machines (`seqcells.machine`). Tables that ``python -m seqcells.tune`` measured here lie
in the cache (`seqcells.cache`) and go before those that come with the package.
"""

import math
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from . import machine
from .cache import folder
from .call import Call, Choice
from .kernels import cpu
from .table import BACKENDS, Table

SHIPPED = Path(__file__).parent / "tables"
UNKNOWN = "-unknown"
"""The end of a machine class whose second-level cache was not recorded."""
MARGIN = 1.25
"""A machine without a table takes our kernels where they are so many times as fast in every shipped one."""
LEAD = 1.03
"""Torch's operator is taken where it is so many times as fast as ours: below that a measurement cannot tell, and its
threads wait for one another where other processes want the processors too."""
KIN_MARGIN = 1.05
"""The same where shipped tables are of the same instruction set: those alone count."""


def own_folder() -> Path:
    """Where tables measured on this machine are kept."""
    return folder("tables")


def instruction_set() -> str:
    """The one that our CPU kernels run with, which must exist here."""
    return _library().target


@cache
def _library() -> ModuleType:
    return import_module(".kernels.cpu.library", __package__)  # not before it is wanted: the extension is loaded


def in_use(machine_class: str, threads: int) -> Table | None:
    """The table for machines of a class: an own one first, else a shipped one, of the nearest number of threads.

    A shipped table whose second-level cache is unknown is nobody's: such a table counts in `leader` where there is no
    other.
    """
    shipped = [table for table in shipped_tables() if not table.machine_class.endswith(UNKNOWN)]
    for tables in (own_tables(), shipped):
        alike = [table for table in tables if table.machine_class == machine_class]
        if alike:
            return min(alike, key=lambda table: abs(math.log(table.threads / threads)))
    return None


def here() -> Table | None:
    """The table in use on this machine with torch's present number of threads, or None."""
    return in_use(machine.machine_class(instruction_set()), torch.get_num_threads())


def seconds(backend: str, call: Call) -> float | None:
    """What a call would take here by ``"torch"`` or ``"cpu"``; None where no table of this machine's class tells.

    With grad mode on, the seconds are those of forward and backward.
    """
    if backend not in BACKENDS:
        raise ValueError(f"tables have seconds of {' and '.join(map(repr, BACKENDS))}, not of {backend!r}")
    table = here()
    return None if table is None else table.seconds(backend, call, torch.is_grad_enabled())


def leader(call: Call) -> Choice:
    """Which of ``"torch"`` and ``"cpu"`` runs a call that both can run, and why; the same answer is found once.

    The table in use decides by the estimates: torch's operator must lead by `LEAD`. Without one, or where it does not
    cover the call, ours must lead by `MARGIN` in every shipped table that covers the call. Where none does, ours is
    taken for what torch has no fused kernel for.
    """
    if not (type(call.rows) is type(call.steps) is type(call.hidden) is int):
        call = call._replace(rows=0, steps=0, hidden=0, width=0)  # symbols of a traced graph, of no size
    return _leader(call, torch.is_grad_enabled(), torch.get_num_threads(), instruction_set())


@lru_cache(maxsize=4096)
def _leader(call: Call, training: bool, threads: int, instruction_set: str) -> Choice:
    if call.form == "stream":
        return Choice("cpu", "a step of a stream is one call of the engine")
    table = in_use(machine.machine_class(instruction_set), threads)
    theirs, ours = _both(table, call, training) if table else (None, None)
    if theirs and ours:
        words = f"estimated at {_in_words(ours)} by our kernels and {_in_words(theirs)} by torch's operator"
        return Choice("cpu" if ours < LEAD * theirs else "torch", f"{words}, {described(table)}")
    if theirs or ours:
        failed = "torch's operator" if ours else "our kernels"
        return Choice("cpu" if ours else "torch", f"{failed} failed when it was measured, {described(table)}")
    return _cautious(call, training, instruction_set) or _structural(call, training)


def _cautious(call: Call, training: bool, instruction_set: str) -> Choice | None:
    """What shipped tables that cover a call agree upon, those of the instruction set first; else None."""
    if call.dtype == torch.bfloat16 and cpu.lacks_bfloat16_unit():
        return None  # measured machines with a unit tell nothing of one without
    # What `auto` gave to torch's operator is missing in tables of results: no such table speaks beyond its sizes.
    kin = [table for table in shipped_tables() if table.machine_class.startswith(f"{instruction_set}-")]
    for tables, margin in ((kin, KIN_MARGIN), (shipped_tables(), MARGIN)):
        pairs = [_both(table, call, training, beyond=False) for table in tables]
        leads = [theirs / ours for theirs, ours in pairs if theirs and ours]
        if leads:
            least = min(leads)
            words = (
                f"no table of this machine covers it, and in those of others ours is at least {least:.3g} times as fast"
            )
            return Choice("cpu" if least >= margin else "torch", f"{words}; {margin} is asked for")
    return None


def _structural(call: Call, training: bool) -> Choice:
    """By what torch has kernels for: a fused one, oneDNN's, for padded LSTM layers alone."""
    if call.form == "step" or call.steps == 1:
        if training:
            return Choice("torch", "the way through torch's operators is shorter for single steps with gradients")
        return Choice("cpu", "a single step without gradients is one call of the engine")
    fused = call.cell.name == "lstm" and not {"packed", "projection"} & {*call.options}
    if not fused or call.dtype == torch.float64:
        return Choice("cpu", "torch has no fused kernel for this call on the CPU")
    if call.dtype == torch.bfloat16 and cpu.lacks_bfloat16_unit():
        return Choice("cpu", "torch's kernel needs a unit for products of bfloat16, which this processor lacks")
    return Choice("torch", "no table covers the call")


def _both(table: Table, call: Call, training: bool, beyond: bool = True) -> list[float | None]:
    return [table.seconds(backend, call, training, beyond) for backend in BACKENDS]


def _in_words(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def described(table: Table) -> str:
    """Whose table it is, and from when, for reasons and reports."""
    whose = "own" if any(table is each for each in own_tables()) else "shipped"
    return f"{whose} table {table.name} of {table.date[:10]}"


@cache
def own_tables() -> tuple[Table, ...]:
    """Those that were measured on this machine, read once."""
    return tuple(_tables(own_folder()))


@cache
def shipped_tables() -> tuple[Table, ...]:
    """Those that come with the package, read once."""
    return tuple(_tables(SHIPPED))


def reload() -> None:
    """Read all tables anew, and choose anew: for whoever has written one."""
    for cached in (own_tables, shipped_tables, _leader):
        cached.cache_clear()


def _tables(where: Path) -> Iterator[Table]:
    """Those of a folder, in the order of their names; what is none is left out, with a warning."""
    try:
        paths = sorted(where.glob("*.json"))
    except OSError:
        return  # a folder that cannot be read has nothing to find
    for path in paths:
        try:
            yield Table.load(path)
        except (OSError, ValueError) as problem:
            warnings.warn(f"{problem}; it is left out. `python -m seqcells.tune` makes a new one", stacklevel=2)
