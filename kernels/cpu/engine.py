"""The CPU engine, a `seqcells.backends.engine.PreparingEngine`."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...request.recurrence import Backward, Recurrence
from ...request.weights import Weights
from .gradients import gradient
from .layer_call import Arrays, LayerCall, kernels_of, named, row_blocks, several_steps
from .library import maker, pooled
from .linear import linear, linear_gradients
from .prepared import Inference, Training

__all__ = ["Inference", "Training", "backward", "forward", "maker", "output_maker", "saved_like"]


def output_maker(like: Tensor, steps: int) -> Callable[[], Tensor]:
    """A function that makes the tensor for a layer's output in training."""
    return maker(like)


def forward(q: Recurrence, save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """`Engine.forward`. The loop projects the input, where the cell allows it, unless
    several steps are to be differentiated."""
    inside = q.input is not None and not (save and several_steps(q))
    inside = inside and kernels_of(q).gates_inside
    call = LayerCall(q, inside)
    output, final = call.empty_output(), call.empty_states()
    saved = _saved(call, pooled) if save else {}
    gates_x = [None] * call.directions
    if not inside and q.cell.gates:
        gates_x = call.each(call.plain(q.gates_x if q.input is None else linear(q.input, *q.input_weights)))
    input, each_output = call.plain(q.input) if inside else None, call.each(output)
    kept = {name: call.empty(call.steps, call.batch, width) for name, width in call.widths_of_kept().items()}
    call.run(
        False,
        [
            {"input": input, "gates_x": gates_x[d], "output": each_output[d]}
            | call.by_state("final", final, d)
            | {name: tensor[d] for name, tensor in saved.items()}
            | {f"kept.{name}": call.each(tensor)[d] for name, tensor in kept.items()}
            for d in range(call.directions)
        ],
    )
    return call.stored(output), [call.stored(each) for each in (*final, *kept.values())], [*saved.values()]


def backward(q: Recurrence, given: Backward) -> list[Tensor | None]:
    """`Engine.backward`."""
    call, wanted, states = LayerCall(q), given.wanted, len(q.states)
    saved = dict(zip(call.keeps(), given.saved, strict=True))
    output, grad_output = call.plain(given.output), call.each(call.plain(given.grad_output))
    grad_final, grad_kept = (
        [call.plain(g) for g in part] for part in (given.grad_final[:states], given.grad_final[states:])
    )
    grad_gates_x = call.empty(*output.shape[:2], call.directions * len(call.cell.gates) * call.hidden)
    if "grad_gates_x" in call.kernels.unwritten:
        grad_gates_x.zero_()
    grad_states = [call.working_like(state) for state in call.states]
    # Backward only adds to these gradients, so they start at zero.
    reset_states = None if q.reset_states is None else [torch.zeros_like(s, dtype=call.working) for s in call.states]
    streams = {name: _empty_gradient(call, name, stream) for name, stream in call.streams.items()}
    each_grad_gates, directions = call.each(grad_gates_x), []
    for d, part in enumerate(call.each(output)):
        arrays = {name: tensor[d] for name, tensor in saved.items()} | call.by_state("grad_final", grad_final, d)
        arrays |= call.by_state("grad_initial", grad_states, d) | call.by_state("grad_reset_state", reset_states, d)
        arrays |= {"output": part, "grad_output": grad_output[d]}
        if call.kernels.reads_previous:
            arrays["previous"] = call.hidden_before(part, d)
        arrays |= {f"grad_kept.{name}": call.each(g)[d] for name, g in zip(call.kept, grad_kept, strict=True)}
        arrays |= {f"grad_x.{name}": tensor[d] for name, tensor in streams.items()}
        arrays |= {name: call.empty(call.steps, call.batch, width) for name, width in call.makes().items()}
        arrays["grad_gates_x"] = each_grad_gates[d]
        directions.append(arrays | _summed(call, q.weights[d], wanted.weights[d]))
    call.run(True, directions)

    outside, grad_ih = call.stored(grad_gates_x), [None] * call.directions
    if q.input is not None and not q.cell.gates:
        outside = torch.zeros_like(q.input)
    elif q.input is not None:
        both = wanted.input, any(want.ih for want in wanted.weights)
        outside, whole = linear_gradients(outside, q.input, q.input_weights[0], both)
        grad_ih = grad_ih if whole is None else whole.chunk(call.directions)
    if q.input is not None and "input" in streams:
        as_stream = call.stored(streams.pop("input").sum(0))
        outside = outside if outside is None else outside + as_stream
    flat = [outside, *grad_states]
    for d, arrays in enumerate(directions):
        flat += q.used[d].matching(_grad_weights(call, d, wanted.weights[d], arrays, grad_ih[d]))
    return [g if g is None else call.stored(g) for g in [*flat, *(reset_states or ()), *streams.values()]]


def _empty_gradient(call: LayerCall, name: str, stream: Tensor) -> Tensor:
    """A tensor for a stream's gradient. Each step writes its part, or adds to one sum, which starts at zero."""
    array, axes = f"grad_x.{name}", call.cell.streams[name]
    if "T" in axes and array in call.kernels.places[True]:
        return call.empty(*stream.shape)
    return torch.zeros_like(stream, dtype=call.dtype if "T" in axes else call.working)


def _summed(call: LayerCall, weights: Weights, wanted: Weights[bool]) -> dict[str, Tensor]:
    """Tensors for the gradients that the pass itself sums up: of every parameter that is no product's weight, of biases
    only where they are wanted. Gradients that the pass does not write completely start at zero."""
    own, wants = named(call.cell, weights), named(call.cell, wanted)
    names = [name for name in own if name != "weight_ih" and call.kernels.sums(name)]
    names = [f"grad_{name}" for name in names if wants[name] or not name.startswith("bias")]
    found = {name: call.working_like(own[name.removeprefix("grad_")]) for name in names}
    for name in found:
        if name not in call.kernels.places[True] or name in call.kernels.unwritten:
            found[name].zero_()
    return found


def _grad_weights(call: LayerCall, d: int, wanted: Weights[bool], arrays: Arrays, grad_ih: Tensor | None) -> Weights:
    own, wants = named(call.cell, call.weights[d]), named(call.cell, wanted)
    found = {name: arrays.get(f"grad_{name}") for name in wants} | {"weight_ih": grad_ih}
    for name in {run.weight for run in call.kernels.runs}:
        if wants.get(name):
            its_runs = [run for run in call.kernels.runs if run.weight == name]
            found[name] = gradient(call.plain(own[name]), row_blocks(call.cell, name), its_runs, arrays)
    fixed = (found.get(name) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"))
    return Weights(*fixed, own=tuple(found[name] for name in call.weights[d].named(call.cell)))


def saved_like(q: Recurrence) -> list[Tensor]:
    """Empty tensors (D, T, B, ·) for the values that forward saves: `Engine.saved_like`."""
    return [*_saved(LayerCall(q), lambda shape, dtype: q.outside.new_empty(shape, dtype=dtype)).values()]


def _saved(call: LayerCall, empty: Callable[[Sequence[int], torch.dtype], Tensor]) -> dict[str, Tensor]:
    shape = call.directions, call.steps, call.batch
    return {name: empty((*shape, width), call.working) for name, width in call.keeps().items()}
