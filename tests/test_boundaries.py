"""Lengths and resets give the results of a slow loop over sequences and episodes, one layer and direction at a time.

The loop runs torch.nn's own layers on each episode alone, so nothing can cross a boundary. For a cell that torch.nn
lacks, it runs the plain layer of the same cell.
"""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import (
    MAIN,
    TORCH_LAYERS,
    as_tuple,
    assert_equal_to,
    cases,
    gradients,
    layer,
    like_module,
    plain_if,
    random_states,
    results,
)

T, B, F, H = 7, 4, 3, 5
LIKE = {"dtype": torch.float64}


def single(name, module, k, direction, features):
    """The k-th layer and direction of ``module`` as a function (sequence, states) → output, states."""
    one = TORCH_LAYERS.get(name)
    options = {"proj_size": module.proj_size} if module.proj_size else {}
    one = (one(features, H, **LIKE, **options) if one else layer(name, features, H, **LIKE, **options)).to(
        module.weight_ih_l0.device
    )
    suffix = f"_l{k}" + "_reverse" * direction
    weights = {n.replace(suffix, "_l0"): p for n, p in module.named_parameters() if n.endswith(suffix)}

    def run(input, states):
        output, final = torch.func.functional_call(one, weights, (input, like_module(states)))
        return output, as_tuple(final)

    return run


def episodes(steps, length, flags):
    """[(start, end), …] of the episodes within a sequence's length."""
    starts = [0] + [t for t in range(1, length) if flags[t]]
    return [(a, b) for a, b in zip(starts, [*starts[1:], length], strict=True) if b > a]


def by_episodes(name, module, input, hx, lengths, flags, reset_states):
    """The slow loop: output and final states, all time-major."""
    directions = 2 if module.bidirectional else 1
    finals = []
    for k in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            index = k * directions + direction
            run = single(name, module, k, direction, input.shape[-1])
            rows, states = [], []
            for b in range(input.shape[1]):
                state = tuple(s[index, b : b + 1] for s in hx)
                fresh = tuple(s[index, b : b + 1] for s in reset_states)
                parts = [input.new_zeros(input.shape[0] - int(lengths[b]), run_width(module))]
                spans = episodes(input.shape[0], int(lengths[b]), flags[:, b])
                if spans and direction == 0 and flags[0, b]:
                    state = fresh
                for count, (start, end) in enumerate(reversed(spans) if direction else spans):
                    piece = input[start:end, b]
                    output, state = run(piece.flip(0) if direction else piece, state if count == 0 else fresh)
                    parts.insert(0 if direction else -1, output.flip(0) if direction else output)
                rows.append(torch.cat(parts))
                states.append(state)
            outputs.append(torch.stack(rows, 1))
            finals.append([torch.cat(parts) for parts in zip(*states, strict=True)])
        input = torch.cat(outputs, -1)
    return [input, *(torch.stack(states) for states in zip(*finals, strict=True))]


def run_width(module):
    return module.proj_size or module.hidden_size


def compare(name, backend, device, *, lengths=None, flags=None, given_reset=False, batch_first=False, **options):
    """Our outputs, final states and all gradients equal the loop's."""
    module = layer(name, F, H, batch_first=batch_first, backend=backend, **LIKE, **options).to(device)
    count = module.num_layers * (2 if module.bidirectional else 1)
    like = {**LIKE, "device": device, "requires_grad": True}
    batch = B if lengths is None else len(lengths)
    input = torch.randn(T, batch, F, **like)
    hx = random_states(name, count, batch, H, proj_size=module.proj_size, **like)
    fresh = random_states(name, count, batch, H, proj_size=module.proj_size, **like)
    if not given_reset:
        fresh = [torch.zeros_like(f) for f in fresh]
    inputs = [input, *hx, *(fresh if given_reset else ()), *module.parameters()]

    kwargs = {}
    if lengths is not None:
        kwargs["lengths"] = torch.tensor(lengths, device=device)
    if flags is not None:
        kwargs["reset"] = flags.to(device)
        if given_reset:
            kwargs["reset_state"] = like_module(fresh)
        if batch_first:
            kwargs["reset"] = kwargs["reset"].T
    got = results(module, input.transpose(0, 1) if batch_first else input, hx, **kwargs)
    if batch_first:
        got[0] = got[0].transpose(0, 1)
    all_steps = [T] * batch
    no_flags = torch.zeros(T, batch, dtype=torch.bool)
    expected = by_episodes(name, module, input, hx, lengths or all_steps, no_flags if flags is None else flags, fresh)
    assert_equal_to([*got, *gradients(got, inputs)], [*expected, *gradients(expected, inputs)])


def random_flags(batch=B, seed=0):
    return torch.rand(T, batch, generator=torch.Generator().manual_seed(seed)) < 0.3


STACKS = ({}, {"num_layers": 2, "bidirectional": True})


@plain_if(lambda name, options, **_: name in MAIN or options)
@pytest.mark.parametrize("options", STACKS, ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), cases(options=("lengths",)))
def test_lengths_equal_each_sequence_alone(name, backend, options, device):
    compare(name, backend, device, lengths=[3, 7, 0, 1], **options)


@plain_if(lambda name, options, given_reset, **_: name in MAIN or (options and given_reset))
@pytest.mark.parametrize("given_reset", (False, True), ids=("zeros", "reset_state"))
@pytest.mark.parametrize("options", STACKS, ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), cases(options=("reset",)))
def test_resets_equal_each_episode_alone(name, backend, options, given_reset, device):
    compare(name, backend, device, flags=random_flags(), given_reset=given_reset, **options)


