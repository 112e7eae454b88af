"""The two operators: one node each in a compiled or exported graph, however long the sequence.

``seqcells::recurrence`` runs one layer in one direction, ``seqcells::recurrence_backward`` gives its
gradients. What runs inside is the engine named by ``backend``, looked up at the call.

An engine is a module with three functions, arguments as in the schemas below without ``backend``, the four
weights gathered in a `Weights`, reset states None where there are none:

* ``forward(cell, gates_x, states, weights, lengths, reset, reset_states, reverse, save)`` → output, final states,
  and what backward needs besides the arguments and the output, nothing unless ``save``;
* ``backward(cell, ..., reverse, output, saved, grad_output, grad_final)`` → gradients of the tensors in the order
  gates_x, states, weights that there are, reset states;
* ``saved_like(cell, gates_x, states, weights)`` → empty tensors of the shapes that forward saves.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import dispatch, reference
from .cells import Cell
from .weights import Weights

_INPUTS = (
    "str cell, Tensor gates_x, Tensor[] states, Tensor? weight_hh, Tensor? bias_hh, Tensor? weight_hr, "
    "Tensor[] unit, Tensor? lengths, Tensor? reset, Tensor[] reset_states, bool reverse, str backend, bool save"
)
_library = torch.library.Library("seqcells", "DEF")
_library.define(f"recurrence({_INPUTS}) -> (Tensor output, Tensor[] final, Tensor[] saved)")
_library.define(
    f"recurrence_backward({_INPUTS}, Tensor output, Tensor[] saved, Tensor grad_output, Tensor[] grad_final)"
    " -> (Tensor gates_x, Tensor[] states, Tensor[] weights, Tensor[] reset_states)"
)


def recurrence(
    cell: type[Cell],
    gates_x: Tensor,
    states: Sequence[Tensor],
    weights: Weights,
    lengths: Tensor | None,
    reset: Tensor | None,
    reset_states: Sequence[Tensor] | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Call the operator → output, final states."""
    tensors = [gates_x, *states, *weights.recurrent.present(), *(reset_states or ())]
    output, final, _ = torch.ops.seqcells.recurrence(
        cell.name,
        gates_x,
        list(states),
        weights.hh,
        weights.bias_hh,
        weights.hr,
        list(weights.unit),
        lengths,
        reset,
        list(reset_states or ()),
        reverse,
        backend,
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors),
    )
    return output, tuple(final)


