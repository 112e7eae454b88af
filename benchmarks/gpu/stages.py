"""The stages of a session, the most valuable first. Each stage gets some seconds and reports what it did."""

import importlib.util
import shutil
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from .. import formats, machine
from ..case import Case
from ..providers import AA, BASELINE
from ..run import case_of
from ..schema import LeftOut, Origin, Row, Stage, read
from ..timing import MINUTES
from ..timing.worker import one_line
from . import cases, merge, pytest_runs, tasks
from .session import EXTRA, Session

LEAST = 4.0
"""The least seconds with which a measurement is begun."""
Result = tuple[bool, str]
"""Whether a stage is done, and what it did or why it did not finish."""


def environment(session: Session, seconds: float) -> Result:
    """Record the machine, the versions of libraries, and the rooflines."""
    for event in session.events(
        "environment", seconds, dtypes=["bfloat16", "tf32", "float16"], rehearsal=session.rehearsal
    ):
        session.report.machine = event.get("machine", session.report.machine)
        session.report.versions = event.get("versions", session.report.versions)
        session.report.rooflines = event.get("rooflines", session.report.rooflines)
        if event.get("ended"):
            return False, f"its process ended with code {event['ended']}"
    versions = ", ".join(f"{package} {version}" for package, version in session.report.versions.items())
    return True, f"{machine.title(session.report.machine)}, {versions}, commit {session.commit}"


def compiling(session: Session, seconds: float) -> Result:
    """Compile the kernels of all cases, in as many processes as cores."""
    count = min(session.cores, len(cases.planned(session.rehearsal)))
    given = {"rehearsal": session.rehearsal, "every": count}
    commands = {f"compiling-{k}": tasks.command("compiling", first=k, **given) for k in range(count)}
    compiled, wrong, stopped = 0, 0, 0
    for name, event in session.all_events(commands, seconds):
        if "code" in event:
            session.codes[event["case"], event["provider"]] = event["code"]
            compiled += 1
        elif "error" in event:
            case = cases.planned(session.rehearsal)[event["case"]]
            session.note(f"does not run: {case}, {event['provider']}: {event['error']}")
            wrong += 1
        elif event["ended"]:
            session.note(f"{name} ended with code {event['ended']}")
        stopped += "ended" in event and event["ended"] != 0
    return (
        not stopped,
        f"{compiled} calls compiled by {count} processes, {wrong} failed, {stopped} processes not through",
    )


def timing(session: Session, seconds: float) -> Result:
    """Time all cases, and repeat the cases in which torch.nn differs from itself."""
    return _timed(session, seconds, waiting(session), graphs=False)


def graphs(session: Session, seconds: float) -> Result:
    """Time the cases that were timed as CUDA graphs too."""
    if session.rehearsal:
        return False, "left out: a CPU has no CUDA graphs"
    captured = {case_of(row) for row in session.report.rows if row.ours and row.graph}
    timed = {case_of(row) for row in session.report.rows if row.ours and row.figure}
    planned = cases.planned(session.rehearsal)
    return _timed(session, seconds, [k for k, case in enumerate(planned) if case in timed - captured], graphs=True)


def waiting(session: Session) -> list[int]:
    """The cases to time, by index. First come cases without complete rows of this code, or with torch.nn off its own
    level. Cases whose rows are of another commit follow."""
    rows: dict[Case, list[Row]] = {}
    for row in session.report.rows:
        rows.setdefault(case_of(row), []).append(row)
    wanting, older = [], []
    for index, case in enumerate(cases.planned(session.rehearsal)):
        there = rows.get(case, [])
        names = {row.provider for row in there}
        whole = {provider.name for provider in cases.providers(case, session.rehearsal)} <= names
        known = [(row.origin.code, session.codes.get((index, row.provider))) for row in there]
        same = all(before == now for before, now in known if now is not None)
        level = session.rehearsal or max(map(merge.distance, there), default=0.0) <= MINUTES.band
        if not (whole and same and level):
            wanting.append(index)
        elif any(row.origin.commit != session.commit for row in there):
            older.append(index)
    return wanting + older


