"""Triton's interpreter, made to round and multiply as a GPU does; importing this is enough.

`launch` does so in a process that interprets, for whoever runs the kernels; the interpreter's own bfloat16 is wrong.
"""

from dataclasses import replace

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

cast = InterpreterBuilder.cast_impl


def rounding_cast(self: InterpreterBuilder, source: TensorHandle, target: tl.dtype) -> TensorHandle:
    """float32 → bfloat16 to the nearest, ties to even, NaN staying NaN; the interpreter's own cuts the bits off."""
    if (source.dtype.scalar, target.scalar) != (tl.float32, tl.bfloat16):
        return cast(self, source, target)
    bits = source.data.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return TensorHandle(np.where(np.isnan(source.data), 0x7FC0, rounded).astype(np.uint16), tl.bfloat16)


InterpreterBuilder.cast_impl = rounding_cast

dot = InterpreterBuilder.create_dot


def widening_dot(self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, d: TensorHandle, *rest) -> TensorHandle:
    """Of bfloat16 as of the float32 it stands for; the interpreter's own multiplies the bits, taken for integers."""
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
    """A number of a kernel's is one for `range` too; Triton 3.6 has it as an array, which numpy 2.4 takes for none."""
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = counting_patch


# Kernels that assert something are compiled with their assertions; the interpreter's own are off.
interpreter.interpreter_builder.options = replace(
    interpreter.interpreter_builder.options, debug=True, sanitize_overflow=False
)