@plain_if(lambda name, options, batch_first, **_: name in MAIN or (options and batch_first))
@pytest.mark.parametrize("batch_first", (False, True))
@pytest.mark.parametrize("options", STACKS, ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), cases(options=("lengths", "reset")))
def test_lengths_and_resets_together(name, backend, options, batch_first, device):
    compare(
        name,
        backend,
        device,
        lengths=[6, 2, 0, 7],
        flags=random_flags(),
        given_reset=True,
        batch_first=batch_first,
        **options,
    )


@pytest.mark.parametrize("name", ("lstm", "peephole_lstm"))
def test_lengths_and_resets_with_projection(name, device):
    for backend in ("auto", "reference"):
        compare(
            name,
            backend,
            device,
            lengths=[6, 2, 0, 7],
            flags=random_flags(),
            given_reset=True,
            proj_size=2,
            **STACKS[1],
        )


@plain_if(lambda name, **_: name in MAIN)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
@pytest.mark.parametrize(("name", "backend"), cases(options=("lengths", "reset")))
def test_any_lengths_and_resets(name, backend, data):
    batch = data.draw(st.integers(1, 4))
    lengths = data.draw(st.lists(st.integers(0, T), min_size=batch, max_size=batch))
    flags = data.draw(st.lists(st.booleans(), min_size=T * batch, max_size=T * batch))
    compare(name, backend, "cpu", lengths=lengths, flags=torch.tensor(flags).view(T, batch), bidirectional=True)


@pytest.mark.parametrize(("name", "backend"), cases(options=("lengths",)))
def test_padding_may_hold_anything(name, backend, device):
    module = layer(name, F, H, 2, bidirectional=True, backend=backend, device=device)
    lengths = torch.tensor([3, 0, 7])
    input = torch.randn(T, 3, F, device=device)
    padding = torch.arange(T).unsqueeze(1) >= lengths
    found = []
    for filler in (0.0, float("nan")):
        leaf = input.clone()
        leaf[padding] = filler
        leaf.requires_grad_()
        reset = padding.to(device) if filler else torch.zeros_like(padding, device=device)
        output, final = module(leaf, lengths=lengths, reset=reset)
        outputs = [output, *as_tuple(final)]
        found.append([*outputs, *gradients(outputs, [leaf, *module.parameters()])])
    assert_equal_to(found[1], found[0], 0)


@pytest.mark.parametrize("name", TORCH_LAYERS)
@pytest.mark.parametrize("backend", ("auto", "reference"))
def test_resets_of_a_packed_sequence_are_in_the_order_of_its_rows(name, backend, device):
    module = layer(name, F, H, 2, bidirectional=True, backend=backend, device=device)
    lengths = torch.tensor([3, 7, 5, 1])
    input, flags = torch.randn(T, B, F, device=device), random_flags().to(device)
    padded, final = module(input, lengths=lengths, reset=flags)
    packed = torch.nn.utils.rnn.pack_padded_sequence(input, lengths, enforce_sorted=False)
    output, packed_final = module(packed, reset=flags)
    output, _ = torch.nn.utils.rnn.pad_packed_sequence(output)
    assert_equal_to([output, *as_tuple(packed_final)], [padded, *as_tuple(final)], 1e-6)


@pytest.mark.parametrize(("name", "backend"), cases(options=("lengths",)))
def test_unbatched_input_takes_a_scalar_length_and_flags_over_time(name, backend):
    module = layer(name, F, H, backend=backend, **LIKE)
    input, flags = torch.randn(T, F, **LIKE), random_flags(1)
    output, final = module(input, lengths=torch.tensor(4), reset=flags[:, 0])
    batched, batched_final = module(input.unsqueeze(1), lengths=[4], reset=flags)
    assert_equal_to([output, *as_tuple(final)], [batched[:, 0], *(s[:, 0] for s in as_tuple(batched_final))])


@pytest.mark.parametrize("take", (np.asarray, torch.Tensor.tolist), ids=("numpy", "list"))
def test_lengths_and_resets_may_be_arrays_and_lists(take):
    module, input = layer("gru", 3, 4, **LIKE), torch.randn(5, 2, 3, **LIKE)
    lengths, reset = torch.tensor([5, 3]), torch.rand(5, 2) < 0.5
    expected = module(input, lengths=lengths, reset=reset)
    assert_equal_to(module(input, lengths=take(lengths), reset=take(reset)), expected, 0)
    unbatched = module(input[:, 0], reset=reset[:, 0])
    assert_equal_to(module(input[:, 0], reset=take(reset[:, 0])), unbatched, 0)


@pytest.mark.parametrize("dtype", ("uint8", "uint16", "uint32", "uint64", "int8", "int32"))
def test_lengths_of_any_integers(dtype):
    module, input = layer("gru", 3, 4, **LIKE), torch.randn(5, 2, 3, **LIKE)
    alone = [module(input[:steps, row])[1] for row, steps in enumerate((5, 2))]
    for lengths in (np.array([5, 2], dtype), torch.tensor([5, 2], dtype=getattr(torch, dtype))):
        assert_equal_to(list(module(input, lengths=lengths)[1].unbind(1)), alone)
        with pytest.raises(ValueError, match="between 0 and the number of steps 4"):
            module(input[:4], lengths=lengths)


def test_lengths_and_reset_whatever_the_default_device():
    """The default device affects neither given lengths and resets nor those made from lists."""
    module, input, reset = layer("gru", 4, 5), torch.randn(3, 2, 4), torch.rand(3, 2) < 0.5
    given = ({"lengths": torch.tensor([3, 1])}, {"lengths": [3, 1]}, {"reset": reset}, {"reset": reset.tolist()})
    expected = [module(input, **options)[0] for options in given]
    with torch.device("meta"):
        found = [module(input, **options)[0] for options in given]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(found[0], found[1]) and torch.equal(found[2], found[3])
