"""Describes where a result was measured: machine, versions, commit, date."""

import datetime
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from seqcells.backends import BACKENDS
from seqcells.measured import estimates
from seqcells.system import machine as processors

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "triton", "numpy", "onnxruntime", "openvino", "keras", "flashrnn", "torchrl")
# The processor's flags that decide how fast its products are.
FLAGS = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "sve",
    "bf16",
)


def describe(device: str, threads: int) -> dict[str, Any]:
    """The machine, in the form that a report keeps."""
    model, flags = _processor()
    instruction_set = _instruction_set()
    described: dict[str, Any] = {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "instruction_set": instruction_set,
        "class": instruction_set and processors.machine_class(instruction_set),
        "caches": processors.caches(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "usable_cores": processors.cores(),
        "quota": processors.quota(),
        "hypervisor": "hypervisor" in flags,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        described["gpu"] = gpu.name
        described["gpu_multiprocessors"] = gpu.multi_processor_count
        described["gpu_memory_bytes"] = gpu.total_memory
        described["gpu_l2_bytes"] = gpu.L2_cache_size
        described["cuda"] = torch.version.cuda
        described["cudnn"] = torch.backends.cudnn.version()
        described["driver"] = _driver()
    return described


def title(machine: dict[str, Any]) -> str:
    """The machine in a few words."""
    if "gpu" in machine:
        return machine["gpu"]
    threads = machine["threads"]
    return f"{machine['cpu']}, {threads} thread{'s' * (threads != 1)}, {machine['capability']}"


def details(machine: dict[str, Any]) -> str:
    """What decides the speed of the processors, as far as the report has it. Reports of version 1 have nothing."""
    caches = ", ".join(f"{name} {size >> 10} KiB" for name, size in machine.get("caches", {}).items() if size)
    quota = machine.get("quota")
    parts = {
        "class": machine.get("class"),
        "caches": caches,
        "usable cores": machine.get("usable_cores"),
        "quota": None if quota is None else f"{quota:g} cores",
        "hypervisor": "yes" if machine.get("hypervisor") else None,
    }
    return " · ".join(f"{name} {value}" for name, value in parts.items() if value)


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that take part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The checkout's commit, with ``-dirty`` after changes; ``unknown`` outside a checkout."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return f"{head}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def now() -> str:
    """The date and time, UTC."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def sources() -> str:
    """Eight digits of a digest of all code here. They identify a changed checkout, or code outside a checkout."""
    digest = hashlib.sha256()
    for folder in ("seqcells", "kernels", "benchmarks", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".c") and path.is_file():
                digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _driver() -> str | None:
    """The version of NVIDIA's kernel module."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    return found and found[1]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def _instruction_set() -> str | None:
    """The instruction set that the CPU engine uses, or None where the engine is not built."""
    return None if BACKENDS["cpu"].why_not_available() else estimates.instruction_set()


def _processor() -> tuple[str, list[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.machine()), (fields.get("flags") or fields.get("features", "")).split()
