"""Made-up rows and reports of a GPU session."""

import dataclasses

from benchmarks import run, schema
from benchmarks.schema import Figure, Origin, Report, Row

OURS = "seqcells auto"
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def row(provider=OURS, code="a", value=1.0, date="2026-01-01T00:00:00Z", aa=1.0, hidden=8, **given) -> Row:
    fields = "sequence", "lstm", 2, hidden, 3, "bfloat16", "cuda", provider, provider == OURS, "ok"
    made = Row(*fields, error=0.0, figure=Figure(value, value, value, 5))
    made.origin = Origin(date, "commit", code, baseline=2.0, aa=aa)
    return dataclasses.replace(made, **given)


def report(*rows: Row, date="2026-01-01T00:00:00Z", **given) -> Report:
    stages = {"timing": schema.Stage(True, 1.0)}
    made = Report(schema.VERSION, date, "commit", "test", "cuda", {"gpu": "one"}, {}, {}, [*rows], {"cases": 0})
    made = dataclasses.replace(made, stages=stages, **given)
    run.relate(made)
    return made


def only(rows: list[Row]) -> Row:
    (one,) = rows
    return one
