"""Models of other packages before and after `seqcells.swap`: their losses, and the time of a training step.

`case` defines a model and its step, and a module for each package has the package's cases. `measure` gives losses,
times and the learning curve. `report` has the file and the table, `page` writes docs/integrations.md, `__main__` is the
command.
"""
