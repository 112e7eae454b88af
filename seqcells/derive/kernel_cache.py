"""Kernels that are compiled at first use: their names, and the folder on disk that caches them.

A kernel's file name is a hash of its source, never the cell's name, so a redefined cell gets kernels of its own.
``SEQCELLS_COMPILE=never`` forbids compilation.
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
"""Seconds to wait for another process that makes the same kernels."""


def why_not_allowed() -> str | None:
    """Why no kernels may be made, or None."""
    return "SEQCELLS_COMPILE=never" if os.environ.get("SEQCELLS_COMPILE") == "never" else None


def key(*words: str) -> str:
    """A file name for a kernel that is made of these texts: 24 hexadecimal digits of a hash."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]


def kept(ending: str) -> tuple[Path, list[Path]]:
    """The cache's folder for kernels, and the files in it with this ending, sorted."""
    folder = files.folder("kernels")
    return folder, sorted(folder.glob(f"*{ending}"))


def made(names: Sequence[str], make: Callable[[Path], None]) -> list[Path]:
    """The files of these names; if one is missing, ``make`` writes them into the folder that it is given.

    One process makes them in the cache's folder, while other processes wait. If the cache cannot be written, each
    process makes its own files in a temporary folder.

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
"""Lock of this process's threads, for the case that the cache, and so its lock file, cannot be written."""


@cache
def _own_folder() -> tempfile.TemporaryDirectory:
    """A temporary folder of this process, removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="seqcells-")
