"""Triton's interpreter, made to round and multiply as a GPU does. Importing this module is enough.

`launch` imports it in a process that interprets. The interpreter's own bfloat16 is wrong.
"""

from dataclasses import replace

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

cast = InterpreterBuilder.cast_impl


def rounding_cast(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype) -> TensorHandle:
    """Cast float32 to bfloat16, to the nearest, ties to even; NaN stays NaN. The interpreter's own cast cuts the bits
    off."""
    if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
        return cast(self, source, target)
    bits = source.data.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return TensorHandle(np.where(np.isnan(source.data), 0x7FC0, rounded).astype(np.uint16), tl.bfloat16)


InterpreterBuilder.cast_impl = rounding_cast

dot = InterpreterBuilder.create_dot


def widening_dot(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, d: TensorHandle, *rest) -> TensorHandle:
    """Multiply bfloat16 as the float32 that it stands for. The interpreter's own dot multiplies the bits, taken for
    integers."""
    wide = [
        TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
        if x.dtype.scalar == tl.bfloat16
        else x
        for x in (a, b)
    ]
    return dot(self, *wide, d, *rest)


InterpreterBuilder.create_dot = widening_dot


patch = interpreter._patch_lang_tensor


def counting_patch(tensor: type, scope: interpreter._LangPatchScope) -> None:
    """Make an integer of a kernel an integer for `range` too. Triton 3.6 holds it as an array, which numpy 2.4 does not
    accept as an index."""
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = counting_patch


# Kernels run with their assertions, as they are compiled with them on a GPU; checks of integer overflow are off.
interpreter.interpreter_builder.options = replace(
    interpreter.interpreter_builder.options, debug=True, sanitize_overflow=False
)
