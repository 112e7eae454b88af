"""The suites: what a provider is measured at."""

from dataclasses import dataclass

from .shapes import Shape

STREAM_CALLS = 16
"""A run of the streaming suite has so many calls; each continues from the states of the call before."""
SMALL_STREAM = Shape(1, 64, STREAM_CALLS)
"""A size that is common in policies, beside the shapes of all suites."""
PACKED = Shape(32, 128, 200)
STACKED = Shape(32, 256, 300)
LOADED = (Shape(1, 384, 80), Shape(16, 320, 80))
"""A step that needs several threads at a batch of one, and a step with enough rows for each thread."""


@dataclass(frozen=True)
class Suite:
    """One kind of run: inference, or forward and backward; a whole sequence, or one step at a time."""

    name: str
    about: str
    gradients: bool = False
    """Forward and backward: gradients of the input and of all weights."""
    projected: bool = False
    """Time the loop over time steps alone. A provider that can take gates_x gets gates_x = W_ih x + b_ih. Any other
    provider gets an input of one feature, whose projection costs almost nothing. As gates_x is made from the same
    input, the outputs are comparable."""
    streaming: bool = False
    """A run is `STREAM_CALLS` calls of one step each, with the states carried from call to call."""
    lengths: bool = False
    layers: int = 1
    directions: int = 1
    """The directions of each layer; both take the same input."""
    memory: bool = False
    """The figure is the peak of bytes during a run, not its time."""
    loads: tuple[float, ...] = ()
    """Busy processes for each usable core, the most telling number first. Empty: the suite has the machine alone."""

    def shapes(self, wanted: list[Shape], chosen: bool) -> list[Shape]:
        """The suite's shapes, from the shapes ``wanted`` for all suites.

        Args:
            chosen: whether the user has chosen the shapes one by one, rather than a whole set.
        """
        if not chosen:
            if self.loads:
                wanted = list(LOADED)
            elif self.streaming:
                wanted = [*wanted, SMALL_STREAM]
            elif self.lengths:
                wanted = [PACKED]
            elif self.layers > 1:
                wanted = [STACKED]
            elif self.memory:
                wanted = [max(wanted, key=lambda s: (s.batch * s.steps * s.hidden, s.hidden))]
        if self.streaming:
            wanted = [shape._replace(steps=STREAM_CALLS) for shape in wanted]
        return list(dict.fromkeys(wanted))

    def features(self, shape: Shape) -> int:
        """Size of the input."""
        return 1 if self.projected else shape.hidden

    def runs_per_figure(self, shape: Shape) -> int:
        """The divisor of a run's time: streaming is reported per step, other suites per run."""
        return shape.steps if self.streaming else 1


LOADS = (1, 0, 2)
SUITES = {
    suite.name: suite
    for suite in (
        Suite("step", "the recurrence alone, its input's part given", projected=True),
        Suite("sequence", "inference of a layer"),
        Suite("training", "forward and backward of a layer", gradients=True),
        Suite("streaming", "one step per call, the state carried; time per step", streaming=True),
        Suite("stepping", "one step per call, gradients after the last", streaming=True, gradients=True),
        Suite("packed", "forward and backward, lengths from T/10 to T", gradients=True, lengths=True),
        Suite("stacked", "inference of two layers, both directions", layers=2, directions=2),
        Suite("stacked-training", "forward and backward of those", gradients=True, layers=2, directions=2),
        Suite("loaded", "inference of a layer beside busy processes", loads=LOADS),
        Suite("loaded-training", "forward and backward beside busy processes", gradients=True, loads=LOADS),
        Suite("loaded-streaming", "one step per call beside busy processes", streaming=True, loads=LOADS),
        Suite("memory", "peak of a training step above weights and inputs", gradients=True, memory=True),
    )
}


def label(suite: str, load: float) -> str:
    """The suite's title in tables: ``"loaded × 1"`` with one busy process for each usable core."""
    return f"{suite} × {load:g}" if SUITES[suite].loads else suite
