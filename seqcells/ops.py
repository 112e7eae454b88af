"""The two operators: one node each in a compiled or exported graph, however long the sequence.

``seqcells::recurrence`` runs one layer, all its directions, ``seqcells::recurrence_backward`` gives its gradients.
What runs inside is the engine named by ``backend``, looked up at the call. Eager calls that nobody traces or watches go
past the operators, by an autograd function that does the same (`_Eager`).

An engine is a module with three functions of a `Recurrence`, from its input or from ``gates_x``:

* ``forward(q, save)`` → output, final states, and what backward needs besides those and ``q``, nothing unless ``save``;
* ``backward(q, given)``, a `Backward` → gradients of ``q.differentiable()``, in its order; None will do where it is
  not wanted;
* ``saved_like(q)`` → empty tensors of the shapes that forward saves.

The operators are given ``gates_x``, so that a compiler sees the input's projection. Eager calls keep the input, which
is less, and an engine may make of it what it needs when it needs it.

It may have ``at_once(call, gradients)`` besides: how many layers of a stack it takes together, in eager calls alone, as
a `Recurrence` that is ``stacked``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils._pytree import tree_flatten, tree_unflatten

from . import checks, dispatch, precision, reference
from .recurrence import Backward, Recurrence
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
    """A layer by a backend → output, final states: by the operator where somebody traces or watches, else by a shorter
    way that does the same."""
    if torch.compiler.is_compiling() or dispatch.is_observed(q.differentiable()):
        output, final, _ = torch.ops.seqcells.recurrence(*arguments(_projected(q), backend))
        return output, tuple(final)
    if dispatch.is_differentiated(q.differentiable()):
        output, *final = _Eager.apply(q, backend, *q.differentiable())
    else:
        output, final, _ = _forward(q, backend, save=False)
    return output, tuple(final)


def _projected(q: Recurrence) -> Recurrence:
    """The same, with ``gates_x`` in the place of the input."""
    return q if q.input is None else q._replace(gates_x=linear(q.input, *q.input_weights), input=None)


def arguments(q: Recurrence, backend: str) -> tuple[Any, ...]:
    """The operator's arguments in the order of its schema."""
    reset_states = list(q.reset_states or ())
    rest = (q.lengths, q.reset, reset_states, q.reverse, backend, dispatch.is_differentiated(q.differentiable()))
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


def _by_reference(q: Recurrence, *differentiable: Tensor) -> tuple[Tensor, ...]:
    """The reference as a function of the differentiable tensors → output and final states, flat."""
    output, final = reference.layer(q.replaced(differentiable))
    return (output, *final)


