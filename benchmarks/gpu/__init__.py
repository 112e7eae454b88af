"""Measurements and tests on a GPU that is available for some minutes: the most valuable first, every result saved at
once.

`__main__` is the command. `stages` has the stages in their order, `session` the time and the file that the stages
write. `children` runs the processes that the stages start, and `merge` joins several runs in one file. The processes do
`tasks`, `compiling`, `timed`, `suite`, `models` and `clusters`, with `cases` and `code`.
"""
