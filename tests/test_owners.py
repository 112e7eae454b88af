"""`swap` adds an adapter's methods to other packages' modules that hold recurrent layers; `unswap` removes them.

This file has stand-ins for those modules, with their names and with loops in their methods. `make integrations` tests
the packages' own modules.
"""

import copy
import pickle
import sys
from types import ModuleType

import pytest
import torch
from support import as_tuple
from torch import nn

import seqcells
from seqcells.modules import subclasses

B, T, F, H = 3, 9, 4, 5
PLACES = {
    "RecurrentActorCriticPolicy": "sb3_contrib.common.recurrent.policies",
    "LSTMModule": "torchrl.modules.tensordict_module.rnn",
    "GRUModule": "torchrl.modules.tensordict_module.rnn",
}


class RecurrentActorCriticPolicy(nn.Module):
    def __init__(self, layers=1):
        super().__init__()
        self.lstm_actor, self.lstm_critic = (nn.LSTM(F, H, layers, dtype=torch.float64) for _ in range(2))

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        count, outputs = lstm_states[0].shape[1], []
        x, starts = features.view(count, -1, F).transpose(0, 1), episode_starts.view(count, -1).T
        for each, start in zip(x, starts, strict=True):
            keep = (1 - start).view(1, count, 1)
            output, lstm_states = lstm(each[None], tuple(keep * state for state in lstm_states))
            outputs.append(output[0])
        return torch.stack(outputs, 1).flatten(0, 1), lstm_states

    def forward(self, features, states, starts):
        found = [self._process_sequence(features, states, starts, lstm) for lstm in (self.lstm_actor, self.lstm_critic)]
        return [tensor for output, final in found for tensor in (output, *final)]


class Trajectories(nn.Module):
    """Calls the layer once for each trajectory in turn, which is what TorchRL's padded rows compute."""

    recurrent_backend = "auto"

    def apart(self, layer, x, states, is_init):
        output = x.new_zeros(B, T, H * (2 if layer.bidirectional else 1))
        finals = [torch.zeros_like(state) for state in states]
        for b in range(B):
            first = [0, *(t for t in range(1, T) if is_init[b, t])]
            for start, end in zip(first, [*first[1:], T], strict=True):
                hx = [state[b, start].unsqueeze(1) for state in states]
                output[b, start:end], final = layer(x[b, start:end], hx_of(layer, [h.squeeze(1) for h in hx]))
                for each, last in zip(finals, as_tuple(final), strict=True):
                    each[b, end - 1] = last
        return output, *finals

    def forward(self, x, is_init, *states):
        return self.run(x, *states, is_init)


def hx_of(layer, states):
    return tuple(states) if isinstance(layer, (nn.LSTM, seqcells.LSTM)) else states[0]


class LSTMModule(Trajectories):
    def __init__(self, **options):
        super().__init__()
        self.lstm = nn.LSTM(F, H, batch_first=True, dtype=torch.float64, **options)

    def _lstm_triton_with_resets(self, input, hidden0_in, hidden1_in, is_init):
        return self.apart(self.lstm, input, [hidden0_in, hidden1_in], is_init)

    def run(self, *given):
        return self._lstm_triton_with_resets(*given)


class GRUModule(Trajectories):
    def __init__(self, **options):
        super().__init__()
        self.gru = nn.GRU(F, H, batch_first=True, dtype=torch.float64, **options)

    def _gru_triton_with_resets(self, input, hidden_in, is_init):
        return self.apart(self.gru, input, [hidden_in], is_init)

    def run(self, *given):
        return self._gru_triton_with_resets(*given)


@pytest.fixture(autouse=True)
def packages(monkeypatch):
    """Register the stand-ins under the originals' module names."""
    for kind in (RecurrentActorCriticPolicy, LSTMModule, GRUModule):
        place = PLACES[kind.__name__]
        monkeypatch.setattr(kind, "__module__", place)
        parts = place.split(".")
        for k in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:k]), ModuleType(parts[k - 1]))
        module = sys.modules.get(place) or ModuleType(place)
        monkeypatch.setattr(module, kind.__name__, kind, raising=False)
        monkeypatch.setitem(sys.modules, place, module)


def policy_call(layers=1):
    torch.manual_seed(2)
    states = tuple(torch.randn(layers, B, H, dtype=torch.float64) for _ in range(2))
    return torch.randn(B * T, F, dtype=torch.float64), states, (torch.rand(B * T) < 0.3).double()


def trajectory_call(count, levels, own=False, learnt=False):
    torch.manual_seed(2)
    is_init = torch.rand(B, T) < 0.3
    inner = is_init & (torch.arange(T) > 0)
    states = [torch.randn(B, T, levels, H, dtype=torch.float64) for _ in range(count)]
    states = states if own else [state.masked_fill(inner[..., None, None], 0) for state in states]
    return torch.randn(B, T, F, dtype=torch.float64), is_init, *(state.requires_grad_(learnt) for state in states)


