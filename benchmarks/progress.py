"""Shows the progress of a run in the terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from .case import Case


@contextlib.contextmanager
def bar() -> Iterator[Callable[[int, int, Case], None]]:
    """Yield a function to call as each case begins, with the number of cases before, the expected total, and the case.

    It draws a bar where rich is installed and stderr is a terminal; otherwise it prints lines.
    """
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        console = None
    else:
        console = Console(stderr=True)
    if console is None or not console.is_terminal:
        yield lambda index, total, case: print(f"[{index + 1}/{total}] {case}", file=sys.stderr, flush=True)
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("")
        yield lambda index, total, case: progress.update(task, completed=index, total=total, description=str(case))
