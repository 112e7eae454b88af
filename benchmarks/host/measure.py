"""Counts and times calls."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from torch.autograd import profiler

Key = TypeVar("Key")
OPERATOR = "aten::"
MEMORY = "[memory]"
LAUNCH = re.compile(r"cu(da)?Launch\w*Kernel")
"""CUDA's functions that launch a kernel, in the runtime and in the driver."""
IN_A_ROW = 10
"""Calls of a sample: few enough that their launches fit in a GPU's queue."""


class Counts(NamedTuple):
    """What the profiler sees of one call."""

    operators: dict[str, int]
    """Counts by name of the operators outside any other operator."""
    allocations: int
    launches: int
    """Launches by CUDA; 0 on the CPU."""


def counts(call: Callable[[], Any], device: str) -> Counts:
    """Count the events of one call, with those of backward in any thread."""
    call()  # warm-up: the first call also prepares, which is not to be counted
    # Only kineto sees CUDA's functions.
    use_device = "cuda" if device == "cuda" else None
    with profiler.profile(use_device=use_device, use_kineto=True, profile_memory=True) as profile:
        call()
        wait_for(device)
    events = profile.function_events
    operators = Counter(event.name for event in events if _is_operator(event) and not _is_inside_one(event))
    allocations = sum(e.name() == MEMORY and e.nbytes() > 0 for e in profile.kineto_results.events())
    launches = sum(LAUNCH.match(event.name) is not None for event in events)
    return Counts({name.removeprefix(OPERATOR): n for name, n in operators.items()}, allocations, launches)


def _is_operator(event: Any) -> bool:
    return event.name.startswith(OPERATOR)


def _is_inside_one(event: Any) -> bool:
    around = event.cpu_parent
    while around is not None and not _is_operator(around):
        around = around.cpu_parent
    return around is not None


def seconds(
    calls: Mapping[Key, Callable[[], Any]], samples: int, device: str, in_a_row: Mapping[Key, int] | None = None
) -> dict[Key, list[float]]:
    """The seconds of a call, by name, a figure for each sample. All calls take turns, and the first one changes.

    Args:
        in_a_row: how many calls a sample has, by name. Default: `IN_A_ROW`
    """
    found: dict[Key, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for _ in range(samples):
        order.append(order.pop(0))
        for name in order:
            call = calls[name]
            call()  # warms the caches again after another call's turn
            wait_for(device)
            count = in_a_row[name] if in_a_row else IN_A_ROW
            began = time.perf_counter()
            for _ in range(count):
                call()
            found[name].append((time.perf_counter() - began) / count)
    return found


def wait_for(device: str) -> None:
    """Wait until all that was launched has run."""
    if device == "cuda":
        torch.cuda.synchronize()
