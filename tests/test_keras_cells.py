"""Our cells in Keras' layers, and weights from Keras' layers to ours and to torch.nn's and back."""

import keras
import pytest
import torch
from keras import layers
from keras_layers import (
    CLOSE,
    KINDS,
    MASK,
    B,
    F,
    T,
    U,
    both,
    counted,
    engine,
    made,
    random,
)
from support import needs_compiler, plain_if
from torch.testing import assert_close

import seqcells

__all__ = ["counted"]  # a fixture of every test
pytestmark = [needs_compiler, pytest.mark.usefixtures("own_registry", "compiling")]


OURS = {"LEM": {"dt": 0.5}, "MGU": {}, "IndRNN": {}, "LayerNormLSTM": {}}


@plain_if(lambda name: name == "IndRNN")
@pytest.mark.parametrize("name", OURS)
def test_cells_of_ours(name, tmp_path):
    """Our cell in a Keras layer: step by step in Keras, and as a whole on the engines; saved and loaded."""
    layer = layers.RNN(engine.RNNCell(name, U, **OURS[name]), return_sequences=True, return_state=True)
    layer.build((B, T, F))
    both(layer, random(B, T, F), mask=MASK)
    model = keras.Sequential([keras.Input((T, F)), layers.RNN(engine.RNNCell(name, U, **OURS[name]))])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = random(B, T, F)
    assert_close(again(x), model(x))
    assert again.layers[0].cell.cell is model.layers[0].cell.cell


def test_cells_of_ours_that_are_none():
    for name, units, options, error, words in (
        ("BlockGRU", 4, {}, ValueError, "hidden_size must be divisible by heads, got 4 and 8"),
        ("SCRN", 4, {}, TypeError, "missing a required keyword argument: 'context_size'"),
        ("LSTM", 0, {}, ValueError, "hidden_size must be greater than zero"),
        ("LSTM", 2.5, {}, TypeError, "hidden_size should be of type int, got: float"),
    ):
        with pytest.raises(error, match=words):
            engine.RNNCell(name, units, **options)
    with pytest.raises(ValueError, match="input is as large as its state: expected 4, got 5"):
        layers.RNN(engine.RNNCell("MUT1", U)).build((B, T, F))


def test_cells_of_ours_with_another_output_and_with_functions(tmp_path):
    for name, options, size in (
        ("SCRN", {"context_size": 3, "output_size": 2}, 2),
        ("EchoState", {"activation": seqcells.cells.activations.relu}, U),
    ):
        model = keras.Sequential([keras.Input((T, F)), layers.RNN(engine.RNNCell(name, U, **options)), layers.Dense(1)])
        assert model.layers[0].output.shape == (None, size)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert_close(again(random(B, T, F)), model(random(B, T, F)))


@plain_if(lambda kind: kind in KINDS)
@pytest.mark.parametrize("kind", KINDS | {"SimpleRNN relu": None, "LSTM relu": None})
def test_weights_both_ways(kind):
    """Our layer with Keras' weights gives Keras' results, and Keras' layer with our weights gives ours."""
    layer, x = made(kind, return_sequences=True), random(B, T, F)
    module = engine.to_layer(layer)
    assert_close(module(x)[0], layer(x), **CLOSE)
    other = made(kind, return_sequences=True)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    engine.assign(other, module)
    assert_close(other(x), module(x)[0], **CLOSE)


def uneven():
    layer = layers.Bidirectional(layers.LSTM(U), backward_layer=layers.LSTM(1, go_backwards=True))
    layer.build((B, T, F))
    return layer


def test_weights_of_torch_and_of_two_directions():
    x = random(B, T, F)
    theirs = torch.nn.GRU(F, U, batch_first=True, bidirectional=True)
    layer = layers.Bidirectional(layers.GRU(U, return_sequences=True))
    layer.build((B, T, F))
    engine.assign(layer, theirs)
    assert_close(layer(x), theirs(x)[0], **CLOSE)
    assert_close(engine.to_layer(layer)(x)[0], theirs(x)[0], **CLOSE)
    for wrong, error, words in (
        (lambda: engine.assign(layer, torch.nn.GRU(F, U)), ValueError, "as many directions"),
        (lambda: engine.assign(made("GRU"), torch.nn.GRU(F, U + 1)), ValueError, "of other sizes"),
        (lambda: engine.assign(made("SimpleRNN"), torch.nn.RNN(F, U, nonlinearity="relu")), ValueError, "equations"),
        (lambda: engine.assign(made("GRU", reset_after=False), torch.nn.GRU(F, U)), ValueError, "other equations"),
        (lambda: engine.assign(made("LSTM", activation="relu"), torch.nn.LSTM(F, U)), ValueError, "other equations"),
        (lambda: engine.assign(made("LSTM"), seqcells.PeepholeLSTM(F, U)), ValueError, "other equations"),
        (lambda: engine.assign(made("LSTM", use_bias=False), torch.nn.LSTM(F, U)), ValueError, "has biases"),
        (lambda: engine.assign(made("LSTM"), torch.nn.LSTM(F, U, bias=False)), ValueError, "has biases"),
        (lambda: engine.assign(made("LSTM"), torch.nn.LSTMCell(F, U)), TypeError, "got LSTMCell"),
        (lambda: engine.to_layer(uneven()), ValueError, "two directions differ"),
        (lambda: engine.to_layer(layers.Dense(3)), TypeError, "expected a recurrent layer of Keras, got Dense"),
        (lambda: engine.to_layer(layers.LSTM(3)), ValueError, "has no weights yet"),
    ):
        with pytest.raises(error, match=words):
            wrong()
