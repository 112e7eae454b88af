"""The engine of ``backend="triton-persistent"``: the persistent plan for whatever it can run, several layers at once
where they fit, whether or not that is the fastest way."""

from . import prepared
from .prepared import led_maker as output_maker
from .prepared import maker
from .wavefront import at_once, backward, forward, refuses, saved_like, seconds

__all__ = [
    "Inference",
    "Training",
    "at_once",
    "backward",
    "forward",
    "maker",
    "output_maker",
    "refuses",
    "saved_like",
    "seconds",
]


class Inference(prepared.Inference):
    by_name = True


class Training(prepared.Training):
    by_name = True
