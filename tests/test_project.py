"""The package as a project: what it imports and when, its installation, its layout."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqcells
from seqcells import cells, info
from seqcells.backends import BACKENDS
from seqcells.measured.table import Table
from seqcells.system import machine

ROOT = Path(seqcells.__file__).parents[1]


def python(*arguments, cwd=ROOT, path=ROOT, bytecode=None):
    """The output of a fresh interpreter that finds the package under ``path``, and keeps its bytecode in a folder."""
    keeping = {"PYTHONDONTWRITEBYTECODE": "1"} if bytecode is None else {"PYTHONPYCACHEPREFIX": str(bytecode)}
    others = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**others, "PYTHONPATH": str(path), **keeping},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Importing.

IMPORT = """
import sys, time
sys.modules["triton"] = None  # importing it raises ImportError
import torch
start = time.perf_counter()
import seqcells
print(time.perf_counter() - start)
seqcells.LSTM(2, 3)(torch.zeros(4, 1, 2))
"""


def test_import_without_triton_is_quick(tmp_path):
    """With bytecode, as installed packages have it. The fastest of three counts, because other programs only add
    time."""
    python("-c", IMPORT, bytecode=tmp_path)
    assert any(float(python("-c", IMPORT, bytecode=tmp_path)) <= 0.2 for _ in range(3))


@pytest.mark.parametrize(
    "module",
    ["triton", "sympy", "numpy", "rich", "matplotlib", "sklearn", "filelock", "torch._dynamo", "seqcells.data"],
)
def test_import_loads_nothing_heavy(module, loaded):
    assert module not in loaded


@pytest.fixture(scope="module")
def loaded():
    """The modules that importing seqcells loads and importing torch does not."""
    code = "import sys, torch; before = set(sys.modules); import seqcells; print(*set(sys.modules) - before)"
    return set(python("-c", code).split())


def test_import_reads_no_cell_that_nobody_asked_for(loaded):
    assert not loaded & {f"seqcells.cells.{module}" for module in cells.LIBRARY.values()}


def test_what_a_step_may_use_is_there():
    code = "import seqcells; print(seqcells.cells.units.mean, seqcells.cells.activations.tanh)"
    assert python("-c", code) == "mean tanh\n"


# What the command tells.


def test_info_tells_versions_devices_and_backends():
    lines = python("-m", "seqcells.info").splitlines()
    assert lines[0] == f"seqcells {seqcells.__version__}"
    assert f"torch {importlib.metadata.version('torch')}" in lines
    assert any(line.startswith("triton ") for line in lines)
    assert any(line.startswith("  cpu: ") for line in lines)
    for index in range(torch.cuda.device_count()):
        assert any(line.startswith(f"  cuda:{index}: {torch.cuda.get_device_name(index)}") for line in lines)
    lines = lines[lines.index("backends") :]
    for name, backend in BACKENDS.items():
        row = next(index for index, line in enumerate(lines) if line.split()[:1] == [name])
        reason = backend.why_not_available()
        assert lines[row].split()[1] == ("no" if reason else "yes")
        assert backend.description in lines[row]
        if reason:
            assert lines[row + 1].strip() == reason


def test_info_without_triton():
    code = "import sys; sys.modules['triton'] = None; import seqcells.info; print(seqcells.info.report())"
    assert "reference" in python("-c", code)


@pytest.mark.skipif(BACKENDS["cpu"].why_not_available() is not None, reason="the CPU engine is not built")
def test_info_tells_the_machine_and_which_table_is_in_use(tables):
    def told():
        return [line.strip() for line in info.report().splitlines()]

    assert "machine class: avx2-l2-512k" in told() and "caches: l1d 32 KiB, l2 512 KiB, l3 unknown" in told()
    assert f"cores for this process: {machine.cores()}" in told()
    assert any(line.startswith("table in use: none, so torch's operator unless") for line in told())
    rest = {"machine_class": "avx2-l2-512k", "processor": "a processor", "threads": 2, "commit": "unknown"}
    rest |= {"versions": {}, "date": "2026-11-26T19:10:34Z", "source": "a test", "points": {}, "name": "mine"}
    tables(shipped=[Table(**rest, complete=True)])
    assert "table in use: shipped table mine of 2026-11-26, 2 threads, 0 points" in told()
    tables(own=[Table(**rest, complete=False)], shipped=[Table(**rest, complete=True)])
    assert "table in use: own table mine of 2026-11-26, 2 threads, 0 points, not the whole grid" in told()


# Kernels: `kernels/` in the checkout, `seqcells.kernels` in Python.


def folders(*packages, **where):
    """Where a fresh interpreter finds packages."""
    lines = [f"import {package}; print(*{package}.__path__)" for package in packages]
    return [Path(line).resolve() for line in python("-c", "\n".join(lines), **where).splitlines()]


def test_kernels_in_the_bare_checkout():
    found = folders("seqcells.kernels", "seqcells.kernels.triton", "seqcells.kernels.cpu")
    assert found == [ROOT / "kernels", ROOT / "kernels" / "triton", ROOT / "kernels" / "cpu"]


def test_a_foreign_kernels_package_is_not_shadowed(tmp_path):
    """For example Hugging Face's `kernels`, after the checkout on the path."""
    foreign = tmp_path / "kernels"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    assert folders("kernels", path=f"{ROOT}{os.pathsep}{tmp_path}") == [foreign.resolve()]
    assert not (ROOT / "kernels" / "__init__.py").exists()


