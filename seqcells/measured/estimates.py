"""Estimates of how long a call takes by torch's own operator and by our kernels, from tables of measured seconds.

A table belongs to a class of machines (`seqcells.system.machine`), either CPUs or GPUs. Tables that ``python -m
seqcells.tune`` measured on this machine are in the cache (`seqcells.system.cache`). They have priority over the tables
that come with the package.
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
"""The end of the name of a machine class whose second-level cache was not recorded."""
MARGIN = 1.25
"""A machine without a table takes our kernels if they are this many times as fast in every shipped table."""
LEAD = 1.03
"""Torch's operator is taken if it is this many times as fast as our kernels.

A measurement cannot show smaller differences. Besides, the threads of torch's operator wait for one another when other
processes use the processors too.
"""
KIN_MARGIN = 1.05
"""As `MARGIN`, if there are shipped tables of the same instruction set; then these alone count."""


def own_folder() -> Path:
    """The folder for tables that were measured on this machine."""
    return folder("tables")


def instruction_set() -> str:
    """The instruction set of our CPU kernels, which must be available on this machine."""
    return _library().target


@cache
def _library() -> ModuleType:
    return import_module("seqcells.kernels.cpu.library")  # imported late, as the import loads the extension


def class_of(device: torch.device) -> str:
    """The machine class of a device; our kernels for the device must be available on this machine."""
    return _gpu_class(device) if device.type == "cuda" else _cpu_class(instruction_set())


@cache
def _cpu_class(instruction_set: str) -> str:
    return machine.machine_class(instruction_set)


@cache
def _gpu_class(device: torch.device) -> str:
    found = torch.cuda.get_device_properties(device)
    return machine.gpu_class(found.name, found.multi_processor_count)


def of_class(machine_class: str, threads: int) -> list[Table]:
    """The tables for a class of machines, in the order of priority: an own table, then a shipped table.

    Each is the table with the nearest number of threads. A shipped table with an unknown second-level cache belongs to
    no class; `leader` uses such a table only if no other table covers the call.
    """
    shipped = [table for table in shipped_tables() if not table.machine_class.endswith(UNKNOWN)]
    found = []
    for tables in (own_tables(), shipped):
        alike = [table for table in tables if table.machine_class == machine_class]
        if alike:
            found.append(min(alike, key=lambda table: abs(math.log(table.threads / threads))))
    return found


def here(device: torch.device = CPU) -> Table | None:
    """The table of highest priority for a device of this machine and torch's present number of threads, or None."""
    return next(iter(of_class(class_of(device), torch.get_num_threads())), None)


def seconds(backend: str, call: Call) -> float | None:
    """Estimated seconds of a call on this machine, by ``"torch"`` or by the backend of our kernels.

    The estimate is None if no table of this machine's class covers the call. With grad mode on, the seconds are those
    of forward and backward.

    Raises:
        ValueError: tables have no seconds of the backend.
    """
    known = backends(call.device.type)
    if backend not in known:
        raise ValueError(f"tables have seconds of {' and '.join(map(repr, known))}, not of {backend!r}")
    tables = of_class(class_of(call.device), torch.get_num_threads())
    told = (
        _both(table, call, torch.is_grad_enabled(), _precision_name(call))[known.index(backend)] for table in tables
    )
    return next((each for each in told if each), None)


def leader(call: Call) -> Choice:
    """Whether torch's operator or our kernels run a call that both can run, and why. Answers are cached.

    * The first table of this machine's class that covers the call decides: torch's operator must lead by `LEAD`.
    * If there is none, our kernels must lead by `MARGIN` in every shipped table that covers the call. Shipped tables of
      the same instruction set go first, with `KIN_MARGIN`.
    * If no table covers the call, our kernels are taken where torch has no fused kernel.
    """
    if not (type(call.rows) is type(call.steps) is type(call.hidden) is int):
        call = call._replace(rows=0, steps=0, hidden=0, width=0)  # sizes are symbols of a traced graph
    if call.device.type == "cpu":
        where = _cpu_class(instruction_set()), torch.get_num_threads(), None
    else:
        why_not = unmeasured.why_not_tables()
        if why_not:
            return Choice("torch", why_not)
        where = _gpu_class(call.device), 1, _precision_name(call)
    return _leader(call, torch.is_grad_enabled(), *where)


