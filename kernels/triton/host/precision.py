"""What float32 products may round their operands to, as torch's switches for recurrent layers say."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from ....system.settings import current_settings
from .. import since_ampere

_lock = RLock()
# What the properties of `torch.backends` ask and set, at a fraction of their time: each call asks.
_setting, _set = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
HALVES = {
    torch.float16: "allow_fp16_reduced_precision_reduction",
    torch.bfloat16: "allow_bf16_reduced_precision_reduction",
}
"""Torch's switches for how products of half precision are summed."""


def mode(dtype: torch.dtype) -> str:
    """Of products of that dtype: ``"ieee"``, ``"tf32"`` or ``"tf32x3"``, as `tl.dot` takes them.

    ``torch.backends.cudnn.rnn.fp32_precision`` is asked, as torch.nn's layers ask it: it inherits from
    ``torch.backends.cudnn`` and ``torch.backends`` where nothing was set for recurrent layers, obeys
    ``cudnn.allow_tf32``, and by default allows TF32. ``"tf32x3"``, three products in place of one and about as near as
    float32's own, is had from `seqcells.settings` alone. There is no TF32 on a machine with a GPU from before Ampere.
    """
    if dtype != torch.float32 or torch.version.hip or not since_ampere():
        return "ieee"
    asked = current_settings().precision
    if asked is not None:
        return asked
    return "tf32" if _setting("cuda", "rnn") == "tf32" else "ieee"


class obeyed_by_torch:
    """Inside, torch's own products on CUDA are of that mode; of ``"tf32x3"``, which they lack, the exact one.

    Their switch is another than recurrent layers have, and one for all threads: it is touched only where the two
    disagree, and one of our threads has it at a time. Products that other threads launch meanwhile see it too. What
    a CUDA graph captures keeps the precision it was captured with.
    """

    def __init__(self, mode: str) -> None:
        self._wanted = "tf32" if mode == "tf32" else "ieee"
        self._back: str | None = None

    def __enter__(self) -> None:
        _lock.acquire()
        before = _setting("cuda", "matmul")
        if (before == "tf32") == (self._wanted == "tf32"):
            return
        # What is asked tells what holds, not who said so: what is as all of CUDA's is goes back to following that.
        self._back = "none" if before == _setting("cuda", "all") else before
        _set("cuda", "matmul", self._wanted)

    def __exit__(self, *_: object) -> None:
        try:
            if self._back is not None:
                _set("cuda", "matmul", self._back)
        finally:
            _lock.release()


@contextmanager
def summed_in_float32(like: Tensor) -> Iterator[None]:
    """Inside, torch's own products on CUDA of tensors like one, of half precision, are nowhere summed in it.

    Torch's switch is one for all threads, as with `obeyed_by_torch`.
    """
    name, switch = HALVES.get(like.dtype), torch.backends.cuda.matmul
    if name is None or not like.is_cuda:
        yield
        return
    with _lock:
        before = getattr(switch, name)
        setattr(switch, name, False)
        try:
            yield
        finally:
            setattr(switch, name, before)