class _Arguments:
    """The operators' common arguments under their names, and the order of those that have gradients."""

    def __init__(self, args: Sequence[Any]) -> None:
        name, self.gates_x, self.states, hh, bias_hh, hr, unit, *rest, self.backend, self.save = args
        self.lengths, self.reset, self.reset_states, self.reverse = rest
        self.cell = dispatch.cell(name)
        self.weights = Weights(hh=hh, bias_hh=bias_hh, hr=hr, unit=tuple(unit))

    def differentiable(self) -> list[Tensor]:
        return [self.gates_x, *self.states, *self.weights.present(), *self.reset_states]

    def grouped(self, flat: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Flat gradients of `differentiable`, as recurrence_backward returns them."""
        n, rest = len(self.states), list(flat[1:])
        end = len(rest) - len(self.reset_states)
        return flat[0], rest[:n], rest[n:end], rest[end:]

    def engine_call(self) -> tuple[Any, ...]:
        return (
            self.cell,
            self.gates_x,
            self.states,
            self.weights,
            self.lengths,
            self.reset,
            self.reset_states or None,
            self.reverse,
        )

    def by_reference(self, *differentiable: Tensor) -> tuple[Tensor, ...]:
        """The reference as a function of the differentiable tensors → output and final states, flat."""
        gates_x, states, weights, reset_states = self.grouped(differentiable)
        output, final = reference.recurrence(
            self.cell,
            gates_x,
            states,
            self.weights.replaced(weights),
            lengths=self.lengths,
            reset=self.reset,
            reset_states=reset_states or None,
            reverse=self.reverse,
        )
        return (output, *final)


def _recurrence(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    call = _Arguments(args)
    if call.backend == "reference":
        output, *final = call.by_reference(*call.differentiable())
        # An operator may not return its inputs; a sequence that ends before it begins has its state unchanged.
        return output, [f.clone() for f in final], []
    output, final, saved = dispatch.engine(call.backend).forward(*call.engine_call(), call.save)
    return output, list(final), list(saved)


@contextmanager
def _autograd_inside_operator() -> Iterator[None]:
    """Autograd for the body of an operator, which may run below it (under a TorchDispatchMode it does)."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _recurrence_backward(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    *inputs, output, saved, grad_output, grad_final = args
    call = _Arguments(inputs)
    if call.backend == "reference":
        with _autograd_inside_operator():
            leaves = [tensor.detach().requires_grad_() for tensor in call.differentiable()]
            outputs = call.by_reference(*leaves)
            gradients = torch.autograd.grad(outputs, leaves, (grad_output, *grad_final), materialize_grads=True)
        return call.grouped([g.contiguous() for g in gradients])
    engine = dispatch.engine(call.backend)
    return call.grouped(engine.backward(*call.engine_call(), output, saved, grad_output, grad_final))


def _recurrence_fake(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    call = _Arguments(args)
    shape = (call.gates_x.shape[0], *call.states[0].shape)
    output = call.gates_x.new_empty(shape)
    final = [call.gates_x.new_empty(state.shape) for state in call.states]
    if call.backend == "reference" or not call.save:
        return output, final, []
    engine = dispatch.engine(call.backend)
    return output, final, list(engine.saved_like(call.cell, call.gates_x, call.states, call.weights))


def _recurrence_backward_fake(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    call = _Arguments(args[:-4])
    return call.grouped([t.new_empty(t.shape) for t in call.differentiable()])


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    """Keep the inputs, and of the outputs what backward reads."""
    leaves, ctx.structure = tree_flatten((inputs, (output[0], output[2])))
    ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    ctx.places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    ctx.save_for_backward(*(leaves[place] for place in ctx.places))


def _saved(ctx: Any) -> tuple[tuple, tuple]:
    leaves = list(ctx.others)
    for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
        leaves[place] = tensor
    return tree_unflatten(leaves, ctx.structure)


def _as_inputs(call: _Arguments, flat: Sequence[Tensor]) -> tuple[Any, ...]:
    """Gradients of `differentiable` in the places of the operator's inputs."""
    gates_x, states, weights, reset_states = call.grouped(flat)
    w = call.weights.replaced(weights)
    return None, gates_x, states, w.hh, w.bias_hh, w.hr, list(w.unit), None, None, reset_states, None, None, None


def _recurrence_autograd(ctx: Any, grad_output: Tensor, grad_final: list[Tensor], _: Any) -> tuple[Any, ...]:
    inputs, (output, saved) = _saved(ctx)
    call = _Arguments(inputs)
    if torch.is_grad_enabled():
        # A gradient that will itself be differentiated: the reference's, which is so any number of times.
        _, pull = torch.func.vjp(call.by_reference, *call.differentiable())
        return _as_inputs(call, pull((grad_output, *grad_final)))
    gates_x, states, weights, reset_states = torch.ops.seqcells.recurrence_backward(
        *inputs, output, saved, grad_output, grad_final
    )
    return _as_inputs(call, [gates_x, *states, *weights, *reset_states])


_library.impl("recurrence", _recurrence, "CompositeExplicitAutograd")
_library.impl("recurrence_backward", _recurrence_backward, "CompositeExplicitAutograd")
torch.library.register_fake("seqcells::recurrence", _recurrence_fake, lib=_library)
torch.library.register_fake("seqcells::recurrence_backward", _recurrence_backward_fake, lib=_library)
torch.library.register_autograd("seqcells::recurrence", _recurrence_autograd, setup_context=_save, lib=_library)
