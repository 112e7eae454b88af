from typing import Any

from .base import Cell

class MUT1(Cell): ...

def mutated(update: Any, reset: Any, input: Any, h: Any, p: Any) -> Any: ...
