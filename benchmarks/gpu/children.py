"""The processes of a session: several run at once, each output line is delivered when it is written, and none outlives
the session."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PATIENCE = 2.0
"""Seconds that a process gets to end after SIGTERM, and again after SIGKILL."""


class Heard(NamedTuple):
    """A line of output of a process, or its end."""

    name: str
    line: str | None
    """None: the process has ended."""
    code: int | None = None
    """The exit code; None where the process was stopped, or not begun, because the time was over."""
    seconds: float = 0.0
    """Seconds since the process began."""


def run(
    commands: Mapping[str, Sequence[str]], at_once: int, seconds: float, log: Path, environment: Mapping[str, str]
) -> Iterator[Heard]:
    """Run commands by name in order, ``at_once`` at a time. The file ``log`` also gets their output."""
    deadline = time.monotonic() + seconds
    log.parent.mkdir(parents=True, exist_ok=True)
    heard: queue.Queue[Heard] = queue.Queue()
    waiting, running = list(commands), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() < deadline:
                name = waiting.pop(0)
                running[name] = _begin(name, commands[name], heard, log, environment)
            try:
                event = heard.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if event.line is None:
                running.pop(event.name)
            yield event
    finally:
        _stop(running.values())
    yield from (Heard(name, None) for name in (*running, *waiting))


def _begin(
    name: str, command: Sequence[str], heard: queue.Queue, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the processes that it starts end with it
    )

    began = time.monotonic()

    def listen() -> None:
        with log.open("a", buffering=1) as file:
            for line in process.stdout:
                file.write(f"{name}: {line}")
                heard.put(Heard(name, line.rstrip("\n")))
        heard.put(Heard(name, None, process.wait(), time.monotonic() - began))

    threading.Thread(target=listen, daemon=True).start()
    return process


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, PATIENCE)):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        over = time.monotonic() + patience
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, over - time.monotonic()))
