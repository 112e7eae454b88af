"""Triton's interpreter with all programs of a grid at once, a process each: what a barrier between them needs.

Tensors are put into memory that processes share; each process is one program of the real grid. The interpreter's
atomics are real ones, so programs really wait for each other, or do not.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from unittest.mock import patch

from torch import Tensor
from triton.runtime import interpreter

Programs = Callable[[tuple[int, ...]], bool]

one_by_one = interpreter.GridExecutor.__call__
atomic_rmw = interpreter.InterpreterBuilder.create_atomic_rmw


def _polite(builder, operation, pointer, value, *rest):
    """An addition of nothing is a look whether others have arrived: one that waits leaves the core to them."""
    if not value.data.any():
        time.sleep(0.002)
    return atomic_rmw(builder, operation, pointer, value, *rest)


def _late(*arguments):
    """The same in a program that is behind the others in all that it reads and writes."""
    seen = _polite(*arguments)
    time.sleep(0.1)
    return seen


def _run_one(
    executor: interpreter.GridExecutor, program: tuple[int, ...], args: tuple, kwargs: dict, atomic: Callable
) -> None:
    builder, grid = interpreter.interpreter_builder, executor.grid
    builder.grid_dim, builder.grid_idx = grid, program
    executor.grid = (1, 1, 1)
    # What it copies back at the end is the storages' own contents, which others are still writing.
    with (
        patch.object(builder, "set_grid_dim", lambda *_: None),
        patch.object(builder, "set_grid_idx", lambda *_: None),
        patch.object(executor, "_restore_args_dev", lambda *_: None),
        patch.object(interpreter.InterpreterBuilder, "create_atomic_rmw", atomic),
    ):
        one_by_one(executor, *args, **kwargs)


@contextmanager
def concurrent(absent: Programs = lambda program: False, late: Programs = lambda program: False) -> Iterator[list[int]]:
    """Inside, a launch runs all of its programs at once, but those ``absent``, and slows those that are to be ``late``
    → how many each launch ran."""
    launched: list[int] = []

    def all_at_once(executor: interpreter.GridExecutor, *args, **kwargs):
        programs = [p for p in product(*map(range, executor.grid)) if not absent(p)]
        launched.append(len(programs))
        for argument in (*args, *kwargs.values()):
            for each in argument if isinstance(argument, tuple) else (argument,):
                if isinstance(each, Tensor):
                    each.untyped_storage().share_memory_()
        children = []
        for program in programs:
            child = os.fork()
            if child:
                children.append(child)
                continue
            try:
                _run_one(executor, program, args, kwargs, _late if late(program) else _polite)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        failed = [child for child in children if os.waitpid(child, 0)[1]]
        assert not failed, f"{len(failed)} of {len(programs)} programs failed"

    with patch.object(interpreter.GridExecutor, "__call__", all_at_once):
        yield launched
