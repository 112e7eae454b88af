"""The torch operators. Each is one node in a compiled, exported or traced graph, for any sequence length.

* ``seqcells::recurrence`` runs one layer with all its directions → output, final states, and values kept for all steps;
* ``seqcells::recurrence_forward`` returns the same, followed by the tensors that backward needs;
* ``seqcells::recurrence_backward`` is given output, saved tensors, and the gradients of all results. It returns the
  gradients of the differentiable tensors, in the order of ``tensors``.

Graphs hold only ``recurrence``. Whether tensors are saved is decided when the graph runs. If a gradient will be wanted,
its autograd formula calls ``recurrence_forward``, and later ``recurrence_backward``. The arguments in a graph are valid
on any machine:

* ``cell`` and ``program``: the cell's name, and the hash of the equations that the cell of that name must have;
* ``tensors`` and ``names``: the tensors, and their names with spaces between them (see `arguments`). Names are
  ``gates_x`` (the input, projected where compilers see the projection), ``state_h``, ``weight_hh_0`` of the first
  direction, ``reset``, or ``stream_elapsed`` for the stream ``elapsed``. (torch.jit.trace takes no lists of optional
  tensors or strings, and AOTInductor takes no empty list.)
* ``backend``: the backend that the caller asked for. With ``"auto"``, the tensors' device decides when the graph runs.
  After it, with spaces between them, come the `seqcells.settings` that held and are not the defaults. The shapes of
  saved tensors depend on them;
* ``kept``, the last: the names of kept values, with spaces between them. It is left out if no value is kept.

The operators have a rule for every transform. Autograd differentiates by kernels, and vmap makes rows of a batch.
Forward-mode AD and the gradients of torch.func use the reference's torch operators.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import forward_ad

from ..cells import Cell
from ..request import check_recurrence, context
from ..request.recurrence import Backward, Recurrence
from ..request.weights import Weights
from ..system.settings import Settings, current_settings, holding
from . import choose, execute, flops
from .execute import Like, as_left
from .graph_cells import cell_of, program

_INPUTS = "str cell, str program, Tensor[] tensors, str names, bool reverse, str backend"
_ROLES = {"hh": "weight_hh", "bias_hh": "bias_hh", "hr": "weight_hr"}
"""The fields of `Weights` that the time loop reads, with the names of their tensors in the operators' arguments."""
COMMON = 6
"""The number of leading arguments that all three operators share."""
_library = torch.library.Library("seqcells", "DEF")
_KEPT = 'str kept=""'
SCHEMA = f"recurrence({_INPUTS}, {_KEPT}) -> Tensor[]"
_library.define(SCHEMA)
_library.define(f"recurrence_forward({_INPUTS}, {_KEPT}) -> Tensor[]")
_library.define(f"recurrence_backward({_INPUTS}, Tensor[] saved, Tensor[] gradients, {_KEPT}) -> Tensor[]")


def recurrence(q: Recurrence, backend: str) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Output and the other results, by the operator. ``backend`` is the backend asked for, which may be ``"auto"``."""
    output, *others = torch.ops.seqcells.recurrence(*arguments(q, backend), *_kept(q))
    return output, tuple(others)


def recurrence_backward(
    q: Recurrence, backend: str, saved: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The gradients of ``q.differentiable()``, by the operator. ``q`` must hold ``gates_x`` and no input."""
    return torch.ops.seqcells.recurrence_backward(*arguments(q, backend), list(saved), list(gradients), *_kept(q))


def arguments(q: Recurrence, backend: str) -> tuple[Any, ...]:
    """The leading arguments that all operators share, in the order of the schema."""
    named = dict(_named(execute.projected(q)))
    if not torch.compiler.is_compiling():
        flops.tell()
    asked = " ".join([backend, *current_settings().words()])
    return q.cell.name, program(q.cell), list(named.values()), " ".join(named), q.reverse, asked


def _kept(q: Recurrence) -> tuple[str, ...]:
    """The operators' last argument ``kept``, as a tuple. The tuple is empty if no value is kept."""
    return (" ".join(q.kept),) if q.kept else ()


