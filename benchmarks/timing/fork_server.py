"""What the server that forks the providers' processes imports, and nobody else.

Importing torch takes seconds, which the server spends once, before it has any thread. It ends with the benchmark, and
the processes with it: Python's own server would live on as long as one of them, and they may be stopped.
"""

from .worker import die_with_parent

die_with_parent()