def results(owner, call):
    """Outputs and gradients."""
    outputs = owner(*call)
    torch.manual_seed(3)
    loss = sum((torch.randn(each.shape, dtype=each.dtype) * each).sum() for each in outputs)
    leaves = [*owner.parameters(), *(each for each in call if isinstance(each, torch.Tensor) and each.requires_grad)]
    return [*(each.detach() for each in outputs), *torch.autograd.grad(loss, leaves)]


def layouts():
    yield "policy", lambda: RecurrentActorCriticPolicy(), policy_call
    yield "policy, two layers", lambda: RecurrentActorCriticPolicy(2), lambda: policy_call(2)
    for kind, count in ((LSTMModule, 2), (GRUModule, 1)):
        name = kind.__name__
        yield name, kind, lambda count=count: trajectory_call(count, 1)
        yield f"{name}, two layers", lambda kind=kind: kind(num_layers=2), lambda count=count: trajectory_call(count, 2)
        yield f"{name}, states of their own", kind, lambda count=count: trajectory_call(count, 1, own=True, learnt=True)
        yield f"{name}, learnt states", kind, lambda count=count: trajectory_call(count, 1, learnt=True)
        both = {"num_layers": 2, "bidirectional": True}
        made = lambda kind=kind, both=both: kind(**both)  # noqa: E731
        yield f"{name}, both directions", made, lambda count=count: trajectory_call(count, 4, own=True)


LAYOUTS = {name: (make, call) for name, make, call in layouts()}


@pytest.mark.parametrize(("make", "call"), LAYOUTS.values(), ids=LAYOUTS)
def test_results_and_the_way_back(make, call):
    torch.manual_seed(1)
    owner = make()
    kind, expected, state = type(owner), results(owner, call()), [*owner.state_dict()]
    report = seqcells.swap(owner)
    assert report.adapted == {"": owner} and report.left == {}
    assert "the model: calls its layers as ours are called, once for a batch" in str(report)
    assert isinstance(owner, kind) and type(owner).__name__ == kind.__name__ and [*owner.state_dict()] == state
    torch.testing.assert_close(results(owner, call()), expected, rtol=1e-10, atol=1e-12)
    assert seqcells.swap(owner).adapted == {}
    report = seqcells.unswap(owner)
    assert report.adapted == {"": owner} and "the model: calls its layers as torch.nn's are called" in str(report)
    assert type(owner) is kind
    torch.testing.assert_close(results(owner, call()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [LSTMModule, GRUModule])
def test_one_call_of_the_layer(kind):
    """With zero states where episodes begin in the middle; with other states, each trajectory is a row of one call."""
    calls = []
    for own in (False, True):
        owner = kind()
        seqcells.swap(owner, backend="reference")
        next(owner.children()).register_forward_hook(lambda *given: calls.append(1))
        owner(*trajectory_call(2 if kind is LSTMModule else 1, 1, own=own))
    assert len(calls) == 2


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda owner: pickle.loads(pickle.dumps(owner))])
def test_copies(way):
    owner = nn.Sequential(RecurrentActorCriticPolicy())
    expected = results(owner[0], policy_call())
    seqcells.swap(owner)
    twin = way(owner)
    assert type(twin[0]) is type(owner[0])
    torch.testing.assert_close(results(twin[0], policy_call()), expected)
    assert [*seqcells.unswap(twin).adapted] == ["0"]
    assert type(twin[0]) is RecurrentActorCriticPolicy


def test_a_subclass_goes_on_and_its_own_way_stays():
    class Extended(RecurrentActorCriticPolicy):
        pass

    class Own(RecurrentActorCriticPolicy):
        @staticmethod
        def _process_sequence(features, lstm_states, episode_starts, lstm):
            return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)

    torch.manual_seed(1)
    expected = results(RecurrentActorCriticPolicy(), policy_call())
    for kind, adapted in ((Extended, [""]), (Own, [])):
        torch.manual_seed(1)
        owner = kind()
        assert [*seqcells.swap(owner).adapted] == adapted
        torch.testing.assert_close(results(owner, policy_call()), expected)
        seqcells.unswap(owner)
        assert type(owner) is kind


def test_a_layer_that_is_left_leaves_the_owner():
    owner = RecurrentActorCriticPolicy()
    expected = results(owner, policy_call())
    owner.lstm_critic.stream = 3  # `stream` is one of our names
    report = seqcells.swap(owner)
    assert [*report.left] == ["lstm_critic"] and report.adapted == {}
    torch.testing.assert_close(results(owner, policy_call()), expected)


@pytest.mark.parametrize("way", ["absent", "other parameters"])
def test_another_version_keeps_its_layers(way, monkeypatch):
    name = "_lstm_triton_with_resets"
    monkeypatch.delattr(LSTMModule, name) if way == "absent" else monkeypatch.setattr(LSTMModule, name, lambda x: x)
    owner = nn.Sequential(LSTMModule())
    report = seqcells.swap(owner)
    assert report.left == {"0.lstm": f"this version of LSTMModule has no {name}, or another"}
    assert type(owner[0]) is LSTMModule and type(owner[0].lstm) is nn.LSTM


