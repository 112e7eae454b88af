"""The package's cache folder on disk, for measured tables and compiled kernels. It is created at the first write.

The folder is ``SEQCELLS_CACHE``, else ``$XDG_CACHE_HOME/seqcells``, else the system's usual place for caches.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(*parts: str) -> Path:
    """The path of the cache folder, or of a folder inside it. The folder exists only after something was written there.

    If the home directory is unknown, the path begins with ``~``. Then nothing can be read, and `write` raises an error.
    """
    own = os.environ.get("SEQCELLS_CACHE")
    if own:
        return _absolute(own).joinpath(*parts)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification says that relative paths are ignored
        return Path(xdg, "seqcells", *parts)
    if sys.platform == "win32":
        return _absolute(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").joinpath("seqcells", "cache", *parts)
    return _absolute("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").joinpath("seqcells", *parts)


def write(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically: the content goes to a temporary file in the same folder, which is then renamed.

    Raises:
        OSError: the file cannot be written; the error names its folder, and ``SEQCELLS_CACHE`` if that is the cache.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with _explained(path.parent):
        try:
            with open(aside, "xb") as file:
                file.write(data)
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def lock(name: str, timeout: float) -> Iterator[None]:
    """Hold the lock of this name against other processes. A lock is released when the process that holds it dies.

    Args:
        name: the name of the lock's file, without its ending.
        timeout: the most seconds to wait for the lock.

    Raises:
        TimeoutError: another process held the lock for longer; the error names the lock's file.
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout  # imported late, to keep the import of seqcells short

    path = folder("locks", f"{name}.lock")
    held = FileLock(path)
    with _explained(path.parent):
        try:
            held.acquire(timeout=timeout)
        except Timeout:
            raise TimeoutError(f"another process holds {path}, for more than {timeout:g} seconds") from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def _explained(parent: Path) -> Iterator[None]:
    """Make a folder; an OSError inside the block is raised again with the folder's name.

    If the folder is in the cache, the message also says how to place the cache elsewhere.
    """
    try:
        if str(parent).startswith("~"):
            raise FileNotFoundError("the home directory is unknown")
        parent.mkdir(parents=True, exist_ok=True)
        yield
    except TimeoutError:
        raise
    except OSError as problem:
        words = f"cannot write to {parent} ({problem.strerror or problem})"
        if parent.is_relative_to(folder()):
            words += ": set SEQCELLS_CACHE to a folder that can be written to"
        raise OSError(problem.errno or 0, words) from problem


def _absolute(path: str) -> Path:
    """The absolute path, with ``~`` expanded; a path whose home directory is unknown stays as it is."""
    path = os.path.expanduser(path)
    return Path(path) if path.startswith("~") else Path(path).absolute()
