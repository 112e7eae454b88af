"""FlashRNN with the same work as a layer: one head, and the input's projection included."""

import shutil
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from .base import ONE_FEATURE, ONE_LAYER, Prepared, Provider, States, through_autograd

FUNCTIONS = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "elman"}


class FlashRNN(Provider):
    """One of FlashRNN's backends, by name."""

    packages = ("flashrnn",)

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.name = f"flashrnn {backend}"

    def why_not_available(self, device: str) -> str | None:
        if device != "cuda":
            return "CUDA only"
        return super().why_not_available(device) or self._no_compiler()

    def _no_compiler(self) -> str | None:
        from torch.utils.cpp_extension import CUDA_HOME  # it prints a message of its own where there is no GPU

        if self.backend.startswith("triton") or (CUDA_HOME and shutil.which("nvcc", path=f"{CUDA_HOME}/bin")):
            return None
        return "it compiles with nvcc, which is not here"

    def why_not(self, case: Case) -> str | None:
        if case.cell_name not in FUNCTIONS:
            return f"FlashRNN has no {case.cell_name}"
        if self.backend == "cuda_fused" and case.cell_name == "gru":
            return "cuda_fused has no GRU (it falls back to cuda, silently)"
        if self.backend == "triton_fused" and (case.cell_name != "lstm" or case.shape.hidden > 64):
            return "triton_fused is for LSTM heads of up to 64 units, and the head is the layer here"
        if case.suite.layers > 1:
            return ONE_LAYER
        if case.suite.lengths or case.suite.streaming:
            return "FlashRNN runs whole sequences of one length"
        return "no TF32 switch" if case.dtype_name in ("tf32", "float64") else None

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        from flashrnn import flashrnn

        batch, hidden, steps = case.shape
        gates = len(case.cell.gates)
        ih, hh, bias_ih, bias_hh = weights.present()
        gru = case.cell_name == "gru"
        recurrent = hh.view(gates, 1, hidden, hidden)
        if gru:  # recurrent gates n, r, z; biases n (recurrent), r, z, n (input)
            r_ih, z_ih, n_ih = bias_ih.chunk(3)
            r_hh, z_hh, n_hh = bias_hh.chunk(3)
            recurrent = recurrent[[2, 0, 1]]
            bias = torch.stack([n_hh, r_ih + r_hh, z_ih + z_hh, n_ih]).unsqueeze(1)
        else:
            bias = (bias_ih + bias_hh).view(gates, 1, hidden)
        parameters = [tensor.clone() for tensor in (ih, recurrent, bias)]
        dtype = str(case.dtype).removeprefix("torch.")

        def forward(given: Inputs) -> tuple[Tensor, States]:
            projection, recurrent, bias = parameters
            gates_x = linear(given.x, projection).view(batch, steps, gates, 1, hidden)
            states, last = flashrnn(
                gates_x, recurrent, bias, function=FUNCTIONS[case.cell_name], backend=self.backend, dtype=dtype
            )
            return states[0], tuple(last)

        def translate(output: Tensor, others: Any) -> tuple[Tensor, Any]:
            output = output.reshape(batch, steps, hidden).transpose(0, 1)
            if not case.suite.gradients:
                return output, tuple(state.reshape(batch, hidden) for state in others)
            x, projection, recurrent, bias = others
            if gru:
                n_hh, r, z, n_ih = bias.reshape(4, hidden)
                recurrent = recurrent[[1, 2, 0]]
                biases = [torch.cat([r, z, n_ih]), torch.cat([r, z, n_hh])]
            else:
                biases = [bias.reshape(-1)] * 2
            return output, [x.transpose(0, 1), projection, recurrent.reshape(hh.shape), *biases]

        notes = [ONE_FEATURE] if case.suite.projected else []
        batch_first = [
            given._replace(
                x=given.x.transpose(0, 1).contiguous(),
                grad=None if given.grad is None else given.grad.transpose(0, 1).reshape(batch, steps, 1, hidden),
            )
            for given in inputs
        ]
        return through_autograd(case, forward, parameters, batch_first, notes, translate)
