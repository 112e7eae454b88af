"""A run that is short of time measures the most telling cases of every suite and cell, and lists the cases left out."""

import argparse
from collections import Counter

import pytest

from benchmarks import __main__ as command
from benchmarks import budget, presets, report, run, schema, tables
from benchmarks.case import Case
from benchmarks.providers import AA, BASELINE, PROVIDERS
from benchmarks.shapes import Shape, named
from benchmarks.timing import QUICK, Outcome

PROVIDING = [PROVIDERS[name] for name in (BASELINE, AA)]


def options(*words: str) -> argparse.Namespace:
    return command.parser().parse_args(words)


def kinds(cases: list[Case]) -> Counter:
    return Counter((case.suite_name, case.cell_name, case.dtype_name) for case in cases)


class Clock:
    """Replaces the time module: its clock advances only on request."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(budget, "time", made)
    monkeypatch.setattr(run, "time", made)
    return made


class Pretended:
    """A timer on a machine that is ``slowness`` times as slow in everything; samples last as planned."""

    threads = 1

    def __init__(self, clock: Clock, slowness: float, seconds: float, effort=QUICK, providers=PROVIDING) -> None:
        self.clock, self.slowness, self.effort, self.others = clock, slowness, effort, []
        self.providers = {provider.name: provider for provider in providers}
        self.deadline = clock.now + seconds

    def seconds(self, case: Case) -> float:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budget, "RATE", budget.RATE / self.slowness)
            patch.setattr(budget, "STEP", budget.STEP * self.slowness)
            patch.setattr(budget, "PREPARING", budget.PREPARING * self.slowness)
            return budget.expected(case, self.providers.values(), self.effort)

    def measure(self, case: Case):
        self.clock.now += self.seconds(case)
        for name in (BASELINE, AA):
            yield Outcome(name, error=0.0, figures=[1.0], calls=[1])


def measured(clock: Clock, timer: Pretended, planned: list[Case]) -> tuple[schema.Report, list[tuple[int, int, Case]]]:
    made, heard = run.start("cpu", 1, "test", {}), []
    run.run(made, timer, planned, None, lambda *words: heard.append(words))
    return made, heard


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_presets_name_what_exists(preset: str) -> None:
    for device, each in presets.PRESETS[preset].items():
        planned = run.cases(each.suites, each.cells, named([each.shapes]), each.dtypes, device, False, most=each.most)
        assert {case.suite_name for case in planned} == set(each.suites)
        assert set(budget.by_worth(planned)) == set(planned)
        assert set(each.providers) <= set(PROVIDERS) and set(each.most) <= set(each.suites)
        for start in range(len(each.cells) * len(each.dtypes)):
            # Any window of this many cases has every suite, as long as there are cases of new kinds.
            first = budget.by_worth(planned)[start * len(each.suites) : (start + 1) * len(each.suites)]
            assert {case.suite_name for case in first} == set(each.suites)


def test_the_quick_run_is_a_choice() -> None:
    plan = presets.plan(options())
    assert len(plan.cases) == 26 and set(kinds(plan.cases).values()) == {1, 2, 3}
    sizes = {suite: [case.shape for case in plan.cases if case.suite_name == suite] for suite, *_ in kinds(plan.cases)}
    for suite in ("training", "streaming"):
        assert {(shape.batch, shape.hidden) for shape in sizes[suite]} == {(1, 128), (32, 256)}
    # Suites or shapes that the user chooses are taken whole.
    assert len(presets.plan(options("--suite", "training")).cases) == 6
    assert len(presets.plan(options("--shapes", "cpu5", "--suite", "training")).cases) == 10


def test_loads_on_the_command_line() -> None:
    words = ("--suite", "loaded", "--cells", "lstm", "--shapes", "B16xH320xT80")
    assert [case.load for case in presets.plan(options(*words)).cases] == [1, 0, 2]
    assert [case.load for case in presets.plan(options(*words, "--loads", "0.5")).cases] == [0.5]
    with pytest.raises(SystemExit):
        options("--loads", "-1")
    with pytest.raises(SystemExit, match="--loads is for loaded, loaded-training"):
        presets.plan(options("--suite", "sequence", "--loads", "1"))
    with pytest.raises(SystemExit, match="busy processes are for the CPU"):
        presets.plan(options("--suite", "loaded", "--device", "cuda"))


@pytest.mark.parametrize("slowness", [1, 3])
def test_every_suite_and_cell_is_measured_on_a_slow_machine(clock: Clock, slowness: float) -> None:
    """The machine is three times slower than the estimates' machine. Rooflines and imports precede the first case."""
    plan = presets.plan(options())
    providers = plan.timer.providers.values()
    timer = Pretended(clock, slowness, plan.budget - 4 - 4.5 * slowness, plan.timer.effort, providers)
    made, heard = measured(clock, timer, plan.cases)
    done = [case for *_, case in heard]
    assert set(kinds(done)) == set(kinds(plan.cases))
    assert clock.now <= timer.deadline + 5
    assert len(done) + len(made.left_out) == len(plan.cases) and made.complete == (not made.left_out)


def test_what_does_not_fit_is_left_out_evenly_and_told(clock: Clock) -> None:
    shapes = [Shape(1, 64, 10), Shape(1, 128, 10), Shape(1, 256, 10)]
    planned = budget.by_worth(
        run.cases(("sequence", "training"), ("lstm", "gru"), shapes, ("float32",), "cpu", chosen=True)
    )
    timer = Pretended(clock, 5, 0)
    timer.deadline += 0.7 * sum(map(timer.seconds, planned))
    made, heard = measured(clock, timer, planned)
    done = kinds([case for *_, case in heard])
    assert len(done) == 4 and max(done.values()) - min(done.values()) <= 1
    # From the second case on, the total number of cases is known, or nearly.
    assert heard[0][1] == len(planned) and all(abs(total - len(heard)) <= 1 for _, total, _ in heard[1:])
    assert not made.complete and len(made.left_out) == len(planned) - len(heard)
    for left in made.left_out:
        assert "out of time: " in left.reason and left.seconds > 0
    (line,) = tables.notes(made)
    assert f"left out {len(made.left_out)}: " in line and all(left.case in line for left in made.left_out)
    assert f"Note: {tables.notes(made, most=4)[0]}." in report.markdown({"cpu": made})


def test_an_expensive_case_gives_way_to_cheap_ones(clock: Clock) -> None:
    first, large, small = (
        Case("training", "lstm", Shape(*sizes)) for sizes in ((1, 64, 5), (64, 512, 200), (1, 65, 5))
    )
    cheap = budget.expected(first, PROVIDING, QUICK)
    made, heard = measured(clock, Pretended(clock, 1, 3 * cheap), [first, large, small])
    assert [case for *_, case in heard] == [first, small]
    assert [left.case for left in made.left_out] == [str(large)]


def test_without_a_deadline_all_are_measured(clock: Clock) -> None:
    timer = Pretended(clock, 1e6, 0)
    timer.deadline = None
    planned = run.cases(("sequence", "memory"), ("lstm",), [Shape(1, 8, 5)], ("float32",), "cpu", chosen=True)
    made, heard = measured(clock, timer, planned)
    assert len(heard) == 2 and made.complete and tables.notes(made) == []


def test_what_was_left_out_is_checked() -> None:
    made = run.start("cpu", 1, "test", {})
    made.aa = {"cases": 1}
    made.left_out = [schema.LeftOut("", "no time")]
    with pytest.raises(schema.SchemaError, match="left out: ''"):
        made.check()
