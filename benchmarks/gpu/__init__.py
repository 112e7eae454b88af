"""A GPU that is at hand for some minutes: the most valuable first, everything saved as it comes.

From the top down: `__main__` (the command), `stages` (what is done, in which order), `session` (the time, and the file
that the stages write), `children` (the processes that the stages start), `merge` (several runs in one file); and what
those processes do: `tasks`, `compiling`, `timed`, `suite`, `models`, `clusters`, with `cases` and `code`.
"""
