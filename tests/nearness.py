"""Compares distances from float64: ours and torch.nn's of the same dtype, for the same numbers.

A distance is the root mean square of the error, relative to the float64 result. The tests compare our distance divided
by torch.nn's.
"""

from functools import partial

import kinks
import torch
from support import TORCH_LAYERS, gradients, pair, random_states, results

# The largest ratio of our distance from float64 to torch.nn's distance in the same dtype.
ALLOWED = {torch.float32: 1.5, torch.bfloat16: 2.0, torch.float16: 2.0}
DRAWS = 8
"""If one draw is too far, this many more draws are measured, as one sample. The root mean square of 48 numbers, a
bias's gradient, is known only to a tenth. So, among the thousand ratios tested, some exceed the bound by chance."""


def too_far(name, backend, sizes, dtype, device="cpu", **options):
    """The results that are further than `ALLOWED`, by name, with their ratios. ``sizes``: steps, rows, features, hidden
    units."""

    def beyond(seeds):
        found = ratios(name, backend, sizes, dtype, device, seeds, **options)
        return {what: ratio for what, ratio in found.items() if not ratio <= ALLOWED[dtype]}

    return beyond([0]) and beyond(range(1, 1 + DRAWS))


def ratios(name, backend, sizes, dtype=torch.float32, device="cpu", seeds=(0,), **options):
    """For each result and gradient, by name: our distance divided by torch.nn's, with all seeds as one sample."""
    sums = {}
    for seed in seeds:
        torch.manual_seed(seed)
        for what, errors in squared_errors(name, backend, sizes, dtype, device, **options).items():
            sums[what] = errors + sums.get(what, 0)
    return {what: 1.0 if torchs == ours else (ours / torchs).sqrt().item() for what, (torchs, ours) in sums.items()}


def squared_errors(name, backend, sizes, dtype, device, **options):
    """For each result and gradient, by name: the squared distances of torch.nn's and ours from the float64 result.

    ReLU's gradient depends on which side of its kink a sum is. In one layer, the float64 gradient takes the sides of
    the compared result. In several layers, gradients are compared in float32 only, for sequences without a sum near
    zero.
    """
    steps, rows, features, hidden = sizes
    theirs, ours = pair(name, backend, (features, hidden), device, dtype, **options)
    exact = TORCH_LAYERS[name](features, hidden, device=device, dtype=torch.float64, **options)
    exact.load_state_dict(theirs.state_dict())
    relu, deep = name == "rnn_relu", theirs.num_layers > 1
    drawn = kinks.SPARE * rows if relu and deep and dtype == torch.float32 else rows
    count = theirs.num_layers * (2 if theirs.bidirectional else 1)
    data = [torch.randn(steps, drawn, features, device=device)]
    data += random_states(name, count, drawn, hidden, device=device)
    data = [tensor.to(dtype) for tensor in data]
    if drawn > rows:
        clear = kinks.clear_sequences(exact, *(tensor.double() for tensor in data))[:rows]
        assert len(clear) == rows
        data = [tensor[:, clear] for tensor in data]

    def everything(module, run=results):
        weights = list(module.parameters())
        input, *hx = (tensor.to(weights[0].dtype).requires_grad_() for tensor in data)
        outputs = run(module, input, hx)
        return outputs, gradients(outputs, [input, *hx, *weights])

    outputs, grads = zip(*map(everything, (exact, theirs, ours)), strict=True)
    found = _by_name(["output", *(f"{state}_n" for state in ours.cell.states)], outputs[:1] * 2, outputs[1:])
    truths = grads[:1] * 2
    if relu and not deep:
        truths = [everything(exact, partial(kinks.on_the_sides_of, own[0]))[1] for own in outputs[1:]]
    if not relu or not deep or drawn > rows:
        leaves = ["input", *(f"{state}_0" for state in ours.cell.states), *(n for n, _ in ours.named_parameters())]
        found |= _by_name(leaves, truths, grads[1:])
    return found


def _by_name(names, truths, found):
    """The squared distances of several lists of tensors, each from its own float64 results."""
    pairs = [list(zip(*both, strict=True)) for both in zip(truths, found, strict=True)]
    far = [[(each.double() - truth).square().sum() for truth, each in own] for own in pairs]
    return dict(zip(names, map(torch.stack, zip(*far, strict=True)), strict=True))