def _precision_name(call: Call) -> str | None:
    """The ``dtype`` of a `seqcells.measured.table.Point` for a call, if it is not the name of the call's dtype."""
    if call.dtype != torch.float32 or call.device.type == "cpu":
        return None
    from ..kernels.triton.host import precision  # imported late, as the import loads triton

    mode = precision.mode(call.dtype)
    return None if mode == "ieee" else mode


@lru_cache(maxsize=4096)
def _leader(call: Call, training: bool, machine_class: str, threads: int, precision_name: str | None) -> Choice:
    if call.form == "stream" and call.device.type == "cpu":
        return Choice("cpu", "a step of a stream is one call of the engine")
    for table in of_class(machine_class, threads):
        choice = _by(table, call, training, precision_name)
        if choice:
            return choice
    return _cautious(call, training, precision_name, machine_class) or unmeasured.choice(call, training)


def _by(table: Table, call: Call, training: bool, precision_name: str | None) -> Choice | None:
    """The choice by a table of this machine's class; None if the table does not cover the call."""
    kernels = KERNELS[call.device.type]
    theirs, ours = _both(table, call, training, precision_name)
    if theirs and ours:
        words = f"estimated at {_in_words(ours)} by our kernels and {_in_words(theirs)} by torch's operator"
        return Choice(kernels if ours < LEAD * theirs else "torch", f"{words}, {described(table)}")
    if theirs or ours:
        failed = "torch's operator" if ours else "our kernels"
        return Choice(kernels if ours else "torch", f"{failed} failed when it was measured, {described(table)}")
    return None


def _cautious(call: Call, training: bool, precision_name: str | None, machine_class: str) -> Choice | None:
    """The choice by shipped tables of other machine classes, tables of the same instruction set first.

    Our kernels are chosen only if all tables that cover the call agree. None if no table covers the call.
    """
    if unmeasured.is_unlike_others(call, training):
        return None
    # Tables from benchmark results lack the points that `auto` gave to torch's operator. So no estimate is taken beyond
    # the sizes of a table.
    others = [table for table in shipped_tables() if table.device_type == call.device.type]
    kin = [table for table in others if machine.are_kin(table.machine_class, machine_class)]
    for tables, margin in ((kin, KIN_MARGIN), (others, MARGIN)):
        pairs = [_both(table, call, training, precision_name, beyond=False) for table in tables]
        leads = [theirs / ours for theirs, ours in pairs if theirs and ours]
        if leads:
            least = min(leads)
            words = (
                f"no table of this machine covers it, and in those of others ours is at least {least:.3g} times as fast"
            )
            return Choice(KERNELS[call.device.type] if least >= margin else "torch", f"{words}; {margin} is asked for")
    return None


def _both(
    table: Table, call: Call, training: bool, precision_name: str | None, beyond: bool | None = None
) -> list[float | None]:
    """The seconds by torch's operator and by our kernels.

    ``beyond`` says whether sizes beyond the measured ones are estimated. Default: only for CPUs. On a GPU the kernels
    depend on the size: torch has persistent kernels up to some sizes, and our engine has several plans.
    """
    beyond = table.device_type == "cpu" if beyond is None else beyond
    return [table.seconds(each, call, training, beyond, precision_name) for each in backends(table.device_type)]


def _in_words(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def described(table: Table) -> str:
    """A description of a table for reasons and reports: own or shipped, its name and its date."""
    whose = "own" if any(table is each for each in own_tables()) else "shipped"
    return f"{whose} table {table.name} of {table.date[:10]}"


@cache
def own_tables() -> tuple[Table, ...]:
    """The tables that were measured on this machine, read once."""
    return tuple(_tables(own_folder()))


@cache
def shipped_tables() -> tuple[Table, ...]:
    """The tables that come with the package, read once."""
    return tuple(_tables(SHIPPED))


def reload() -> None:
    """Forget all tables and choices, so that they are read and made again; to be called after a table was written."""
    for cached in (own_tables, shipped_tables, _leader, _cpu_class, _gpu_class):
        cached.cache_clear()


def _tables(where: Path) -> Iterator[Table]:
    """The tables in a folder, in the order of their names; a file that is no table is skipped, with a warning."""
    try:
        paths = sorted(where.glob("*.json"))
    except OSError:
        return  # a folder that cannot be read counts as empty
    for path in paths:
        try:
            yield Table.load(path)
        except (OSError, ValueError) as problem:
            warnings.warn(f"{problem}; it is left out. `python -m seqcells.tune` makes a new one", stacklevel=2)
