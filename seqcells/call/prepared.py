"""Calls like the one before, which need be neither checked nor chosen for once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _autograd
from torch._C._autograd import _profiler_enabled
from torch.autograd.profiler import record_function

from ..backends import BACKENDS, engine_of
from ..cells import Cell
from ..derive.transformed import for_engines
from ..request import context
from ..request.call import Call, Choice
from ..request.recurrence import Recurrence
from ..request.streams import NONE, names, of_paths
from ..request.weights import Weights
from ..system.settings import current_settings
from . import choose
from .delegated import Delegated, Order
from .likeness import CellModule, Likeness
from .trained import Training

Results = tuple[Tensor, Sequence[Tensor]]
"""Output and final states."""


def parameters(module: CellModule) -> list[Tensor]:
    """Its own, in the order of registration, then what was assigned instead of them."""
    own: list[Tensor] = [parameter for parameter in module._parameters.values() if parameter is not None]
    assigned = module._assigned()
    return own if assigned is None else own + [tensor for tensor in assigned if tensor is not None]


def is_frozen(module: CellModule) -> bool:
    """Whether packed copies of its weights may be kept: not of those that FSDP2 gathers before each call, which torch
    counts as no write. FSDP2 leaves a hook in each module whose parameters it shards."""
    hooks = module._load_state_dict_post_hooks.values() if module._frozen else ()
    gathered = any(getattr(hook, "__module__", "").startswith("torch.distributed.fsdp") for hook in hooks)
    return bool(module._frozen) and not gathered


def versions(tensors: Sequence[Tensor]) -> list[tuple[int, int]] | None:
    """Where each tensor lies, and how often torch has counted a write to it; None if it does not, as with inference
    tensors."""
    return None if any(t.is_inference() for t in tensors) else [(t.data_ptr(), t._version) for t in tensors]


class Example(NamedTuple):
    """A call of a module that others will be like.

    * ``cell``: as engines take it;
    * ``input``: (T, B, features), ``states``: (L·D, B, ·) each; of both only shapes and dtypes count;
    * ``weights``: L·D of them, as engines take them; ``layers``: L;
    * ``streams``: by name, each (T, B, ·) or as its axes say, of which only shapes count;
    * ``order``: of a call's weights among the `parameters`, or made of them; None where that cannot be told;
    * ``zeros``: whether the states are those of a call that came without;
    * ``turned``: whether a call's input lies as (B, T, features).
    """

    choice: Choice
    cell: type[Cell]
    input: Tensor
    states: Sequence[Tensor]
    weights: Sequence[Weights]
    order: Order | None
    layers: int
    zeros: bool = False
    streams: Mapping[str, Tensor] = NONE
    turned: bool = False

    @staticmethod
    def of(
        module: CellModule,
        choice: Choice,
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        layers: int,
        zeros: bool = False,
        streams: Mapping[str, Tensor] = NONE,
    ) -> Example:
        """With the module's ``weights``."""
        cell, order = module.cell, _order(module, input, weights)
        if cell.weights is not Cell.weights:
            order = None if order is None else _Made(cell, weights, order)
            made = [w.made(cell) for w in weights]
            weights = [w.replaced([tensor.contiguous() for tensor in w.present()]) for w in made]
        cell = cell if cell.direct else for_engines(cell)
        return Example(choice, cell, input, states, weights, order, layers, zeros, streams)


