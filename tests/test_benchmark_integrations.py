"""The benchmark of other packages' models: its file, its table and its page. `make integrations` runs the models."""

import pytest
import torch
from torch import nn

import seqcells
from benchmarks import result_files
from benchmarks.integrations import __main__ as command
from benchmarks.integrations import measure, page
from benchmarks.integrations.case import Case, descent
from benchmarks.integrations.report import Report


def test_the_page_is_current():
    """`python -m benchmarks.integrations page` has written the page since the last change of its text or of a
    result."""
    last = result_files.last(result_files.INTEGRATIONS)
    assert page.PAGE.read_text() == page.page(None if last is None else Report.load(last))


def made():
    model = nn.Sequential(nn.GRU(3, 4))

    def prepare():
        x = torch.randn(5, 2, 3)
        return descent(model, lambda: model[0](x)[0].square().mean())

    return model, prepare


@pytest.fixture
def one(monkeypatch):
    """A package with a model of one layer, and a package that is absent."""
    monkeypatch.setattr(command, "PACKAGES", {"a": "torch", "b": "absent"})
    monkeypatch.setattr(measure, "PACKAGES", {"a": "torch"})
    monkeypatch.setattr(measure, "SAMPLE", 1e-4)

    def cases(package):
        if package == "b":
            raise ImportError("no module named b")
        return [Case("a model", made)]

    monkeypatch.setattr(command, "cases", cases)


def test_a_run_and_its_file(one, tmp_path, capsys):
    path = tmp_path / "out.json"
    assert command.main(["--packages", "a", "b", "--samples", "2", "--json", str(path)]) == 0
    report = Report.load(path)
    (row,) = report.rows
    assert (row.package, row.model, row.layers, row.adapted) == ("torch", "a model", 1, False)
    assert row.difference < 1e-6 and row.theirs.samples == row.ours.samples == 2 and row.ratio > 0
    assert report.absent == {"absent": "no module named b"}
    assert "a model" in capsys.readouterr().out
    assert f"| torch {row.version} | a model |" in page.page(report)


def test_losses_that_differ_are_seen():
    assert measure.difference([1.0, 2.0], [1.0, 2.5]) == 0.25


def test_calls_are_counted_by_backend():
    module, step, report = measure.prepared(Case("a model", made), "reference")
    assert [*report.replaced] == ["0"]
    with measure.counted(module) as calls:
        step(), step()
    assert calls == {"reference": 2}
    seqcells.unswap(module)