def _forward(q: Recurrence, backend: str, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    if backend == "reference":
        output, final = reference.layer(q)
        return output, list(final), []
    checks.layer(q)
    output, final, saved = dispatch.engine(backend).forward(q, save)
    return output, list(final), list(saved)


def _recurrence(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    call = _Arguments(args)
    return _forward(call.q, call.backend, call.save)


@contextmanager
def _autograd_inside_operator() -> Iterator[None]:
    """Autograd for the body of an operator, which may run below it (under a TorchDispatchMode it does)."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def _backward(q: Recurrence, backend: str, given: Backward) -> Sequence[Tensor | None]:
    """Gradients of ``q.differentiable()``."""
    if backend != "reference":
        return dispatch.engine(backend).backward(q, given)
    with _autograd_inside_operator():
        leaves = [tensor.detach().requires_grad_() for tensor in q.differentiable()]
        outputs = _by_reference(q, *leaves)
        gradients = torch.autograd.grad(outputs, leaves, (given.grad_output, *given.grad_final), materialize_grads=True)
    return [g.contiguous() for g in gradients]


def _recurrence_backward(*args: Any) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    call = _Arguments(args[:-4])
    given = Backward(*args[-4:], call.q.replaced([True] * len(call.q.differentiable())))
    with precision.without_autocast(given.output.device):
        return call.grouped(_backward(call.q, call.backend, given))


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


def _saved_tensors(ctx: Any) -> tuple[Tensor | None, ...]:
    """What was saved; RuntimeError, in autograd's words and ours, where it has been changed since."""
    try:
        return ctx.saved_tensors
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        advice = "seqcells keeps a layer's output for backward: before changing it in place take a copy, output.clone()"
        raise RuntimeError(f"{error} ({advice})") from None


def _saved(ctx: Any) -> tuple[tuple, tuple]:
    leaves = list(ctx.others)
    for place, tensor in zip(ctx.places, _saved_tensors(ctx), strict=True):
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
    grad_output, grad_final = _given(call.q, output, grad_output, grad_final)
    if torch.is_grad_enabled():
        with precision.without_autocast(output.device):
            return _as_inputs(call, _differentiable_gradients(call.q, grad_output, grad_final))
    return _as_inputs(call, _gradients(*inputs, output, saved, grad_output, grad_final))


def _gradients(*args: Any) -> list[Tensor]:
    """The second operator → gradients of ``q.differentiable()``."""
    gates_x, states, weights, reset_states = torch.ops.seqcells.recurrence_backward(*args)
    return [gates_x, *states, *weights, *reset_states]


def _gradients_from_input(q: Recurrence, backend: str, *given: Any) -> list[Tensor]:
    """The second operator, and what the input's projection has of torch's, for a layer that may be given either."""
    projected = _projected(q)
    flat = _gradients(*arguments(projected, backend), *given)
    if q.input is None:
        return flat
    g, (weight, bias) = projected.replaced(flat), q.input_weights
    columns = g.gates_x.flatten(0, -2).T
    of_weight = (columns @ q.input.flatten(0, -2)).chunk(len(q.weights))
    of_bias = [None] * len(q.weights) if bias is None else columns.sum(1).chunk(len(q.weights))
    weights = [own._replace(ih=ih, bias_ih=b) for own, ih, b in zip(g.weights, of_weight, of_bias, strict=True)]
    return g._replace(input=g.gates_x @ weight, weights=weights).differentiable()


def _given(
    q: Recurrence, output: Tensor, grad_output: Tensor | None, grad_final: Sequence[Tensor | None]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the results, zeros for those that nothing was made of."""
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    return grad_output, [torch.zeros_like(s) if g is None else g for s, g in zip(q.states, grad_final, strict=True)]


def _differentiable_gradients(q: Recurrence, grad_output: Tensor, grad_final: list[Tensor]) -> Sequence[Tensor]:
    """A gradient that will itself be differentiated: the reference's, which is so any number of times."""
    _, pull = torch.func.vjp(partial(_by_reference, q), *q.differentiable())
    return pull((grad_output, *grad_final))


class _Eager(torch.autograd.Function):
    """The operator and its gradients without the operator: to be called from Python alone costs it a quarter of a
    millisecond, more than a short sequence takes."""

    @staticmethod
    def forward(ctx: Any, q: Recurrence, backend: str, *differentiable: Tensor) -> tuple[Tensor, ...]:
        output, final, saved = _forward(q, backend, save=True)
        ctx.set_materialize_grads(False)
        # Of q only the form: its tensors are saved where hooks see them, and autograd whether they were changed.
        form, ctx.backend, ctx.inputs = q.replaced(range(len(differentiable))), backend, len(differentiable)
        ctx.q = form._replace(lengths=None, reset=None)
        ctx.save_for_backward(*differentiable, q.lengths, q.reset, output, *saved)
        return (output, *final)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *grad_final: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = _saved_tensors(ctx)
        lengths, reset, output, *saved = tensors[ctx.inputs :]
        q = ctx.q.replaced(tensors[: ctx.inputs])._replace(lengths=lengths, reset=reset)
        grad_output, given = _given(q, output, grad_output, grad_final)
        observed = torch.compiler.is_compiling() or dispatch.is_observed([grad_output, *given])
        with precision.without_autocast(output.device):
            # There is no operator for a stack: who watches its backward sees the reference's.
            if torch.is_grad_enabled() or dispatch.are_batched([grad_output, *given]) or (observed and q.stacked):
                gradients = _differentiable_gradients(q, grad_output, given)
            elif observed:
                gradients = _gradients_from_input(q, ctx.backend, output, saved, grad_output, given)
            else:
                wanted = q.replaced(ctx.needs_input_grad[2:])
                gradients = _backward(q, ctx.backend, Backward(output, saved, grad_output, given, wanted))
        return None, None, *gradients


_library.impl("recurrence", _recurrence, "CompositeExplicitAutograd")
_library.impl("recurrence_backward", _recurrence_backward, "CompositeExplicitAutograd")
torch.library.register_fake("seqcells::recurrence", _recurrence_fake, lib=_library)
torch.library.register_fake("seqcells::recurrence_backward", _recurrence_backward_fake, lib=_library)
torch.library.register_autograd("seqcells::recurrence", _recurrence_autograd, setup_context=_save, lib=_library)