class Inference(NamedTuple):
    """An engine's ``Inference`` of a stack, for a module's parameters."""

    engine: Any
    call: Any
    order: Order
    """Of the weights that it takes."""

    @staticmethod
    def of(module: CellModule, example: Example) -> Inference | None:
        """None where no engine has it, or where the weights are no parameters, but made of them at each call."""
        engine, order = _engine(example, "Inference"), example.order
        tensors = [example.input, *example.states, *(tensor for w in example.weights for tensor in w.present())]
        if engine is None or order is None or context.is_differentiated(tensors):
            return None
        known = versions(parameters(module)) if is_frozen(module) else None
        call = engine.Inference(_stack(example), known, example.turned, example.zeros)
        return Inference(engine, call, order) if call.in_place else None

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        return self.call.holds() and (not self.call.keeps or self.call.versions == versions(parameters))

    def __call__(self, *tensors: Tensor | None, parameters: Sequence[Tensor]) -> None:
        """Of the tensors that the engine's takes those before the weights."""
        if not _profiler_enabled():
            self.call(*tensors, *self.order(parameters))
            return
        with record_function("seqcells::inference"):
            self.call(*tensors, *self.order(parameters))


def _engine(example: Example, kind: str) -> Any:
    """The engine that prepares calls of a kind; None where there is none."""
    backend = example.choice.backend
    engine = engine_of(backend) if BACKENDS[backend].engine else None
    return engine if hasattr(engine, kind) else None


def _order(module: CellModule, input: Tensor, weights: Sequence[Weights]) -> Order | None:
    """That of a call's weights among the `parameters`; None where they are none, or the call is not of numbers."""
    own, read = parameters(module), [tensor for w in weights for tensor in w.present()]
    place = {id(parameter): k for k, parameter in enumerate(own)}
    ids = [id(tensor) for tensor in read]
    if context.is_observed([input, *read]) or not input.numel() or not place.keys() >= {*ids}:
        return None
    if ids == [id(parameter) for parameter in own]:
        return itemgetter(slice(None))
    places = [place[each] for each in ids]
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


class _Made:
    """Weights that a cell makes of those that are learnt: at each call, by autograd's operators."""

    def __init__(self, cell: type[Cell], weights: Sequence[Weights], order: Order) -> None:
        self._cell, self._order = cell, order
        self._like = [w.replaced([torch.empty(0)] * len(w.present())) for w in weights]

    def __call__(self, parameters: Sequence[Tensor]) -> list[Tensor]:
        learnt, made = iter(self._order(parameters)), []
        for like in self._like:
            own = like.replaced([next(learnt) for _ in like.present()])
            made += [tensor.contiguous() for tensor in own.made(self._cell).present()]
        return made


def _stack(example: Example) -> list[Recurrence]:
    """The layers, of no tensor of the caller's but the lowest input and the weights."""
    _, cell, input, states, weights, _, layers, *_ = example
    directions, stack = len(weights) // layers, []
    for first in range(0, len(weights), directions):
        own = slice(first, first + directions)
        like = [torch.empty_like(state[own]).requires_grad_(state.requires_grad) for state in states]
        streams = {name: of_paths(cell.streams[name], each, own) for name, each in example.streams.items()}
        stack.append(Recurrence(cell, None, like, weights[own], input=input, streams=streams))
        input = input.new_empty(*input.shape[:2], directions * stack[-1].width(stack[-1].output))
    return stack


class _Inferring(NamedTuple):
    """How to make calls without gradients like one."""

    inference: Inference
    empty_final: Sequence[Callable[[], Tensor]]
    empty_outputs: Sequence[Callable[[], Tensor]]
    """Of each layer; none where the output is the first final state."""
    turned: bool
    """Whether the input lies as (B, T, features), and the output seems to."""

    @staticmethod
    def of(module: CellModule, example: Example, output: Tensor | None, final: Sequence[Tensor]) -> _Inferring | None:
        """Of an example and its results, the output (T, B, ·)."""
        inference = Inference.of(module, example)
        if inference is None:
            return None
        outputs: list[Tensor] = []
        if output is not None:
            outputs = [example.input.new_empty(output.shape)] * (example.layers - 1) + [output]
        of_final, of_outputs = ([*map(inference.engine.maker, tensors)] for tensors in (final, outputs))
        return _Inferring(inference, of_final, of_outputs, example.turned)

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        return self.inference.holds(parameters)

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> Results:
        final = [empty() for empty in self.empty_final]
        outputs = [empty() for empty in self.empty_outputs] or final[:1]
        self.inference(input, *streams, *(states or [None] * len(final)), *final, *outputs, parameters=parameters)
        return outputs[-1].transpose(0, 1) if self.turned else outputs[-1], final


