"""From a cell's equations to its kernels: trace → differentiate → cut → print; `__main__` writes the files.

This package imports nothing by itself: printers are loaded where something is printed.
"""
