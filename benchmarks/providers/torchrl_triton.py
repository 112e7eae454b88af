"""TorchRL's Triton kernels for LSTM and GRU with resets inside a sequence."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from .base import ONE_FEATURE, ONE_LAYER, Prepared, Provider, States, through_autograd


class TorchRL(Provider):
    """``lstm_triton`` and ``gru_triton``, called without resets."""

    name = "torchrl triton"
    packages = ("torchrl", "triton")

    def why_not_available(self, device: str) -> str | None:
        return super().why_not_available(device) if device == "cuda" else "CUDA only"

    def why_not(self, case: Case) -> str | None:
        if case.cell_name not in ("lstm", "gru"):
            return f"TorchRL has no {case.cell_name}"
        if case.suite.layers > 1:
            return ONE_LAYER
        if case.suite.lengths or case.suite.streaming:
            return "TorchRL's kernels run whole sequences of one length"
        return None if case.dtype_name in ("float32", "tf32", "bfloat16") else f"no {case.dtype_name}"

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        run = getattr(_kernels(), f"{case.cell_name}_triton")
        batch, hidden, steps = case.shape
        parameters = [tensor.float().clone() for tensor in weights.present()]
        # The state at every step; without resets, only the first one is read.
        states = [torch.zeros(batch, steps, hidden, device=case.device) for _ in case.cell.states]
        no_reset = torch.zeros(batch, steps, dtype=torch.bool, device=case.device)
        precision = {"tf32": "tf32", "float32": "ieee", "bfloat16": None}[case.dtype_name]
        compute = torch.bfloat16 if case.dtype is torch.bfloat16 else torch.float32

        def forward(given: Inputs) -> tuple[Tensor, States]:
            done = run(given.x, *states, *parameters, no_reset, compute, input_precision=precision)
            return done[0], done[-len(states) :]

        def translate(output: Tensor, others: Any) -> tuple[Tensor, Any]:
            if case.suite.gradients:
                others = [others[0].transpose(0, 1), *others[1:]]
            return output.transpose(0, 1), others

        notes = [ONE_FEATURE] if case.suite.projected else []
        if case.dtype is torch.bfloat16:
            notes.append("stores float32, multiplies bfloat16")
        batch_first = [
            given._replace(
                x=given.x.float().transpose(0, 1).contiguous(),
                grad=None if given.grad is None else given.grad.float().transpose(0, 1).contiguous(),
            )
            for given in inputs
        ]
        return through_autograd(case, forward, parameters, batch_first, notes, translate)


def _kernels() -> types.ModuleType:
    """The module of the kernels, imported without the rest of torchrl, which needs a dozen more packages."""
    name = "torchrl.modules.tensordict_module._rnn_triton"
    try:
        return importlib.import_module(name)
    except ImportError:
        root = Path(importlib.util.find_spec("torchrl").submodule_search_locations[0])
        for loaded in [module for module in sys.modules if module.partition(".")[0] == "torchrl"]:
            del sys.modules[loaded]
    for package, folder in (
        ("torchrl", root),
        ("torchrl.modules", root / "modules"),
        ("torchrl.modules.tensordict_module", root / "modules" / "tensordict_module"),
    ):
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder)]
    # The kernels import one thing from the rest of torchrl: a check that triton is new enough. Any triton that torch
    # comes with is new enough.
    sys.modules["torchrl._utils"] = types.ModuleType("torchrl._utils")
    sys.modules["torchrl._utils"]._triton_version_at_least = lambda minimum: True
    return importlib.import_module(name)
