"""Keras' recurrent layers on the engines: the same numbers and gradients for all options of the layers."""

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers
from keras_layers import (
    CLOSE,
    DROPS,
    KINDS,
    MASK,
    OTHERS,
    B,
    F,
    T,
    U,
    both,
    counted,
    engine,
    everything,
    made,
    random,
)
from support import needs_compiler, plain_if
from torch.testing import assert_close

__all__ = ["counted"]  # a fixture of every test
pytestmark = [needs_compiler, pytest.mark.usefixtures("own_registry", "compiling")]


@plain_if(lambda sequences, **_: sequences)
@pytest.mark.parametrize("mask", [None, MASK], ids=["", "mask"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers(kind, sequences, mask):
    """Also with a mask that has gaps."""
    both(made(kind, return_sequences=sequences, return_state=True), random(B, T, F), mask=mask)


@pytest.mark.heavy
@pytest.mark.parametrize("mask", [None, MASK], ids=["", "mask"])
@pytest.mark.parametrize("drops", DROPS)
@pytest.mark.parametrize("kind", KINDS | OTHERS)
def test_dropout_and_activations(kind, drops, mask):
    """With dropout of the input and of the hidden state, in training and in inference."""
    layer = made(kind, return_sequences=True, return_state=True, **DROPS[drops])
    for training in (False, True):
        both(layer, random(B, T, F), mask=mask, training=training)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(
    "options",
    [
        {"go_backwards": True, "return_sequences": True},
        {"zero_output_for_mask": True, "return_sequences": True},
        {"unroll": True},
        {"implementation": 1},
    ],
    ids=str,
)
def test_options(kind, options):
    both(made(kind, **options), random(B, T, F), mask=MASK)


def test_initial_states():
    both(made("LSTM", return_state=True), random(B, T, F), initial_state=[random(B, U), random(B, U) / 2])


@pytest.mark.parametrize("shape", [(1, U), (U,)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_initial_state_of_one_row_counts_for_all(kind, shape):
    layer, x = made(kind, return_sequences=True), random(B, T, F)
    states = [random(*shape) for _ in range(2 if kind == "LSTM" else 1)]
    if shape == (U,) and "GRU" in kind:
        pytest.skip("Keras' own GRU refuses it")
    for mask in (None, MASK):
        both(layer, x, initial_state=states, mask=mask)


@pytest.mark.parametrize("kind", KINDS)
def test_initial_states_of_another_batch_are_refused(kind):
    layer = made(kind)
    for rows in (B - 1, B + 1):
        states = [random(rows, U)] * (2 if kind == "LSTM" else 1)
        for run in (nullcontext(), engine.enabled()):
            with run, pytest.raises((RuntimeError, ValueError)):
                layer(random(B, T, F), initial_state=states)


@pytest.mark.parametrize("shape", [(B, 1), (1, T), (B, T + 2)])
def test_masks_of_other_sizes_are_left_to_keras(shape):
    layer, mask = made("GRU", return_sequences=True), torch.ones(shape).bool()

    def result():
        try:
            return layer(random(B, T, F), mask=mask).detach()
        except (IndexError, RuntimeError) as error:
            return str(error)

    expected = result()
    with engine.enabled():
        found = result()
    assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected
    assert engine.calls == {"its mask is not (batch, steps)": 1}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_dropout_under_autocast(kind):
    layer, x = made(kind, dropout=0.2, recurrent_dropout=0.3), random(B, T, F)
    with engine.enabled(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x, training=True).float().sum().backward()
    assert engine.calls == {"seqcells": 1}


@pytest.mark.parametrize("drops", [{"dropout": 1.0}, {"recurrent_dropout": 1.0}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_one_is_left_to_keras(kind, drops):
    layer, x = made(kind, return_sequences=True, **drops), random(B, T, F)
    assert engine.plan(layer).startswith("seqcells") and engine.plan(layer, training=True).startswith("keras: a rate")
    expected = everything(layer, x, training=True)
    with engine.enabled():
        assert_close(everything(layer, x, training=True), expected, rtol=0, atol=0)
    assert "seqcells" not in engine.calls


@plain_if(lambda merge: merge == "sum")
@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave", None])
def test_two_directions(merge):
    layer = layers.Bidirectional(layers.LSTM(U, return_sequences=True), merge_mode=merge)
    layer.build((B, T, F))
    both(layer, random(B, T, F), mask=MASK)


def test_stacked_cells():
    layer = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(4)]), return_sequences=True)
    layer.build((B, T, F))
    both(layer, random(B, T, F), mask=MASK)


def test_stateful():
    layer, x = made("GRU", stateful=True, return_sequences=True), random(B, T, F)
    outputs = []
    for enabled in (False, True):
        layer.reset_states()
        with engine.enabled() if enabled else torch.enable_grad():
            outputs.append(torch.cat([layer(x), layer(x)], 1))
    assert_close(*outputs, **CLOSE)
    assert engine.calls == {"seqcells": 2}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_policies(policy):
    layer = layers.LSTM(U, return_sequences=True, dtype=policy)
    layer.build((B, T, F))
    x = random(B, T, F).double() if policy == "float64" else random(B, T, F)
    theirs = layer(x)
    with engine.enabled():
        ours = layer(x)
    assert ours.dtype == theirs.dtype and engine.calls["seqcells"]
    assert_close(
        ours, theirs, **({"rtol": 1e-10, "atol": 1e-10} if policy == "float64" else {"rtol": 0.02, "atol": 0.02})
    )


def test_a_model_is_trained_saved_and_loaded(tmp_path):
    """The results equal those without the engines; a file that plain Keras wrote gives the same results."""
    losses, outputs = [], []
    x, y = random(32, T, F).numpy(), random(32, 1).numpy()
    for enabled in (False, True):
        keras.utils.set_random_seed(5)
        inputs = layers.Masking()(entry := keras.Input((T, F)))
        hidden = layers.LSTM(6, return_sequences=True, dropout=0.2)(inputs)
        model = keras.Model(entry, layers.Dense(1)(layers.GRU(5)(hidden)))
        model.compile("adam", "mse")
        with engine.enabled() if enabled else torch.enable_grad():
            losses.append(model.fit(x, y, epochs=3, batch_size=8, shuffle=False, verbose=0).history["loss"])
        if not enabled:
            model.save(tmp_path / "model.keras")
            outputs.append(model.predict(x, verbose=0))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    engine.calls.clear()
    with engine.enabled():
        outputs.append(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0))
    assert engine.calls["seqcells"] > 0
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-6)


def test_what_is_left_to_keras():
    class Minimal(layers.Layer):
        state_size = output_size = 2

        def call(self, inputs, states):
            return inputs[:, :2] + states[0], [inputs[:, :2]]

    for layer, words in (
        (layers.RNN(Minimal()), "Minimal is no cell of Keras' own"),
        (layers.LSTM(2, activation="gelu"), "no kernels for the activation gelu"),
        (layers.GRU(2, activity_regularizer="l2"), None),
    ):
        assert engine.plan(layer) == (f"keras: {words}" if words else "seqcells: gru")
        with engine.enabled():
            output = layer(random(B, T, F))
        assert output.shape == (B, 2)
    assert engine.calls["seqcells"] == 1


@dataclasses.dataclass
class Scaled:
    """An activation that cannot be hashed."""

    scale: float = 2.0

    def __call__(self, value):
        return self.scale * keras.ops.tanh(value)


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_is_counted_once(kind):
    for activation, words in (("gelu", "gelu"), (Scaled(), "Scaled"), (layers.PReLU(), "PReLU")):
        engine.calls.clear()
        layer = made(kind, activation=activation, recurrent_dropout=0.2)
        with engine.enabled():
            for mask in (None, MASK):
                layer(random(B, T, F), mask=mask, training=True)
        assert engine.calls == {f"no kernels for the activation {words}": 2}


def test_plans_of_two_directions_and_of_other_layers():
    assert engine.plan(layers.Bidirectional(layers.LSTM(3))) == "seqcells: lstm; seqcells: lstm"
    with pytest.raises(TypeError, match="expected a recurrent layer of Keras, got Dense"):
        engine.plan(layers.Dense(3))
    with pytest.raises(ValueError, match="nonsense"):
        engine.enable("nonsense")
    assert not engine._theirs


def test_on_and_off():
    own = layers.LSTM.inner_loop
    with engine.enabled("reference"):
        assert layers.LSTM.inner_loop is not own
        with engine.enabled():
            pass
        assert layers.LSTM.inner_loop is not own
        engine.enable()
    assert layers.LSTM.inner_loop is own
    engine.disable()
    with pytest.raises(ValueError, match="streams"):
        engine.RNNCell("GRUDecay", 3)
    with pytest.raises(ValueError, match="unknown cell"):
        engine.RNNCell("Nothing", 3)


@pytest.mark.parametrize(("model", "parameters"), [("rows", 26_850), ("series", 10_200)])
def test_the_models_of_introductions(model, parameters, examples_on_path):
    """Both learn: the held-out metric is better than that of an untrained model, and near the other one's.

    Gradients are compared elsewhere. An epoch of a ReLU network magnifies a rounding to some held-out digits.
    """
    example = importlib.import_module("keras_models")
    found = [example.main([f"--model={model}", "--epochs=1", *more]) for more in ([], ["--theirs"])]
    assert found[0]["parameters"] == found[1]["parameters"] == parameters
    assert found[0]["calls"] > 50 and found[1]["calls"] == 0
    ours, theirs = (each["held out"] for each in found)
    assert min(ours, theirs) > 0.45 if model == "rows" else max(ours, theirs) < 0.1
    assert abs(ours - theirs) < 0.1 if model == "rows" else ours == pytest.approx(theirs, rel=0.02)


PLUGIN = """
import seqcells.io.keras as ours

def pytest_configure(config):
    for name in ("requires_trainable_backend", "multi_device", "skip_tpu"):
        config.addinivalue_line("markers", f"{name}: Keras' own")
    ours.enable()

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"calls by seqcells: {ours.calls['seqcells']}")
"""


@pytest.mark.heavy
def test_keras_own_tests(tmp_path):
    """Keras' own tests pass with layers on the engines, which must run more than 100 calls."""
    folder = Path(keras.__file__).parent / "src" / "layers" / "rnn"
    names = "lstm", "gru", "simple_rnn", "rnn", "bidirectional", "stacked_rnn_cells", "time_distributed"
    tests = [folder / f"{name}_test.py" for name in (*names, "dropout_rnn_cell")]
    if not all(path.exists() for path in tests):
        pytest.skip("this release of Keras has none of its tests in its package")
    (tmp_path / "engines.py").write_text(PLUGIN)
    paths = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "engines", "-p", "no:cacheprovider", *map(str, tests)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "KERAS_BACKEND": "torch"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    count = re.search(r"calls by seqcells: (\d+)", done.stdout)
    assert count and int(count[1]) > 100 and re.search(r"\d+ passed", done.stdout)
