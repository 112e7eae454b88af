"""``python -m seqcells.derive``: print the kernels of every built-in cell into ``kernels/``."""

from pathlib import Path

from ..cells import BUILT_IN, STAGED
from . import cpp, plan, triton, triton_stages


def printed() -> dict[Path, str]:
    """Every printed file's path and text: its head, written by hand, and below it all that is printed."""
    plans = [plan(cell) for cell in BUILT_IN.values()]
    kernels = Path(__file__).parents[1] / "kernels"
    files = {
        kernels / "triton" / "cells.py": triton(plans),
        kernels / "triton" / "staged_cells.py": triton_stages([*STAGED.values()]),
        kernels / "cpu" / "cells.h": cpp(plans),
    }
    return {path: path.read_text().partition(text[: text.index("\n", 1)])[0] + text for path, text in files.items()}


if __name__ == "__main__":
    for path, text in printed().items():
        path.write_text(text)
