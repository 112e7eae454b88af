"""Compiles kernels ahead of time, and reads their machine code: registers, spills, shared memory, instructions."""

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

# Patterns of instructions by kind: NVIDIA's opcodes up to the first point, AMD's whole.
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
# The width of a load in bytes by its modifier; without one of these modifiers 4.
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}


class Resources(NamedTuple):
    """The resources that one kernel takes."""

    registers: int
    """Registers of a thread; for AMD, vector registers."""
    stack: int
    """Bytes of a thread in local memory, for spilled registers and addressed values. Spills show as spill loads and
    stores among the instructions."""
    shared: int
    """Bytes of shared memory of a block."""
    warps: int
    instructions: dict[str, int]
    """Counts of the code's instructions by kind of `MIX`, and of ``all``; empty if instructions are not counted."""
    loop: dict[str, int] = {}
    """The same counts for one round of the loop with all products, which is a step of the persistent plan. Wait loops
    inside it count once. Empty without such a loop, on AMD's GPUs, and if instructions are not counted."""
    loop_bytes: int = 0
    """Bytes that all threads together load from global memory in one round of that loop, without its wait loops."""


def compiled(launched: Launched, target: Target, mix: bool = True) -> Resources:
    """Compile a kernel, or take it from Triton's cache, and read its code; ``mix``: count its instructions too."""
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
    # An opcode and its modifiers follow an address and perhaps a predicate. A line may be a label instead.
    lines = re.findall(r"^(?:(\.L_\w+):|\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([\w.]+)(.*))", code, re.MULTILINE)
    warps = kernel.metadata.num_warps
    loop, waiting = _loop(lines)
    return Resources(
        used["REG"],
        used["STACK"] + used["LOCAL"],
        used["SHARED"] + kernel.metadata.shared,
        warps,
        *(_mix([op.partition(".")[0] for _, op, _ in some if op], MIX["cuda"]) for some in (lines, lines[loop])),
        32 * warps * _bytes([line for n, line in enumerate(lines[loop], loop.start) if n not in waiting]),
    )


def _loop(lines: list[tuple[str, str, str]]) -> tuple[slice, set[int]]:
    """The innermost loop that has all products, as a slice of the lines (label, opcode, operands). The second result:
    the lines of the loops inside it, in which it waits."""
    labels = {label: place for place, (label, _, _) in enumerate(lines) if label}
    loops = []
    for place, (_, opcode, operands) in enumerate(lines):
        if opcode.startswith("BRA") and (target := re.search(r"\.L_\w+", operands)):
            begin = labels.get(target[0], place)
            loops += [range(begin, place)] if begin < place else []
    products = [n for n, (_, opcode, _) in enumerate(lines) if re.match(rf"({MIX['cuda']['matrix']})(\.|$)", opcode)]
    around = [loop for loop in loops if products and products[0] in loop and products[-1] in loop]
    loop = min(around, key=len, default=range(0))
    waiting = {n for each in loops if len(each) < len(loop) and each.start in loop for n in each}
    return slice(loop.start, loop.stop), waiting


def _bytes(lines: list[tuple[str, str, str]]) -> int:
    """Bytes that a thread loads from global memory in these lines."""
    loads = [opcode for _, opcode, _ in lines if re.match(r"LDG(STS)?\b", opcode)]
    return sum(next((wide for name, wide in WIDTHS.items() if f".{name}" in load), 4) for load in loads)


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
