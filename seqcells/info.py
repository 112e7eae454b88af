"""``python -m seqcells.info``: versions, devices, backends and why a backend is missing, the tables of estimates in
use, and the settings with their current values."""

import importlib.metadata
import platform
import sys

import torch

from .backends import BACKENDS
from .call.choose import KERNELS, WITHOUT_KERNELS
from .kernels import cpu, triton
from .kernels.triton.plans.plan import PLANS
from .measured import estimates
from .system import machine
from .system.settings import CHOICES, current_settings
from .version import __version__


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    found = [f"cpu: {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        found.append(f"cuda:{index}: {properties.name}, {properties.multi_processor_count} SMs, {memory:.0f} GiB")
    other = torch.accelerator.current_accelerator()
    if other is not None and other.type not in KERNELS:
        found.append(f"{other.type}: no kernels of ours; there auto takes {WITHOUT_KERNELS}")
    return found


def _gpu_estimates() -> list[str]:
    why_not = triton.why_not_available()
    return (
        []
        if why_not
        else [
            f"cuda:{index}: {line}"
            for index in range(torch.cuda.device_count())
            for line in _in_use(torch.device("cuda", index))
        ]
    )


def _cpu_estimates() -> list[str]:
    sizes = [f"{name} {size >> 10} KiB" if size else f"{name} unknown" for name, size in machine.caches().items()]
    lines = [
        f"processor: {machine.processor()}",
        f"cores for this process: {machine.cores()}",
        f"caches: {', '.join(sizes)}",
    ]
    if cpu.why_not_available():
        return [*lines, "table in use: none, for there is nothing to compare torch's operators with"]
    return [*lines, *_in_use(estimates.CPU)]


def _compiling() -> list[str]:
    if cpu.why_not_available():
        return []
    from .kernels.cpu import compiled  # this import needs the extension

    return ["", "cells that the CPU engine was built without, which it compiles at first use"] + [
        f"  {line}" for line in compiled.report()
    ]


def _printing() -> list[str]:
    if triton.why_not_available():
        return []
    from .kernels.triton.host import printed_kernels  # this import needs triton

    return ["", "cells that the package has no Triton kernels for, which are printed at first use"] + [
        f"  {line}" for line in printed_kernels.report()
    ]


def _in_use(device: torch.device) -> list[str]:
    table = estimates.here(device)
    if table is None:
        option = "" if device.type == "cpu" else f" --device {device}"
        words = "none, so torch's operator unless ours leads by far elsewhere; "
        words += f"`python -m seqcells.tune{option}` measures one"
    else:
        whole = "" if table.complete else ", not the whole grid"
        words = f"{estimates.described(table)}, {table.threads} threads, {len(table.points)} points{whole}"
    return [f"machine class: {estimates.class_of(device)}", f"table in use: {words}"]


def report() -> str:
    """The whole report, as text."""
    lines = [f"seqcells {__version__}"]
    lines += [f"python {platform.python_version()} on {sys.platform}"]
    lines += [f"{package} {_version(package)}" for package in ("torch", "triton", "numpy")]
    lines += ["", "devices", *(f"  {device}" for device in _devices()), "", "backends"]
    width = max(map(len, BACKENDS))
    for name, backend in BACKENDS.items():
        why_not = backend.why_not_available()
        lines.append(f"  {name:{width}}  {'no ' if why_not else 'yes'}  {backend.description}")
        if why_not:
            lines.append(f"  {'':{width}}       {why_not}")
    lines += ["", "estimates by which the backend of a plain call is chosen"]
    lines += [f"  {line}" for line in (*_cpu_estimates(), *_gpu_estimates())]
    lines += _compiling() + _printing()
    lines += ["", "plans of triton, the first of them that takes a layer; layer.plan(input) tells which"]
    width = max(map(len, PLANS))
    lines += [f"  {name:{width}}  {description}" for name, (_, description) in PLANS.items()]
    lines += [
        "",
        f"settings, which {', '.join(name for name, backend in BACKENDS.items() if backend.uses_settings)} obey",
    ]
    width = max(map(len, CHOICES))
    for name, value in current_settings()._asdict().items():
        default, *others = CHOICES[name]
        note = "" if value == default else f", by default {default}"
        lines.append(f"  {name:{width}}  {value}{note}; one of {', '.join(map(str, (default, *others)))}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
