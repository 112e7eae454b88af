"""Hopfield networks: stored patterns are retrieved by steps that never raise the energy."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqcells import HopfieldNetwork, ModernHopfield

N = 64


def signs(*shape, seed=1):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def written_out(weight, state, max_sweeps=100):
    """The binary network for one state, unit by unit in Python's integers."""
    weight, state = weight.long().tolist(), state.tolist()
    for sweep in range(max_sweeps):
        before = list(state)
        for i, row in enumerate(weight):
            total = sum(w * v for w, v in zip(row, state, strict=True))
            state[i] = state[i] if total == 0 else (1 if total > 0 else -1)
        if state == before:
            return state, sweep
    return state, max_sweeps


def network(patterns=4):
    return HopfieldNetwork(N).store(signs(patterns, N))


# Binary networks.


def test_weights_are_hebbs():
    patterns = signs(3, 5)
    expected = sum(torch.outer(v, v) for v in patterns).fill_diagonal_(0)
    assert torch.equal(HopfieldNetwork(5).store(patterns).weight, expected.float())
    one_by_one = HopfieldNetwork(5, dtype=torch.float64)
    for pattern in patterns:
        assert one_by_one.store(pattern) is one_by_one
    assert torch.equal(one_by_one.weight, expected.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_stored_patterns_are_settled(dtype):
    patterns = signs(4, N)
    found = network().to(dtype)(patterns)
    assert torch.equal(found.state, patterns) and found.settled.all() and not found.sweeps.any()


@pytest.mark.parametrize("generator", [None, 3])
def test_corrupted_patterns_are_restored(generator):
    patterns = signs(4, N)
    corrupted = patterns.clone()
    corrupted[:, :6] *= -1
    chance = None if generator is None else torch.Generator().manual_seed(generator)
    found = network()(corrupted.float(), generator=chance)
    assert torch.equal(found.state, patterns.float()) and found.settled.all()
    assert (found.sweeps >= 1).all() and found.sweeps.dtype == torch.int64


def test_states_and_sweeps_are_those_written_out():
    states = signs(2, 10, N, seed=7)
    memory = network(20)  # too many patterns, so that it takes several sweeps
    found = memory(states)
    expected = [[written_out(memory.weight, state) for state in row] for row in states]
    assert found.state.tolist() == [[state for state, _ in row] for row in expected]
    assert found.sweeps.tolist() == [[sweeps for _, sweeps in row] for row in expected]
    assert found.settled.all() and found.sweeps.max() >= 3
    assert torch.equal(memory(states[1, 4]).state, found.state[1, 4])


def test_a_limit_of_sweeps():
    states, memory = signs(10, N, seed=7), network(20)
    needed = memory(states).sweeps
    for limit in range(int(needed.max()) + 1):
        found = memory(states, max_sweeps=limit)
        assert torch.equal(found.settled, needed <= limit)
        assert torch.equal(found.sweeps, needed.clamp(max=limit))
    assert torch.equal(memory(states, max_sweeps=0).state, states)


def test_the_energy_never_rises():
    memory, state = network(20), signs(8, N, seed=3)
    weight = memory.weight.double()
    energies, flips = [memory.energy(state)], 0
    for sweep in range(6):
        for unit in torch.randperm(N, generator=torch.Generator().manual_seed(sweep)).tolist():
            before, state = state, memory.update(state, unit)
            flips += (changed := state != before).sum()
            assert not changed[:, [k for k in range(N) if k != unit]].any()
            energies.append(memory.energy(state))
            assert ((energies[-1] < energies[-2]) == changed.any(-1)).all()
            assert (energies[-1] <= energies[-2]).all()
    assert flips > 100
    expected = torch.stack([-0.5 * v @ weight @ v for v in state.double()])
    assert torch.equal(energies[-1].double(), expected)


def test_a_unit_stays_where_nothing_moves_it():
    state = signs(3, 5)
    found = HopfieldNetwork(5)(state)
    assert torch.equal(found.state, state) and found.settled.all()
    assert torch.equal(HopfieldNetwork(1).store(torch.ones(1))(-torch.ones(2, 1)).state, -torch.ones(2, 1))


def test_orders_are_the_generators():
    states, memory = signs(10, N, seed=7), network(20)

    def of(seed):
        return memory(states, generator=torch.Generator().manual_seed(seed)).state

    assert torch.equal(of(1), of(1)) and not torch.equal(of(1), of(2))
    assert not torch.equal(of(1), memory(states).state)


def test_no_states():
    found = network()(signs(0, 3, N))
    assert found.state.shape == (0, 3, N) and found.settled.shape == found.sweeps.shape == (0, 3)
    assert network().energy(signs(0, N)).shape == (0,)
    memory = HopfieldNetwork(N)
    assert not memory.store(signs(0, N)).weight.any()


def test_the_state_dict_holds_what_is_stored():
    memory, other = network(), HopfieldNetwork(N)
    assert [*memory.state_dict()] == ["weight"] and not [*memory.parameters()]
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.weight, memory.weight) and torch.equal(copy.deepcopy(memory).weight, memory.weight)
    assert repr(memory) == "HopfieldNetwork(64)"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: HopfieldNetwork(2.0), TypeError, "size should be of type int, got: float"),
        (lambda: HopfieldNetwork(0), ValueError, "size must be greater than zero"),
        (lambda: network().store(torch.zeros(2, N)), ValueError, "patterns should hold -1 and 1 alone"),
        (lambda: network().store(torch.ones(2, 3)), RuntimeError, r"patterns of size \(…, 64\), got \[2, 3\]"),
        (lambda: network()(torch.full((N,), torch.nan)), ValueError, "state should hold -1 and 1 alone"),
        (lambda: network()(torch.tensor(1)), RuntimeError, r"state of size \(…, 64\), got \[\]"),
        (lambda: network()(signs(N), max_sweeps=-1), ValueError, "max_sweeps should not be negative, got -1"),
        (lambda: network().energy(torch.ones(3)), RuntimeError, r"state of size \(…, 64\), got \[3\]"),
        (lambda: network().update(signs(N), N), IndexError, "out of bounds"),
    ],
)
def test_errors_of_the_binary_network(call, error, words):
    with pytest.raises(error, match=words):
        call()


