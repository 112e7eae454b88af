"""NVIDIA's driver, as far as a launch by clusters wants it: torch and Triton have none."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch

MAX_SHARED, NON_PORTABLE = 8, 14
"""Attributes of a function: bytes of shared memory at most; whether clusters of more than 8 blocks are allowed."""
CLUSTER_DIMENSION = 4
"""An attribute of a launch."""
RELAXED = 2
"""A thread's way of capturing a CUDA graph, in which it may call what the graph does not hold."""


class DriverError(RuntimeError):
    """What the driver says of a call that fails."""


class _Attribute(ctypes.Structure):
    # The value is a union of 64 bytes, of which a cluster's dimension takes three numbers.
    _fields_ = [("id", ctypes.c_int), ("pad", ctypes.c_int), ("value", ctypes.c_uint * 16)]


class _Config(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    ]


class Launch(NamedTuple):
    """How a kernel is launched: clusters of so many blocks, in a grid of blocks by directions."""

    blocks: int
    directions: int
    cluster: int
    threads: int
    shared_bytes: int

    def config(self, stream: int = 0) -> _Config:
        """As the driver takes it."""
        attribute = (_Attribute * 1)()
        attribute[0].id = CLUSTER_DIMENSION
        attribute[0].value[0], attribute[0].value[1], attribute[0].value[2] = self.cluster, 1, 1
        sizes = (self.blocks, self.directions, 1), (self.threads, 1, 1)
        return _Config(*sizes, self.shared_bytes, stream, attribute, 1)


class Function:
    """A kernel that is loaded into the present device's context.

    Args:
        code: what the compiler gave.
        name: the kernel's.
        shared_bytes: of shared memory that its launches take.
    """

    def __init__(self, code: bytes, name: str, shared_bytes: int) -> None:
        _have_context()
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        with _besides_captures():
            _check(_library().cuModuleLoadData(ctypes.byref(self._module), code))
            _check(_library().cuModuleGetFunction(ctypes.byref(self._function), self._module, name.encode()))
            for attribute, value in ((MAX_SHARED, shared_bytes), (NON_PORTABLE, 1)):
                _check(_library().cuFuncSetAttribute(self._function, attribute, value))

    def clusters_at_once(self, launch: Launch) -> int:
        """How many of a launch's clusters the device runs side by side; 0 where it runs none, or gives an error of any
        kind, as of sizes that it does not know."""
        found, config = ctypes.c_int(), launch.config()
        asked = ctypes.byref(found), self._function, ctypes.byref(config)
        with _besides_captures():
            failed = _library().cuOccupancyMaxActiveClusters(*asked)
        return 0 if failed else found.value

    def __call__(self, launch: Launch, arguments: ctypes.Array) -> None:
        """Launch it on torch's present stream; ``arguments`` are its one parameter, a struct."""
        _have_context()
        config = launch.config(torch.cuda.current_stream().cuda_stream)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        _check(_library().cuLaunchKernelEx(ctypes.byref(config), self._function, parameters, None))


@contextmanager
def _besides_captures() -> Iterator[None]:
    """A thread that captures a CUDA graph may load modules meanwhile, which the graph does not hold."""
    mode = ctypes.c_int(RELAXED)
    _check(_library().cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)))
    try:
        yield
    finally:
        _check(_library().cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)))


def _have_context() -> None:
    """Give a thread torch's context of the present device, where it has none: it has called nothing of CUDA's yet."""
    library, context = _library(), ctypes.c_void_p()
    _check(library.cuCtxGetCurrent(ctypes.byref(context)))
    if not context:
        torch.cuda.init()
        device = torch.cuda.current_device()
        _check(library.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        _check(library.cuCtxSetCurrent(context))


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as problem:
        raise DriverError(f"NVIDIA's driver cannot be loaded: {problem}") from None


def _check(code: int) -> None:
    if code:
        words = ctypes.c_char_p()
        _library().cuGetErrorString(code, ctypes.byref(words))
        raise DriverError(f"NVIDIA's driver: {(words.value or b'').decode() or code}")
