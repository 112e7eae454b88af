"""The self-test distinguishes correct backends from wrong ones."""

import torch

from seqcells import selftest
from seqcells.backends import engine_of
from seqcells.cells import REGISTRY


def test_backends_that_are_right(capsys):
    """As many backends as the time allows; on a fast machine all."""
    assert selftest.main(["--seconds", "4"]) == 0
    printed = capsys.readouterr().out
    assert "table in use" in printed and "cpu on cpu: " in printed and ", 0 failed" in printed


def test_what_there_is_no_time_for_is_told(capsys):
    assert selftest.main(["--seconds", "0"]) == 0
    assert "kinds of layers were left out" in capsys.readouterr().out


def test_a_backend_that_is_wrong_is_named(capsys, monkeypatch):
    engine = engine_of("cpu")
    backward = engine.backward

    def wrong(*args):
        first, *rest = backward(*args)
        return [first * 1.001, *rest]

    monkeypatch.setattr(engine, "backward", wrong)
    assert selftest.main(["--seconds", "0"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED cpu on cpu: lstm float32 T5 B3 F4 H6 plain" in printed and "reference on cpu: 1 layers, 0" in printed


def test_a_backend_that_raises_is_named(capsys, monkeypatch):
    def raising(*args):
        raise ValueError("no such thing")

    monkeypatch.setattr(engine_of("cpu"), "forward", raising)
    assert selftest.main(["--seconds", "0"]) == 1
    assert "FAILED cpu on cpu: lstm float32 T5 B3 F4 H6 plain: ValueError: no such thing" in capsys.readouterr().out


def test_cases_cover_every_cell_and_dtype():
    every = list(selftest.cases())
    assert {case.cell for case in every} == set(REGISTRY)
    assert {case.dtype for case in every} == {torch.float64, torch.float32, torch.bfloat16, torch.float16}
