"""A busy process: spins until it is killed, or until the process of the number given is no longer its parent.

Run as a file, for it imports nothing of the benchmark: a line of output says that it spins.
"""

import os
import sys

if __name__ == "__main__":
    parent = int(sys.argv[1])
    print(flush=True)
    # About a millisecond each: whoever is orphaned ends, however its parent ended.
    while os.getppid() == parent:
        for _ in range(20_000):
            pass
