from collections.abc import Callable
from typing import Any, NamedTuple

from ...cells import Cell

class Function(NamedTuple):
    formula: Callable[[Any, float, float], Any]
    alpha: float = 0.0
    beta: float = 0.0

FUNCTIONS: dict[str, Function]
PLACES: dict[str, int]

class OnnxRNN(Cell): ...
class OnnxGRU(Cell): ...
class OnnxGRUBefore(Cell): ...
class OnnxLSTM(Cell): ...
class OnnxPeepholeLSTM(Cell): ...
