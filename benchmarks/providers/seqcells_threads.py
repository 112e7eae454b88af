"""seqcells with its own number of threads, for suites under load, beside rows with the run's number of threads."""

import torch

from seqcells.request.weights import Weights
from seqcells.system import machine

from ..case import Case, Inputs
from .base import Prepared
from .seqcells_backends import Seqcells

ONE_THREAD = "seqcells one thread"
TWICE = "seqcells twice the threads"


class _Threads(Seqcells):
    """What both providers share."""

    def __init__(self, backend: str, name: str) -> None:
        super().__init__(backend)
        self.name = name

    def why_not_available(self, device: str) -> str | None:
        return super().why_not_available(device) if device == "cpu" else "CPU only"

    def why_not(self, case: Case) -> str | None:
        return super().why_not(case) if case.suite.loads else "other numbers of threads are for suites under load"


class SeqcellsOneThread(_Threads):
    """Our engine with one thread, which waits for no other. More threads should not take much longer under any load."""

    def __init__(self) -> None:
        super().__init__("cpu", ONE_THREAD)

    def threads(self, given: int) -> int:
        return 1


class SeqcellsTwiceTheThreads(_Threads):
    """``auto`` with twice as many threads as there are usable cores."""

    def __init__(self) -> None:
        super().__init__("auto", TWICE)

    def threads(self, given: int) -> int:
        return 2 * machine.cores()

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        prepared = super().prepare(case, weights, inputs)
        return prepared._replace(notes=[f"{torch.get_num_threads()} threads", *prepared.notes])
