"""Settings of the engines, which hold for what runs inside a ``with`` block, or for the whole process.

Each thread has its own, as it has torch's grad mode. What they are when a call runs forward counts for its backward
too, wherever autograd runs that. The Triton engines obey them; for the others there is nothing to set.
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
"""What each setting may be; the first is the default."""


class Settings(NamedTuple):
    """What holds for a call; a record that never changes."""

    recompute: bool = False
    """Whether forward keeps no more than the states, and backward computes once more, by large products over many
    steps, what the cells gave. It takes about half of the memory, and more time."""
    meeting: bool = True
    """Whether ``backend="triton"`` may take the persistent plan where its programs meet, or the backend
    ``"triton-persistent"`` alone. For who must not launch cooperatively, as programs that wait for each other are."""
    precision: str | None = None
    """Of float32 products, whatever torch's switches say: ``"ieee"``, ``"tf32"``, or ``"tf32x3"``, three products
    in place of one and about as near as float32's own. None: ``torch.backends.cudnn.rnn.fp32_precision`` decides."""
    flags: bool = False
    """Whether programs of the persistent plan have a flag each and wait for those alone whose units they read next, in
    place of a barrier for all."""

    def words(self) -> list[str]:
        """Those that are not the defaults, each as ``name=value``."""
        pairs = zip(self._fields, self, Settings(), strict=True)
        return [f"{name}={value}" for name, value, default in pairs if value != default]

    @staticmethod
    @lru_cache(64)
    def of(*words: str) -> Settings:
        """From what `words` gave; ValueError or TypeError for other text."""
        values = {str(value): value for values in CHOICES.values() for value in values}
        named = {name: value for name, _, value in (word.partition("=") for word in words)}
        return Settings()._replace(**_checked({name: values.get(value, value) for name, value in named.items()}))


class _Thread(threading.local):
    # Set in each thread, for torch.compile to find it: it guards what lies on a thread's object, and a ContextVar not.
    def __init__(self) -> None:
        self.held: tuple[Settings, Any] | None = None  # the innermost block's, and what was held around it


_thread = _Thread()
_default = Settings()


def current_settings() -> Settings:
    """What holds here: of the innermost `settings` block that this thread is in, else the process's."""
    held = _thread.held
    return _default if held is None else held[0]


def set_default_settings(**named: Any) -> Settings:
    """Set what holds in the process, in all threads, wherever they are in no `settings` block.

    Args, errors: as `settings`; what is not named stays.

    Returns:
        What held before: ``set_default_settings(**before._asdict())`` is the way back.
    """
    global _default
    before, _default = _default, _default._replace(**_checked(named))
    return before


class settings:
    """Inside a ``with`` block, or inside the function that it decorates, these settings hold.

    What is not named is as it was when the block was entered. Blocks may lie inside each other, and the same object
    may be entered any number of times, by several threads too. A thread that is started inside begins with the
    process's. Tasks of asyncio share their thread's, as they share its grad mode: await nothing inside a block, and
    yield nothing.

    A compiled call is compiled once more under other settings; a block may be inside of what is compiled. A graph that
    was exported or traced holds the settings in which it was made. A prepared call is not taken under others.

    Args:
        recompute: backward computes once more what forward then does not keep: half of the memory, more time.
            Default: False
        meeting: the plan may be one whose programs wait for each other, launched cooperatively. Default: True
        precision: of float32 products, ``"ieee"``, ``"tf32"`` or ``"tf32x3"``. Default: None, as torch's switches say
        flags: those programs wait for each other by a flag each, in place of a barrier. Default: False

    Raises:
        TypeError: there is no setting of that name; or what is decorated is a generator or a coroutine function, whose
            body runs outside of the call.
        ValueError: a setting cannot have that value.
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
    """Inside, all settings are those of a record: what forward ran under, for its backward."""
    _thread.held = those, _thread.held
    try:
        yield
    finally:
        _leave()


def _leave() -> None:
    """Let hold again what held around the innermost block."""
    held = _thread.held
    _thread.held = None if held is None else held[1]


def _checked(named: dict[str, Any]) -> dict[str, Any]:
    """The same; TypeError for a name, ValueError for a value that there is not."""
    for name, value in named.items():
        if name not in CHOICES:
            raise TypeError(f"there is no setting {name!r}: choose among {', '.join(CHOICES)}")
        # 1 is True to Python, and nothing that anybody meant here.
        if not any(type(value) is type(choice) and value == choice for choice in CHOICES[name]):
            raise ValueError(f"{name} should be one of {', '.join(map(repr, CHOICES[name]))}, got {value!r}")
    return named
