"""The suite of cells: the compared layers are equal, the result file can be read, the page is current."""

import pytest
import torch
from support import needs_compiler

from benchmarks import result_files
from benchmarks.cells import __main__ as command
from benchmarks.cells import modules, page
from benchmarks.cells.report import Report
from benchmarks.shapes import Shape

pytestmark = [needs_compiler, pytest.mark.usefixtures("own_registry", "compiling")]
SMALL = ["--shapes", "B2xH6xT4", "--samples", "2"]


def test_a_run_is_kept(tmp_path, capsys):
    path = tmp_path / "cells.json"
    assert command.main(["--cells", "GRU", "PeepholeLSTM", "--json", str(path), *SMALL]) == 0
    report = Report.load(path)
    assert report.complete and not report.wrong
    assert [(row.cell, row.mode, row.rival) for row in report.rows] == [
        ("GRU", "inference", "reference"),
        ("GRU", "training", "reference"),
        ("PeepholeLSTM", "inference", "torchrecurrent"),
        ("PeepholeLSTM", "training", "torchrecurrent"),
    ]
    for row in report.rows:
        assert (row.batch, row.hidden, row.steps) == (2, 6, 4) and row.error < 1e-5
        assert row.ours.samples == 2 and row.ratio == pytest.approx(row.theirs.median / row.ours.median)
        assert row.to_lstm == pytest.approx(row.ours.median / row.lstm.median)
    said = capsys.readouterr().out
    assert "inference · B=2 H=6 T=4" in said and "× LSTM" in said
    text = page.page(report)
    assert "| PeepholeLSTM |" in text and "2 × 6 × 4 training" in text


def test_numbers_that_are_not_alike_are_not_timed(tmp_path, monkeypatch):
    made = modules.trio

    def spoiled(*arguments):
        found = made(*arguments)
        with torch.no_grad():
            found.rival.weight_ih_l0.mul_(2)
        return found

    monkeypatch.setattr(command, "trio", spoiled)
    path = tmp_path / "cells.json"
    assert command.main(["--cells", "GRU", "--json", str(path), *SMALL]) == 1
    report = Report.load(path)
    assert not report.rows and [each.partition(":")[0] for each in report.wrong] == [
        "GRU inference B2xH6xT4",
        "GRU training B2xH6xT4",
    ]


@pytest.mark.heavy
@pytest.mark.parametrize("name", modules.every_name())
def test_ours_and_the_loop_are_alike(name):
    """Every cell equals its loop, forward and backward, with the same weights."""
    found = modules.trio(name, Shape(2, 8, 5))
    for gradients in (False, True):
        assert found.error(gradients) < 1e-4


def test_the_page_is_current():
    """`python -m benchmarks.cells page` has written the page since the last change of a cell or of a result."""
    last = result_files.last(result_files.CELLS)
    assert page.PAGE.read_text() == page.page(None if last is None else Report.load(last))
