"""The functions of NVIDIA's driver that a launch with clusters needs: torch and Triton offer no such launch."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch

MAX_SHARED, NON_PORTABLE = 8, 14
"""Attributes of a function: the most bytes of shared memory, and whether clusters of more than 8 blocks are allowed."""
CLUSTER_DIMENSION = 4
"""An attribute of a launch: the size of a cluster."""
RELAXED = 2
"""A thread's mode of capturing a CUDA graph, which allows calls that the graph does not record."""


class DriverError(RuntimeError):
    """The driver's message about a call that failed."""


class _Attribute(ctypes.Structure):
    # The value is a union of 64 bytes; a cluster's dimensions take three numbers of it.
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
    """How a kernel is launched: clusters of ``cluster`` blocks, in a grid of ``blocks`` by ``directions``."""

    blocks: int
    directions: int
    cluster: int
    threads: int
    shared_bytes: int

    def config(self, stream: int = 0) -> _Config:
        """The launch as the driver takes it."""
        attribute = (_Attribute * 1)()
        attribute[0].id = CLUSTER_DIMENSION
        attribute[0].value[0], attribute[0].value[1], attribute[0].value[2] = self.cluster, 1, 1
        sizes = (self.blocks, self.directions, 1), (self.threads, 1, 1)
        return _Config(*sizes, self.shared_bytes, stream, attribute, 1)


class Function:
    """A kernel that is loaded into the current device's context.

    Args:
        code: the binary from the compiler.
        name: the kernel's name.
        shared_bytes: the shared memory of its launches.
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
        """How many of a launch's clusters the device runs at once. The number is 0 if the device runs none, or gives
        any error, as for unknown cluster sizes."""
        found, config = ctypes.c_int(), launch.config()
        asked = ctypes.byref(found), self._function, ctypes.byref(config)
        with _besides_captures():
            failed = _library().cuOccupancyMaxActiveClusters(*asked)
        return 0 if failed else found.value

    def __call__(self, launch: Launch, arguments: ctypes.Array) -> None:
        """Launch the kernel on torch's current stream. Its one parameter is ``arguments``, a struct."""
        _have_context()
        config = launch.config(torch.cuda.current_stream().cuda_stream)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        _check(_library().cuLaunchKernelEx(ctypes.byref(config), self._function, parameters, None))


@contextmanager
def _besides_captures() -> Iterator[None]:
    """Let a thread that captures a CUDA graph load modules meanwhile, which the graph does not record."""
    mode = ctypes.c_int(RELAXED)
    _check(_library().cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)))
    try:
        yield
    finally:
        _check(_library().cuThreadExchangeStreamCaptureMode(ctypes.byref(mode)))


def _have_context() -> None:
    """Give the thread torch's context of the current device, if it has no context: it has not called CUDA yet."""
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
