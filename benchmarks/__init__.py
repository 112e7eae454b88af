"""The benchmark of seqcells: the same numbers and the same timing for our layers, torch.nn's and other rivals'.

``python -m benchmarks`` runs the benchmark. `docs/measuring.md` says how to read its
output and when to trust it.

The command is in `__main__`; `presets` and `budget` choose the cases, and `run` times cases and makes rows. `run` uses
`timing`, `rooflines`, `providers`, `parity`, `suites`, `case` and `shapes`. `schema`, `report`, `plots` and `compare`
handle the rows. `resources` reads what a kernel takes of a GPU, without a GPU. `gpu` is for a machine that has a GPU.
"""
