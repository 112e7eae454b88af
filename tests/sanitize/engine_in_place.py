"""A pytest plugin: the package's CPU engine is the extension that ``--engine`` names, with one instruction set.

Only cells that the extension was built with are kept, because other cells would be compiled without sanitizers.
"""

import os
import sys
from importlib.util import spec_from_file_location

NAME = "seqcells.kernels.cpu._engine"


def pytest_addoption(parser):
    parser.addoption("--engine", required=True, help="where the extension lies")
    parser.addoption("--target", required=True, help="the instruction set that it has tables for")


class Finder:
    """Finds the extension of that name in another place."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, self.path) if name == NAME else None


def pytest_load_initial_conftests(early_config):
    options = early_config.known_args_namespace
    sys.meta_path.insert(0, Finder(options.engine))

    from seqcells.kernels.cpu import library

    library.target = options.target
    _leave_out_other_cells()


def _leave_out_other_cells():
    import torch

    from seqcells.cells import REGISTRY
    from seqcells.derive.transformed_cells import projection
    from seqcells.kernels.cpu.compiled import why_not

    os.environ["SEQCELLS_COMPILE"] = "never"
    for name, cell in [*REGISTRY.items()]:
        forms = [cell, projection(cell, "1")] if cell.projection else [cell]
        if any(why_not(form, torch.float32) for form in forms):
            del REGISTRY[name]


def pytest_report_header():
    return f"engine: {sys.modules[NAME].__file__}"
