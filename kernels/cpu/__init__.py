"""The CPU engine: C++, one call for all steps, for any cell that is derived from its equations.

The operators call `engine`. This module does not load the extension when it is imported.
"""

from __future__ import annotations

from ...system.untraced import constant

SETS = "portable", "avx2", "avx512"
"""Instruction sets that cells are compiled for, the best one last."""


@constant
def why_not_available() -> str | None:
    """Why no kernel can run here, or None."""
    try:
        from . import _engine  # noqa: F401
    except ImportError as error:
        return f"its extension is not built ({error}): install from source with a C++ compiler"
    return None


def empty_cache() -> int:
    """Give back to the system the memory that the CPU engine keeps for its next calls, half a gigabyte at most.

    Returns:
        How many bytes were given back.
    """
    if why_not_available():
        return 0
    from . import _engine

    return _engine.release()
