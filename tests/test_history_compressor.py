"""The history compressor example: predicted characters do not go up, and the characters that go up are sufficient."""

import importlib
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("history_compressor")


def test_sequences_are_two_keys_and_what_is_always_the_same(example):
    symbols, differ = example.batch(5, 64, torch.Generator().manual_seed(0))
    assert symbols.shape == (7, 64) and (symbols[1:-1] == torch.arange(2, 7)[:, None]).all()
    assert {*symbols[0].tolist()} == {*symbols[-1].tolist()} == {0, 1}
    assert torch.equal(differ, (symbols[0] != symbols[-1]).long())


def test_symbols_without_confidence_are_unexpected(example):
    input = torch.eye(3)[torch.tensor([[0, 0], [1, 2], [2, 1]])]
    predicted = torch.tensor([[[0.0, 9.0, 0.0], [0.0, 9.0, 0.0]], [[0.0, 0.0, 2.0], [0.0, 9.0, 0.0]]])
    found = example.unexpected(predicted, input)
    assert found.tolist() == [[True, True], [False, True], [True, False]]
    assert not example.unexpected(predicted, input, confidence=0.5)[2].any()


def test_what_goes_up_are_the_unexpected_symbols_in_their_order_with_their_times(example):
    chance = torch.Generator().manual_seed(1)
    input = torch.rand(9, 20, 4, generator=chance)
    kept = torch.rand(9, 20, generator=chance) < torch.linspace(0, 1, 20)
    kept[0] = True
    packed, lengths = example.compressed(input, kept)
    assert packed.shape == (int(lengths.max()), 20, 5) and len({*lengths.tolist()}) > 4
    for k in range(20):
        steps = [t for t in range(9) if kept[t, k]]
        expected = [[*input[t, k].tolist(), t / 8] for t in steps]
        assert lengths[k] == len(steps)
        torch.testing.assert_close(packed[: len(steps), k], torch.tensor(expected))


def test_layers_learn_by_their_own_errors_alone(example):
    torch.manual_seed(0)
    model = example.Compressor(6, 8)
    predicted, answer, _ = model(torch.eye(6)[torch.tensor([[0], [2], [3], [4], [5], [1]])])
    for loss, own in ((predicted.sum(), {"lower", "next"}), (answer.sum(), {"upper", "answer"})):
        model.zero_grad()
        loss.backward()
        assert {name.partition(".")[0] for name, each in model.named_parameters() if each.grad is not None} == own


def test_it_learns_over_a_short_lag(example, capsys):
    found = example.main(["--steps=250", "--lag=8", "--rate=0.01"])
    right, seen = found["history compressor"]
    assert right > 0.95 and seen < 3 and found["two plain layers"][1] == 10
    assert "of the answers right (chance: 50%), from 10.0 of 10 symbols" in capsys.readouterr().out


@pytest.mark.heavy
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_the_compressor_learns_over_a_long_lag(example, seed):
    found = example.main([f"--seed={seed}"])
    assert found["history compressor"] == (1.0, 2.0)
    assert found["two plain layers"][0] < 0.6
