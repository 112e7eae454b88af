"""The fast path: calls with the signature of an earlier call skip checks and the choice of a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C import _autograd
from torch._C._autograd import _profiler_enabled
from torch.autograd.profiler import record_function

from ..backends import preparing_engine
from ..backends.engine import PreparedInference, PreparingEngine
from ..request import context
from ..request.call import Call
from ..request.streams import NONE, names
from ..request.weights import Weights
from ..system.settings import current_settings
from . import choose
from .fast_path_torch import Delegated, Order
from .fast_path_training import AutogradCall
from .signature import CellModule, Signature
from .template import CallTemplate, is_frozen, order_of, parameters, stack_of, versions

Results = tuple[Tensor, Sequence[Tensor]]
"""Output and final states."""


class ModuleInference(NamedTuple):
    """An engine's ``Inference`` of a stack, called with a module's parameters."""

    engine: PreparingEngine
    call: PreparedInference
    order: Order
    """Gives the weights that ``call`` takes."""

    @staticmethod
    def of(module: CellModule, template: CallTemplate) -> ModuleInference | None:
        """The prepared inference. None if the engine prepares no calls, or cannot read the tensors in place. None
        also if the order of the weights is unknown, or if a gradient is wanted."""
        engine, order = preparing_engine(template.choice.backend), template.order
        tensors = [template.input, *template.states, *(tensor for w in template.weights for tensor in w.present())]
        if engine is None or order is None or context.is_differentiated(tensors):
            return None
        known = versions(parameters(module)) if is_frozen(module) else None
        call = engine.Inference(stack_of(template), known, template.batch_first, template.zeros)
        return ModuleInference(engine, call, order) if call.in_place else None

    def still_valid(self, parameters: Sequence[Tensor]) -> bool:
        return self.call.still_valid() and (not self.call.packs_weights or self.call.versions == versions(parameters))

    def __call__(self, *tensors: Tensor | None, parameters: Sequence[Tensor]) -> None:
        """Run the engine's ``Inference`` on the given tensors, followed by the weights."""
        if not _profiler_enabled():
            self.call(*tensors, *self.order(parameters))
            return
        with record_function("seqcells::inference"):
            self.call(*tensors, *self.order(parameters))


class _InferenceCall(NamedTuple):
    """A prepared call without gradients."""

    inference: ModuleInference
    empty_final: Sequence[Callable[[], Tensor]]
    empty_outputs: Sequence[Callable[[], Tensor]]
    """Makes each layer's output. Empty if the output is the first final state."""
    batch_first: bool
    """Whether the input's layout is (B, T, features). The output is then a transposed view of a (T, B, ·) tensor."""

    @staticmethod
    def of(
        module: CellModule, template: CallTemplate, output: Tensor | None, final: Sequence[Tensor]
    ) -> _InferenceCall | None:
        """The prepared call, or None if there can be none. ``output``: (T, B, ·), or None if it is ``final[0]``."""
        inference = ModuleInference.of(module, template)
        if inference is None:
            return None
        outputs: list[Tensor] = []
        if output is not None:
            outputs = [template.input.new_empty(output.shape)] * (template.layers - 1) + [output]
        of_final, of_outputs = ([*map(inference.engine.maker, tensors)] for tensors in (final, outputs))
        return _InferenceCall(inference, of_final, of_outputs, template.batch_first)

    def still_valid(self, parameters: Sequence[Tensor]) -> bool:
        return self.inference.still_valid(parameters)

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> Results:
        final = [empty() for empty in self.empty_final]
        outputs = [empty() for empty in self.empty_outputs] or final[:1]
        self.inference(input, *streams, *(states or [None] * len(final)), *final, *outputs, parameters=parameters)
        return outputs[-1].transpose(0, 1) if self.batch_first else outputs[-1], final


