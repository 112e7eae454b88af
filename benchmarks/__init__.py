"""The benchmark: seqcells against torch.nn and its other rivals, on the same numbers, honestly timed.

``python -m benchmarks`` runs it; `docs/measuring.md` says how to read and trust what it prints. The parts, from the top
down: `__main__` (the command), `presets` and `budget` (which cases), `run` (cases through a timer to rows),
`timing` and `floors`, `providers`, `parity`, `suites`, `case`, `shapes`; and for the rows, `schema`, `report`,
`plots`, `compare`. `resources` reads what kernels take of a GPU without one; `gpu` is what one does that is at hand.
"""
