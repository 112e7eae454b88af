"""Recurrences of random tensors, and their results and gradients."""

import torch

from seqcells.call import run
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights


def random_recurrence(
    cell, dtype=torch.float64, steps=3, batch=3, hidden=24, directions=1, lengths=False, resets=False, reverse=False,
    bias=True, features=0,
):  # fmt: skip
    """A recurrence of random tensors that require gradients. With features, it has an input. Streams are not
    negative."""
    generator = torch.Generator().manual_seed(steps)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def states():
        made = [randn(directions, batch, hidden) for _ in cell.states]
        made = [state.abs() + 0.5 if key == "n" else state for key, state in zip(cell.states, made, strict=True)]
        return [state.to(dtype).requires_grad_() for state in made]

    def weights():
        roles = Weights.roles(cell, bias, False)
        shapes = [Weights.shape(role, cell, features or 1, hidden, 0) for role in roles]
        tensors = [(randn(*shape) / hidden**0.5).to(dtype).requires_grad_() for shape in shapes]
        return Weights.of(roles, tensors) if features else Weights.of(roles, tensors).recurrent

    width = features or directions * len(cell.gates) * hidden
    outside = randn(steps, batch, width).to(dtype).requires_grad_()
    q = Recurrence(cell, None if features else outside, states(), [weights() for _ in range(directions)])
    q = q._replace(reverse=reverse, input=outside if features else None)
    sizes = {"T": steps, "B": batch, "H": hidden, "F": features}
    streams = {
        name: randn(directions, *(sizes[axis] for axis in axes)).abs().to(dtype).requires_grad_()
        for name, axes in cell.streams.items()
        if not features or name != "input"
    }
    q = q._replace(streams=streams)
    if lengths:
        q = q._replace(lengths=torch.tensor([steps, 0, steps - 1, 1][:batch]))
    if resets:
        reset = torch.rand(steps, batch, generator=generator) < 0.4
        reset[-1, 0] = True
        q = q._replace(reset=reset, reset_states=states())
    return q


def results(q, backend):
    """Output, final states and all gradients."""
    output, final = run.recurrence(q, backend)
    outputs, leaves = [output, *final], q.differentiable()
    generator = torch.Generator().manual_seed(1)
    seeds = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o.dtype) for o in outputs]
    found = torch.autograd.grad(outputs, leaves, seeds, allow_unused=True, materialize_grads=True)
    return [each.detach() for each in (*outputs, *found)]
