"""A busy process: spins until it is killed, or until the process whose id is given is no longer its parent.

It is run as a file, because it must not import the benchmark. It prints a line when it spins.
"""

import os
import sys

if __name__ == "__main__":
    parent = int(sys.argv[1])
    print(flush=True)
    # The parent is checked about once a millisecond, so that an orphan ends, however its parent ended.
    while os.getppid() == parent:
        for _ in range(20_000):
            pass
