"""ONNX Runtime and OpenVINO on the CPU: a compiled model that takes and returns numpy arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from ..parity import forward_results
from . import onnx_model
from .base import ONE_FEATURE, Prepared, Provider

Infer = Callable[[list[np.ndarray]], list[np.ndarray]]


class OnnxProvider(Provider):
    """What both runtimes share; a subclass compiles the model."""

    def why_not_available(self, device: str) -> str | None:
        return super().why_not_available(device) if device == "cpu" else "measured on the CPU only"

    def why_not(self, case: Case) -> str | None:
        return onnx_model.why_not(case)

    def compiled(self, model: bytes, names: list[str]) -> Infer:
        """A function from the inputs, in the order of ``names``, to all outputs."""
        raise NotImplementedError

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        infer = self.compiled(onnx_model.model(case, weights), ["X", *case.cell.states])
        zeros = [state.unsqueeze(0).numpy() for state in case.zero_states()]

        if case.suite.streaming:
            slices = [[x.unsqueeze(0).numpy() for x in given.x.unbind(0)] for given in inputs]

            def run(index: int) -> tuple[Any, list[np.ndarray]]:
                states, outputs = zeros, []
                for x in slices[index]:
                    output, *states = infer([x, *states])
                    outputs.append(output)
                return np.stack(outputs), states
        else:
            arrays = [given.x.numpy() for given in inputs]

            def run(index: int) -> tuple[Any, list[np.ndarray]]:
                output, *states = infer([arrays[index], *zeros])
                return output, states

        def results(done: tuple[Any, list[np.ndarray]]) -> dict[str, torch.Tensor]:
            return forward_results(case, torch.from_numpy(done[0]), [torch.from_numpy(state) for state in done[1]])

        return Prepared(run, results, [ONE_FEATURE] if case.suite.projected else [])


class OnnxRuntime(OnnxProvider):
    """onnxruntime: MLAS kernels; the session packs the weights when it is made."""

    name = "onnxruntime"
    packages = ("onnx", "onnxruntime")

    def compiled(self, model: bytes, names: list[str]) -> Infer:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))


class OpenVINO(OnnxProvider):
    """openvino: a compiled graph over oneDNN, set to float32, because it might choose bfloat16."""

    name = "openvino"
    packages = ("onnx", "openvino")

    def compiled(self, model: bytes, names: list[str]) -> Infer:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        core = openvino.Core()
        request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()

        def infer(arrays: list[np.ndarray]) -> list[np.ndarray]:
            # Inputs are shared. Outputs are copied, because they are the next call's inputs.
            done = request.infer(dict(zip(names, arrays, strict=True)), share_inputs=True)
            return list(done.values())

        return infer
