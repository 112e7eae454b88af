"""The suites: what is asked of a provider."""

from dataclasses import dataclass

from .shapes import Shape

STREAM_CALLS = 16
"""A run of the streaming suite is this many calls, each carrying on from the last."""
SMALL_STREAM = Shape(1, 64, STREAM_CALLS)
"""Besides the shapes of all suites: what many a policy has."""


@dataclass(frozen=True)
class Suite:
    """One question. Its runs are either forward (inference), with gradients, or streaming."""

    name: str
    about: str
    gradients: bool = False
    """Forward and backward: gradients of the input and of all weights."""
    projected: bool = False
    """The time loop alone. Who can is given gates_x = W_ih x + b_ih; the others an input of one feature, whose
    projection is next to nothing (gates_x is made from the same input, so the outputs are comparable)."""
    streaming: bool = False
    lengths: bool = False
    memory: bool = False
    """The figure is the peak of bytes during a run, not its time."""

    def shapes(self, wanted: list[Shape], chosen: bool) -> list[Shape]:
        """Its own of the shapes wanted for all suites; ``chosen`` one by one by the user, or a whole set."""
        if self.streaming:
            wanted = wanted if chosen else [SMALL_STREAM, *wanted]
            return list(dict.fromkeys(shape._replace(steps=STREAM_CALLS) for shape in wanted))
        if chosen:
            return wanted
        if self.lengths:
            return [Shape(32, 128, 200)]
        if self.memory:
            return [max(wanted, key=lambda s: (s.batch * s.steps * s.hidden, s.hidden))]
        return wanted

    def features(self, shape: Shape) -> int:
        """Size of the input."""
        return 1 if self.projected else shape.hidden

    def runs_per_figure(self, shape: Shape) -> int:
        """What a run's time is divided by: streaming is told per step, all else per run."""
        return shape.steps if self.streaming else 1


SUITES = {
    suite.name: suite
    for suite in (
        Suite("step", "the recurrence alone, its input's part given", projected=True),
        Suite("sequence", "inference of a layer"),
        Suite("training", "forward and backward of a layer", gradients=True),
        Suite("streaming", "one step per call, the state carried; time per step", streaming=True),
        Suite("packed", "forward and backward, lengths from T/10 to T", gradients=True, lengths=True),
        Suite("memory", "peak of a training step above weights and inputs", gradients=True, memory=True),
    )
}
