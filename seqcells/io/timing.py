"""The time of a model before and after its recurrent modules were replaced, with nothing left changed by measuring."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..modules.freezing import Freezable

BUDGET = 2.0
"""Seconds after which no further round begins."""
ROUNDS = 9
BLOCK = BUDGET / ROUNDS / 4
"""Seconds after which a block's last call ends: each round has four."""
WARM_UP = 3
"""Calls: the third alike of a module is the first that is prepared."""


class Pair(NamedTuple):
    """Medians in seconds, each of one call of the model."""

    before: float
    after: float

    def __str__(self) -> str:
        ratio = self.before / self.after
        return f"{self.before * 1e3:.3g} ms before, {self.after * 1e3:.3g} ms after, {ratio:.2f}× as fast"


class Times(NamedTuple):
    """What one call with the example takes, in eval mode and under no_grad."""

    model: Pair
    layers: dict[nn.Module, Pair]
    """The replaced modules that the example reaches, all calls of each added up."""

    def of(self, module: nn.Module) -> str:
        return str(self.layers.get(module, "not called with this example"))


def arguments(example: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Positional and keyword arguments: a tuple is the former, a dict the latter, all else one positional argument."""
    if isinstance(example, dict):
        return (), example
    return (example if type(example) is tuple else (example,)), {}


def compare(call: Callable[[], Any], modules: Sequence[nn.Module], sides: Sequence[Callable[[], Any]]) -> Times:
    """The times of both sides, by turns.

    Args:
        call: calls the model.
        modules: whose own time is asked for.
        sides: what makes the model what it is before, and after. It is left as the last makes it.
    """
    synchronize = _synchronize(modules)
    whole: list[list[float]] = [[], []]
    single: list[list[dict[nn.Module, float]]] = [[], []]
    begin = time.perf_counter()
    for turn in range(ROUNDS):
        if turn and time.perf_counter() - begin > BUDGET:
            break
        for side, take in enumerate(sides):
            take()
            for _ in range(WARM_UP):
                if _seconds(call, synchronize) > BLOCK:
                    break
            whole[side] += [_seconds(call, synchronize) for _ in _block()]
            with _watched(modules, synchronize) as spent:
                for _ in _block():
                    spent.clear()
                    call()
                    single[side].append(spent.copy())
    # A call need not reach each module.
    times = {module: [[each[module] for each in side if module in each] for side in single] for module in modules}
    layers = {module: _pair(both) for module, both in times.items() if all(both)}
    return Times(_pair(whole), layers)


def _pair(samples: Sequence[Sequence[float]]) -> Pair:
    return Pair(*(float(torch.tensor(side, dtype=torch.float64).median()) for side in samples))


def _seconds(call: Callable[[], Any], synchronize: Callable[[], Any]) -> float:
    synchronize()
    begin = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - begin


def _block() -> Iterator[int]:
    """As many turns as fit in a block, one at the least."""
    end = time.perf_counter() + BLOCK
    for turn in range(100):
        if turn and time.perf_counter() > end:
            return
        yield turn


@contextmanager
def _watched(modules: Sequence[nn.Module], synchronize: Callable[[], Any]) -> Iterator[dict[nn.Module, float]]:
    """The seconds that each module spends in `forward`, its hooks not counted."""
    spent: dict[nn.Module, float] = {}
    begun: dict[nn.Module, float] = {}

    def begin(module: nn.Module, _: Any) -> None:
        synchronize()
        begun[module] = time.perf_counter()

    def end(module: nn.Module, _: Any, output: Any) -> None:
        synchronize()
        spent[module] = spent.get(module, 0.0) + time.perf_counter() - begun[module]

    handles = [module.register_forward_pre_hook(begin) for module in modules]
    handles += [module.register_forward_hook(end, prepend=True) for module in modules]
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def _synchronize(modules: Sequence[nn.Module]) -> Callable[[], Any]:
    devices = {tensor.device.type for module in modules for tensor in module.parameters()}
    return torch.accelerator.synchronize if devices - {"cpu", "meta"} else lambda: None


@contextmanager
def inference(model: nn.Module, example: Any) -> Iterator[None]:
    """Eval mode under no_grad. Afterwards all is as it was that a call may change: modes, buffers and attributes of the
    modules, the example's own tensors, and random numbers. Parameters, and what a list or dict holds, are not looked
    at."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    # Modules that change their class have attributes of their own besides.
    kept = [(module, _attributes(module)) for module in modules]
    own: list[dict[str, Any]] = [table for module in modules for table in (module._buffers, module._parameters)]
    tables = [(table, table.copy()) for table in own]
    positional, named = arguments(example)
    values = tree_leaves((positional, dict(named)))
    values += [value for _, attributes in kept for value in attributes.values()]
    values += [buffer for module in modules for buffer in module._buffers.values()]
    tensors = {id(value): value for value in values if isinstance(value, Tensor) and not value.is_meta}
    copies = [(tensor, tensor.detach().clone()) for tensor in tensors.values()]
    with torch.no_grad(), _random_numbers():
        for module in modules:
            module.training = False
        try:
            yield
        finally:
            for module, attributes in kept:
                for name in vars(module).keys() - attributes.keys() if _is_plain(module) else ():
                    del vars(module)[name]
                vars(module).update(attributes)
            for table, before in tables:
                table.clear()
                table.update(before)
            for tensor, copy in copies:
                if not torch.equal(tensor, copy):
                    tensor.copy_(copy)
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


def _is_plain(module: nn.Module) -> bool:
    return not isinstance(module, (nn.RNNBase, nn.RNNCellBase, Freezable))


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if _is_plain(module) or isinstance(value, Tensor)}


@contextmanager
def _random_numbers() -> Iterator[None]:
    """They go on afterwards as if none had been drawn: torch's, numpy's and Python's."""
    numpy = sys.modules.get("numpy")
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    own, theirs = random.getstate(), numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(own)
        if numpy:
            numpy.random.set_state(theirs)
