"""Which layers of a stack the persistent plan runs at once, why not more, and their estimated time."""

import itertools
from importlib.util import find_spec

import pytest
import torch

import seqcells
from seqcells.cells import REGISTRY
from seqcells.request.call import Call

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture
def hopper(monkeypatch):
    from seqcells.kernels.triton.host import configurations

    monkeypatch.setattr("seqcells.kernels.triton.host.configurations.processors", lambda device: (132, 227 << 10))
    monkeypatch.setattr(configurations, "nvidia", lambda: True)


def call(cell="lstm", layers=2, steps=100, rows=16, hidden=512, dtype=torch.bfloat16, **more):
    sizes = {"rows": rows, "steps": steps, "hidden": hidden, "width": hidden, "layers": layers}
    return Call(REGISTRY[cell], "layers", torch.device("cuda"), dtype, **sizes, **more)


ANSWERS = (
    ({}, 2),
    ({"layers": 1}, "the stack has one layer"),
    ({"directions": 2}, "a layer with two directions needs all steps"),
    ({"dropout": True}, "dropout between them"),
    ({"cell": "indrnn"}, "without a recurrent product needs no grid barrier"),
    ({"hidden": 1500}, "do not fit on the chip together"),
    ({"hidden": 64, "rows": 4096}, "that takes less time"),
    ({"steps": 1}, 2),
)


@pytest.mark.parametrize(("given", "expected"), ANSWERS)
def test_how_many_at_once_and_why(given, expected, hopper):
    from seqcells.kernels.triton.plans import wavefront

    found = wavefront.at_once(call(**given), False)
    why_not = wavefront.why_not_wavefront(call(**given), False)
    if isinstance(expected, int):
        assert found == expected and why_not is None
        assert f"{expected} layers at once" in wavefront.in_words(call(**given))
    else:
        assert found == 1 and expected in why_not
        assert given == {"layers": 1} or why_not in wavefront.in_words(call(**given))


def test_what_is_computed_once_more_is_so_layer_by_layer(hopper):
    from seqcells.kernels.triton.plans import wavefront

    with seqcells.settings(recompute=True):
        assert "recomputes" in wavefront.why_not_wavefront(call(), True)
        assert wavefront.why_not_wavefront(call(), False) is None


def test_its_model_of_time(hopper):
    """T + L - 1 steps; with gradients more than twice as much."""
    from seqcells.kernels.triton.host import configurations
    from seqcells.kernels.triton.plans import wavefront
    from seqcells.kernels.triton.plans.shape import Shape

    def seconds(layers, steps, gradients=False):
        shape = Shape.of_call(call(steps=steps, rows=1))._replace(layers=layers)
        return wavefront.seconds(shape, gradients)

    start = configurations.START_SECONDS
    assert seconds(2, 199) - start == pytest.approx(2 * (seconds(2, 99) - start))
    assert seconds(2, 100, gradients=True) > 2 * seconds(2, 100)
    assert seconds(2, 100) < 2 * seconds(1, 100)
    assert seconds(20, 100) is None


@pytest.mark.parametrize("layers", [2, 3, 4])
@pytest.mark.parametrize("gates", [3, 4])
def test_a_division_fits_the_device(layers, gates):
    """Every unit belongs to a program, no chunk has units of two gates, and all programs run at once."""
    from seqcells.kernels.triton.host import configurations

    processors, memory = 132, 227 << 10
    sizes = itertools.product((5, 64, 100, 512, 650), (1, 20, 300), (1, gates), (torch.bfloat16, torch.float32))
    for hidden, batch, between, dtype in sizes:
        given = hidden, batch, 1, gates, gates, between, dtype, "tf32", processors, memory, layers, between
        found = configurations.persistent(*given)
        if isinstance(found, str):
            assert "do not fit" in found and hidden > 500
            continue
        tile = found.tile
        assert found.meet and found.blocks * tile["BLOCK_H"] >= hidden and found.directions == layers
        assert found.groups * found.blocks * layers <= processors
        assert sum(tile["CHUNKS"]) == sum(tile["BETWEEN"]) == tile["WIDTH"] * between and tile["WIDTH"] >= hidden
        ends = set(itertools.accumulate(tile["BETWEEN"]))
        assert {tile["WIDTH"] * k for k in range(1, between + 1)} <= ends
        held = 2 * gates * tile["BLOCK_H"] * tile["WIDTH"] + tile["BLOCK_B"] * tile["CHUNKS"][0]
        assert held * dtype.itemsize <= memory
