"""Runs ``examples/train_distributed.py`` and kills one rank: ``torchrun … killed_ranks.py MOMENT COUNT OPTION …``.

The rank is killed when it reaches the moment for the COUNT-th time. The last rank is killed at a ``step`` of the
optimizer, or when it writes its part of a checkpoint (``save``). The first rank is killed when it renames the
checkpoint (``rename``).
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed import checkpoint

MOMENTS = {
    "step": (torch.optim.Adam, -1, lambda *_: True),
    "save": (checkpoint, -1, lambda *_: True),
    "rename": (Path, 0, lambda path, *_: path.name == "unfinished"),  # torch renames files of its own
}


def killing(moment: str, last: int):
    """A patch of a function that kills the process at its call number ``last``."""
    owner, rank, counts = MOMENTS[moment]
    function, calls = getattr(owner, moment), count(1)

    def call(*arguments, **settings):
        mine = distributed.get_rank() == rank % distributed.get_world_size() and counts(*arguments)
        if mine and next(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)

    return patch.object(owner, moment, call)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from train_distributed import main

    with killing(sys.argv[1], int(sys.argv[2])):
        main(sys.argv[3:])
