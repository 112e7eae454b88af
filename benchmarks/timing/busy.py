"""Busy processes beside the timed process: other programs that want the same processors."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from seqcells.system import machine


def count(load: float) -> int:
    """The number of processes of a load, which is given for each usable core."""
    return round(load * machine.cores())


@contextlib.contextmanager
def processes(number: int) -> Iterator[list[int]]:
    """The ids of ``number`` busy processes, which all spin when the block begins and are gone when it ends."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("spin.py")), str(os.getpid())]
    with contextlib.ExitStack() as stack:
        started = []
        for _ in range(number):
            child = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            stack.callback(child.kill)  # runs before the child's own __exit__, which waits for the child
            started.append(child)
        for child in started:
            if not child.stdout.readline():
                raise RuntimeError(f"a busy process ended by itself (exit code {child.wait()})")
        yield [child.pid for child in started]
