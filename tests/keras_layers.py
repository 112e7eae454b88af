"""Layers of Keras, and their results by Keras and by the engines. Without Keras on torch, the tests are skipped."""

import keras
import pytest
import torch
from keras import layers
from torch.testing import assert_close

from seqcells.io import keras as engine

if keras.backend.backend() != "torch":
    pytest.skip(f"Keras runs on {keras.backend.backend()} in this process", allow_module_level=True)

B, T, F, U = 3, 6, 5, 4
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
KINDS = {
    "LSTM": (layers.LSTM, {}),
    "GRU": (layers.GRU, {}),
    "GRU reset before": (layers.GRU, {"reset_after": False}),
    "SimpleRNN": (layers.SimpleRNN, {}),
}
OTHERS = {
    "LSTM relu": (layers.LSTM, {"activation": "relu"}),
    "LSTM hard": (layers.LSTM, {"recurrent_activation": "hard_sigmoid", "use_bias": False}),
    "GRU softsign": (layers.GRU, {"activation": "softsign"}),
    "GRU unbiased": (layers.GRU, {"use_bias": False}),
    "GRU before, unbiased": (layers.GRU, {"use_bias": False, "reset_after": False}),
    "SimpleRNN relu": (layers.SimpleRNN, {"activation": "relu"}),
    "SimpleRNN linear": (layers.SimpleRNN, {"activation": None}),
    "SimpleRNN elu": (layers.SimpleRNN, {"activation": "elu"}),
}
MASK = torch.tensor([[1, 1, 0, 1, 1, 1], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
DROPS = {"": {}, "input": {"dropout": 0.3}, "hidden": {"recurrent_dropout": 0.4}}
DROPS["both"] = DROPS["input"] | DROPS["hidden"]


@pytest.fixture(autouse=True)
def counted():
    """Count the calls that the engines run."""
    keras.utils.set_random_seed(3)
    engine.calls.clear()
    yield
    engine.disable()


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def made(kind, **options):
    cls, own = (KINDS | OTHERS)[kind]
    layer = cls(U, **own, **options)
    layer.build((B, T, F))
    for weight in layer.trainable_weights:
        weight.assign(random(*weight.shape) / 2)
    return layer


def everything(layer, x, **given):
    """Results and gradients, with the same dropout masks each time."""
    keras.utils.set_random_seed(1)  # torch's generator draws the masks
    x = x.clone().requires_grad_()
    found = layer(x, **given)
    found = found if isinstance(found, (list, tuple)) else [found]
    total = sum((v * torch.arange(v.numel()).view(v.shape).cos()).sum() for v in found)
    leaves = [x, *(weight.value for weight in layer.trainable_weights)]
    return [
        v.detach() for v in (*found, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True))
    ]


def both(layer, x, **given):
    """Results by Keras equal those by the engines, and the engines have run."""
    theirs = everything(layer, x, **given)
    with engine.enabled():
        ours = everything(layer, x, **given)
    assert engine.calls["seqcells"] > 0 and set(engine.calls) == {"seqcells"}
    assert_close(ours, theirs, **CLOSE)
