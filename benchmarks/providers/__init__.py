"""The providers: who is measured. A provider is one class; a row here adds it to every suite."""

from seqcells.backends import NAMES

from .base import Prepared, Provider
from .flashrnn_kernels import FlashRNN
from .keras_torch import Keras
from .onnx_runtimes import OnnxRuntime, OpenVINO
from .seqcells_backends import Seqcells, SeqcellsCell, SeqcellsFlags, SeqcellsStream
from .seqcells_threads import ONE_THREAD, TWICE, SeqcellsOneThread, SeqcellsTwiceTheThreads
from .torch_nn import CompiledCellLoop, TorchCellLoop, TorchNN
from .torchrl_triton import TorchRL

BASELINE = "torch.nn"
AA = "A/A"
"""torch.nn once more, under another name: its difference from torch.nn is the error of the timing."""

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        TorchNN(BASELINE),
        TorchNN(AA),
        *(Seqcells(backend) for backend in NAMES),
        SeqcellsFlags(),
        *(SeqcellsCell(backend) for backend in NAMES),
        SeqcellsStream(),
        SeqcellsOneThread(),
        SeqcellsTwiceTheThreads(),
        TorchCellLoop(),
        CompiledCellLoop(),
        OnnxRuntime(),
        OpenVINO(),
        Keras(),
        *(FlashRNN(backend) for backend in ("cuda_fused", "cuda", "triton_fused")),
        TorchRL(),
    )
}

__all__ = ["AA", "BASELINE", "ONE_THREAD", "PROVIDERS", "TWICE", "Prepared", "Provider"]
