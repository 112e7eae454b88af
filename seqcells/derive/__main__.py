"""``python -m seqcells.derive``: print the kernels of every registered cell into ``kernels/``."""

from pathlib import Path

from ..cells import REGISTRY
from . import cpp, plan, triton

KERNELS = Path(__file__).parents[1] / "kernels"


def printed() -> dict[Path, str]:
    """Every printed file's path and text."""
    plans = [plan(cell) for cell in REGISTRY.values()]
    return {KERNELS / "triton" / "cells.py": triton(plans), KERNELS / "cpu" / "cells.h": cpp(plans)}


if __name__ == "__main__":
    for path, text in printed().items():
        path.write_text(text)
