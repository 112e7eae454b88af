"""Helpers for modules that delegate their calls to torch's operator, for `test_prepared_delegated` and
`test_delegated_changes`."""

import torch
from modules import N, example
from support import as_tuple, gradients, like_module

TIMES = 5
NAMED = {"backend": "torch"}


def states_for(module, batch=(N,), seed=2):
    """Random states for a module of torch.nn's or ours."""
    cell, lstm = hasattr(module, "weight_ih"), "LSTM" in type(module).__name__
    count = () if cell else (module.num_layers * (2 if module.bidirectional else 1),)
    widths = [getattr(module, "proj_size", 0) or module.hidden_size, module.hidden_size][: 1 + lstm]
    generator, dtype = torch.Generator().manual_seed(seed), next(module.parameters()).dtype
    return [torch.randn(*count, *batch, width, generator=generator).to(dtype) for width in widths]


def flat(found):
    """The output and states of a layer, or the states of a cell, in one list."""
    found = as_tuple(found)
    return [found[0], *as_tuple(found[1])] if len(found) == 2 and not torch.is_tensor(found[1]) else [*found]


def everything(module, input, states, training):
    """The results of a call and, where ``training``, all gradients."""
    with torch.set_grad_enabled(training):
        output, states = input.detach().requires_grad_(training), [s.detach().requires_grad_(training) for s in states]
        found = module(output, like_module(states) if states else None)
        found = [found[0], *as_tuple(found[1])] if not hasattr(module, "weight_ih") else [*as_tuple(found)]
    return [*found, *gradients(found, [output, *states, *module.parameters()])] if training else found


def same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def prepare(module, input=None, states=(), training=False):
    """The module, after calls that make it prepare calls of this kind."""
    for _ in range(3):
        everything(module, example(module) if input is None else input, states, training)
    assert module._prepared.has(training)
    return module
