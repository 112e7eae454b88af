"""Keras' layers on Keras' torch backend."""

import os
from typing import Any

import torch
from torch import Tensor

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from .base import ONE_FEATURE, ONE_LAYER, Prepared, Provider, States, streamed, through_autograd

# cell → Keras' layer, the places of its gates among ours, arguments
LAYERS: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "lstm": ("LSTM", (0, 1, 2, 3), {}),
    "gru": ("GRU", (1, 0, 2), {"reset_after": True}),
    "rnn_tanh": ("SimpleRNN", (0,), {"activation": "tanh"}),
    "rnn_relu": ("SimpleRNN", (0,), {"activation": "relu"}),
}


class Keras(Provider):
    """keras.layers.LSTM, GRU and SimpleRNN, called eagerly, with the input batch first, as Keras expects."""

    name = "keras"
    packages = ("keras",)

    def why_not(self, case: Case) -> str | None:
        if case.suite.lengths:
            return "a Keras mask repeats the last output, here it is zero past a length"
        if case.suite.layers > 1:
            return ONE_LAYER
        if case.suite.streaming and case.suite.gradients:
            return "Keras' single steps are here for inference only"
        return None if case.cell_name in LAYERS else f"Keras has no {case.cell_name}"

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        os.environ.update(KERAS_BACKEND="torch", KERAS_TORCH_DEVICE=case.device)  # read when keras is imported
        import keras

        kind, order, arguments = LAYERS[case.cell_name]
        layer = getattr(keras.layers, kind)(
            case.shape.hidden,
            return_sequences=True,
            return_state=True,
            dtype=str(case.dtype).removeprefix("torch."),
            **arguments,
        )
        layer.build((case.shape.batch, case.shape.steps, case.features))
        reordered = [_reorder(tensor, order) for tensor in weights.present()]
        for variable, tensor in zip(layer.trainable_weights, self._merged(reordered, kind), strict=True):
            variable.assign(tensor)

        if case.suite.streaming:

            def step(x: Tensor, states: States) -> tuple[Tensor, States]:
                output, *states = layer(x.unsqueeze(1), initial_state=list(states), training=False)
                return output, tuple(states)

            prepared = streamed(case, step, case.zero_states(), inputs)
            # An output of Keras is (B, 1, H).
            return prepared._replace(results=lambda done: prepared.results(([o[:, 0] for o in done[0]], done[1])))

        def forward(given: Inputs) -> tuple[Tensor, States]:
            output, *states = layer(given.x, training=case.suite.gradients)
            return output, tuple(states)

        def translate(output: Tensor, others: Any) -> tuple[Tensor, Any]:
            if case.suite.gradients:
                x, *gradients = others
                others = [x.transpose(0, 1), *(_reorder(g, order) for g in self._split(gradients, kind))]
            return output.transpose(0, 1), others

        batch_first = [
            given._replace(
                x=given.x.transpose(0, 1).contiguous(),
                grad=None if given.grad is None else given.grad.transpose(0, 1).contiguous(),
            )
            for given in inputs
        ]
        parameters = [variable.value for variable in layer.trainable_weights]
        notes = [ONE_FEATURE] if case.suite.projected else []
        return through_autograd(case, forward, parameters, batch_first, notes, translate)

    @staticmethod
    def _merged(tensors: list[Tensor], kind: str) -> list[Tensor]:
        """torch's four parameters as Keras' three; only a GRU keeps both biases."""
        ih, hh, bias_ih, bias_hh = tensors
        return [ih.T, hh.T, torch.stack([bias_ih, bias_hh]) if kind == "GRU" else bias_ih + bias_hh]

    @staticmethod
    def _split(gradients: list[Tensor], kind: str) -> list[Tensor]:
        """The gradients of Keras' three parameters as torch's four: two biases that are added have the same
        gradient."""
        kernel, recurrent, bias = gradients
        return [kernel.T, recurrent.T, *(bias if kind == "GRU" else (bias, bias))]


def _reorder(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Reorder the gates along the first axis; the orders here are their own inverses."""
    blocks = tensor.chunk(len(order))
    return torch.cat([blocks[place] for place in order])
