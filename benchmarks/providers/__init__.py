"""Who is measured. A provider is one class; a row here is all it takes to have it in every suite."""

from seqcells.dispatch import NAMES

from .base import Prepared, Provider
from .seqcells_backends import Seqcells, SeqcellsCell
from .torch_nn import CompiledCellLoop, TorchCellLoop, TorchNN

BASELINE = "torch.nn"
NULL = "null"
"""torch.nn once more, under another name: whatever it differs by is the error of the timing."""

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        TorchNN(BASELINE),
        TorchNN(NULL),
        *(Seqcells(backend) for backend in NAMES),
        *(SeqcellsCell(backend) for backend in NAMES),
        TorchCellLoop(),
        CompiledCellLoop(),
    )
}

__all__ = ["BASELINE", "NULL", "PROVIDERS", "Prepared", "Provider"]
