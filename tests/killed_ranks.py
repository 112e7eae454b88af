"""``examples/train_distributed.py`` of which a rank is killed: ``torchrun … killed_ranks.py MOMENT COUNT OPTION …``.

It is killed as it comes to the moment for the COUNT-th time: to a ``step`` of the optimizer or to the writing of its
part of a checkpoint (``save``), the last rank; to giving the checkpoint its name (``rename``), the first.
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

MOMENTS = {"step": (torch.optim.Adam, -1), "save": (checkpoint, -1), "rename": (Path, 0)}


def killing(moment: str, last: int):
    """A patch of a function that kills the process which calls it so often."""
    owner, rank = MOMENTS[moment]
    function, calls = getattr(owner, moment), count(1)

    def call(*arguments, **settings):
        if next(calls) == last and distributed.get_rank() == rank % distributed.get_world_size():
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)

    return patch.object(owner, moment, call)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from train_distributed import main

    with killing(sys.argv[1], int(sys.argv[2])):
        main(sys.argv[3:])
