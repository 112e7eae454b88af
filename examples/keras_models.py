"""Keras models on the engines of seqcells: python examples/keras_models.py [--model rows|series] [--theirs]

The two models are common in introductions: one reads a picture of a digit row by row, one predicts a series from 20
values. Only one line of them changes, ``seqcells.io.keras.enable()``.
"""

import argparse
import os
import time
from collections.abc import Sequence

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from keras import layers
from sklearn.datasets import load_digits

import seqcells.io.keras


def rows() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model for 28 × 28 pixels, and handwritten digits of that size."""
    model = keras.Sequential(
        [keras.Input((28, 28)), layers.SimpleRNN(150, activation="relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
    images = torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear").squeeze(1)
    return model, images.numpy(), digits.target


def series() -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """A model for 20 values, and a noisy wave in windows of that length, each with its next value."""
    model = keras.Sequential([keras.Input((20, 1)), layers.SimpleRNN(100, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    time = np.arange(2000) * 0.2
    wave = np.sin(time) / 2 + np.sin(0.31 * time) / 3 + np.random.default_rng(0).normal(scale=0.02, size=time.shape)
    windows = np.lib.stride_tricks.sliding_window_view(wave.astype("float32"), 21)
    return model, windows[:, :20, None], windows[:, 20]


MODELS = {"rows": rows, "series": series}


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train a model; return its recurrent layer's number of parameters, the held-out metric, seconds, and calls of our
    engines."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="rows")
    parser.add_argument("--theirs", action="store_true", help="leave the layers to Keras' own loops")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(options.seed)
    if not options.theirs:
        seqcells.io.keras.enable()
    seqcells.io.keras.calls.clear()
    try:
        model, x, y = MODELS[options.model]()
        known = len(x) * 9 // 10
        began = time.perf_counter()
        model.fit(x[:known], y[:known], epochs=options.epochs, batch_size=32, verbose=2)
        seconds = time.perf_counter() - began
        _, metric = model.evaluate(x[known:], y[known:], verbose=0)
    finally:
        seqcells.io.keras.disable()
    ours = seqcells.io.keras.calls["seqcells"]
    parameters = model.layers[0].count_params()
    print(f"{parameters:,} parameters; held out: {metric:.4f}; {seconds:.1f} s of training; {ours} calls by seqcells")
    return {"parameters": parameters, "held out": metric, "seconds": seconds, "calls": ours}


if __name__ == "__main__":
    main()
