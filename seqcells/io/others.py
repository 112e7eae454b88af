"""What is said once of other packages' classes."""

from typing import Any

Theirs: Any = object
"""The base of a class that `seqcells.io.owners` puts before one of another package: a type checker takes what it has
from there for granted."""
