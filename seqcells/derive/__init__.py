"""From a cell's equations to its kernels: trace → differentiate → cut → print; `__main__` writes the files.

The package itself imports none of its modules, so printers are imported only where kernels are printed.
"""
