"""The examples: on real input, seqcells' layers train along the same loss curve as torch.nn's."""

import importlib
import statistics
from functools import cache, partial

import pytest
from support import needs_compiler, plain_if

from seqcells.cells import REGISTRY

pytestmark = pytest.mark.usefixtures("examples_on_path")

SMALL = {
    "text": ["--hidden=12", "--batch=8", "--length=12", "--characters=50000"],
    "digits": ["--hidden=16", "--batch=16"],
    "sine": ["--hidden=8", "--batch=8", "--length=30"],
    "sequence_to_sequence": ["--hidden=16", "--batch=16", "--digits=3"],
    "many_to_one": ["--hidden=8", "--batch=8", "--length=20", "--lines=2000"],
    "one_to_many": ["--hidden=16", "--batch=16"],
    "stateful_text": ["--hidden=12", "--batch=8", "--length=12", "--characters=50000"],
    "train_distributed": ["--hidden=12", "--batch=8", "--length=12", "--characters=50000"],
}
each_example = pytest.mark.parametrize("example", SMALL)
each_cell = pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])


@cache
def losses(example, cell, layer="torch", backend="auto"):
    """The first 200 losses of an example in float64, from one seed."""
    options = [f"--layer={layer}", f"--cell={cell}", f"--backend={backend}", "--dtype=float64", "--steps=200"]
    return importlib.import_module(example).main(options + SMALL[example]).losses


@plain_if(lambda example, cell, backend: backend == "auto" and (cell == "lstm" or example == "digits"))
@each_example
@each_cell
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_loss_curve_is_torchs(example, cell, backend):
    assert losses(example, cell, "seqcells", backend) == pytest.approx(losses(example, cell), abs=1e-9, rel=0)


@plain_if(lambda example, cell: cell == "lstm" or example == "digits")  # whose curves are already computed
@each_example
@each_cell
def test_the_loss_goes_down(example, cell):
    curve = losses(example, cell)
    assert statistics.mean(curve[-20:]) < 0.85 * statistics.mean(curve[:20])


@each_example
def test_the_plot_is_written(example, tmp_path, capsys):
    path = tmp_path / "loss.png"
    importlib.import_module(example).main(["--steps=3", f"--plot={path}", *SMALL[example]])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in capsys.readouterr().out.replace("\n", "")


@each_cell
@pytest.mark.parametrize("layer", ["torch", "seqcells"])
def test_the_model_is_made_of_the_layer_asked_for(cell, layer):
    training = importlib.import_module("training")
    options = training.parser(None, steps=1).parse_args([f"--layer={layer}", f"--cell={cell}"])
    assert type(training.recurrent(options, input_size=3)) is getattr(training.LAYERS[layer], cell.upper())


@needs_compiler
def test_a_cell_of_ones_own(monkeypatch, capsys, compiling):
    """The cell is checked, trained with the reference's losses, and timed."""
    own = importlib.import_module("own_cell")
    monkeypatch.setattr(own.check, "TIMED", ((1, 8),))
    try:
        losses = own.main(["--steps=30", "--length=12", "--hidden=8"])
        said = capsys.readouterr().out
        assert "the reference's are those of finite differences" in said and "ms of GRU" in said
        plain = partial(own.Timescale, backend="reference")
        monkeypatch.setattr(own, "Timescale", plain)
        expected = own.main(["--steps=30", "--length=12", "--hidden=8"])
    finally:
        REGISTRY.pop("timescale", None)
    assert losses["Timescale"] == pytest.approx(expected["Timescale"], rel=1e-4)
    assert losses["Timescale"][-1] < losses["Timescale"][0]
