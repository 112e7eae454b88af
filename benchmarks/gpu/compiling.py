"""Compiles the kernels of cases: one call of each fills Triton's cache before the timing."""

import gc
import time
from collections.abc import Iterator
from typing import Any

import torch

from ..providers import AA, BASELINE
from ..timing.events import allow_tf32
from ..timing.worker import one_line
from . import cases
from .code_digest import Watched


def compiled(rehearsal: bool, first: int, every: int) -> Iterator[dict[str, Any]]:
    """Yield an event for each provider of the cases ``first``, ``first + every``, and so on.

    An event has the case's index, the provider, ``code`` and ``kernels``, or ``error``, and the seconds that it took.
    """
    planned = cases.planned(rehearsal)
    for index in range(first, len(planned), every):
        case = planned[index]
        allow_tf32(case)
        for provider in map(Watched, cases.providers(case, rehearsal)):
            if provider.name in (BASELINE, AA) or provider.why_not_available(case.device) or provider.why_not(case):
                continue
            began = time.monotonic()
            event: dict[str, Any] = {"case": index, "provider": provider.name}
            try:
                weights = case.weights()
                provider.prepare(case, weights, case.inputs(weights))
                event |= {"code": provider.code, "kernels": provider.kernels}
            except Exception as problem:  # go on with the other providers; the timing will report the error again
                event["error"] = one_line(problem)
            gc.collect()
            torch.cuda.empty_cache()
            yield event | {"seconds": time.monotonic() - began}
