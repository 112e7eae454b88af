"""The two operators: one node each in a compiled or exported graph, however long the sequence.

``seqcells::recurrence`` runs one layer, all its directions, ``seqcells::recurrence_backward`` gives its gradients.
What runs inside is the engine named by ``backend``, looked up at the call.

An engine is a module with three functions of a `Recurrence`:

* ``forward(q, save)`` → output, final states, and what backward needs besides those and ``q``, nothing unless ``save``;
* ``backward(q, output, saved, grad_output, grad_final)`` → gradients of ``q.differentiable()``, in its order;
* ``saved_like(q)`` → empty tensors of the shapes that forward saves.

It may have ``infer(q, input)`` besides: output and final states from the layer's input (T, B, features), ``q.gates_x``
being None; not differentiable.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import dispatch, reference
from .recurrence import Recurrence
from .weights import Weights

# Of the weights, those of each direction, or none.
_INPUTS = (
    "str cell, Tensor gates_x, Tensor[] states, Tensor[] weight_hh, Tensor[] bias_hh, Tensor[] weight_hr, "
    "Tensor[] unit, Tensor? lengths, Tensor? reset, Tensor[] reset_states, bool reverse, str backend, bool save"
)
_library = torch.library.Library("seqcells", "DEF")
_library.define(f"recurrence({_INPUTS}) -> (Tensor output, Tensor[] final, Tensor[] saved)")
_library.define(
    f"recurrence_backward({_INPUTS}, Tensor output, Tensor[] saved, Tensor grad_output, Tensor[] grad_final)"
    " -> (Tensor gates_x, Tensor[] states, Tensor[] weights, Tensor[] reset_states)"
)


def recurrence(q: Recurrence, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Call the operator → output, final states."""
    output, final, _ = torch.ops.seqcells.recurrence(*arguments(q, backend))
    return output, tuple(final)


def arguments(q: Recurrence, backend: str) -> tuple[Any, ...]:
    """The operator's arguments in the order of its schema."""
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in q.differentiable())
    reset_states = list(q.reset_states or ())
    rest = (q.lengths, q.reset, reset_states, q.reverse, backend, save)
    return q.cell.name, q.gates_x, list(q.states), *_lists(q.weights), *rest


def _lists(weights: Sequence[Weights]) -> list[list[Tensor]]:
    """Recurrent weights as the operator takes them: of each kind those of all directions."""
    kinds = [[w.hh for w in weights], [w.bias_hh for w in weights], [w.hr for w in weights]]
    return [*([] if kind[0] is None else kind for kind in kinds), [row for w in weights for row in w.unit]]


class _Arguments:
    """The operators' common arguments: a `Recurrence`, the backend, whether to save for backward."""

    def __init__(self, args: Sequence[Any]) -> None:
        name, gates_x, states, hh, bias_hh, hr, unit, *rest, self.backend, self.save = args
        lengths, reset, reset_states, reverse = rest
        cell, directions = dispatch.cell(name), states[0].shape[0]
        rows = len(unit) // directions
        weights = tuple(
            Weights(
                hh=hh[d] if hh else None,
                bias_hh=bias_hh[d] if bias_hh else None,
                hr=hr[d] if hr else None,
                unit=tuple(unit[d * rows : (d + 1) * rows]),
            )
            for d in range(directions)
        )
        self.q = Recurrence(cell, gates_x, states, weights, lengths, reset, reset_states or None, reverse)

    def grouped(self, flat: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Gradients of ``q.differentiable()``, as recurrence_backward returns them."""
        n, rest = len(self.q.states), list(flat[1:])
        end = len(rest) - len(self.q.reset_states or ())
        return flat[0], rest[:n], rest[n:end], rest[end:]

    def by_reference(self, *differentiable: Tensor) -> tuple[Tensor, ...]:
        """The reference as a function of the differentiable tensors → output and final states, flat."""
        output, final = reference.layer(self.q.replaced(differentiable))
        return (output, *final)


def _recurrence(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    call = _Arguments(args)
    if call.backend == "reference":
        output, final = reference.layer(call.q)
        return output, list(final), []
    output, final, saved = dispatch.engine(call.backend).forward(call.q, call.save)
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
            leaves = [tensor.detach().requires_grad_() for tensor in call.q.differentiable()]
            outputs = call.by_reference(*leaves)
            gradients = torch.autograd.grad(outputs, leaves, (grad_output, *grad_final), materialize_grads=True)
        return call.grouped([g.contiguous() for g in gradients])
    engine = dispatch.engine(call.backend)
    return call.grouped(engine.backward(call.q, output, saved, grad_output, grad_final))


def _recurrence_fake(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    call = _Arguments(args)
    x, states = call.q.gates_x, call.q.states
    directions, batch, size = states[0].shape
    output = x.new_empty((x.shape[0], batch, directions * size))
    final = [x.new_empty(state.shape) for state in states]
    if call.backend == "reference" or not call.save:
        return output, final, []
    return output, final, list(dispatch.engine(call.backend).saved_like(call.q))


def _recurrence_backward_fake(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    call = _Arguments(args[:-4])
    return call.grouped([t.new_empty(t.shape) for t in call.q.differentiable()])


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    """Keep the inputs, and of the outputs what backward reads."""
    ctx.set_materialize_grads(False)  # zeros for what was saved would cost as much memory again
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
    g = call.q.replaced(flat)
    reset_states = list(g.reset_states or ())
    return None, g.gates_x, g.states, *_lists(g.weights), None, None, reset_states, None, None, None


def _recurrence_autograd(
    ctx: Any, grad_output: Tensor | None, grad_final: list[Tensor | None], _: Any
) -> tuple[Any, ...]:
    inputs, (output, saved) = _saved(ctx)
    call = _Arguments(inputs)
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    grad_final = [torch.zeros_like(s) if g is None else g for s, g in zip(call.q.states, grad_final, strict=True)]
    if torch.is_grad_enabled():
        # A gradient that will itself be differentiated: the reference's, which is so any number of times.
        _, pull = torch.func.vjp(call.by_reference, *call.q.differentiable())
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