class _TrainingCall(NamedTuple):
    """A prepared call with gradients."""

    training: AutogradCall
    order: Order

    @staticmethod
    def of(
        module: CellModule, template: CallTemplate, output: Tensor | None, final: Sequence[Tensor]
    ) -> _TrainingCall | None:
        """The prepared call, or None if there can be none. Arguments: as in `_InferenceCall.of`."""
        engine, order = preparing_engine(template.choice.backend), template.order
        if engine is None or order is None:
            return None
        stack = stack_of(template)
        wanted = [q.replaced([tensor.requires_grad for tensor in q.differentiable()]) for q in stack]
        if not any(wanted[0].differentiable()):
            return None  # the lowest layer needs no gradient: it runs as in inference, which rounds differently
        empties = [*map(engine.maker, final)]
        of_output = None if output is None else engine.output_maker(output, len(stack[0].outside))
        training = AutogradCall(engine, stack, wanted, template.batch_first, template.zeros, of_output, empties)
        return _TrainingCall(training, order) if training.in_place else None

    def still_valid(self, parameters: Sequence[Tensor]) -> bool:
        return self.training.call.still_valid()

    def __call__(
        self, input: Tensor, states: Sequence[Tensor], streams: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> Results:
        return self.training(input, states, streams, self.order(parameters))


@torch.no_grad()
def _by_engine(
    module: CellModule, template: CallTemplate, output: Tensor, final: Sequence[Tensor]
) -> _InferenceCall | _TrainingCall | None:
    """The prepared call for a template and its results, or None if the call cannot be prepared. The template holds the
    caller's own tensors."""
    kind = _TrainingCall if output.requires_grad else _InferenceCall
    wanted = template.input.requires_grad  # read before the transpose: a view of a view has the base's requires_grad
    batch_first = output.dim() == 3 and module.batch_first and not template.input.is_contiguous()
    input, of_output = (t.transpose(0, 1) if batch_first else t for t in (template.input, output))
    read = [tensor for w in template.weights for tensor in w.present()]
    if not all(map(Tensor.is_contiguous, (input, of_output, *final, *template.states, *read))):
        return None
    if module.cell.shared:
        return None
    for name, stream in template.streams.items():
        axes = template.cell.streams[name]
        as_it_lies = stream.transpose(0, 1) if batch_first and axes.startswith("TB") else stream
        if stream.dim() > len(axes) or stream.requires_grad or not as_it_lies.is_contiguous():
            return None
    # A prepared call must not keep the caller's tensors alive.
    size = (len(input[0]), len(input), input.shape[2]) if batch_first else input.shape
    input = input.new_empty(size).requires_grad_(wanted)
    template = template._replace(input=input, batch_first=batch_first)
    return kind.of(module, template, None if output is final[0] else of_output, final)


class _Known(NamedTuple):
    """A signature that was seen, and its prepared call if there is one. It is immutable, and only replaced as a whole:
    several threads may call a module at once."""

    signature: Signature
    call: _InferenceCall | _TrainingCall | Delegated | None = None
    cannot_be_prepared: bool = False
    """Whether calls of this signature cannot be prepared."""


MOST = 4
"""How many signatures a module remembers for each grad mode. One is too few: the first call of a cell in a loop differs
from the next calls, and so does a smaller last batch."""


class Prepared:
    """The last few signatures of a module's calls, with their prepared calls."""

    def __init__(self) -> None:
        self._known: dict[bool, tuple[_Known, ...]] = {False: (), True: ()}

    def has(self, gradients: bool) -> bool:
        """Whether a prepared call exists for grad mode on (``gradients``), or off."""
        return any(known.call for known in self._known[gradients])

    def run(
        self, module: CellModule, input: Any, hx: Any, streams: Mapping[str, Tensor] = NONE
    ) -> tuple[Results | None, Signature | None]:
        """The results of the prepared call, or None if there is none; and a signature for `remember`, or None.

        The signature is returned if this call repeats the signature of an earlier call that is not prepared yet. It is
        None for a new signature, for a call under a transform or trace, and if preparing the signature failed before.
        """
        states = _plain_states(input, hx)
        if states is None or not _undisturbed():
            return None, None
        mode, weights, options = torch.is_grad_enabled(), parameters(module), _options(module, hx)
        given: Sequence[Tensor] = ()
        if streams:
            given = [*streams.values()]
            if not all(type(each) is Tensor and each.dtype == input.dtype for each in given):
                return None, None  # not tensors of the input's dtype; the slow path converts or rejects them
            options = *options, *streams
        all_known, tensors = self._known[mode], (input, *states, *given, *weights)
        for known in all_known:
            if known.signature.fits(module, tensors, *options):
                if known is not all_known[0]:  # to the front: the next call probably has the same signature
                    self._known[mode] = (known, *(other for other in all_known if other is not known))
                if known.call and known.call.still_valid(weights):
                    read = [streams[name] for name in names(module.cell)] if streams else ()
                    return known.call(input, states, read, weights), None
                return None, None if known.cannot_be_prepared else known.signature
        signature = None if context.is_observed(tensors) else Signature.of(module, tensors, *options)
        if signature is not None:
            self._known[mode] = (_Known(signature), *all_known[: MOST - 1])
        return None, None

    def remember(
        self,
        signature: Signature,
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
        """Prepare the calls that have the signature of a call just made.

        Args:
            signature: the call's signature.
            call: the record for which its backend was chosen.
            input, states, weights, zeros: as in `CallTemplate`. The input may be a view of a (B, T, features) tensor.
            output, final: the call's results, the model of later results. The output may be the first final state.
            streams: as `seqcells.request.streams.laid_out` returns them.
        """
        mode, choice = torch.is_grad_enabled(), choose.choose(call, module.backend)
        if choice.backend == "torch":
            order = order_of(module, input, weights)
            batch_first = call.form == "layers" and module.batch_first
            given = input, states, weights, final, batch_first, module.training
            made = None if order is None else Delegated.of(order, call, module.backend, *given)
        else:
            template = CallTemplate.of(module, choice, input, states, weights, call.layers, zeros, streams)
            made = _by_engine(module, template, output, final)
        others = [known for known in self._known[mode] if known.signature is not signature]
        self._known[mode] = (_Known(signature, made, cannot_be_prepared=made is None), *others[: MOST - 1])


def _plain_states(input: Any, hx: Any) -> Sequence[Tensor] | None:
    """The states in ``hx`` as a sequence. None if a state or the input is no plain tensor. A nested tensor is not
    plain: torch's check of tensors does not return for one."""
    if not (hx is None or isinstance(hx, (Tensor, tuple, list))):
        return None
    states = () if hx is None else (hx,) if isinstance(hx, Tensor) else hx
    for tensor in (input, *states):
        if type(tensor) is not Tensor or tensor.is_nested:
            return None
    return states


_ATTRIBUTES = "input_size", "hidden_size", "bias", "num_layers", "batch_first", "bidirectional", "proj_size"
"""Attributes of layers and cells that torch.nn reads at each call. A user may assign them at any time."""


def _options(module: CellModule, hx: Any) -> tuple[Any, ...]:
    own = module.cell, module.backend, module._frozen, module.training
    # The choice of a backend depends on torch's number of threads, and on whether torch may use oneDNN.
    switches = torch.get_num_threads(), torch._C._get_mkldnn_enabled(), current_settings()
    return type(module), *own, *map(module.__dict__.get, _ATTRIBUTES), type(hx), *switches


def _undisturbed() -> bool:
    """Whether the fast path may run: no compilation, autocast, transform, trace, or hook on saved tensors is active."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._is_any_autocast_enabled()
        or context.is_watched()
        # Activation checkpoints count saved tensors, so a call and its recomputation must take the same path.
        or (torch.is_grad_enabled() and _are_hooks_there())
    )


def _are_hooks_there() -> bool:
    """Whether default hooks on autograd's saved tensors are set."""
    try:
        return _autograd._top_saved_tensors_default_hooks(True) is not None
    except (AttributeError, TypeError):
        return True  # this private function is missing, and no public one exists: take the slow path
