"""Runs in a child process under TRITON_INTERPRET=1: the printed cells and the activations over plain arrays.

``python kernels.py IN OUT [CELLS]``: IN holds a list of (what, name, dict of (count, N) tensors), OUT gets their
results. CELLS is a printed file of cells that the registry lacks.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import torch
import triton
import triton.language as tl

from seqcells.kernels.triton.device import activations
from seqcells.kernels.triton.device.cells import CELLS


@triton.jit
def load(base, count: tl.constexpr, n, at, inside):
    tiles = ()
    for i in tl.static_range(count):
        tiles = tiles + (tl.load(base + i * n + at, inside, other=0.0),)  # noqa: RUF005, Triton has no unpacking
    return tiles


@triton.jit
def store(base, tiles, count: tl.constexpr, n, at, inside):
    for i in tl.static_range(count):
        tl.store(base + i * n + at, tiles[i], inside)


@triton.jit
def forward(
    cell: tl.constexpr, x, r, s, p, new, saved, n,
    xs: tl.constexpr, rs: tl.constexpr, ss: tl.constexpr, ps: tl.constexpr, kept: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < n
    x, r = load(x, xs, n, at, inside), load(r, rs, n, at, inside)
    states, values = cell(x, r, load(s, ss, n, at, inside), load(p, ps, n, at, inside))
    store(new, states, ss, n, at, inside)
    store(saved, values, kept, n, at, inside)


@triton.jit
def backward(
    cell: tl.constexpr, saved, s, new, p, d, dx, dr, ds, dp, n,
    xs: tl.constexpr, rs: tl.constexpr, ss: tl.constexpr, ps: tl.constexpr, kept: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < n
    values, p, d = load(saved, kept, n, at, inside), load(p, ps, n, at, inside), load(d, ss, n, at, inside)
    gx, gr, gs, gp = cell(values, load(s, ss, n, at, inside), load(new, ss, n, at, inside), p, d)
    store(dx, gx, xs, n, at, inside)
    store(dr, gr, rs, n, at, inside)
    store(ds, gs, ss, n, at, inside)
    store(dp, gp, ps, n, at, inside)


@triton.jit
def apply(function: tl.constexpr, x, y, n, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + at, function(tl.load(x + at, at < n, other=0.0)), at < n)


def run(what: str, name: str, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    block = 1 << 16 if what == "activation" else 32
    if what == "activation":
        (x,) = given.values()
        y = torch.full_like(x, torch.nan)
        apply[(triton.cdiv(x.numel(), block),)](getattr(activations, name), x, y, x.numel(), block)
        return {"y": y}
    kernels, n = CELLS[name], given["x"].shape[1]
    counts = [given[k].shape[0] for k in "xrsp"] + [len(kernels.saved)]

    def empty(count: int) -> torch.Tensor:
        return torch.full((count, n), torch.nan, dtype=given["x"].dtype)

    grid, (xs, rs, ss, ps, kept) = (triton.cdiv(n, block),), counts
    out = {"n": empty(ss), "saved": empty(kept), "dx": empty(xs), "dr": empty(rs), "ds": empty(ss), "dp": empty(ps)}
    forward[grid](kernels.forward, *(given[k] for k in "xrsp"), out["n"], out["saved"], n, *counts, block)

    def read(states: torch.Tensor, which: tuple[bool, ...]) -> torch.Tensor:
        return torch.where(torch.tensor(which).unsqueeze(1), states, torch.nan)

    seen = out["saved"], read(given["s"], kernels.previous), read(out["n"], kernels.next), given["p"], given["d"]
    backward[grid](kernels.backward, *seen, *(out[k] for k in ("dx", "dr", "ds", "dp")), n, *counts, block)
    return out


def load_cells(path: str) -> None:
    """Load the cells of a printed file that the registry lacks, as a module beside the package's printed cells."""
    spec = spec_from_file_location("seqcells.kernels.triton.device.others", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    CELLS.update(module.CELLS)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        load_cells(sys.argv[3])
    torch.save([run(*request) for request in torch.load(sys.argv[1])], sys.argv[2])
