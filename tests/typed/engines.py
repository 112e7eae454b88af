"""The engines as a type checker sees them: `make lint` reads this file, and nothing runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seqcells.backends.engine import Engine, PreparingEngine, StackingEngine
    from seqcells.kernels.cpu import engine as cpu
    from seqcells.kernels.triton import engine, persistent_engine
    from seqcells.kernels.triton.plans import cluster

    engines: list[Engine] = [cpu, engine, persistent_engine, cluster]
    preparing: list[PreparingEngine] = [cpu, engine, persistent_engine]
    stacking: list[StackingEngine] = [engine, persistent_engine]
