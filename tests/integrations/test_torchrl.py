"""TorchRL's modules after `seqcells.swap`: results and gradients of batches with episode ends, and collectors."""

import copy
import pickle

import pytest
import torch
from torch import nn

import seqcells

pytestmark = pytest.mark.heavy
pytest.importorskip("torchrl", reason="torchrl is not here: make integrations installs it")

from tensordict import TensorDict  # noqa: E402
from tensordict.nn import TensorDictModule, TensorDictSequential  # noqa: E402
from torchrl.collectors import Collector  # noqa: E402
from torchrl.envs import GymEnv, InitTracker, TransformedEnv  # noqa: E402
from torchrl.modules import GRUModule, LSTMModule, QValueModule, set_recurrent_mode  # noqa: E402


@pytest.fixture(autouse=True, params=["keeping", "in rows"])
def way_of_running(request):
    """Keeping the cell states of all steps requires kernels that a compiler makes; without them, trajectories are
    padded."""
    if request.param == "keeping":
        request.getfixturevalue("compiling")


B, T, F, H = 3, 12, 6, 8
STATES = {"lstm": ("h", "c"), "gru": ("h",)}


def made(kind, layers=1, bidirectional=False, proj_size=0):
    torch.manual_seed(0)
    options = {"batch_first": True, "bidirectional": bidirectional, "dtype": torch.float64}
    keys = {"in_keys": ["x", *STATES[kind]], "out_keys": ["y", *(f"{name}_" for name in STATES[kind])]}
    if kind == "gru":
        return GRUModule(gru=nn.GRU(F, H, layers, **options), **keys)
    return LSTMModule(lstm=nn.LSTM(F, H, layers, proj_size=proj_size, **options), **keys)


def batch(kind, levels=1, proj_size=0, own=False, starts=0.3):
    """A batch of random numbers with initial states. With ``own``, an episode that begins inside a row has its own
    states; otherwise they are zero."""
    torch.manual_seed(1)
    is_init = torch.rand(B, T, 1) < starts
    inner = is_init.clone()
    inner[:, 0] = False
    found = {"x": torch.randn(B, T, F, dtype=torch.float64), "is_init": is_init}
    for name in STATES[kind]:
        state = torch.randn(B, T, levels, proj_size if proj_size and name == "h" else H, dtype=torch.float64)
        found[name] = state.requires_grad_() if own else state.masked_fill(inner[..., None], 0)
    found["x"].requires_grad_()
    return found


def run(module, kind, given):
    """Outputs and gradients."""
    with set_recurrent_mode(True):
        found = module(TensorDict(given, [B, T]))
    outputs = [found[key] for key in module.out_keys]
    leaves = [*module.parameters(), *(value for value in given.values() if value.requires_grad)]
    torch.manual_seed(2)
    loss = sum((torch.randn(each.shape, dtype=each.dtype) * each).sum() for each in outputs)
    return [*outputs, *torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)]


LAYOUTS = {
    "one layer": {},
    "two layers": {"layers": 2},
    "states of each episode's own": {"own": True},
    "both directions": {"layers": 2, "bidirectional": True, "own": True},
    "no end": {"starts": 0.0},
    "an end each step": {"starts": 1.1},
    "projected": {"layers": 2, "proj_size": 3},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", STATES)
def test_a_batch_with_episode_ends(kind, layout):
    if kind == "gru" and "proj_size" in layout:
        pytest.skip("TorchRL's GRU has no projection")
    shape = {name: layout[name] for name in ("layers", "bidirectional", "proj_size") if name in layout}
    levels = shape.get("layers", 1) * (2 if "bidirectional" in shape else 1)
    given = {name: layout[name] for name in ("own", "starts", "proj_size") if name in layout}
    module = made(kind, **shape)
    expected = run(module, kind, batch(kind, levels, **given))
    model = nn.ModuleList([module])
    report = seqcells.swap(model)
    assert [*report.adapted] == ["0"] and report.left == {}
    found = run(module, kind, batch(kind, levels, **given))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_the_way_back(way):
    model = nn.ModuleList([made("lstm")])
    expected = run(model[0], "lstm", batch("lstm"))
    seqcells.swap(model)
    twin = way(model)
    assert type(twin[0]) is type(model[0]) and type(twin[0]) is not LSTMModule
    assert isinstance(twin[0], LSTMModule)
    torch.testing.assert_close(run(twin[0], "lstm", batch("lstm")), expected)
    assert [*seqcells.unswap(twin).adapted] == ["0"]
    assert type(twin[0]) is LSTMModule and type(twin[0].lstm) is nn.LSTM
    torch.testing.assert_close(run(twin[0], "lstm", batch("lstm")), expected, rtol=0, atol=0)


def test_a_subclass_with_its_own_way_keeps_it():
    class Own(LSTMModule):
        def _lstm_triton_with_resets(self, *given):
            raise NotImplementedError

    model = nn.ModuleList([made("lstm")])
    model[0].__class__ = Own
    expected = run(model[0], "lstm", batch("lstm"))
    report = seqcells.swap(model)
    assert report.adapted == {} and report.left == {"0.lstm": "Own has a _lstm_triton_with_resets of its own"}
    assert type(model[0]) is Own
    torch.testing.assert_close(run(model[0], "lstm", batch("lstm")), expected)


def test_its_own_ways_to_other_layers():
    for change in ("make_cudnn_based", "make_python_based"):
        model = nn.ModuleList([made("lstm")])
        expected = run(model[0], "lstm", batch("lstm"))
        seqcells.swap(model)
        getattr(model[0], change)()
        torch.testing.assert_close(run(model[0], "lstm", batch("lstm")), expected)


@pytest.mark.parametrize("kind", STATES)
def test_a_collector_steps_and_a_batch_of_it_gives_the_same(kind):
    def collected(ours):
        torch.manual_seed(3)
        module = {"lstm": LSTMModule, "gru": GRUModule}[kind]
        recurrent = module(4, H, in_key="observation", out_key="features")
        head = TensorDictModule(nn.Linear(H, 2), ["features"], ["action_value"])
        policy = TensorDictSequential(recurrent, head, QValueModule(action_space="one-hot"))
        if ours:
            assert seqcells.swap(policy).adapted
        env = TransformedEnv(GymEnv("CartPole-v1"), InitTracker()).append_transform(recurrent.make_tensordict_primer())
        env.set_seed(0)
        collector = Collector(env, policy, frames_per_batch=64, total_frames=64)
        data = next(iter(collector))
        collector.shutdown()
        with set_recurrent_mode(True):
            again = policy(data.clone())
        return data, again

    data, again = collected(ours=True)
    assert data["is_init"].sum() > 1
    torch.testing.assert_close(again["action_value"], data["action_value"])
    theirs, _ = collected(ours=False)
    torch.testing.assert_close(data["action_value"], theirs["action_value"])
