"""Whatever the sizes, layout of memory, lengths and resets: each engine gives the reference's numbers and gradients."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import as_tuple, assert_equal_to, backends, gradients, layer, like_module, random_states

from seqcells import dispatch
from seqcells.cells import REGISTRY

LIKE = {"dtype": torch.float64}
ENGINES = [name for name in backends("lstm", dtype=torch.float64) if dispatch.BACKENDS[name].engine]


def _turned(leaf):
    return leaf.transpose(0, -1).contiguous().transpose(0, -1)


def _sliced(leaf):
    return torch.stack([leaf, leaf + 1], -1)[..., 0]


def _offset(leaf):
    """Contiguous, at an address that no vector is aligned to."""
    return torch.cat([leaf.new_zeros(1), leaf.flatten()])[1:].view(leaf.shape)


def _expanded(leaf):
    return leaf[:1].expand(leaf.shape)


LAYOUTS = {
    "as it is": lambda leaf: leaf,
    "turned": _turned,
    "sliced": _sliced,
    "offset": _offset,
    "expanded": _expanded,
}


@st.composite
def calls(draw):
    """The options of a layer, the sizes, the layouts, and what is given besides the input."""
    name = draw(st.sampled_from(list(REGISTRY)))
    hidden = draw(st.sampled_from([1, 2, 3, 5, 7, 8, 13, 17, 33, 37, 65]))
    options = {
        "num_layers": draw(st.sampled_from([1, 1, 2])),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if REGISTRY[name].projection and hidden > 1 and draw(st.booleans()):
        options["proj_size"] = draw(st.integers(1, hidden - 1))
    steps, batch = draw(st.integers(1, 9)), draw(st.integers(0, 33))
    sizes = {"features": draw(st.integers(1, 9)), "hidden": hidden, "steps": steps, "batch": batch}
    layouts = [draw(st.sampled_from(list(LAYOUTS))) for _ in ("input", "states", "weights", "reset states")]
    lengths = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    resets = draw(st.sampled_from([None, "zeros", "given"]))
    return name, options, sizes, layouts, lengths, resets, draw(st.integers(0, 2**31))


def everything(backend, device, name, options, sizes, layouts, lengths, resets, seed):
    """Outputs, final states, and the gradients of all that is given, as a backend computes them."""
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator, **LIKE}
    steps, batch, hidden = sizes["steps"], sizes["batch"], sizes["hidden"]
    module = layer(name, sizes["features"], hidden, backend=backend, device=device, **options, **LIKE)
    count = module.num_layers * (2 if module.bidirectional else 1)
    shape = (batch, steps) if module.batch_first else (steps, batch)

    input = torch.randn(*shape, sizes["features"], **random)
    states = random_states(name, count, batch, hidden, proj_size=module.proj_size, **random)
    fresh = random_states(name, count, batch, hidden, proj_size=module.proj_size, **random)
    weights = [torch.randn(weight.shape, **random) / hidden**0.5 for weight in module.parameters()]
    flags = torch.rand(shape, generator=generator) < 0.3
    tensors = [input, *states, *fresh, *weights]
    input, *rest = leaves = [tensor.to(device).requires_grad_() for tensor in tensors]
    states, fresh, weights = rest[: len(states)], rest[len(states) : 2 * len(states)], rest[2 * len(states) :]

    of_input, of_states, of_weights, of_fresh = (LAYOUTS[layout] for layout in layouts)
    kwargs = {}
    if lengths is not None:
        kwargs["lengths"] = torch.tensor(lengths, dtype=torch.int64)
    if resets is not None:
        kwargs["reset"] = flags.to(device)
    if resets == "given":
        kwargs["reset_state"] = like_module([of_fresh(state) for state in fresh])

    given = {key: of_weights(weight) for (key, _), weight in zip(module.named_parameters(), weights, strict=True)}
    hx = like_module([of_states(state) for state in states])
    output, final = torch.func.functional_call(module, given, (of_input(input), hx), kwargs)
    found = [output, *as_tuple(final)]
    return [*found, *gradients(found, leaves)]


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


@settings(max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(call=calls(), count=st.integers(1, 3))
@pytest.mark.parametrize("backend", ENGINES)
def test_an_engine_equals_the_reference(backend, device, threads, call, count):
    threads(count)
    found = everything(backend, device, *call)
    threads(1)
    assert_equal_to(found, everything("reference", device, *call))
