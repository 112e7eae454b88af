"""Replaces the CPU engine's extension, to count its calls, or to make prepared calls do nothing."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from seqcells.backends import engine_of
from seqcells.kernels import cpu


@contextmanager
def counted() -> Iterator[list[Any]]:
    """Inside, a list grows by each call into the extension, and by each call of what was prepared inside."""
    calls: list[Any] = []
    with _replaced(lambda extension: _Counted(extension, calls)):
        yield calls


@contextmanager
def idle() -> Iterator[None]:
    """What is prepared inside does nothing when it is called, inside or later."""
    with _replaced(_Idle):
        yield


class _Counted:
    """Counts the calls of the extension, of one of its functions, or of a prepared call."""

    def __init__(self, inner: Any, calls: list[Any]) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return _Counted(found, self._calls) if callable(found) else found

    def __call__(self, *arguments: Any) -> Any:
        self._calls.append(self._inner)
        result = self._inner(*arguments)
        return _Counted(result, self._calls) if callable(result) else result


class _Idle:
    """The extension, whose prepared calls do nothing."""

    def __init__(self, extension: ModuleType) -> None:
        self._extension = extension

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extension, name)

    def prepared(self, *arguments: Any) -> Callable[..., None]:
        return _do_nothing


def _do_nothing(*arguments: Any) -> None:
    pass


@contextmanager
def _replaced(by: Callable[[ModuleType], Any]) -> Iterator[None]:
    """Replace the extension in all modules that call it. Without a built extension, nothing is replaced."""
    with ExitStack() as stack:
        for module in () if cpu.why_not_available() else _callers():
            stack.enter_context(mock.patch.object(module, "_engine", by(module._engine)))
        yield


def _callers() -> list[ModuleType]:
    package = engine_of("cpu").__package__
    return [m for name, m in sys.modules.items() if name.startswith(f"{package}.") and hasattr(m, "_engine")]
