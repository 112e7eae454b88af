"""A process with one of Keras' backends, which calls models on request."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

OURS, TORCH, JAX = "seqcells", "keras torch", "keras jax"
FEATURES = 128
LAYERS = {"LSTM": {}, "GRU": {}, "GRU reset before": {"reset_after": False}, "SimpleRNN": {}}
MODES = "predict", "train_on_batch"


def serve(connection: Connection, provider: str, threads: int) -> None:
    """Answer requests until the request is None.

    The request (layer, batch, steps, units, mode) returns the sum of the output's absolute values, or an error. A
    number returns the seconds of a call, as the mean of so many calls.
    """
    os.environ["KERAS_BACKEND"] = "jax" if provider == JAX else "torch"
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    os.environ["OMP_NUM_THREADS"] = str(threads)
    call: Any = None
    while True:
        asked = connection.recv()
        if asked is None:
            return
        try:
            if isinstance(asked, tuple):
                call, first = _prepared(provider, threads, *asked)
                connection.send(first)
            else:
                began = time.perf_counter()
                for _ in range(asked):
                    call()
                connection.send((time.perf_counter() - began) / asked)
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")


def _prepared(provider: str, threads: int, kind: str, batch: int, steps: int, units: int, mode: str) -> Any:
    """The call to time, and the sum of the first output's absolute values, on which all providers must agree."""
    import keras
    import numpy as np

    if provider != JAX:
        import torch

        import seqcells.io.keras

        torch.set_num_threads(threads)
        seqcells.io.keras.enable() if provider == OURS else seqcells.io.keras.disable()
        seqcells.io.keras.calls.clear()
    random = np.random.default_rng(0)
    layer = getattr(keras.layers, kind.partition(" ")[0])(units, return_sequences=True, **LAYERS[kind])
    model = keras.Sequential([keras.Input((steps, FEATURES)), layer])
    model.set_weights([random.normal(size=w.shape).astype("float32") / units**0.5 for w in model.get_weights()])
    model.compile("sgd", "mse")
    x = random.normal(size=(batch, steps, FEATURES)).astype("float32")
    y = np.zeros((batch, steps, units), "float32")
    first = float(np.abs(model.predict_on_batch(x)).sum())
    call = (lambda: model.predict_on_batch(x)) if mode == "predict" else (lambda: model.train_on_batch(x, y))
    for _ in range(3):  # warm-up: traces, compiles and prepares
        call()
    if provider == OURS and not seqcells.io.keras.calls["seqcells"]:
        raise RuntimeError(f"the engines have run nothing: {dict(seqcells.io.keras.calls)}")
    return call, first
