"""Layers, their calls and memory layouts drawn at random, for the fuzzers of layers."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from support import as_tuple, backends, layer, like_module, random_states
from torch import Tensor

from seqcells.backends import BACKENDS
from seqcells.cells import REGISTRY

ENGINES = [name for name in backends("lstm", dtype=torch.float64) if BACKENDS[name].engine]
"""The backends with kernels that run here in float64."""
CELLS = tuple(REGISTRY)
"""The package's own cells: tests define other cells while they run."""
FUZZ = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def rounds(few, many):
    """Hypothesis settings of a plain test with ``few`` examples, and of a heavy one with ``many``."""
    return [
        pytest.param(settings(FUZZ, max_examples=few), id="few"),
        pytest.param(settings(FUZZ, max_examples=many), id="many", marks=pytest.mark.heavy),
    ]


def _turned(leaf):
    return leaf.transpose(0, -1).contiguous().transpose(0, -1) if leaf.dim() else leaf


def _sliced(leaf):
    return torch.stack([leaf, torch.ones_like(leaf)], -1)[..., 0]


def _offset(leaf):
    """Contiguous, but at an address that is not aligned to a vector."""
    return torch.cat([leaf.new_zeros(1), leaf.flatten()])[1:].view(leaf.shape)


def _expanded(leaf):
    return leaf[:1].expand(leaf.shape)


SAME_NUMBERS = {"as it is": lambda leaf: leaf, "turned": _turned, "sliced": _sliced, "offset": _offset}
LAYOUTS = {**SAME_NUMBERS, "expanded": _expanded}


class Drawn(NamedTuple):
    """A layer and a call of it."""

    name: str
    options: dict
    sizes: dict
    layouts: list
    """The memory layouts of input, states, weights and reset states."""
    lengths: list | None
    resets: str | None
    seed: int


@st.composite
def calls(draw, hidden=(1, 2, 3, 5, 7, 8, 13, 17, 33, 37, 65), steps=9, batch=33):
    """Draw the options of a layer, the sizes, the memory layouts, and the arguments besides the input."""
    name, hidden = draw(st.sampled_from(CELLS)), draw(st.sampled_from(hidden))
    options = {
        "num_layers": draw(st.sampled_from([1, 1, 2])),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if REGISTRY[name].projection and hidden > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, hidden - 1))
    steps, batch = draw(st.integers(1, steps)), draw(st.integers(0, batch))
    sizes = {"features": draw(st.integers(1, 9)), "hidden": hidden, "steps": steps, "batch": batch}
    layouts = [draw(st.sampled_from(list(LAYOUTS))) for _ in ("input", "states", "weights", "reset states")]
    lengths = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    resets = draw(st.sampled_from([None, "zeros", "given"]))
    return Drawn(name, options, sizes, layouts, lengths, resets, draw(st.integers(0, 2**31)))


class Function(NamedTuple):
    """A call as a function of tensors, which returns output and final states in one list."""

    run: Callable[..., list[Tensor]]
    """Takes the leaves, then the boundaries."""
    leaves: list[Tensor]
    """The differentiable tensors: input, states, reset states, weights."""
    boundaries: list[Tensor]
    """Lengths and reset, if they are given."""
    kinds: list[str]
    """The kind of each leaf and boundary."""


def function(drawn, backend, device, dtype=torch.float64):
    """A drawn call, run by a backend, and random tensors for it."""
    name, options, sizes, layouts, lengths, resets, seed = drawn
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator, "dtype": dtype}
    steps, batch, hidden = sizes["steps"], sizes["batch"], sizes["hidden"]
    module = layer(name, sizes["features"], hidden, backend=backend, device=device, dtype=dtype, **options)
    count = module.num_layers * (2 if module.bidirectional else 1)
    shape = (batch, steps) if module.batch_first else (steps, batch)

    tensors = {
        "input": [torch.randn(*shape, sizes["features"], **random)],
        "states": random_states(name, count, batch, hidden, proj_size=module.proj_size, **random),
        "reset states": random_states(name, count, batch, hidden, proj_size=module.proj_size, **random),
        "weights": [torch.randn(weight.shape, **random) / hidden**0.5 for weight in module.parameters()],
    }
    flags = torch.rand(shape, generator=generator) < 0.3
    leaves = [tensor.to(device).requires_grad_() for some in tensors.values() for tensor in some]
    boundaries = {} if lengths is None else {"lengths": torch.tensor(lengths, dtype=torch.int64, device=device)}
    boundaries |= {} if resets is None else {"reset": flags.to(device)}
    layout = dict(zip(("input", "states", "weights", "reset states"), layouts, strict=True))
    kinds = [kind for kind, some in tensors.items() for _ in some]

    def run(*given):
        def of(kind):
            return [LAYOUTS[layout[kind]](leaf) for leaf, own in zip(given, kinds, strict=False) if own == kind]

        kwargs = dict(zip(boundaries, given[len(leaves) :], strict=True))
        if resets == "given":
            kwargs["reset_state"] = like_module(of("reset states"))
        weights = dict(zip([key for key, _ in module.named_parameters()], of("weights"), strict=True))
        (input,) = of("input")
        output, final = torch.func.functional_call(module, weights, (input, like_module(of("states"))), kwargs)
        return [output, *as_tuple(final)]

    return Function(run, leaves, list(boundaries.values()), [*kinds, *boundaries])