def _timed(session: Session, seconds: float, chosen: list[int], graphs: bool) -> Result:
    planned, deadline = cases.planned(session.rehearsal), time.monotonic() + seconds
    count, begun, left = len(chosen), set(), {}
    while chosen and (rest := deadline - time.monotonic()) > LEAST:
        given = {"chosen": chosen, "seconds": rest - EXTRA, "commit": session.commit, "graphs": graphs}
        last, heard_of, through, lost, code = None, set(), False, False, None
        for event in session.events("timing", rest, rehearsal=session.rehearsal, **given):
            if "begin" in event:
                last, heard_of = event["begin"], set()
                begun.add(last)
            elif "row" in event:
                row = read(Row, event["row"], "row")
                heard_of.add(row.provider)
                session.put(row)
                _tell(session, planned[event["case"]], row)
            elif "left" in event:
                left, through = {int(index): cost for index, cost in event["left"].items()}, True
            elif "lost" in event:
                lost = True
            elif "ended" in event:
                code = event["ended"]
        if code is None:
            begun.discard(last)  # stopped in the middle of the case
        if through or code is None:
            break
        if last is None:
            return False, f"its process ended with code {code} before it began"
        if not lost:
            _blame(session, planned[last], heard_of, code)
        chosen = [index for index in chosen if index not in begun]
    remaining = [index for index in chosen if index not in begun]
    words = f"{count - len(remaining)} of {count} cases"
    if graphs:
        return not remaining, f"{words} as CUDA graphs"
    session.report.left_out = [LeftOut(str(planned[index]), "out of time", left.get(index)) for index in remaining]
    session.report.complete = not remaining
    doubtful = sum(row.provider == AA and merge.distance(row) > MINUTES.band for row in session.report.rows)
    return not remaining, f"{words}; in {doubtful} torch.nn differs from itself by more than {MINUTES.band:.0%}"


def _tell(session: Session, case: Case, row: Row) -> None:
    """Print a line for each of our rows, and note each failed or wrong row."""
    if row.figure and row.ours:
        ratio = formats.ratio(row.ratio) or "–"
        aa = f"A/A {row.origin.aa:.3f}" if row.origin.aa else "no A/A"
        session.say(f"  {case}: {row.provider} {formats.seconds(row.figure.value)}, {ratio} torch.nn, {aa}")
    elif row.status in ("failed", "wrong"):
        session.note(f"{case}: {row.provider} {row.status}: {row.reason}")


def _blame(session: Session, case: Case, heard_of: set[str], code: int | None) -> None:
    """Blame a process that died on the first provider without a row in the case."""
    at_it = next((p for p in cases.providers(case, session.rehearsal) if p.name not in heard_of), None)
    if at_it is None or at_it.name in (BASELINE, AA):
        session.note(f"{case}: the process ended with code {code}")
        return
    row = Row(
        *(case.suite_name, case.cell_name, *case.shape, case.dtype_name, case.device, at_it.name, at_it.ours, "failed"),
        reason=f"its process ended with code {code}",
        origin=Origin(machine.now(), session.commit),
    )
    session.put(row)
    _tell(session, case, row)


def host(session: Session, seconds: float) -> Result:
    """Measure the host's work before a kernel runs, by the suite `benchmarks.host`."""
    if importlib.util.find_spec("benchmarks.host") is None:
        return False, "left out: there is no benchmarks.host"
    if session.rehearsal:
        return False, "left out of a rehearsal"
    path = session.folder / "host.json"
    command = [sys.executable, "-m", "benchmarks.host", "--json", str(path)]
    code = [heard.code for heard in session.heard({"host": command}, seconds) if heard.line is None][-1]
    return code == 0, f"written to {path}" if code == 0 else f"its process ended with code {code}"


def engine(session: Session, seconds: float) -> Result:
    """Build the CPU engine in place where it is missing. Only the CPU tests need it."""
    from seqcells.kernels import cpu

    if not cpu.why_not_available():
        return True, "it is there"
    if not any(map(shutil.which, ("c++", "g++", "clang++"))) or importlib.util.find_spec("setuptools") is None:
        return False, "left out: no C++ compiler, or no setuptools"
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    code = [heard.code for heard in session.heard({"engine": command}, seconds) if heard.line is None][-1]
    return code == 0, "built" if code == 0 else f"its build ended with code {code}"