def test_a_subclass_whose_own_way_takes_no_layers_of_ours_keeps_them():
    class Own(LSTMModule):
        recurrent_backend = "pad"

    owner = nn.ModuleList([Own()])
    assert seqcells.swap(owner).left == {"0.lstm": "Own has a recurrent_backend of its own"}
    assert type(owner[0].lstm) is nn.LSTM


def test_another_layer_of_an_owner_does_not_count():
    owner = nn.ModuleList([LSTMModule()])
    owner[0].extra = nn.GRU(2, 2)
    owner[0].extra.stream = 3  # `stream` is one of our names
    report = seqcells.swap(owner)
    assert [*report.replaced] == ["0.lstm"] and [*report.left] == ["0.extra"] and [*report.adapted] == ["0"]


@pytest.mark.parametrize("change", ["setattr", "unswap", "type"])
def test_an_adapted_owner_of_a_layer_of_torchs(change):
    """The owner's own methods run."""
    for kind, call in ((LSTMModule, trajectory_call(2, 1)), (RecurrentActorCriticPolicy, policy_call())):
        torch.manual_seed(1)
        owner = kind()
        expected = results(owner, call)
        seqcells.swap(owner)
        name = "lstm" if kind is LSTMModule else "lstm_actor"
        if change == "setattr":
            setattr(owner, name, getattr(owner, name).to_torch())
        elif change == "unswap":
            seqcells.unswap(nn.ModuleList([getattr(owner, name)]))
        else:
            torch.manual_seed(1)
            owner = type(owner)()
        torch.testing.assert_close(results(owner, call), expected)


def test_what_is_set_while_it_is_swapped_stays():
    owner = LSTMModule()
    seqcells.swap(owner)
    assert owner.recurrent_backend == "triton"
    owner.recurrent_backend = "scan"
    seqcells.unswap(owner)
    assert owner.recurrent_backend == "scan"


def test_torchs_operators_have_no_reset():
    for kind, call in ((LSTMModule, trajectory_call(2, 1)), (RecurrentActorCriticPolicy, policy_call())):
        torch.manual_seed(1)
        owner = kind()
        expected = results(owner, call)
        seqcells.swap(owner, backend="torch")
        torch.testing.assert_close(results(owner, call), expected)


def test_states_of_their_own_under_autocast():
    owner = LSTMModule()
    owner.float()
    call = [each.float() if each.is_floating_point() else each for each in trajectory_call(2, 1, own=True)]
    seqcells.swap(owner)
    with torch.autocast("cpu", torch.bfloat16):
        output, h, c = owner(*call)
    assert h.dtype == c.dtype == torch.float32 and output.shape == (B, T, H)


def test_no_sequences():
    owner = LSTMModule()
    seqcells.swap(owner, backend="reference")
    output, h, c = owner(*(each[:0] for each in trajectory_call(2, 1)))
    assert output.shape == (0, T, H) and h.shape == c.shape == (0, T, 1, H)


def test_reports_are_copied():
    owner = nn.Sequential(RecurrentActorCriticPolicy())
    report = seqcells.swap(owner)
    for twin in (copy.copy(report), copy.deepcopy(report), pickle.loads(pickle.dumps(report))):
        assert str(twin) == str(report) and [*twin.adapted] == ["0"]


class Reduced(LSTMModule):
    def __init__(self, layers=1):
        super().__init__(num_layers=layers)
        self.layers = layers

    def __reduce__(self):
        return Reduced, (self.layers,), self.__dict__


def test_owners_with_a_reduction_of_their_own():
    owner = Reduced(2)
    seqcells.swap(owner)
    assert copy.deepcopy(owner).lstm.num_layers == 2


def test_owners_change_with_their_layers_while_an_example_is_timed(monkeypatch):
    monkeypatch.setattr("seqcells.io.swap_timing.BUDGET", 0.0)
    owner = nn.Sequential(RecurrentActorCriticPolicy())
    seen = set()
    owner[0].register_forward_pre_hook(lambda module, given: seen.add((type(module), type(module.lstm_actor))))
    owner.forward = lambda given: owner[0](*given)
    report = seqcells.swap(owner, example=(policy_call(),))
    assert report.times is not None and [*report.adapted] == ["0"]
    assert seen == {(RecurrentActorCriticPolicy, nn.LSTM), (type(owner[0]), seqcells.LSTM)}


class Lengths(nn.LSTM):
    """A subclass whose forward does the layer's work through super()."""

    def forward(self, input, hx=None, shift=0):
        return super().forward(input + shift, hx)


def test_a_forward_that_is_known_to_go_through_super(monkeypatch):
    model, x = nn.Sequential(Lengths(F, H)), torch.randn(T, B, F)
    assert [*seqcells.swap(model).left] == ["0"]
    expected = model[0](x, shift=1)
    monkeypatch.setitem(subclasses.BY_SUPER, f"{Lengths.__module__}.Lengths", {"forward"})
    assert seqcells.swap(model).left == {} and isinstance(model[0], seqcells.LSTM)
    torch.testing.assert_close(model[0](x, shift=1), expected)
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin[0](x, shift=1), expected)
    seqcells.unswap(model)
    assert type(model[0]) is Lengths
