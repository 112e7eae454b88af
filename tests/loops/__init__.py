"""Steps of others that ours should equal."""

from . import papers, torchrecurrents
from .loop import LOOPS

__all__ = ["LOOPS", "papers", "torchrecurrents"]
