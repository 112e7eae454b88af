"""The base of the adapters to other packages' classes."""

from typing import Any

Theirs: Any = object
"""The base of a mixin that `seqcells.io.adapters.owners` puts before a class of another package.

The type is Any, so a type checker accepts attributes that the mixin has from the other class.
"""
