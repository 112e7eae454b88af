"""onnxscript's operators and values, with types that a type checker accepts."""

from __future__ import annotations

from typing import Any, TypeAlias

from onnxscript.onnx_opset import opset18

op: Any = opset18
"""The operators. Their annotations name ONNX' tensors, but while a graph is made they take and return its values."""
Value: TypeAlias = Any
"""onnxscript.ir.Value. Its shape and dtype are annotated as optional, but the exporter sets both."""
