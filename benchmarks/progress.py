"""How far a run has come, in the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from .case import Case


@contextlib.contextmanager
def bar(total: int) -> Iterator[Callable[[int, Case], None]]:
    """A function to call as each case begins. A bar where there is rich and a terminal; lines otherwise."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        console = None
    else:
        console = Console(stderr=True)
    if console is None or not console.is_terminal:
        yield lambda index, case: print(f"[{index + 1}/{total}] {case}", file=sys.stderr, flush=True)
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda index, case: progress.update(task, completed=index, description=str(case))
