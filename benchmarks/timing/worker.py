"""The process of one provider: prepares a case, checks its results, and times calls on request."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from .. import parity
from ..case import Case
from ..providers import Prepared, Provider
from . import Sampling

LONG_CALL = 20e-3
"""Seconds. A longer call is timed once, not twice, before the turns are planned."""


def main(connection: Connection, provider: Provider, threads: int) -> None:
    """Serve requests ``(method, *arguments)`` until the other end closes; answers are ``(ok, value)``."""
    die_with_parent()
    os.environ.update(provider.environment)
    _keep_memory()
    torch.set_num_threads(threads)
    worker = Worker(provider)
    connection.send((True, os.getpid()))
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((True, getattr(worker, method)(*arguments)))
        except Exception as problem:
            connection.send((False, one_line(problem)))


def _keep_memory() -> None:
    """Make glibc keep freed memory, which happens by chance in some processes and not in others.

    By glibc's defaults, a large block gets fresh pages from the kernel at each call. The exception is a heap with a
    live block above it. One and the same operator took 26 or 37 ms, by chance. This setting gives all providers the
    faster case.
    """
    trim_threshold, mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):  # other C libraries stay as they are
        library = ctypes.CDLL(None)
        library.mallopt(trim_threshold, 2**31 - 1)
        library.mallopt(mmap_max, 0)


def one_line(problem: BaseException) -> str:
    """An exception in one line, for a row."""
    text = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {text[0][:200] if text else ''}"


class Worker:
    """One provider and its current case."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.prepared: Prepared | None = None

    def prepare(self, case: Case, truth_path: str) -> tuple[float, float, list[str]]:
        """Prepare a case; return the relative error, the seconds of one call, and notes."""
        self.prepared = None
        gc.collect()
        weights = case.weights()
        self.prepared = self.provider.prepare(case, weights, case.inputs(weights))
        error, missing = parity.error(self.prepared.results(self.prepared.run(0)), torch.load(truth_path))
        notes = list(self.prepared.notes)
        if missing:
            notes.append(f"does not give {', '.join(missing)}")
        once = self._timed(1)
        return error, once if once > LONG_CALL else min(once, self._timed(1)), notes

    def turn(self, once: float, sampling: Sampling) -> list[tuple[float, int]]:
        """For each sample: the seconds of one call and the number of calls; a call takes about ``once`` seconds."""
        if sampling.by_clock:
            if sampling.untimed(once):
                self._timed_for(sampling.warm_up)
            return [self._timed_for(sampling.sample) for _ in range(sampling.samples)]
        self._timed(sampling.untimed(once))
        calls = max(1, round(sampling.sample / once))
        return [(self._timed(calls) / calls, calls) for _ in range(sampling.samples_of(once))]

    def memory(self) -> float:
        """The largest growth of the process in bytes during one run: peak resident set, after free pages were
        returned."""
        self.provider.release()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current resident set
        before = _status("VmRSS")
        self.prepared.run(0)
        return _status("VmHWM") - before

    def _timed(self, calls: int) -> float:
        run = self.prepared.run
        start = time.perf_counter()
        for _ in range(calls):
            run(0)
        return time.perf_counter() - start

    def _timed_for(self, seconds: float) -> tuple[float, int]:
        calls, passed, run = 0, 0.0, self.prepared.run
        start = time.perf_counter()
        while not calls or passed < seconds:
            run(0)
            calls += 1
            passed = time.perf_counter() - start
        return passed / calls, calls


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def die_with_parent() -> None:
    """End with the parent, even if this process is stopped or the parent was killed: no process may be left behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