# Modern Hopfield networks.


def random(*shape, seed=1, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_a_step_is_attention(batch, dtype):
    patterns, queries = random(*batch, 7, 5, dtype=dtype), random(*batch, 3, 5, seed=2, dtype=dtype)
    expected = nn.functional.scaled_dot_product_attention(queries, patterns, patterns)
    assert_close(ModernHopfield(patterns)(queries), expected)
    assert ModernHopfield(patterns).beta == 5**-0.5


def test_patterns_far_apart_are_fixed_points_and_found_again():
    patterns = 3 * signs(6, 32).double()
    memory = ModernHopfield(patterns, beta=1.0)
    assert_close(memory(patterns), patterns)
    corrupted = patterns.clone()
    corrupted[:, :8] = 0
    assert_close(memory(corrupted), patterns)


def test_the_energy_is_the_papers_and_never_rises():
    patterns, state = random(6, 8), random(20, 8, seed=2)
    for beta in (0.05, 1.0, 20.0):
        memory = ModernHopfield(patterns, beta=beta)
        largest = max(float(x @ x) for x in patterns)
        lse = torch.stack([sum((beta * x @ v).exp() for x in patterns).log() / beta for v in state])
        expected = -lse + 0.5 * (state * state).sum(-1) + torch.tensor(6.0).double().log() / beta + 0.5 * largest
        energy = memory.energy(state)
        assert_close(energy, expected)
        at = state
        for _ in range(10):
            at = memory(at)
            before, energy = energy, memory.energy(at)
            assert (energy <= before + 1e-12 * before.abs()).all() and (energy > -1e-12).all()


def test_steps_and_a_tolerance():
    patterns, state = random(6, 8), random(20, 8, seed=2)
    once = ModernHopfield(patterns, beta=2.0)
    states = [state]
    for _ in range(30):
        states.append(once(states[-1]))
    assert torch.equal(ModernHopfield(patterns, beta=2.0, steps=3)(state), states[3])
    assert torch.equal(ModernHopfield(patterns, beta=2.0, steps=0)(state), state)
    moves = torch.stack([(b - a).norm(dim=-1) for a, b in itertools.pairwise(states)])
    last = (moves < 1e-3).int().argmax(0) + 1  # for each state, the first step that hardly moves it
    assert len({*last.tolist()}) > 2 and (moves < 1e-3).any(0).all()
    found = ModernHopfield(patterns, beta=2.0, steps=30, tolerance=1e-3)(state)
    expected = torch.stack([states[step][row] for row, step in enumerate(last.tolist())])
    assert torch.equal(found, expected)


def test_batches_of_states_and_of_memories():
    patterns, state = random(2, 7, 5), random(2, 3, 5, seed=2)
    memory = ModernHopfield(patterns, steps=2)
    found, energy = memory(state), memory.energy(state)
    for k in range(2):
        one = ModernHopfield(patterns[k], steps=2)
        assert_close(found[k], one(state[k]))
        assert_close(energy[k], one.energy(state[k]))
        assert_close(one(state), torch.stack([one(state[0]), one(state[1])]))
        assert_close(one(state[k, 1]), found[k, 1])
        assert_close(one.energy(state[k, 1]), energy[k, 1])
        assert_close(memory(state[0, 0])[k], one(state[0, 0]))
        assert_close(memory.energy(state[0, 0])[k], one.energy(state[0, 0]))
    assert memory(state[:, :0]).shape == (2, 0, 5) and memory.energy(state[:, :0]).shape == (2, 0)
    assert ModernHopfield(patterns[0])(state[0, :0]).shape == (0, 5)


@pytest.mark.parametrize("options", [{}, {"beta": 2.0, "steps": 3}, {"steps": 20, "tolerance": 0.2}])
def test_gradients(options):
    patterns, state = random(4, 3).requires_grad_(), random(2, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, v: ModernHopfield(x, **options)(v), (patterns, state))
    assert torch.autograd.gradcheck(lambda x, v: ModernHopfield(x, **options).energy(v), (patterns, state))
    assert torch.autograd.gradgradcheck(lambda x, v: ModernHopfield(x, **options)(v), (patterns, state))


def test_patterns_are_in_the_state_dict_and_may_be_learnt():
    patterns = random(4, 3)
    memory, other = ModernHopfield(patterns), ModernHopfield(torch.zeros(4, 3, dtype=torch.float64))
    assert [*memory.state_dict()] == ["patterns"] and not [*memory.parameters()]
    zeros = other.patterns
    other.load_state_dict(memory.state_dict())
    assert other.patterns is zeros and torch.equal(zeros, patterns)
    given = patterns.clone()
    ModernHopfield(given).load_state_dict({"patterns": patterns + 1})
    assert torch.equal(given, patterns)
    parameter = nn.Parameter(patterns)
    assert [*ModernHopfield(parameter).parameters()] == [parameter]
    assert repr(memory) == "ModernHopfield([4, 3], beta=0.57735, steps=1, tolerance=0.0)"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ModernHopfield(signs(3, 4)), TypeError, "floating-point numbers, got: torch.int64"),
        (lambda: ModernHopfield(random(4)), ValueError, r"patterns should be \(…, M, N\).*got \[4\]"),
        (lambda: ModernHopfield(random(0, 4)), ValueError, r"greater than zero, got \[0, 4\]"),
        (lambda: ModernHopfield(random(3, 4), beta=0), ValueError, "beta should be positive and finite, got 0.0"),
        (lambda: ModernHopfield(random(3, 4), beta=torch.nan), ValueError, "beta should be positive"),
        (lambda: ModernHopfield(random(3, 4), steps=-1), ValueError, "steps should not be negative, got -1"),
        (lambda: ModernHopfield(random(3, 4), tolerance=-0.5), ValueError, "tolerance should not be negative"),
        (lambda: ModernHopfield(random(3, 4))(random(2, 3)), RuntimeError, r"state of size \(…, 4\), got \[2, 3\]"),
        (lambda: ModernHopfield(random(3, 4))(random(4).float()), RuntimeError, "dtype"),
    ],
)
def test_errors_of_the_modern_network(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_unit_whose_sum_is_zero_stays():
    network = HopfieldNetwork(3)
    for state in (torch.tensor([1.0, 1.0, -1.0]), torch.tensor([-1.0, 1.0, 1.0])):
        assert all(torch.equal(network.update(state, unit), state) for unit in range(3))
        assert torch.equal(network(state).state, state)
    with pytest.raises(TypeError, match="size should be of type int"):
        HopfieldNetwork(True)
    for dtype in (torch.bool, torch.uint8):
        with pytest.raises(TypeError, match="should be of a dtype that has -1"):
            network(torch.ones(3, dtype=dtype))
    with pytest.raises(TypeError, match="steps should be of type int"):
        ModernHopfield(torch.eye(3), steps=1.5)
