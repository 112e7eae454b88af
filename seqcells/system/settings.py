"""Settings of the engines, for the calls inside a ``with`` block, or for the whole process.

Each thread has its own settings, as it has its own grad mode of torch. The settings of a forward pass also hold for its
backward pass, in whichever thread autograd runs it. Only the Triton engines have settings.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

CHOICES: dict[str, tuple[Any, ...]] = {
    "recompute": (False, True),
    "meeting": (True, False),
    "precision": (None, "ieee", "tf32", "tf32x3"),
    "flags": (False, True),
}
"""The allowed values of each setting; the first value is the default."""


class Settings(NamedTuple):
    """The settings of a call, as an immutable record."""

    recompute: bool = False
    """Whether the forward pass keeps only the states, and the backward pass recomputes the cells' other values.

    The recomputation uses large products over many steps. It takes about half of the memory, and more time.
    """
    meeting: bool = True
    """Whether ``backend="triton"`` may take the persistent plan where programs of a kernel wait for each other.

    With False only the backend ``"triton-persistent"`` may. Programs that wait for each other are launched
    cooperatively, which is not possible everywhere.
    """
    precision: str | None = None
    """The precision of float32 products, whatever torch's switches say: ``"ieee"``, ``"tf32"`` or ``"tf32x3"``.

    ``"tf32x3"`` computes three products in place of one, and is about as precise as float32. With None,
    ``torch.backends.cudnn.rnn.fp32_precision`` decides.
    """
    flags: bool = False
    """Whether programs of the persistent plan have a flag each, instead of one barrier for all programs.

    With flags a program waits only for the programs whose units it reads next.
    """

    def words(self) -> list[str]:
        """The settings that differ from the defaults, each as ``name=value``."""
        pairs = zip(self._fields, self, Settings(), strict=True)
        return [f"{name}={value}" for name, value, default in pairs if value != default]

    @staticmethod
    @lru_cache(64)
    def of(*words: str) -> Settings:
        """The settings from the result of `words`.

        Raises:
            TypeError: there is no setting of a name.
            ValueError: a setting cannot have the value.
        """
        values = {str(value): value for values in CHOICES.values() for value in values}
        named = {name: value for name, _, value in (word.partition("=") for word in words)}
        return Settings()._replace(**_checked({name: values.get(value, value) for name, value in named.items()}))


class _Thread(threading.local):
    # A thread-local object, since torch.compile guards its attributes, but does not guard a ContextVar.
    def __init__(self) -> None:
        self.held: tuple[Settings, Any] | None = None  # the innermost block's settings, and `held` outside of the block


_thread = _Thread()
_default = Settings()


def current_settings() -> Settings:
    """The current settings: those of the innermost `settings` block of this thread, else the process's."""
    held = _thread.held
    return _default if held is None else held[0]


def set_default_settings(**named: Any) -> Settings:
    """Set the process's settings, which hold in all threads outside of `settings` blocks.

    Arguments and errors are those of `settings`; a setting that is not named does not change.

    Returns:
        The previous settings: ``set_default_settings(**before._asdict())`` restores them.
    """
    global _default
    before, _default = _default, _default._replace(**_checked(named))
    return before


class settings:
    """A context manager and decorator: the given settings hold inside the ``with`` block or the decorated function.

    A setting that is not named keeps its value. Blocks may be nested, and the same object may be entered any number of
    times, also by several threads. A thread that is started inside a block begins with the process's settings. Tasks of
    asyncio share their thread's settings, as they share its grad mode: do not ``await`` or ``yield`` inside a block.

    A compiled call is compiled again under other settings, and a block may be inside the compiled function. An exported
    or traced graph keeps the settings under which it was made. A prepared call is used only under its own settings.

    Args:
        recompute: the backward pass recomputes values that the forward pass does not keep then: half of the memory,
            more time. Default: False
        meeting: the plan may have programs that wait for each other, which are launched cooperatively. Default: True
        precision: the precision of float32 products, ``"ieee"``, ``"tf32"`` or ``"tf32x3"``. Default: None, as torch's
            switches say
        flags: programs that wait for each other use one flag each, instead of a barrier. Default: False

    Raises:
        TypeError: there is no setting of a name, or the decorated function is a generator or coroutine function, whose
            body runs after the call.
        ValueError: a setting cannot have the value.
    """

    def __init__(self, **named: Any) -> None:
        self._named = _checked(named)

    def __enter__(self) -> Settings:
        inside = current_settings()._replace(**self._named)
        _thread.held = inside, _thread.held
        return inside

    def __exit__(self, *_: object) -> None:
        _leave()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if any(is_kind(function) for is_kind in _RUN_LATER):
            raise TypeError("settings decorate no generator and no coroutine function: take a with block inside of it")

        @wraps(function)
        def decorated(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return decorated


_RUN_LATER = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)


@contextmanager
def holding(those: Settings) -> Iterator[None]:
    """Set all settings from a record inside the block; a backward pass runs with its forward pass's settings so."""
    _thread.held = those, _thread.held
    try:
        yield
    finally:
        _leave()


def _leave() -> None:
    """Leave the innermost block: the settings outside of it hold again."""
    held = _thread.held
    _thread.held = None if held is None else held[1]


def _checked(named: dict[str, Any]) -> dict[str, Any]:
    """The given settings; raises a TypeError for an unknown name, a ValueError for a value that is not allowed."""
    for name, value in named.items():
        if name not in CHOICES:
            raise TypeError(f"there is no setting {name!r}: choose among {', '.join(CHOICES)}")
        # The type is compared too, as 1 == True in Python.
        if not any(type(value) is type(choice) and value == choice for choice in CHOICES[name]):
            raise ValueError(f"{name} should be one of {', '.join(map(repr, CHOICES[name]))}, got {value!r}")
    return named
