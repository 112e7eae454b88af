"""Kernels that are made at first use: what they are known by, and the folder that keeps them.

A kernel's name on disk is the hash of what it is made of, never the cell's name: a cell that is defined once more gets
kernels of its own. ``SEQCELLS_COMPILE=never`` has none made.
"""

import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from ..system import cache as files

PATIENCE = 600.0
"""Seconds to wait for another process that makes the same."""


def forbidden() -> str | None:
    """Why no kernels may be made, or None."""
    return "SEQCELLS_COMPILE=never" if os.environ.get("SEQCELLS_COMPILE") == "never" else None


def key(*words: str) -> str:
    """A name for what is made of those texts."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]


def kept(ending: str) -> tuple[Path, list[Path]]:
    """The folder that the cache has for kernels, and the files of that ending in it."""
    folder = files.folder("kernels")
    return folder, sorted(folder.glob(f"*{ending}"))


def made(names: Sequence[str], make: Callable[[Path], None]) -> list[Path]:
    """The files of those names, of which ``make`` leaves in a folder those that are not there.

    One process of all makes them, in the cache's folder; where that cannot be written, each in a folder of its own.

    Raises:
        TimeoutError: another process has been making them for too long.
    """
    folder = files.folder("kernels")
    try:
        if not all((folder / name).exists() for name in names):
            with files.lock(names[0].rpartition(".")[0], PATIENCE):
                folder.mkdir(parents=True, exist_ok=True)
                make(folder)
    except TimeoutError:
        raise
    except OSError as problem:
        with _ALONE:
            folder = Path(_own_folder().name)
            print(f"seqcells: {problem}; kernels are kept in {folder} while this process runs", file=sys.stderr)
            make(folder)
    return [folder / name for name in names]


_ALONE = threading.Lock()
"""Held where no file can be: of this process one thread makes kernels."""


@cache
def _own_folder() -> tempfile.TemporaryDirectory:
    """A folder of this process's own, which goes when the process ends."""
    return tempfile.TemporaryDirectory(prefix="seqcells-")