class _Training(NamedTuple):
    """The same with gradients."""

    training: Training
    order: Order

    @staticmethod
    def of(module: CellModule, example: Example, output: Tensor | None, final: Sequence[Tensor]) -> _Training | None:
        """Arguments as `_Inferring.of`."""
        engine, order = _engine(example, "Training"), example.order
        if engine is None or order is None:
            return None
        stack = _stack(example)
        wanted = [q.replaced([tensor.requires_grad for tensor in q.differentiable()]) for q in stack]
        if not any(wanted[0].differentiable()):
            return None  # a layer without gradients runs as in inference, which rounds otherwise
        empties = [*map(engine.maker, final)]
        of_output = None if output is None else engine.output_maker(output, len(stack[0].outside))
        training = Training(engine, stack, wanted, example.turned, example.zeros, of_output, empties)
        return _Training(training, order) if training.in_place else None

    def holds(self, parameters: Sequence[Tensor]) -> bool:
        return self.training.call.holds()

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> Results:
        return self.training(input, states, streams, self.order(parameters))


@torch.no_grad()
def _by_engine(
    module: CellModule, example: Example, output: Tensor, final: Sequence[Tensor]
) -> _Inferring | _Training | None:
    """Of an example, its tensors the caller's, and its results; None where that cannot be prepared."""
    kind = _Training if output.requires_grad else _Inferring
    wanted = example.input.requires_grad  # a view that is made here would take it from what the input is a view of
    turned = output.dim() == 3 and module.batch_first and not example.input.is_contiguous()
    input, of_output = (t.transpose(0, 1) if turned else t for t in (example.input, output))
    read = [tensor for w in example.weights for tensor in w.present()]
    if not all(map(Tensor.is_contiguous, (input, of_output, *final, *example.states, *read))):
        return None
    if module.cell.shared:
        return None
    for name, stream in example.streams.items():
        axes = example.cell.streams[name]
        as_it_lies = stream.transpose(0, 1) if turned and axes.startswith("TB") else stream
        if stream.dim() > len(axes) or stream.requires_grad or not as_it_lies.is_contiguous():
            return None
    # What is prepared keeps no tensor of the caller's.
    size = (len(input[0]), len(input), input.shape[2]) if turned else input.shape
    input = input.new_empty(size).requires_grad_(wanted)
    example = example._replace(input=input, turned=turned)
    return kind.of(module, example, None if output is final[0] else of_output, final)


class _Known(NamedTuple):
    """A call that was seen, and how to make calls like it. Never changed, only replaced as a whole: threads may call a
    module at once."""

    like: Likeness
    call: _Inferring | _Training | Delegated | None = None
    in_vain: bool = False
    """Whether it cannot be prepared."""


MOST = 4
"""Calls that a module knows with gradients, and without: the first of a chain of cells is not like the next ones, nor
is a last batch like the others."""


