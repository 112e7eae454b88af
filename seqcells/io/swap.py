"""Replace torch's recurrent modules inside a model, and put them back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from ..backends import check_name
from ..modules import convert
from ..modules.cell_modules import GRUCell, LSTMCell, RecurrentCell, RNNCell
from ..modules.layers import GRU, LSTM, RNN
from ..modules.recurrent_layer import RecurrentLayer
from ..modules.stack import Stacked
from . import swap_timing
from .adapters import owners

if TYPE_CHECKING:
    from typing_extensions import Self

OURS: dict[type[nn.Module], type[RecurrentLayer | RecurrentCell]] = {
    ours.torch_class: ours for ours in (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell) if ours.torch_class
}


class _Report(NamedTuple):
    replaced: dict[str, nn.Module]
    """The replaced modules, by name."""
    left: dict[str, str]
    """Why each recurrent module was left that was not replaced, by the module's name."""


class Swapped(_Report):
    """The report of `swap` or `unswap`, by the modules' names in the model."""

    adapted: dict[str, nn.Module]
    """Modules that hold replaced layers and now call these in another way: see `seqcells.io.adapters.owners`."""
    _described: dict[str, str]
    times: swap_timing.Times | None = None
    """The seconds of the model and of its replaced modules, before and after; None if `swap` was given no example."""
    nothing = "no recurrent module of torch.nn in this model"
    called = "calls its layers as ours are called, once for a batch"
    way_back = "Tools that go by torch.nn's types do not find these modules: seqcells.unswap(model) is the way back."

    def __new__(
        cls, replaced: dict[str, nn.Module], left: dict[str, str], adapted: dict[str, nn.Module] | None = None
    ) -> Self:
        self = super().__new__(cls, replaced, left)
        self.adapted = adapted or {}
        # Describes the modules now, as they may change their class again later.
        self._described = {name: _described(module) for name, module in replaced.items()}
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.replaced, self.left, self.adapted

    def __str__(self) -> str:
        times = self.times
        lines = [
            f"{name}: now {self._described[name]}" + ("" if times is None else f", {times.of(module)}")
            for name, module in self.replaced.items()
        ]
        if times is not None:
            lines.append(f"the model: {times.model} (medians in eval mode, under no_grad)")
        lines += [f"{name or 'the model'}: {self.called}" for name in self.adapted]
        lines += [self.way_back] if lines else []
        lines += [f"{name}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or self.nothing


class Unswapped(Swapped):
    """The report of `unswap`."""

    nothing = "no recurrent module of seqcells in this model"
    called = "calls its layers as torch.nn's are called"
    way_back = "seqcells.swap(model) replaces them again."


def swap(model: nn.Module, *, backend: str = "auto", example: Any = None) -> Swapped:
    """Convert every recurrent layer and cell of torch.nn inside ``model`` to one of ours, in place.

    A module changes its class and stays the same object, so all references to it stay valid. It keeps its Parameter
    objects (an optimizer made before still works), buffers, submodules, hooks, attributes, parametrizations and
    training mode. A subclass that does nothing else in its calls becomes one of ours with its methods. Modules that
    cannot be converted are left unchanged. `unswap` is the way back.

    Args:
        model: the model.
        backend: the modules' backend, see `seqcells.call.choose`. Default: ``"auto"``
        example: an input of the model: a tensor, a tuple of arguments or a dict of keyword arguments. With it, the
            report also has the times of the model and of each replaced module, before and after. They are medians of
            interleaved calls in eval mode, under no_grad, for about two seconds (longer if a few calls take longer).
            The model's hooks run. Its mode, buffers and attributes, and the states of torch's, numpy's and Python's
            random generators, are restored. The contents of list and dict attributes are not. Default: None, no call

    Returns:
        The replaced modules, and the modules that were left, with the reasons.

    Raises:
        TypeError: ``model`` is itself such a module; use ``seqcells.LSTM.from_torch``.
        ValueError: for an unknown backend, or an example for a compiled model, whose time is its compiler's.
        Exception: any error that the model raises for the example. The model is then left unchanged.
    """
    check_name(backend)

    refused = owners.why_not(model)

    def to_ours(module: nn.Module) -> None:
        if module in refused:
            raise TypeError(refused[module])
        ours = next((ours for theirs, ours in OURS.items() if isinstance(module, theirs)), RecurrentLayer)
        convert.to_ours(module, ours, backend=backend)

    def change() -> Swapped:
        replaced, left = _change(model, _is_torchs, to_ours, "use the from_torch of seqcells' class")
        for layer in owners.mixed(model):
            convert.to_torch(layer)
            for name in [name for name, module in replaced.items() if module is layer]:
                del replaced[name]
                left[name] = "its owner also holds a layer that was left"
        return Swapped(replaced, left, owners.settle(model))

    if example is None:
        return change()
    if any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in model.modules()):
        raise ValueError("a compiled model cannot be timed with an example: swap first, then compile")
    positional, named = swap_timing.arguments(example)

    def call() -> Any:
        return model(*positional, **named)

    with swap_timing.inference(model, example):
        call()
        report = change()
        modules = list(dict.fromkeys(report.replaced.values()))

        def back() -> None:
            for module in filter(_is_ours, modules):
                convert.to_torch(module)
            owners.settle(model)

        def forth() -> None:
            for module in modules:
                to_ours(module)
            owners.settle(model)

        try:
            sides = back, forth
            report.times = swap_timing.compare(call, modules, sides) if modules else None
        except BaseException:
            back()
            raise
    return report


