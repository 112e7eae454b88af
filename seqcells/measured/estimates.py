"""How long a call would take by torch's own operator and by ours, from tables of measured seconds.

A table is kept for a class of machines (`seqcells.system.machine`), of CPUs or of GPUs. Tables that ``python -m
seqcells.tune`` measured here lie in the cache (`seqcells.system.cache`) and go before those that come with the package.
"""

import math
import warnings
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

from ..request.call import Call, Choice
from ..system import machine
from ..system.cache import folder
from . import unmeasured
from .table import KERNELS, Table, backends

SHIPPED = Path(__file__).parent / "tables"
CPU = torch.device("cpu")
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
    return import_module("seqcells.kernels.cpu.library")  # not before it is wanted: the extension is loaded


def class_of(device: torch.device) -> str:
    """The class of machines that a device is of; our kernels for it must exist here."""
    return _gpu_class(device) if device.type == "cuda" else _cpu_class(instruction_set())


@cache
def _cpu_class(instruction_set: str) -> str:
    return machine.machine_class(instruction_set)


@cache
def _gpu_class(device: torch.device) -> str:
    found = torch.cuda.get_device_properties(device)
    return machine.gpu_class(found.name, found.multi_processor_count)


def of_class(machine_class: str, threads: int) -> list[Table]:
    """The tables for machines of a class, the first to be asked first: an own one, then a shipped one, each of the
    nearest number of threads.

    A shipped table whose second-level cache is unknown is nobody's: such a table counts in `leader` where there is no
    other.
    """
    shipped = [table for table in shipped_tables() if not table.machine_class.endswith(UNKNOWN)]
    found = []
    for tables in (own_tables(), shipped):
        alike = [table for table in tables if table.machine_class == machine_class]
        if alike:
            found.append(min(alike, key=lambda table: abs(math.log(table.threads / threads))))
    return found


def here(device: torch.device = CPU) -> Table | None:
    """The table that is asked first on a device of this machine, with torch's present number of threads, or None."""
    return next(iter(of_class(class_of(device), torch.get_num_threads())), None)


def seconds(backend: str, call: Call) -> float | None:
    """What a call would take here by ``"torch"`` or our kernels; None where no table of this machine's class tells.

    With grad mode on, the seconds are those of forward and backward.
    """
    known = backends(call.device.type)
    if backend not in known:
        raise ValueError(f"tables have seconds of {' and '.join(map(repr, known))}, not of {backend!r}")
    tables = of_class(class_of(call.device), torch.get_num_threads())
    told = (_both(table, call, torch.is_grad_enabled(), _numbers(call))[known.index(backend)] for table in tables)
    return next((each for each in told if each), None)


def leader(call: Call) -> Choice:
    """Which of torch's operator and our kernels runs a call that both can run, and why; the same answer is found once.

    The tables of this machine's class decide by their estimates, the first that covers the call: torch's operator must
    lead by `LEAD`. Where there is none, ours must lead by `MARGIN` in every shipped table that covers the call. Where
    none does, ours is taken for what torch has no fused kernel for.
    """
    if not (type(call.rows) is type(call.steps) is type(call.hidden) is int):
        call = call._replace(rows=0, steps=0, hidden=0, width=0)  # symbols of a traced graph, of no size
    if call.device.type == "cpu":
        where = _cpu_class(instruction_set()), torch.get_num_threads(), None
    else:
        why_not = unmeasured.switched_off()
        if why_not:
            return Choice("torch", why_not)
        where = _gpu_class(call.device), 1, _numbers(call)
    return _leader(call, torch.is_grad_enabled(), *where)


def _numbers(call: Call) -> str | None:
    """What a call is computed in, as a `seqcells.measured.table.Point` has it, where that is not the dtype's name."""
    if call.dtype != torch.float32 or call.device.type == "cpu":
        return None
    from ..kernels.triton.host import precision  # not before triton is wanted

    mode = precision.mode(call.dtype)
    return None if mode == "ieee" else mode


@lru_cache(maxsize=4096)
def _leader(call: Call, training: bool, machine_class: str, threads: int, numbers: str | None) -> Choice:
    if call.form == "stream" and call.device.type == "cpu":
        return Choice("cpu", "a step of a stream is one call of the engine")
    for table in of_class(machine_class, threads):
        choice = _by(table, call, training, numbers)
        if choice:
            return choice
    return _cautious(call, training, numbers, machine_class) or unmeasured.choice(call, training)


def _by(table: Table, call: Call, training: bool, numbers: str | None) -> Choice | None:
    """What a table of this machine's class says; None where it does not cover the call."""
    kernels = KERNELS[call.device.type]
    theirs, ours = _both(table, call, training, numbers)
    if theirs and ours:
        words = f"estimated at {_in_words(ours)} by our kernels and {_in_words(theirs)} by torch's operator"
        return Choice(kernels if ours < LEAD * theirs else "torch", f"{words}, {described(table)}")
    if theirs or ours:
        failed = "torch's operator" if ours else "our kernels"
        return Choice(kernels if ours else "torch", f"{failed} failed when it was measured, {described(table)}")
    return None


def _cautious(call: Call, training: bool, numbers: str | None, machine_class: str) -> Choice | None:
    """What shipped tables that cover a call agree upon, those of the instruction set first; else None."""
    if unmeasured.is_unlike_others(call, training):
        return None
    # What `auto` gave to torch's operator is missing in tables of results: no such table speaks beyond its sizes.
    others = [table for table in shipped_tables() if table.device_type == call.device.type]
    kin = [table for table in others if machine.are_kin(table.machine_class, machine_class)]
    for tables, margin in ((kin, KIN_MARGIN), (others, MARGIN)):
        pairs = [_both(table, call, training, numbers, beyond=False) for table in tables]
        leads = [theirs / ours for theirs, ours in pairs if theirs and ours]
        if leads:
            least = min(leads)
            words = (
                f"no table of this machine covers it, and in those of others ours is at least {least:.3g} times as fast"
            )
            return Choice(KERNELS[call.device.type] if least >= margin else "torch", f"{words}; {margin} is asked for")
    return None


def _both(
    table: Table, call: Call, training: bool, numbers: str | None, beyond: bool | None = None
) -> list[float | None]:
    """The seconds by torch's operator and by ours. Default of ``beyond``: of CPUs alone, for on a GPU layers of other
    sizes have other kernels: torch's persistent ones up to some sizes, and our plans."""
    beyond = table.device_type == "cpu" if beyond is None else beyond
    return [table.seconds(each, call, training, beyond, numbers) for each in backends(table.device_type)]


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
    for cached in (own_tables, shipped_tables, _leader, _cpu_class, _gpu_class):
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