class Prepared:
    """The last few kinds of calls of a module: what was checked and chosen for one holds for every call like it."""

    def __init__(self) -> None:
        self._known: dict[bool, tuple[_Known, ...]] = {False: (), True: ()}

    def has(self, gradients: bool) -> bool:
        """Whether calls are prepared that are made with, or without, grad mode."""
        return any(known.call for known in self._known[gradients])

    def run(
        self, module: CellModule, input: Any, hx: Any, streams: Mapping[str, Tensor] = NONE
    ) -> tuple[Results | None, Likeness | None]:
        """Output and final states, shaped as those of a call like this one; None where none is prepared.

        Then also what this call has in common with an earlier one, if it has: only then it is worth while to
        `remember` it. None where no earlier one is like it, the call is for others to see, or that was tried in vain.
        """
        states = _plain_states(input, hx)
        if states is None or not _undisturbed():
            return None, None
        mode, weights, options = torch.is_grad_enabled(), parameters(module), _options(module, hx)
        given: Sequence[Tensor] = ()
        if streams:
            given = [*streams.values()]
            if not all(type(each) is Tensor and each.dtype == input.dtype for each in given):
                return None, None  # they are no numbers of the input's kind, but may become some
            options = *options, *streams
        all_known, tensors = self._known[mode], (input, *states, *given, *weights)
        for known in all_known:
            if known.like.fits(module, tensors, *options):
                if known is not all_known[0]:  # the next call will probably be like this one
                    self._known[mode] = (known, *(other for other in all_known if other is not known))
                if known.call and known.call.holds(weights):
                    read = [streams[name] for name in names(module.cell)] if streams else ()
                    return known.call(input, states, read, weights), None
                return None, None if known.in_vain else known.like
        like = None if context.is_observed(tensors) else Likeness.of(module, tensors, *options)
        if like is not None:
            self._known[mode] = (_Known(like), *all_known[: MOST - 1])
        return None, None

    def remember(
        self,
        like: Likeness,
        module: CellModule,
        call: Call,
        input: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Weights],
        zeros: bool,
        output: Tensor,
        final: Sequence[Tensor],
        streams: Mapping[str, Tensor] = NONE,
    ) -> None:
        """Prepare for calls like one that was made.

        Args:
            like: of that call.
            call: what its backend was chosen for.
            input, states, weights, zeros: as `Example` has them; the input may be a view of one that lies as
                (B, T, features).
            output, final: the call's results, whose shapes and layouts the next ones will have. They may be the same.
            streams: as `seqcells.request.streams.laid_out` has them.
        """
        mode, choice = torch.is_grad_enabled(), choose.choose(call, module.backend)
        if choice.backend == "torch":
            order = _order(module, input, weights)
            batch_first = call.form == "layers" and module.batch_first
            given = input, states, weights, final, batch_first, module.training
            made = None if order is None else Delegated.of(order, call, module.backend, *given)
        else:
            example = Example.of(module, choice, input, states, weights, call.layers, zeros, streams)
            made = _by_engine(module, example, output, final)
        others = [known for known in self._known[mode] if known.like is not like]
        self._known[mode] = (_Known(like, made, in_vain=made is None), *others[: MOST - 1])


def _plain_states(input: Any, hx: Any) -> Sequence[Tensor] | None:
    """Those of hx; None where they, or the input, are not what the check can be asked about: of nested tensors it does
    not return."""
    if not (hx is None or isinstance(hx, (Tensor, tuple, list))):
        return None
    states = () if hx is None else (hx,) if isinstance(hx, Tensor) else hx
    for tensor in (input, *states):
        if type(tensor) is not Tensor or tensor.is_nested:
            return None
    return states


_ATTRIBUTES = "input_size", "hidden_size", "bias", "num_layers", "batch_first", "bidirectional", "proj_size"
"""Those of layers, or cells, that torch.nn reads at each call: they may be assigned at any time."""


def _options(module: CellModule, hx: Any) -> tuple[Any, ...]:
    own = module.cell, module.backend, module._frozen, module.training
    # The choice of a backend depends on torch's threads, and on whether it may use oneDNN.
    switches = torch.get_num_threads(), torch._C._get_mkldnn_enabled(), current_settings()
    return type(module), *own, *map(module.__dict__.get, _ATTRIBUTES), type(hx), *switches


def _undisturbed() -> bool:
    """Whether what runs here is for nobody but the caller, and in its tensors' dtypes."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_any_autocast_enabled()
        or context.is_watched()
        # Checkpoints count what is saved: a call and its repetition must go the same way.
        or (torch.is_grad_enabled() and _are_hooks_there())
    )


def _are_hooks_there() -> bool:
    """Whether somebody is given what autograd saves."""
    try:
        return _autograd._top_saved_tensors_default_hooks(True) is not None
    except (AttributeError, TypeError):
        return True  # no public function tells
