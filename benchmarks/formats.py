"""Numbers in readable units."""


def seconds(value: float) -> str:
    """``12.3 µs``: three digits and the unit that fits."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{_three(value / 1e-9)} ns"


def size(value: float) -> str:
    """``12.3 MB``, in powers of ten."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:.0f} B"


def amount(value: float, unit: str) -> str:
    """A value in a row's unit."""
    return size(value) if unit == "B" else seconds(value)


def ratio(value: float | None) -> str:
    """``1.24×``"""
    return "" if value is None else f"{value:.2f}×" if value < 100 else f"{value:.0f}×"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
