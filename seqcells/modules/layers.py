"""The layers LSTM, GRU and RNN: drop-in replacements for torch.nn's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from .. import cells
from .recurrent_layer import RecurrentLayer


class UnprojectedLayer(RecurrentLayer):
    """A `RecurrentLayer` of a cell that allows no projection. It rejects ``proj_size``."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
        **others: Any,
    ) -> None:
        if "proj_size" in others and "proj_size" not in self.cell.options:
            words = "is only supported for LSTM, not RNN or GRU"
            if self.torch_class is None:
                words = f"is not supported for the {self.cell.name} cell"
            raise ValueError(f"proj_size argument {words}")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            backend=backend,
            **others,
        )


class LSTM(RecurrentLayer):
    """A multi-layer long short-term memory, a replacement for `torch.nn.LSTM`. Arguments: see `RecurrentLayer`.

    Equations and sources: `seqcells.cells.LSTM`. ``hx`` is (h_0, c_0).
    """

    cell: type[cells.Cell] = cells.LSTM
    torch_class: ClassVar[type[nn.Module] | None] = nn.LSTM
    get_expected_cell_size: Callable[..., tuple[int, int, int]] = nn.LSTM.get_expected_cell_size

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class GRU(UnprojectedLayer):
    """A multi-layer gated recurrent unit, a replacement for `torch.nn.GRU`. Arguments: see `RecurrentLayer`.

    Equations and sources: `seqcells.cells.GRU`.
    """

    cell: type[cells.Cell] = cells.GRU
    torch_class: ClassVar[type[nn.Module] | None] = nn.GRU

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class RNN(UnprojectedLayer):
    """A multi-layer Elman network, a replacement for `torch.nn.RNN`. Arguments: see `RecurrentLayer`, and:

    Args:
        nonlinearity: ``"tanh"`` or ``"relu"``, the fourth argument. Default: ``"tanh"``

    Equations and sources: `seqcells.cells.RNNTanh`, `seqcells.cells.RNNReLU`.
    """

    torch_class: ClassVar[type[nn.Module] | None] = nn.RNN
    mode: str
    _rank_error = "{}: Expected input to be 2D or 3D, got {}D tensor instead"

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if nonlinearity not in cells.RNN_BY_NONLINEARITY:
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        # Set first: the base class's constructor reads `cell`.
        self.mode = cells.RNN_BY_NONLINEARITY[nonlinearity].name.upper()
        super().__init__(input_size, hidden_size, num_layers, *args, **kwargs)
        self.nonlinearity = nonlinearity

    @property
    def cell(self) -> type[cells.Cell]:  # pyright: ignore[reportIncompatibleVariableOverride]  # nobody assigns it
        # As in torch.nn, the mode decides. The module stores no class, because a file would then name it.
        return cells.REGISTRY[self.mode.lower()]
