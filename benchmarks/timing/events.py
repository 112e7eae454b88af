"""Timing on CUDA: one process, events around each call, and rotating inputs, so that no input is found in the cache.

Providers are measured one after another: torch.nn first, and at once torch.nn again, as the A/A row. Both are measured
again while they differ. Launches may dominate calls from Python. So the replay of a call as a CUDA graph is timed too,
where it can be captured.
"""

import gc
import math
import statistics
import time
from collections.abc import Iterable, Iterator

import torch

from .. import parity
from ..case import Case
from ..providers import AA, BASELINE, Prepared, Provider
from . import Effort, Outcome, out_of_time, why_not_measured
from .worker import one_line

WARM_UP = 3
MOST_SETS = 256
"""The largest number of input sets. After a few hundred calls even small inputs have left the cache, because launches
evict them too."""


class Events:
    """Measures cases on the current CUDA device. For another ``device``, a subclass overrides the timing."""

    threads = 1

    def __init__(
        self, providers: Iterable[Provider], effort: Effort, graphs: bool = True, device: str = "cuda"
    ) -> None:
        self.graphs = graphs
        self.providers, self.effort = {provider.name: provider for provider in providers}, effort
        self.deadline: float | None = None
        self.others: list[float] = []
        self._unavailable = {name: provider.why_not_available(device) for name, provider in self.providers.items()}

    def __enter__(self) -> "Events":
        self._tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return self

    def __exit__(self, *_: object) -> None:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = self._tf32
        torch.cuda.empty_cache()

    def measure(self, case: Case) -> Iterator[Outcome]:
        """Yield an outcome for each provider, as soon as there is one."""
        allow_tf32(case)
        try:
            truth = parity.truth(case)
        except Exception as problem:  # most likely out of memory: the next case may be smaller
            why = f"no truth to compare with: {one_line(problem)}"
            yield from (Outcome(p.name, p.ours, "failed", why) for p in self.providers.values())
            return
        pair = [name for name in (BASELINE, AA) if name in self.providers]
        for attempt in range(1 + self.effort.extensions):
            outcomes = [self._outcome(case, name, truth) for name in pair]
            if self._agree(outcomes) or attempt == self.effort.extensions or out_of_time(self.deadline):
                break
        yield from outcomes
        for name in self.providers:
            if name not in pair:
                yield self._outcome(case, name, truth)

    def _agree(self, outcomes: list[Outcome]) -> bool:
        typical = [statistics.median(outcome.figures) for outcome in outcomes if outcome.figures]
        return len(typical) < 2 or abs(typical[0] / typical[1] - 1) <= self.effort.band

    def _outcome(self, case: Case, name: str, truth: parity.Results) -> Outcome:
        outcome = Outcome(name, self.providers[name].ours)
        why_not = why_not_measured(self.providers[name], self._unavailable[name], case, self.deadline)
        if why_not:
            outcome.status, outcome.reason = why_not
            return outcome
        try:
            self._measure(case, outcome, truth)
            gc.collect()
            torch.cuda.empty_cache()
        except Exception as problem:  # a rival's failure must not end the run
            outcome.status, outcome.reason = "failed", one_line(problem)
            outcome.figures, outcome.graph_figures = [], []
        return outcome

    def _measure(self, case: Case, outcome: Outcome, truth: parity.Results) -> None:
        weights = case.weights()
        sets = 1 if case.suite.memory else self._sets(case)
        prepared = self.providers[outcome.provider].prepare(case, weights, case.inputs(weights, sets))
        outcome.error, missing = parity.error(prepared.results(prepared.run(0)), truth)
        outcome.notes = [*prepared.notes, *([f"does not give {', '.join(missing)}"] if missing else [])]
        wrong = parity.verdict(case, outcome.error)
        if wrong:
            outcome.status, outcome.reason = "wrong", wrong
        elif case.suite.memory:
            outcome.figures = [self._peak(prepared) for _ in range(3)]
        else:
            outcome.figures = self._timed([lambda i=i: prepared.run(i) for i in range(sets)])
            if self.graphs:
                self._replayed(prepared, sets, outcome)

    def _sets(self, case: Case) -> int:
        """The number of input sets that are larger than the cache, twice."""
        one = case.shape.steps * case.shape.batch * case.features * case.dtype.itemsize
        free, cache = torch.cuda.mem_get_info()[0], torch.cuda.get_device_properties(0).L2_cache_size
        # Each input has gates_x and gradients too; together they may take a quarter of the memory.
        wide = one * (1 + len(case.cell.gates) * case.shape.hidden // case.features)
        return max(1, min(math.ceil(2 * cache / one), MOST_SETS, int(free / 4 / wide)))

    def _timed(self, calls: list) -> list[float]:
        """Seconds of single calls, in rotation."""
        for index in range(WARM_UP):
            calls[index % len(calls)]()
        torch.cuda.synchronize()
        began = time.perf_counter()
        calls[0]()
        torch.cuda.synchronize()
        once = time.perf_counter() - began
        count = min(max(round(self.effort.seconds / once), self.effort.fewest), 20 * self.effort.most)
        marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for index, (start, end) in enumerate(marks):
            start.record()
            calls[index % len(calls)]()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in marks]

    def _replayed(self, prepared: Prepared, sets: int, outcome: Outcome) -> None:
        """Time replays as a CUDA graph, if the call can be captured; with fewer inputs, because each graph keeps
        memory."""
        sets = min(sets, 4)
        graphs = []
        try:
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                prepared.run(0)
            torch.cuda.current_stream().wait_stream(side)
            for index in range(sets):
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    prepared.run(index)
                graphs.append(graph)
            outcome.graph_figures = self._timed([graph.replay for graph in graphs])
        except Exception as problem:
            outcome.notes.append(f"no CUDA graph: {one_line(problem)[:80]}")
            torch.cuda.synchronize()

    @staticmethod
    def _peak(prepared: Prepared) -> float:
        """The peak of bytes allocated during one run, above the bytes allocated before it."""
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        prepared.run(0)
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)


def allow_tf32(case: Case) -> None:
    """Switch TF32 as the case requires, for cuDNN, for torch's other products and for our kernels."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = case.dtype_name == "tf32"
