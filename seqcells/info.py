"""``python -m seqcells.info``: versions, devices, and which backends exist here and why the others do not."""

import importlib.metadata
import platform
import sys

import torch

from .dispatch import BACKENDS
from .kernels.triton.plan import PLANS
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
    return found


def report() -> str:
    """All of it, as text."""
    lines = [f"seqcells {__version__}"]
    lines += [f"python {platform.python_version()} on {sys.platform}"]
    lines += [f"{package} {_version(package)}" for package in ("torch", "triton", "numpy")]
    lines += ["", "devices", *(f"  {device}" for device in _devices()), "", "backends"]
    width = max(map(len, BACKENDS))
    for name, backend in BACKENDS.items():
        why_not = backend.unavailable()
        lines.append(f"  {name:{width}}  {'no ' if why_not else 'yes'}  {backend.description}")
        if why_not:
            lines.append(f"  {'':{width}}       {why_not}")
    lines += ["", "plans of triton, the first of them that takes a layer; layer.plan(input) tells which"]
    width = max(map(len, PLANS))
    lines += [f"  {name:{width}}  {description}" for name, (_, description) in PLANS.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