COMPILED = """
import torch, seqcells
layer, _ = seqcells.define(seqcells.cells.MGU)
print(*layer(3, 4, backend="cpu")(torch.ones(2, 1, 3))[0].shape)
"""


@pytest.mark.heavy
def test_an_installed_wheel_has_the_kernels(tmp_path, compiling):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source, wheels, target = tmp_path / "source", tmp_path / "wheels", tmp_path / "target"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("seqcells", "kernels"):  # without the symlink seqcells/kernels, as in a clone without symlinks
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("kernels", "__pycache__", "*.so"))
    (source / "kernels" / "triton" / "marker.py").write_text("")
    for command in (
        ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, source],
        ["install", "--no-deps", "--no-index", "--target", target, "--find-links", wheels, "seqcells"],
    ):
        done = subprocess.run([*pip, *command], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr
    assert folders("seqcells", cwd=tmp_path, path=target) == [(target / "seqcells").resolve()]
    found = python("-c", "import seqcells.kernels.triton.marker as m; print(m.__file__)", cwd=tmp_path, path=target)
    assert Path(found.strip()) == target / "seqcells" / "kernels" / "triton" / "marker.py"
    assert not (target / "kernels").exists(), "no top-level kernels"
    assert (target / "seqcells" / "py.typed").exists()
    # The wheel has the headers, and the sources of libraries without Python.
    assert (target / "seqcells" / "kernels" / "cpu" / "team.cpp").exists()
    assert (target / "seqcells" / "kernels" / "cuda" / "cluster.cuh").exists()
    assert python("-c", COMPILED, cwd=tmp_path, path=target).split() == ["2", "1", "4"]
    folders_of_tables = [where / "seqcells" / "measured" / "tables" for where in (ROOT, target)]
    tables = [sorted(path.name for path in folder.iterdir()) for folder in folders_of_tables]
    assert tables[0] == tables[1] and tables[0]
    installed = {path.relative_to(target) for path in target.rglob("*.py")}
    for folder, name in (("seqcells", "seqcells"), ("kernels", "seqcells/kernels")):
        here = (source / folder).rglob("*.py")
        assert installed.issuperset(Path(name) / path.relative_to(source / folder) for path in here)


def test_nothing_that_is_ignored_is_tracked():
    """A folder may have been added before .gitignore had its name."""
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"git does not tell: {done.stderr}")
    assert not done.stdout


# Imports run downwards, from room to room in this order, and never in a circle. Imports inside functions count.

ORDER = [
    {"check", "compile"},
    {"selftest", "tune", "cell_argument"},
    {"info"},
    {"seqcells"},
    {"io"},
    {"modules"},
    {"functional", "data"},
    {"call"},
    {"measured", "backends"},
    {"kernels.cpu", "kernels.triton"},
    {"kernels.cuda"},
    {"request"},
    {"derive"},
    {"cells", "system", "version"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
TRITON_ORDER = ["refusals", "persistent_engine", "engine", "prepared", "plans", "host", "device"]
FILES = [path for folder in ("seqcells", "kernels") for path in sorted((ROOT / folder).rglob("*.py"))]
FILES = [path for path in FILES if path.relative_to(ROOT).parts[:2] != ("seqcells", "kernels")]


def module_of(path):
    """The module of a file in the checkout."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "seqcells" else ("seqcells", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(module, tree, modules):
    """Our modules that a module imports, at any place in it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found = f"{origin}.{alias.name}"
                yield from ({found, origin} & modules if found in modules else {origin} & modules)
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & modules
        yield from imports(module, node, modules)


def room(module):
    """The room of a module in `ORDER`."""
    parts = module.split(".")[1:] or ["seqcells"]
    return ".".join(parts[:2]) if parts[0] == "kernels" else parts[0]


def test_every_folder_is_a_package():
    """A wheel has the packages that setuptools finds, which are folders with an __init__.py."""
    folders = {path.parent for path in FILES if path.is_relative_to(ROOT / "seqcells")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.fixture(scope="module")
def arrows():
    """The imports of each module; a package counts if one of its own names is imported."""
    found = {}
    for module, path in MODULES.items():
        of_module = imports(module, ast.parse(path.read_text()), {*MODULES})
        found[module] = {name for name in of_module if name != module and not module.startswith(f"{name}.")}
    return found


def test_imports_run_downwards(arrows):
    for module, names in arrows.items():
        assert room(module) in RANK, f"{module}: give its room a place in ORDER"
        for name in names:
            below = RANK[room(name)] > RANK[room(module)] or room(name) == room(module)
            assert below, f"{module} imports {name}, which is not below it"


def test_triton_rooms_import_downwards(arrows):
    rank = {f"seqcells.kernels.triton.{name}": k for k, name in enumerate(TRITON_ORDER)}

    def place(module):
        return rank.get(".".join(module.split(".")[:4]))

    for module, names in arrows.items():
        for name in names:
            if place(module) is not None and place(name) is not None:
                assert place(name) >= place(module), f"{module} imports {name}, which is not below it"


def test_there_is_no_circle(arrows):
    left = dict(arrows)
    while left:
        leaves = [module for module, names in left.items() if not names & left.keys()]
        assert leaves, f"in circles, or above one: {sorted(left)}"
        for module in leaves:
            del left[module]


def test_the_check_sees_imports():
    tree = ast.parse(
        "from . import run\nfrom ..cells import Cell\nimport seqcells.request.weights\ndef f():\n from .choose import x"
    )
    found = imports("seqcells.call.execute", tree, {*MODULES})
    assert {*found} == {f"seqcells.{name}" for name in ("call", "call.run", "cells", "request.weights", "call.choose")}
    tree = ast.parse("if TYPE_CHECKING:\n    from .choose import Call\nfrom torch import nn")
    assert not list(imports("seqcells.call.execute", tree, {*MODULES}))


@pytest.mark.parametrize("path", sorted((ROOT / "seqcells" / "cells").glob("*.py")), ids=lambda path: path.stem)
def test_cells_import_only_cells(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level < 2
            assert not (node.module or "").startswith("seqcells")


class WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node


def test_peephole_is_one_file_a_registry_row_and_two_exports():
    """The fourth cell proves the cell contract: no other file may know the cell, except for names in other packages'
    formats."""
    knowing = {
        str(path.relative_to(ROOT / "seqcells"))
        for path in FILES
        if path.is_relative_to(ROOT / "seqcells") and not path.is_relative_to(ROOT / "seqcells" / "io")
        if re.search("peephole_?lstm", ast.unparse(WithoutDocstrings().visit(ast.parse(path.read_text()))).lower())
    }
    assert knowing == {"__init__.py", "cells/__init__.py", "cells/peephole_lstm.py", "modules/built_in.py"}


# Layout.

PRINTED = {ROOT / "kernels" / "triton" / "device" / name for name in ("cells.py", "staged_cells.py")}
SOURCES = FILES + [path for folder in ("benchmarks", "tests", "examples") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path not in PRINTED], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_file_is_long(path):
    assert len(path.read_text().splitlines()) <= 400


def test_types_are_published():
    assert (ROOT / "seqcells" / "py.typed").exists()


def test_exports_exist_and_are_sorted_once():
    assert len(set(seqcells.__all__)) == len(seqcells.__all__)
    assert all(hasattr(seqcells, name) for name in seqcells.__all__)