def unswap(model: nn.Module) -> Unswapped:
    """Undo `swap`: turn every recurrent layer and cell of seqcells inside ``model`` into torch.nn's, in place.

    Parameters, buffers, hooks and attributes stay on a module, as with `swap`. A swapped subclass of a torch.nn module
    gets its own class again. After `swap` and `unswap`, state_dict and outputs are the same as before. Three kinds of
    modules are left: cells that torch.nn does not have, subclasses of our classes, and the layers of a `Stack`.

    Returns:
        What was replaced, and what was left and why.

    Raises:
        TypeError: ``model`` is itself such a module; use its ``to_torch``.
    """
    stacked = {layer for stack in model.modules() if isinstance(stack, Stacked) for layer in stack.modules()}

    def change(module: nn.Module) -> None:
        if module in stacked:
            raise TypeError("a Stack is made of layers of seqcells")
        convert.to_torch(module)

    changed = _change(model, _is_ours, change, "use its to_torch")
    return Unswapped(*changed, owners.settle(model))


def _change(
    model: nn.Module, wanted: Callable[[nn.Module], bool], change: Callable[[nn.Module], Any], instead: str
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Change the wanted modules. Returns the changed modules, and the reasons why a module was not changed."""
    if wanted(model):
        raise TypeError(f"the model is itself a {type(model).__name__}: {instead}, which returns a new one")
    replaced, left, reasons = {}, {}, {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module not in reasons:
            if not wanted(module):
                continue
            try:
                change(module)
                reasons[module] = None
            except (TypeError, ValueError, RuntimeError) as reason:
                reasons[module] = str(reason)
        if reasons[module] is None:
            replaced[name] = module
        else:
            left[name] = reasons[module]
    return replaced, left


def _is_ours(module: nn.Module) -> bool:
    return isinstance(module, (RecurrentLayer, RecurrentCell))


def _is_torchs(module: nn.Module) -> bool:
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and not _is_ours(module)


def _described(module: nn.Module) -> str:
    """A module's class, as a report names it."""
    plain = type_before_parametrizations(module)
    parametrized = ", parametrized" if is_parametrized(module) else ""
    if not _is_ours(module):
        return (f"torch.nn.{plain.__name__}" if plain in OURS else plain.__qualname__) + parametrized
    ours = next(ours for ours in OURS.values() if isinstance(module, ours))
    methods = "" if plain is ours else f" with the methods of {plain.__qualname__}"
    return f"seqcells.{ours.__name__}{methods}{parametrized}"
