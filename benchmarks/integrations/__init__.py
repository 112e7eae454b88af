"""Models of other packages before and after `seqcells.swap`: their losses, and the time of a step of training.

`case` (what a model and its step are), a module for each package, `measure` (losses, times and the learning curve),
`report` (the file and the table), `page` (docs/integrations.md), `__main__` (the command).
"""
