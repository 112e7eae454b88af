"""The precision of float32 products, as torch's switches for recurrent layers set it."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor

from ....system.settings import current_settings
from .. import since_ampere

_lock = RLock()
# These functions lie behind the properties of `torch.backends` and take a fraction of their time: each call asks.
_setting, _set = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
HALVES = {
    torch.float16: "allow_fp16_reduced_precision_reduction",
    torch.bfloat16: "allow_bf16_reduced_precision_reduction",
}
"""Torch's switches for how products of half precision are summed, by dtype."""


def mode(dtype: torch.dtype) -> str:
    """The precision of products of that dtype: ``"ieee"``, ``"tf32"`` or ``"tf32x3"``, as `tl.dot` takes it.

    It follows ``torch.backends.cudnn.rnn.fp32_precision``, as torch.nn's layers do. That setting inherits from
    ``torch.backends.cudnn`` and ``torch.backends`` where nothing was set for recurrent layers. It obeys
    ``cudnn.allow_tf32``, and by default allows TF32. ``"tf32x3"`` makes three products instead of one, and is about as
    accurate as float32. Only `seqcells.settings` can ask for it. There is no TF32 on a machine with a GPU from before
    Ampere.
    """
    if dtype != torch.float32 or torch.version.hip or not since_ampere():
        return "ieee"
    asked = current_settings().precision
    if asked is not None:
        return asked
    return "tf32" if _setting("cuda", "rnn") == "tf32" else "ieee"


class obeyed_by_torch:
    """Inside, torch's own products on CUDA have that precision. They lack ``"tf32x3"``, and are exact in its place.

    Their switch is not the switch of recurrent layers, and it is one for all threads. So it is set only where the two
    switches disagree, by one of our threads at a time. Products that other threads launch meanwhile are affected too. A
    CUDA graph keeps the precision that it was captured with.
    """

    def __init__(self, mode: str) -> None:
        self._wanted = "tf32" if mode == "tf32" else "ieee"
        self._back: str | None = None

    def __enter__(self) -> None:
        _lock.acquire()
        before = _setting("cuda", "matmul")
        if (before == "tf32") == (self._wanted == "tf32"):
            return
        # The getter returns the value that holds, not where it was set. A value equal to CUDA's general one goes back
        # to following it.
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
    """Inside, torch's products on CUDA of half-precision tensors like ``like`` are summed in float32 throughout.

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
