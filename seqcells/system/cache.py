"""The package's folder on disk: tables measured on this machine lie there. Nothing is created before it is written.

The folder is ``SEQCELLS_CACHE``, else ``$XDG_CACHE_HOME/seqcells``, else the system's place for such things.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def folder(*parts: str) -> Path:
    """The folder, or one inside it. The path exists only once something was written there.

    Where the home is unknown the path begins with ``~``: nothing can be read there, and `write` says so.
    """
    own = os.environ.get("SEQCELLS_CACHE")
    if own:
        return _absolute(own).joinpath(*parts)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # its specification has relative ones ignored
        return Path(xdg, "seqcells", *parts)
    if sys.platform == "win32":
        return _absolute(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").joinpath("seqcells", "cache", *parts)
    return _absolute("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").joinpath("seqcells", *parts)


def write(path: str | Path, content: str | bytes) -> None:
    """A file, whole or not at all: written aside in its folder, then moved in by one rename.

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
    """Hold the lock of that name against other processes. A lock is let go when the process that holds it dies.

    Args:
        name: the lock's, a file's name without its ending.
        timeout: seconds to wait for it.

    Raises:
        TimeoutError: another process kept it for longer; the error names the file.
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout  # not at import, which would be longer by it

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
    """The folder is made; an OSError inside says which folder it was, and of the cache how to have it elsewhere."""
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
    """The path from the root on, unless it begins with a home that is unknown."""
    path = os.path.expanduser(path)
    return Path(path) if path.startswith("~") else Path(path).absolute()
