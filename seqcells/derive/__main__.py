"""``python -m seqcells.derive``: print the kernels of every built-in cell into ``kernels/``."""

from pathlib import Path

from .. import cells
from ..cells import BUILT_IN, STAGED
from .one_stage import one_stage
from .print_loop import cpp_cells
from .print_one_stage import triton
from .print_stages import triton_stages
from .transformed_cells import transformed

EXTENSION_CELLS = *cells.AHEAD_OF_TIME, transformed(cells.LSTM, "projection(1)"), cells.GRUResetBefore
"""Cells that the CPU engine is built with: torch.nn's cells, and the variants of them that ONNX and Keras have."""


def printed() -> dict[Path, str]:
    """The path and text of every printed file: the hand-written head of the existing file, then the printed part."""
    derived = [one_stage(cell) for cell in BUILT_IN.values()]
    kernels = Path(__file__).parents[1] / "kernels"
    files = {
        kernels / "triton" / "device" / "cells.py": triton(derived),
        kernels / "triton" / "device" / "staged_cells.py": triton_stages([getattr(cells, name) for name in STAGED]),
        kernels / "cpu" / "cells.h": cpp_cells(EXTENSION_CELLS),
    }
    return {path: path.read_text().partition(text[: text.index("\n", 1)])[0] + text for path, text in files.items()}


if __name__ == "__main__":
    for path, text in printed().items():
        path.write_text(text)
