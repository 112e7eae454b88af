"""Time a model before and after its recurrent modules were replaced, without lasting effects on the model."""

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
"""Seconds after which a block begins no further call; each round has four blocks."""
WARM_UP = 3
"""The number of warm-up calls; a module's third call of a kind is its first prepared call."""


class Pair(NamedTuple):
    """Median seconds of one call, before and after."""

    before: float
    after: float

    def __str__(self) -> str:
        ratio = self.before / self.after
        return f"{self.before * 1e3:.3g} ms before, {self.after * 1e3:.3g} ms after, {ratio:.2f}× as fast"


class Times(NamedTuple):
    """The times of one call with the example, in eval mode and under no_grad."""

    model: Pair
    layers: dict[nn.Module, Pair]
    """The times of the replaced modules that the example reaches, with all calls of a module added up."""

    def of(self, module: nn.Module) -> str:
        return str(self.layers.get(module, "not called with this example"))


def arguments(example: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The positional and keyword arguments of a call: from a tuple, from a dict, or one positional argument."""
    if isinstance(example, dict):
        return (), example
    return (example if type(example) is tuple else (example,)), {}


def compare(call: Callable[[], Any], modules: Sequence[nn.Module], sides: Sequence[Callable[[], Any]]) -> Times:
    """The times of both sides, measured in turns.

    Args:
        call: a function that calls the model.
        modules: the modules whose own times are measured.
        sides: two functions that put the model into its state before, and after. The model is left in the latter.
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
    # A call need not reach every module.
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
    """The turns of a block: as many as fit into its seconds, at least 1, at most 100."""
    end = time.perf_counter() + BLOCK
    for turn in range(100):
        if turn and time.perf_counter() > end:
            return
        yield turn


@contextmanager
def _watched(modules: Sequence[nn.Module], synchronize: Callable[[], Any]) -> Iterator[dict[nn.Module, float]]:
    """Measure the seconds that each module spends in `forward`, without its hooks."""
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
    """Put a model into eval mode under no_grad, and restore afterwards what its calls may change.

    Modes, buffers and attributes of the modules, the example's tensors, and the states of random number generators are
    restored. The values of parameters, and the contents of list and dict attributes, are not.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    # Modules that change their class get further attributes, which `_is_plain` leaves alone.
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
    """Restore the random number generators of torch, numpy and Python afterwards."""
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
