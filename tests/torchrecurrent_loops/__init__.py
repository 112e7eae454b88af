"""The steps of torchrecurrent's cells written out after its equations (version 0.2.5), with its weights' names.

Where its code departs from a cell's paper, both forms are here.
"""

from . import gated, lstms, ungated
from .loop import LOOPS

__all__ = ["LOOPS", "gated", "lstms", "ungated"]
