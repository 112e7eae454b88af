"""Kernels compiled ahead of time, and what their machine code takes: registers, memory in their place, instructions."""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton import knobs
from triton.compiler import ASTSource, CompiledKernel

from .launches import Launched, Target

# Instructions by what they do: NVIDIA's opcodes up to the first point, AMD's whole.
MIX = {
    "cuda": {
        "fma": r"[DFH]FMA2?",
        "special": r"MUFU",
        "matrix": r"[DHIQ]G?MMA|UTC\w*MMA",
        "global_loads": r"LDG|LDGSTS|UTMALDG|UBLKCP",
        "global_stores": r"STG|UTMASTG",
        "atomics": r"ATOM|ATOMG|RED|REDG",
        "shared_loads": r"LDS|LDSM",
        "shared_stores": r"STS|STSM",
        "spill_loads": r"LDL",
        "spill_stores": r"STL",
        "barriers": r"BAR",
        "calls": r"CALL",
    },
    "hip": {
        "fma": r"v_(pk_)?(fma|mad)\w*_f\w+",
        "special": r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_\w+",
        "matrix": r"v_s?mfma\w+",
        "global_loads": r"(global|buffer|flat)_load\w+",
        "global_stores": r"(global|buffer|flat)_store\w+",
        "atomics": r"(global|buffer|flat)_atomic\w+",
        "shared_loads": r"ds_(read|load)\w+",
        "shared_stores": r"ds_(write|store)\w+",
        "spill_loads": r"scratch_load\w+",
        "spill_stores": r"scratch_store\w+",
        "barriers": r"s_barrier",
        "calls": r"s_swappc\w+",
    },
}


class Resources(NamedTuple):
    """What one kernel takes."""

    registers: int
    """Of a thread; AMD's vector registers."""
    stack: int
    """Bytes of a thread in local memory, for what found no register or is addressed: spills show as their loads and
    stores among the instructions."""
    shared: int
    """Bytes of a block."""
    warps: int
    instructions: dict[str, int]
    """How many there are in the code of each kind of `MIX`, and ``all``; empty where they were not asked for."""


def compiled(launched: Launched, target: Target, mix: bool = True) -> Resources:
    """Compile a kernel, or take it from Triton's cache, and read the code; ``mix``: its instructions too."""
    source = ASTSource(launched.function, launched.signature, launched.constants, launched.attributes)
    kernel = triton.compile(source, target=target.gpu, options=launched.options)
    return _amd(kernel, mix) if target.gpu.backend == "hip" else _nvidia(kernel, mix)


def _nvidia(kernel: CompiledKernel, mix: bool) -> Resources:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        usage = _output(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path)
        code = _output(knobs.nvidia.nvdisasm.path, "--print-code", path) if mix else ""
    used = {name: int(value) for name, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    # An opcode follows its address and perhaps a predicate.
    opcodes = re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?(\w+)", code, re.MULTILINE)
    shared = used["SHARED"] + kernel.metadata.shared
    stack = used["STACK"] + used["LOCAL"]
    return Resources(used["REG"], stack, shared, kernel.metadata.num_warps, _mix(opcodes, MIX["cuda"]))


def _amd(kernel: CompiledKernel, mix: bool) -> Resources:
    code = kernel.asm["amdgcn"]

    def stated(name: str) -> int:
        return int(re.search(rf"^\s*\.{name}:\s+(\d+)", code, re.MULTILINE)[1])

    opcodes = re.findall(r"^\t([a-z]\w+)", code, re.MULTILINE) if mix else []
    return Resources(
        stated("vgpr_count"),
        stated("private_segment_fixed_size"),
        stated("group_segment_fixed_size"),
        kernel.metadata.num_warps,
        _mix(opcodes, MIX["hip"]),
    )


def _mix(opcodes: list[str], kinds: dict[str, str]) -> dict[str, int]:
    if not opcodes:
        return {}
    counts = Counter(opcodes)
    found = {kind: sum(n for code, n in counts.items() if re.fullmatch(p, code)) for kind, p in kinds.items()}
    return {"all": len(opcodes), **found}


def _output(*command: Any) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout
