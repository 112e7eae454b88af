"""A plugin of pytest's: the package's CPU engine is the extension that ``--engine`` names, and of it one target."""

import sys
from importlib.util import spec_from_file_location

NAME = "seqcells.kernels.cpu._engine"


def pytest_addoption(parser):
    parser.addoption("--engine", required=True, help="where the extension lies")
    parser.addoption("--target", required=True, help="the instruction set that it has tables for")


class Finder:
    """Finds the extension of that name at another place."""

    def __init__(self, path):
        self.path = path

    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, self.path) if name == NAME else None


def pytest_load_initial_conftests(early_config):
    options = early_config.known_args_namespace
    sys.meta_path.insert(0, Finder(options.engine))

    from seqcells.kernels.cpu import library

    library.target = options.target


def pytest_report_header():
    return f"engine: {sys.modules[NAME].__file__}"
