from .base import Cell

NOTHING: float

class SLSTM(Cell): ...
