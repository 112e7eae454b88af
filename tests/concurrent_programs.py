"""Triton's interpreter with all programs of a grid at once, one process each, as a barrier between programs requires.

Tensors are in memory that the processes share; each process is one program of the real grid. The interpreter's atomics
are real atomics, so programs really wait for each other, or fail to wait.
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
    """An atomic addition of zero polls a barrier, so it sleeps first and leaves the core to other programs."""
    if not value.data.any():
        time.sleep(0.002)
    return atomic_rmw(builder, operation, pointer, value, *rest)


def _late(*arguments):
    """`_polite` for a program that runs behind the others in all its reads and writes."""
    seen = _polite(*arguments)
    time.sleep(0.1)
    return seen


def _run_one(
    executor: interpreter.GridExecutor, program: tuple[int, ...], args: tuple, kwargs: dict, atomic: Callable
) -> None:
    builder, grid = interpreter.interpreter_builder, executor.grid
    builder.grid_dim, builder.grid_idx = grid, program
    executor.grid = (1, 1, 1)
    # Not restored: the executor would copy the storages' own contents back, to which other programs still write.
    with (
        patch.object(builder, "set_grid_dim", lambda *_: None),
        patch.object(builder, "set_grid_idx", lambda *_: None),
        patch.object(executor, "_restore_args_dev", lambda *_: None),
        patch.object(interpreter.InterpreterBuilder, "create_atomic_rmw", atomic),
    ):
        one_by_one(executor, *args, **kwargs)


@contextmanager
def concurrent(absent: Programs = lambda program: False, late: Programs = lambda program: False) -> Iterator[list[int]]:
    """Inside, a launch runs all its programs at once, except ``absent`` ones; it slows ``late`` programs. Yields a list
    of the number of programs of each launch."""
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
