"""What the processors here are: how many this process may use, their caches, the class that estimates are kept for."""

import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path("/")
"""Where ``proc`` and ``sys`` lie."""
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_GPU = "cuda-"
"""How the classes of GPUs begin."""
# Makers, memory and the socket do not tell two of a model apart; a card for PCIe, NVL or a laptop has other clocks.
_ALIKE = re.compile(r"nvidia|amd|tesla|gpu|sxm\d*|hbm\w*|\d+gb")


@cache
def cores(root: Path = ROOT) -> int:
    """Processors that this process may keep busy: those of its affinity, or a smaller quota of its cgroups.

    A quota of one and a half processors counts as two. The answer is found once per process and is at least 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(quota(root) or allowed)))


@cache
def quota(root: Path = ROOT) -> float | None:
    """Processors' worth of time that the cgroups of this process allow, or None where they set no limit."""
    return min(_quotas(root), default=None)


@cache
def caches(root: Path = ROOT) -> dict[str, int]:
    """Bytes of a processor's caches ``"l1d"``, ``"l2"`` and ``"l3"``; 0 where the size is unknown."""
    found = {"l1d": 0, "l2": 0, "l3": 0}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(folder / "level"), _read(folder / "type")
        name = "l1d" if level == "1" and kind != "Instruction" else f"l{level}"
        if name in found:
            found[name] = _bytes(_read(folder / "size"))
    if sys.platform == "darwin" and not any(found.values()):
        # Apple's names; ``perflevel0`` is the fast cores.
        for name, key in (("l1d", "l1dcachesize"), ("l2", "l2cachesize"), ("l3", "l3cachesize")):
            found[name] = _sysctl(f"hw.perflevel0.{key}") or _sysctl(f"hw.{key}")
    return found


def machine_class(instruction_set: str, l2: int | None = None) -> str:
    """The class of machines whose estimates are exchangeable, such as ``"avx2-l2-512k"``.

    The instruction set decides which kernels run, the second-level cache which weights stay close to a core.

    Args:
        instruction_set: the name that the CPU engine gives it.
        l2: bytes of a processor's second-level cache, 0 for unknown. Default: this machine's
    """
    l2 = caches()["l2"] if l2 is None else l2
    return f"{instruction_set}-l2-{f'{l2 >> 10}k' if l2 else 'unknown'}"


def gpu_class(name: str, multiprocessors: int) -> str:
    """The class of GPUs whose estimates are exchangeable, such as ``"cuda-h200-132sm"``: the model, and how much of it.

    A part of a GPU (MIG) is of another class than the whole: programs that meet need multiprocessors for all of them.

    Args:
        name: as CUDA has it, such as ``"NVIDIA H200"`` or ``"NVIDIA A100-SXM4-40GB MIG 1g.5gb"``.
        multiprocessors: how many of them this process may use.
    """
    words = [word for word in re.findall(r"[a-z0-9.]+", name.lower()) if not _ALIKE.fullmatch(word)]
    return _GPU + "-".join([*(words or ["unknown"]), f"{multiprocessors}sm"])


def device_type(machine_class: str) -> str:
    """The type of the devices of a class, ``"cpu"`` or ``"cuda"``."""
    return "cuda" if machine_class.startswith(_GPU) else "cpu"


def are_kin(one: str, other: str) -> bool:
    """Whether two classes of CPUs have the same instruction set; of GPUs no two classes are near enough."""
    sets = {each.partition("-l2-")[0] for each in (one, other)}
    return len(sets) == 1 and device_type(one) == "cpu"


@cache
def processor(root: Path = ROOT) -> str:
    """The processor's name, as the system has it."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each cgroup of this process, or one above it, allows; none where there is no limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # A container sees its own group as the root, and may see parts of the path that lead out of it.
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        depths = range(len(parts), -1, -1)
        if not controllers:
            for mount in (root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"):
                for depth in depths:
                    yield from _share(_read(mount.joinpath(*parts[:depth], "cpu.max")).split())
        elif "cpu" in controllers.split(","):
            for mount in (root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"):
                for depth in depths:
                    group = mount.joinpath(*parts[:depth])
                    yield from _share([_read(group / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")])


def _share(quota_and_period: list[str]) -> Iterator[float]:
    """Quota over period, where both are positive numbers: ``max`` and -1 mean no limit, nothing means no such file."""
    if len(quota_and_period) == 2 and all(each.isdecimal() and int(each) for each in quota_and_period):
        quota, period = map(int, quota_and_period)
        yield quota / period


def _read(path: Path) -> str:
    """A file's text without the last newline; nothing where the file cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _bytes(size: str) -> int:
    """``"512K"`` as a number of bytes; 0 for what is none."""
    number, unit = (size[:-1], _UNITS[size[-1]]) if size[-1:] in _UNITS else (size, 1)
    return int(number) * unit if number.isdecimal() else 0


def _sysctl(name: str) -> int:
    """A number of macOS's, 0 where there is none of that name."""
    try:
        return _bytes(subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip())
    except (OSError, subprocess.TimeoutExpired):
        return 0
