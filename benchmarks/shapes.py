"""Shapes, and the named sets of shapes."""

import re
from typing import NamedTuple


class Shape(NamedTuple):
    """Batch B, hidden units H, time steps T."""

    batch: int
    hidden: int
    steps: int

    def __str__(self) -> str:
        return f"B{self.batch}xH{self.hidden}xT{self.steps}"

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Parse ``B1xH128xT100``."""
        match = re.fullmatch(r"B(\d+)xH(\d+)xT(\d+)", text, re.IGNORECASE)
        if not match:
            raise ValueError(f"{text!r} is neither a set of shapes ({', '.join(SETS)}) nor like B1xH128xT100")
        return cls(*map(int, match.groups()))


# A set has the most telling shapes first: a run short of time measures only the first ones.
SETS: dict[str, tuple[Shape, ...]] = {
    "tiny": (Shape(2, 8, 5),),
    "quick": (Shape(1, 128, 100), Shape(32, 256, 100), Shape(1, 512, 100)),
    "cpu5": (Shape(1, 128, 100), Shape(32, 256, 100), Shape(1, 512, 100), Shape(8, 256, 100), Shape(64, 512, 100)),
    "gpu": tuple(Shape(b, h, 512) for b in (1, 16, 64, 256) for h in (128, 256, 512, 1024, 1500)),
    # For a few minutes of a big GPU: first each batch with one size and each size with one batch, then the other
    # shapes.
    "gpu-short": tuple(
        Shape(b, h, 512)
        for b, h in ((64, 1024), (16, 512), (1, 256), (64, 256), (16, 1024), (1, 512), (64, 512), (16, 256), (1, 1024))
    ),
}
SETS["full"] = SETS["cpu5"]
# The shapes of `benchmarks.gpu`: large and small layers, and calls of few steps.
SETS["gpu-minutes"] = tuple(
    Shape(b, h, t)
    for b, h, t in (
        *((64, 512, 512), (1, 128, 256), (64, 1024, 512), (32, 512, 256), (8, 256, 256), (128, 1024, 256)),
        *((16, 384, 256), (512, 128, 256), (8, 2048, 256), (256, 256, 256), (16, 768, 1024)),
    )
)
SETS["gpu-steps"] = tuple(Shape(32, 256, t) for t in (1, 16, 4, 64))


def named(names: list[str]) -> list[Shape]:
    """The shapes of sets and single shapes, each once, in order."""
    return list(dict.fromkeys(shape for name in names for shape in SETS.get(name) or (Shape.parse(name),)))
