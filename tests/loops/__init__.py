"""Steps by other authors, which our cells should equal."""

from . import papers, torchrecurrents
from .loop import LOOPS

__all__ = ["LOOPS", "papers", "torchrecurrents"]
