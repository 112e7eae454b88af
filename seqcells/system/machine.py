"""This machine's processors: how many this process may use, their caches, and the machine class for estimates."""

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
"""The folder that has ``proc`` and ``sys``; tests use another one."""
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_GPU = "cuda-"
"""The beginning of the names of GPU classes."""
# Words without effect on a GPU's class: maker, memory and SXM socket. PCIe, NVL and laptop cards have other clocks, so
# these words stay.
_ALIKE = re.compile(r"nvidia|amd|tesla|gpu|sxm\d*|hbm\w*|\d+gb")


@cache
def cores(root: Path = ROOT) -> int:
    """The number of processors that this process may keep busy: by its affinity, or by a smaller quota of its cgroups.

    A quota of one and a half processors counts as two. The answer is found once per process and is at least 1.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(quota(root) or allowed)))


@cache
def quota(root: Path = ROOT) -> float | None:
    """The number of processors whose time the cgroups of this process allow, or None if there is no limit."""
    return min(_quotas(root), default=None)


@cache
def caches(root: Path = ROOT) -> dict[str, int]:
    """The sizes of a processor's caches ``"l1d"``, ``"l2"`` and ``"l3"`` in bytes; 0 if a size is unknown."""
    found = {"l1d": 0, "l2": 0, "l3": 0}
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = _read(folder / "level"), _read(folder / "type")
        name = "l1d" if level == "1" and kind != "Instruction" else f"l{level}"
        if name in found:
            found[name] = _bytes(_read(folder / "size"))
    if sys.platform == "darwin" and not any(found.values()):
        # The keys are Apple's names; ``perflevel0`` stands for the fast cores.
        for name, key in (("l1d", "l1dcachesize"), ("l2", "l2cachesize"), ("l3", "l3cachesize")):
            found[name] = _sysctl(f"hw.perflevel0.{key}") or _sysctl(f"hw.{key}")
    return found


def machine_class(instruction_set: str, l2: int | None = None) -> str:
    """The class of machines whose estimates are exchangeable, such as ``"avx2-l2-512k"``.

    The instruction set decides which kernels run. The second-level cache decides which weights stay close to a core.

    Args:
        instruction_set: the CPU engine's name of the instruction set.
        l2: the size of a processor's second-level cache in bytes, 0 for unknown. Default: this machine's size
    """
    l2 = caches()["l2"] if l2 is None else l2
    return f"{instruction_set}-l2-{f'{l2 >> 10}k' if l2 else 'unknown'}"


def gpu_class(name: str, multiprocessors: int) -> str:
    """The class of GPUs whose estimates are exchangeable: model and multiprocessors, such as ``"cuda-h200-132sm"``.

    A part of a GPU (MIG) is of another class than the whole GPU. Programs that wait for each other all need
    multiprocessors at the same time, so the number of multiprocessors decides which plans run.

    Args:
        name: CUDA's name of the GPU, such as ``"NVIDIA H200"`` or ``"NVIDIA A100-SXM4-40GB MIG 1g.5gb"``.
        multiprocessors: the number of multiprocessors that this process may use.
    """
    words = [word for word in re.findall(r"[a-z0-9.]+", name.lower()) if not _ALIKE.fullmatch(word)]
    return _GPU + "-".join([*(words or ["unknown"]), f"{multiprocessors}sm"])


def device_type(machine_class: str) -> str:
    """The device type of a machine class, ``"cpu"`` or ``"cuda"``."""
    return "cuda" if machine_class.startswith(_GPU) else "cpu"


def are_kin(one: str, other: str) -> bool:
    """Whether two classes of CPUs have the same instruction set. No two classes of GPUs are similar enough."""
    sets = {each.partition("-l2-")[0] for each in (one, other)}
    return len(sets) == 1 and device_type(one) == "cpu"


@cache
def processor(root: Path = ROOT) -> str:
    """The processor's name, as the operating system reports it."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _quotas(root: Path) -> Iterator[float]:
    """The numbers of processors that each cgroup of this process and its parents allow, without unlimited groups."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        # A container sees its own group as the root, and the path may contain ".." parts that lead out of it.
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
    """Quota divided by period, if both are positive numbers; ``max`` and -1 mean no limit, "" means no such file."""
    if len(quota_and_period) == 2 and all(each.isdecimal() and int(each) for each in quota_and_period):
        quota, period = map(int, quota_and_period)
        yield quota / period


def _read(path: Path) -> str:
    """A file's text without surrounding white space; "" if the file cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _bytes(size: str) -> int:
    """The number of bytes that a text such as ``"512K"`` means; 0 for other texts."""
    number, unit = (size[:-1], _UNITS[size[-1]]) if size[-1:] in _UNITS else (size, 1)
    return int(number) * unit if number.isdecimal() else 0


def _sysctl(name: str) -> int:
    """The number of macOS's ``sysctl`` with this name; 0 if there is none."""
    try:
        return _bytes(subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip())
    except (OSError, subprocess.TimeoutExpired):
        return 0
