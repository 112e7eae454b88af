"""What onnxscript's types are said to be, once."""

from __future__ import annotations

from typing import Any, TypeAlias

from onnxscript.onnx_opset import opset18

op: Any = opset18
"""The operators. To a type checker they take and give ONNX' tensors; while a graph is made these are values of it."""
Value: TypeAlias = Any
"""onnxscript.ir.Value, whose shape and dtype are optional to a type checker; the exporter gives both."""