def tests(session: Session, seconds: float) -> Result:
    """Run the GPU's tests; each failure is reported at once."""
    if importlib.util.find_spec("pytest") is None:
        return False, "left out: pytest is not installed"
    known = session.report.tests
    files = pytest_runs.files(session.rehearsal, known, session.commit)
    commands, outcomes = {}, {}
    for file in files:
        name = f"tests-{file.removeprefix('tests/').replace('/', '-')}"
        commands[name] = pytest_runs.command(file, known[file].failed if file in known else [], session.rehearsal)
        outcomes[name] = pytest_runs.Outcomes(file, session.commit)
    for heard in session.heard(commands, seconds):
        outcome = outcomes[heard.name]
        if heard.line is not None:
            if failed := outcome.hear(heard.line):
                session.say(f"  FAILED {failed}")
                known[outcome.file] = outcome.result
                session.save()
            continue
        known[outcome.file] = outcome.end(heard.code, heard.seconds)
        session.save()
    here = [known[file] for file in files]
    failed = sum(len(result.failed) for result in here)
    unfinished = sum(bool(result.words) for result in here)
    passed = sum(result.passed for result in here)
    return not unfinished, f"{passed} passed, {failed} failed, {unfinished} of {len(files)} files not through"


def models(session: Session, seconds: float) -> Result:
    """Time a training step of small models."""
    count, code = 0, None
    for event in session.events("models", seconds, commit=session.commit, rehearsal=session.rehearsal):
        if "model" in event:
            others = [each for each in session.report.models if each["model"] != event["model"]]
            session.report.models = [*others, event]
            session.save()
            count += 1
        else:
            code = event["ended"]
    return code == 0, f"{count} models" if code == 0 else f"{count} models; the process ended with code {code}"


def clusters(session: Session, seconds: float) -> Result:
    """Time the cluster plan's kernels alone."""
    if session.rehearsal:
        return False, "left out: a CPU has no thread-block clusters"
    count, code = 0, None
    given = {"commit": session.commit, "prototype": session.prototype and str(session.prototype)}
    for event in session.events("clusters", seconds, **given):
        if "by_hand" in event:
            session.note(f"by hand: {event['by_hand']}")
        elif "cluster" in event:
            others = [each for each in session.report.clusters if each["cluster"] != event["cluster"]]
            session.report.clusters = [*others, event]
            session.say(f"  {event}")
            session.save()
            count += 1
        else:
            code = event["ended"]
    return code == 0, f"{count} shapes" if code == 0 else f"{count} shapes; the process ended with code {code}"


class Planned(NamedTuple):
    """A stage and its part of the session."""

    name: str
    do: Callable[[Session, float], Result]
    share: float
    """The largest part of all seconds; the last stage, timing again, gets the remaining seconds."""
    least: float
    """The least seconds with which the stage is begun."""


STAGES = (
    Planned("environment", environment, 0.06, 5),
    Planned("clusters", clusters, 0.1, 10),
    Planned("compiling", compiling, 0.15, 10),
    Planned("timing", timing, 0.35, 10),
    Planned("graphs", graphs, 0.1, 10),
    Planned("host", host, 0.06, 10),
    Planned("engine", engine, 0.1, 30),
    Planned("tests", tests, 0.25, 15),
    Planned("models", models, 0.05, 5),
    Planned("timing-again", timing, 1.0, 10),
)


def run(session: Session, names: list[str], seconds: float) -> None:
    """Run the stages in order; a stage runs even if earlier stages failed."""
    for stage in STAGES:
        if stage.name not in names:
            continue
        given = min(session.left() - EXTRA, seconds * stage.share)
        if given < stage.least:
            session.end(stage.name, Stage(False, 0.0, f"out of time: {session.left():.0f} s were left"))
            continue
        session.say(f"{stage.name}: up to {given:.0f} s")
        began = time.monotonic()
        try:
            done, words = stage.do(session, given)
        except Exception as problem:  # go on with the later stages
            done, words = False, one_line(problem)
        session.say(f"{stage.name}: {words}")
        session.end(stage.name, Stage(done, round(time.monotonic() - began, 1), words))
