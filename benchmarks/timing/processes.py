"""Timing on the CPU: a process for each provider; all processes except the timed one are stopped.

Thread pools spin after a call and wait for the next one. In one process, or in processes that keep running, one
provider would take the cores of another. So each provider has its own process, which is stopped (SIGSTOP) while another
is timed. All take turns in rounds whose order rotates, so that disturbances of the machine meet all alike. In suites
under load the busy processes run through all turns of a case.
"""

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from .. import parity
from ..case import Case
from ..providers import AA, BASELINE, Provider
from . import AA_BAND, ALONE, SHARED, Effort, Outcome, Sampling, busy, out_of_time, why_not_measured
from .other_load import Others
from .worker import main

STARTING, ANSWERING = 120.0, 600.0
"""Seconds to wait for a process to start, and for an answer (torch.compile takes long)."""


class _Process:
    """A provider's process, stopped except while it has a request."""

    def __init__(self, provider: Provider, threads: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([f"{__package__}.fork_server"])
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=main, args=(theirs, provider, threads), daemon=True)
        self.process.start()
        theirs.close()
        self._answer(STARTING)
        self._stop()

    def ask(self, *request: Any) -> Any:
        """The answer to a request.

        Raises:
            RuntimeError: the request failed; with the provider's message.
        """
        os.kill(self.process.pid, signal.SIGCONT)
        self.connection.send(request)
        answer = self._answer(ANSWERING)
        self._stop()
        return answer

    def _answer(self, patience: float) -> Any:
        if not self.connection.poll(patience):
            self.kill()
            raise RuntimeError(f"no answer in {patience:.0f} s")
        try:
            fine, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"its process died (exit code {self.process.exitcode})") from None
        if not fine:
            self._stop()
            raise RuntimeError(value)
        return value

    def _stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        for _ in range(1000):  # until the kernel has stopped all its threads
            if not stat.exists() or stat.read_text().rpartition(") ")[2][0] == "T":
                return
            time.sleep(1e-4)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class Processes:
    """Measures cases on the CPU; a context manager whose processes end with it."""

    def __init__(self, providers: Iterable[Provider], effort: Effort, threads: int | None = None) -> None:
        self.providers, self.effort = {provider.name: provider for provider in providers}, effort
        self.threads = threads or torch.get_num_threads()
        self._processes: dict[str, _Process] = {}
        self._folder = tempfile.TemporaryDirectory()
        self.deadline: float | None = None
        self.others: list[float] = []
        self._unavailable = {name: provider.why_not_available("cpu") for name, provider in self.providers.items()}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
        self._folder.cleanup()

    def measure(self, case: Case) -> Iterator[Outcome]:
        """Yield an outcome for each provider."""
        truth = os.path.join(self._folder.name, "truth.pt")
        torch.save(parity.truth(case), truth)
        outcomes = {name: Outcome(name, provider.ours) for name, provider in self.providers.items()}
        once: dict[str, float] = {}
        for outcome in outcomes.values():
            self._prepare(case, truth, outcome, once)
        with busy.processes(busy.count(case.load)) as beside:
            others = Others([*(process.process.pid for process in self._processes.values()), *beside])
            if case.suite.memory:
                for name in list(once):
                    self._request(outcomes[name], "memory")
            elif once:
                self._take_turns(outcomes, once, SHARED if case.suite.loads else ALONE)
            share = others.share()
        if share is not None:
            self.others.append(share)
        yield from outcomes.values()

    def _prepare(self, case: Case, truth: str, outcome: Outcome, once: dict[str, float]) -> None:
        name = outcome.provider
        why_not = why_not_measured(self.providers[name], self._unavailable[name], case, self.deadline)
        if why_not:
            outcome.status, outcome.reason = why_not
            return
        answer = self._request(outcome, "prepare", case, truth)
        if answer is None:
            return
        outcome.error, once[name], outcome.notes = answer
        wrong = parity.verdict(case, outcome.error)
        if wrong:
            outcome.status, outcome.reason = "wrong", wrong
            del once[name]

    def _take_turns(self, outcomes: dict[str, Outcome], once: dict[str, float], sampling: Sampling) -> None:
        """Run rounds until every provider has its samples. While the A/A row is off, there are more rounds, but not
        under load, where the A/A row says little."""
        if AA in once and BASELINE in once:
            once[AA] = once[BASELINE] = min(once[AA], once[BASELINE])
        for _ in range(1 + self.effort.extensions * (sampling is ALONE)):
            self._rounds(outcomes, once, sampling)
            for name, outcome in outcomes.items():
                if outcome.status == "failed":
                    once.pop(name, None)
            if not (AA in once and BASELINE in once):
                return
            typical = {name: statistics.median(outcomes[name].figures) for name in (AA, BASELINE)}
            if abs(typical[BASELINE] / typical[AA] - 1) <= AA_BAND or out_of_time(self.deadline):
                return

    def _rounds(self, outcomes: dict[str, Outcome], once: dict[str, float], sampling: Sampling) -> None:
        turns, planned = {}, 0.0
        for name, call in once.items():
            turns[name] = self.effort.turns(call, sampling)
            planned += turns[name] * sampling.turn(call)
        began = time.monotonic()
        rounds, order = max(turns.values()), list(once)
        for index in range(rounds):
            if index >= self.effort.fewest and time.monotonic() - began > 3 * planned:
                return  # the machine is busy with something else
            first = index % len(order)
            for name in order[first:] + order[:first]:
                # A provider with fewer turns has them spread over all rounds.
                theirs = index * turns[name] // rounds != (index - 1) * turns[name] // rounds
                if theirs and outcomes[name].status == "ok":
                    samples = self._request(outcomes[name], "turn", once[name], sampling)
                    if samples and sampling.by_clock:
                        once[name] = samples[-1][0]  # busy processes may have changed the time of a call

    def _request(self, outcome: Outcome, method: str, *arguments: Any) -> Any:
        """The provider's answer. The outcome gets the figures, or the failure."""
        name = outcome.provider
        try:
            if name not in self._processes:
                provider = self.providers[name]
                self._processes[name] = _Process(provider, provider.threads(self.threads))
            answer = self._processes[name].ask(method, *arguments)
        except (RuntimeError, OSError) as problem:
            outcome.status, outcome.reason, outcome.figures = "failed", str(problem), []
            if name not in self._processes or not self._processes[name].process.is_alive():
                self._lose(name, str(problem))
            return None
        if method == "turn":
            outcome.figures += [seconds for seconds, _ in answer]
            outcome.calls += [calls for _, calls in answer]
        elif method == "memory":
            outcome.figures.append(answer)
        return answer

    def _lose(self, name: str, reason: str) -> None:
        if name in self._processes:
            self._processes.pop(name).kill()
        self._unavailable[name] = reason
