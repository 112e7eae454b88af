"""The only module that the fork server of the providers' processes imports.

Importing torch takes seconds, which the server spends once, before it has any thread. The server and the processes end
with the benchmark. Python's own server would live as long as one of its processes, and these may be stopped.
"""

from .worker import die_with_parent

die_with_parent()
