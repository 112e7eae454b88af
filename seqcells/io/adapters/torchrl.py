"""Adapters for TorchRL's recurrent modules: trajectories that follow each other in a batch run in one call.

TorchRL's ``is_init`` becomes ``reset=``. TorchRL itself pads each trajectory to a row of its own, except in its backend
"triton". The adapters replace the methods of that backend.
"""

from typing import Any

from torch import Tensor

from ...modules.recurrent_layer import RecurrentLayer
from . import trajectories
from .base import Theirs


class LSTMModule(Theirs):
    """A mixin for TorchRL's module, modelled on TorchRL 0.14. The module's states are (B, T, L, H)."""

    __layers__: tuple[str, ...] = ("lstm",)

    @property
    def recurrent_backend(self) -> str:
        """TorchRL's name of its backend: "triton" while the layer is ours, else the module's own value.

        The adapters replace the methods of "triton".
        """
        layer = self._modules.get("lstm", self._modules.get("gru"))
        return "triton" if isinstance(layer, RecurrentLayer) else vars(self)["recurrent_backend"]

    @recurrent_backend.setter
    def recurrent_backend(self, value: str) -> None:
        self.__dict__["recurrent_backend"] = value

    def _lstm_triton_with_resets(self, input: Tensor, hidden0_in: Tensor, hidden1_in: Tensor, is_init: Tensor) -> Any:
        if not isinstance(self.lstm, RecurrentLayer):
            return super()._lstm_triton_with_resets(input, hidden0_in, hidden1_in, is_init)
        return trajectories.run(self.lstm, input, [hidden0_in, hidden1_in], is_init)


class GRUModule(Theirs):
    """A mixin for TorchRL's module, whose state is (B, T, L, H)."""

    __layers__: tuple[str, ...] = ("gru",)
    recurrent_backend: Any = LSTMModule.recurrent_backend

    def _gru_triton_with_resets(self, input: Tensor, hidden_in: Tensor, is_init: Tensor) -> Any:
        if not isinstance(self.gru, RecurrentLayer):
            return super()._gru_triton_with_resets(input, hidden_in, is_init)
        return trajectories.run(self.gru, input, [hidden_in], is_init)