def _named(q: Recurrence) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, without None. Differentiable tensors come first, in the order of ``q.differentiable()``."""
    states = q.cell.states
    named = [("gates_x", q.gates_x), *((f"state_{name}", s) for name, s in zip(states, q.states, strict=True))]
    for d, w in enumerate(q.weights):
        named += [(f"{name}_{d}", getattr(w, role)) for role, name in _ROLES.items()]
        named += [(f"{name}_{d}", tensor) for name, tensor in w.named(q.cell).items()]
    named += [(f"reset_state_{name}", s) for name, s in zip(states, q.reset_states or (), strict=False)]
    named += [(f"stream_{name}", stream) for name, stream in q.streams.items()]
    named += [("lengths", q.lengths), ("reset", q.reset)]
    return ((name, tensor) for name, tensor in named if tensor is not None)


def recurrence_of(*arguments: Any) -> Recurrence:
    """The layer that the arguments of ``seqcells::recurrence`` describe. Its backend need not exist on this machine."""
    return _Call(*arguments, runs=False).q


class _Call:
    """A `Recurrence`, its backend and settings, from the operators' arguments. Without ``runs``, ``"auto"`` stays."""

    def __init__(
        self,
        cell: str,
        hash: str,
        tensors: Sequence[Any],
        names: str,
        reverse: bool,
        asked: str,
        kept: str = "",
        *,
        runs: bool = True,
    ) -> None:
        kind, self.names = cell_of(cell, hash), names.split()
        if len(self.names) != len(tensors):
            raise RuntimeError(f"Expected a name for each of {len(tensors)} tensors, got {len(self.names)}: {names!r}")
        named = dict(zip(self.names, tensors, strict=True))
        if len(named) != len(tensors):
            raise RuntimeError(f"Expected each name once, got {names!r}")
        first = named.get(f"state_{kind.states[0]}")
        # Other numbers of directions are bad input, which `fits.check` reports.
        directions = 2 if first is not None and first.dim() == 3 and first.shape[0] == 2 else 1
        _on_one_device(tensors)
        self.q: Recurrence = self._recurrence(kind, named, directions, reverse, tuple(kept.split()))
        numbered = {name: place for place, name in enumerate(self.names)}
        places = self._recurrence(kind, numbered, directions, reverse)
        self.places: list[int] = places.differentiable()
        """The places of the differentiable tensors among the tensors, in the order of ``q.differentiable()``."""
        backend, *words = asked.split(" ")
        self.backend = choose.backend_for(self.q, backend) if runs else backend
        self.settings = Settings.of(*words)

    @staticmethod
    def _recurrence(
        cell: type[Cell], named: dict[str, Any], directions: int, reverse: bool, kept: tuple[str, ...] = ()
    ) -> Recurrence[Any]:
        """The recurrence whose fields are the values of ``named``: tensors, or other values under the same names."""
        rest = named.copy()

        def needed(name: str) -> Any:
            if name not in rest:
                raise RuntimeError(f"{cell.name} expects {name}, got {', '.join(named)}")
            return rest.pop(name)

        gates_x, states = needed("gates_x"), [needed(f"state_{name}") for name in cell.states]
        roles = {role: name for role, name in _ROLES.items() if name not in cell.own_names()}
        weights = tuple(
            Weights(
                **{role: rest.pop(f"{name}_{d}", None) for role, name in roles.items()},
                own=tuple(
                    needed(f"{name}_{d}")
                    for name in cell.own_names()
                    if not name.startswith("bias") or f"{name}_{d}" in rest
                ),
            )
            for d in range(directions)
        )
        reset_states = None
        if any(name.startswith("reset_state_") for name in rest):
            reset_states = [needed(f"reset_state_{name}") for name in cell.states]
        streams = {name: needed(f"stream_{name}") for name in cell.streams}
        boundaries = rest.pop("lengths", None), rest.pop("reset", None)
        if rest:
            raise RuntimeError(f"{cell.name} reads no {', '.join(rest)}")
        return Recurrence(
            cell, gates_x, states, weights, *boundaries, reset_states, reverse, streams=streams, kept=kept
        )

    def saved_like(self, gates_x: Tensor) -> list[Tensor]:
        """Empty tensors of the shapes that forward saves for this ``gates_x``, on its device."""
        with holding(self.settings):
            return execute.saved_like(self.q._replace(gates_x=gates_x), self.backend)

    def by_tensor(self, flat: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Gradients of ``q.differentiable()``, in the order of the operators' tensors. Other tensors have None."""
        gradients: list[Tensor | None] = [None] * len(self.names)
        for place, gradient in zip(self.places, flat, strict=True):
            gradients[place] = gradient
        return gradients


def _on_one_device(tensors: Sequence[Tensor]) -> None:
    """RuntimeError for several devices: one meta tensor would make torch run the fake, whose results have no values."""
    devices = {str(tensor.device) for tensor in tensors}
    if len(devices) > 1:
        raise RuntimeError(f"Expected all tensors on one device, got {' and '.join(sorted(devices))}")


def _forward(*args: Any, save: bool) -> list[Tensor]:
    call = _Call(*args)
    with holding(call.settings):
        output, others, saved = execute.forward(call.q, call.backend, save)
    like = call.q.outside
    return [*_as_promised([output, *others], [like] * call.q.result_count), *saved]


def _backward(*args: Any) -> list[Tensor]:
    *common, saved, gradients, kept = _with_kept(args)
    call = _Call(*common, kept=kept)
    q, leaves = call.q, call.q.differentiable()
    check_recurrence.check(q)
    x = q.outside
    seeds = [Like(torch.Size(shape), x.dtype, x.device) for shape in q.shapes()]
    likes = [seeds[0], *(Like.of(t, x.device) for t in call.saved_like(x.to("meta")))]
    for words, expected, found in (("saved tensors", likes, saved), ("gradients", seeds, gradients)):
        if len(found) != len(expected):
            raise RuntimeError(f"Expected {len(expected)} {words}, got {len(found)}")
    output, *saved = map(as_left, saved, likes)
    grad_output, *grad_final = map(as_left, gradients, seeds)
    given = Backward(output, saved, grad_output, grad_final, q.replaced([True] * len(leaves)))
    with holding(call.settings):
        found = execute.backward(q, call.backend, given)
        flat = _as_promised([gradient for gradient in found if gradient is not None], leaves)
    return [gradient for gradient in call.by_tensor(flat) if gradient is not None]


def _as_promised(results: Sequence[Tensor], likes: Sequence[Tensor]) -> list[Tensor]:
    """Results in the dtypes and layouts of the fake implementation. Compiled code reads memory by these."""
    return [
        t if t.dtype == like.dtype and t.is_contiguous() else t.to(like.dtype).contiguous()
        for t, like in zip(results, likes, strict=True)
    ]


def _recurrence_fake(*args: Any) -> list[Tensor]:
    q = _Call(*args).q
    check_recurrence.check(q)
    return [q.outside.new_empty(shape) for shape in q.shapes()]


def _forward_fake(*args: Any) -> list[Tensor]:
    call = _Call(*args)
    return [*_recurrence_fake(*args), *call.saved_like(call.q.outside)]


def _backward_fake(*args: Any) -> list[Tensor]:
    *common, saved, gradients, kept = _with_kept(args)
    call = _Call(*common, kept=kept)
    _on_one_device([call.q.outside, *saved, *gradients])
    likes = call.by_tensor(call.q.differentiable())
    return [like.new_empty(like.shape) for like in likes if like is not None]


class _Differentiated(torch.autograd.Function):
    """The operator if gradients will be wanted. autograd.Function sees no tensors in lists, so they come unpacked."""

    @staticmethod
    def forward(others: tuple, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.ops.seqcells.recurrence_forward(*_with(others, tensors)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)  # zero gradients for saved tensors would cost their memory again
        ctx.others, *tensors = inputs
        ctx.inputs, ctx.results = len(tensors), _results(ctx.others)
        ctx.mark_non_differentiable(*output[ctx.results :])
        ctx.save_for_backward(*tensors, output[0], *output[ctx.results :])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = execute.saved_tensors(ctx)
        args, saved = _with(ctx.others, saved[: ctx.inputs]), saved[ctx.inputs :]
        call = _Call(*args)
        grad_output, *grad_final = gradients[: ctx.results]
        grad_output, grad_final = execute.gradients_given(call.q, saved[0], grad_output, grad_final)
        if torch.is_grad_enabled() or context.are_batched([grad_output, *grad_final]):
            return None, *call.by_tensor(execute.differentiable_gradients(call.q, grad_output, grad_final))
        common, kept = args[:COMMON], args[COMMON:]
        given = list(saved), [grad_output, *grad_final]
        flat = iter(torch.ops.seqcells.recurrence_backward(*common, *given, *kept))
        has = {*call.places}
        return None, *(next(flat) if place in has else None for place in range(ctx.inputs))


def _results(others: tuple) -> int:
    """The number of results, from the operator's arguments without the tensors."""
    return 1 + len(cell_of(*others[:2]).states) + sum(len(kept.split()) for kept in others[COMMON - 1 :])


def _with_kept(args: tuple) -> tuple[Any, ...]:
    """The arguments of ``recurrence_backward``, with ``""`` for ``kept`` if it was left out."""
    return args if len(args) > COMMON + 2 else (*args, "")


def _with(others: tuple, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """The operator's arguments: ``others`` with the list of tensors put back in its place."""
    return *others[:2], list(tensors), *others[2:]


def _autograd(cell: str, hash: str, tensors: Sequence[Tensor], *rest: Any) -> list[Tensor]:
    if _is_transformed(tensors):
        return _by_reference(cell, hash, tensors, *rest)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        results = _Differentiated.apply((cell, hash, *rest), *tensors)
        return list(results[: _results((cell, hash, *rest))])
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.seqcells.recurrence(cell, hash, tensors, *rest)


def _autograd_of_forward(*args: Any) -> list[Tensor]:
    tensors = args[2]
    if _is_transformed(tensors):
        raise RuntimeError("recurrence_forward is a part of recurrence's gradient, which transforms do not follow")
    if context.is_differentiated(tensors):
        return list(_Differentiated.apply((*args[:2], *args[3:]), *tensors))
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.seqcells.recurrence_forward(*args)


def _autograd_of_backward(*args: Any) -> list[Tensor]:
    *common, _, gradients, kept = _with_kept(args)
    tensors = [*common[2], *gradients]
    if _is_transformed(tensors) or context.is_differentiated(tensors):
        call = _Call(*common, kept=kept)
        check_recurrence.check(call.q)
        flat = call.by_tensor(execute.differentiable_gradients(call.q, gradients[0], gradients[1:]))
        return [gradient for gradient in flat if gradient is not None]
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.seqcells.recurrence_backward(*args)


def _is_transformed(tensors: Sequence[Tensor]) -> bool:
    """Whether a torch.func transform other than functionalization, or forward-mode AD, acts on the tensors."""
    kinds = {interpreter.key() for interpreter in get_interpreter_stack() or ()}
    if kinds - {TransformType.Functionalize}:
        return True
    return forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def _by_reference(*args: Any) -> list[Tensor]:
    q = _Call(*args).q
    check_recurrence.check(q)
    return list(execute.by_reference(q, *q.differentiable()))


def _vmap(
    info: Any, in_dims: tuple, cell: str, hash: str, tensors: Sequence[Tensor], names: str, *rest: Any
) -> tuple[list[Tensor], int | list[int]]:
    """vmap's rule: one call with more rows in the batch. If weights are batched too, one call for each item."""
    count, dims, names_of = info.batch_size, in_dims[2], names.split()
    tensors = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims, strict=True)]
    kind = cell_of(cell, hash)
    axes = [_batch_axis(kind, name) for name in names_of]
    if any(dim is not None and axis is None for dim, axis in zip(dims, axes, strict=True)):
        each = [[t if dim is None else t[k] for t, dim in zip(tensors, dims, strict=True)] for k in range(count)]
        results = [torch.ops.seqcells.recurrence(cell, hash, some, names, *rest) for some in each]
        together = [torch.stack(result) for result in zip(*results, strict=True)]
        return together, [0] * len(together)
    rows = []
    for tensor, dim, axis in zip(tensors, dims, axes, strict=True):
        if axis is not None:
            tensor = tensor.expand(count, *tensor.shape) if dim is None else tensor
            tensor = tensor.movedim(0, axis).flatten(axis, axis + 1)
        rows.append(tensor)
    results = torch.ops.seqcells.recurrence(cell, hash, rows, names, *rest)
    return [result.unflatten(1, (count, -1)) for result in results], [1] * len(results)


def _batch_axis(cell: type[Cell], name: str) -> int | None:
    """The axis of sequences of the named tensor, or None for a tensor that all sequences share."""
    if name.startswith("stream_"):
        axes = cell.streams[name.removeprefix("stream_")]
        return 1 + axes.index("B") if "B" in axes else None
    if name.startswith(("weight_", "bias_")):
        return None
    return 0 if name == "lengths" else 1


def _vmap_of_backward(info: Any, in_dims: tuple, *args: Any) -> tuple[list[Tensor], list[int]]:
    """vmap's rule for backward: one call for each item, because each has its own gradients of the weights."""

    def of(k: int) -> list[Any]:
        return [
            [t if dim is None else t.select(dim, k) for t, dim in zip(arg, dims, strict=True)]
            if isinstance(arg, (list, tuple))
            else arg
            for arg, dims in zip(args, in_dims, strict=True)
        ]

    results = [torch.ops.seqcells.recurrence_backward(*of(k)) for k in range(info.batch_size)]
    together = [torch.stack(result) for result in zip(*results, strict=True)]
    return together, [0] * len(together)


for _name, _run, _fake, _autograd_of_it in (
    ("recurrence", partial(_forward, save=False), _recurrence_fake, _autograd),
    ("recurrence_forward", partial(_forward, save=True), _forward_fake, _autograd_of_forward),
    ("recurrence_backward", _backward, _backward_fake, _autograd_of_backward),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    _library.impl(_name, _autograd_of_it, "Autograd")
    torch.library.register_fake(f"seqcells::{_name}", _fake, lib=_library)
torch.library.register_vmap("seqcells::recurrence", _vmap, lib=_library)
torch.library.register_vmap("seqcells::recurrence_backward", _vmap_of_backward, lib=_library)
