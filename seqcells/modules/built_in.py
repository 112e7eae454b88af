"""Layers and cell modules of built-in cells that torch.nn lacks, as named classes. `define` would make the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from .. import cells
from .cell_modules import RecurrentCell
from .layers import UnprojectedLayer
from .recurrent_layer import RecurrentLayer


class PeepholeLSTM(RecurrentLayer):
    """Layers of `seqcells.cells.PeepholeLSTM`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.PeepholeLSTM

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class PeepholeLSTMCell(RecurrentCell):
    """One step of `seqcells.cells.PeepholeLSTM`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.PeepholeLSTM

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class CIFG(RecurrentLayer):
    """Layers of `seqcells.cells.CIFG`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.CIFG

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class CIFGCell(RecurrentCell):
    """One step of `seqcells.cells.CIFG`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.CIFG

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class JANET(UnprojectedLayer):
    """Layers of `seqcells.cells.JANET`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.JANET

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class JANETCell(RecurrentCell):
    """One step of `seqcells.cells.JANET`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.JANET

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class LiGRU(UnprojectedLayer):
    """Layers of `seqcells.cells.LiGRU`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.LiGRU

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class LiGRUCell(RecurrentCell):
    """One step of `seqcells.cells.LiGRU`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.LiGRU

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class IndRNN(UnprojectedLayer):
    """Layers of `seqcells.cells.IndRNN`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.IndRNN

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class IndRNNCell(RecurrentCell):
    """One step of `seqcells.cells.IndRNN`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.IndRNN

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class MinGRU(UnprojectedLayer):
    """Layers of `seqcells.cells.MinGRU`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.MinGRU

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class MinGRUCell(RecurrentCell):
    """One step of `seqcells.cells.MinGRU`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.MinGRU

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class Jordan(RecurrentLayer):
    """Layers of `seqcells.cells.Jordan`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.Jordan

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class JordanCell(RecurrentCell):
    """One step of `seqcells.cells.Jordan`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.Jordan

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class SLSTM(RecurrentLayer):
    """Layers of `seqcells.cells.SLSTM`; arguments as `RecurrentLayer`."""

    cell: type[cells.Cell] = cells.SLSTM

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...


class SLSTMCell(RecurrentCell):
    """One step of `seqcells.cells.SLSTM`; arguments as `RecurrentCell`."""

    cell: type[cells.Cell] = cells.SLSTM

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor, Tensor, Tensor]: ...
