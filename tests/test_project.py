"""The package as a project: what it imports and when, how it installs, how it is laid out."""

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
from seqcells import cells, info, machine
from seqcells.dispatch import BACKENDS
from seqcells.table import Table

ROOT = Path(seqcells.__file__).parents[1]


def python(*arguments, cwd=ROOT, path=ROOT):
    """The output of a fresh interpreter that finds the package under ``path``."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"},
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


def test_import_without_triton_is_quick():
    """The quickest of three: what else the machine does only adds to it."""
    assert any(float(python("-c", IMPORT)) <= 0.2 for _ in range(3))


@pytest.mark.parametrize(
    "module", ["triton", "sympy", "numpy", "rich", "matplotlib", "sklearn", "filelock", "torch._dynamo"]
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
        reason = backend.unavailable()
        assert lines[row].split()[1] == ("no" if reason else "yes")
        assert backend.description in lines[row]
        if reason:
            assert lines[row + 1].strip() == reason


def test_info_without_triton():
    code = "import sys; sys.modules['triton'] = None; import seqcells.info; print(seqcells.info.report())"
    assert "reference" in python("-c", code)


@pytest.mark.skipif(BACKENDS["cpu"].unavailable() is not None, reason="the CPU engine is not built")
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


# Kernels: `kernels/` in the checkout, `seqcells.kernels` to Python.


def folders(*packages, **where):
    """Where a fresh interpreter finds packages."""
    lines = [f"import {package}; print(*{package}.__path__)" for package in packages]
    return [Path(line).resolve() for line in python("-c", "\n".join(lines), **where).splitlines()]


def test_kernels_in_the_bare_checkout():
    found = folders("seqcells.kernels", "seqcells.kernels.triton", "seqcells.kernels.cpu")
    assert found == [ROOT / "kernels", ROOT / "kernels" / "triton", ROOT / "kernels" / "cpu"]


def test_a_foreign_kernels_package_is_not_shadowed(tmp_path):
    """Hugging Face's `kernels`, say, behind the checkout on the path."""
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
    for name in ("seqcells", "kernels"):  # seqcells/kernels left out: as a clone without symlinks has them
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
    assert python("-c", COMPILED, cwd=tmp_path, path=target).split() == [
        "2",
        "1",
        "4",
    ]  # with the headers that came along
    tables = [[path.name for path in sorted((where / "seqcells" / "tables").iterdir())] for where in (ROOT, target)]
    assert tables[0] == tables[1] and tables[0]
    installed = {path.relative_to(target) for path in target.rglob("*.py")}
    for folder, name in (("seqcells", "seqcells"), ("kernels", "seqcells/kernels")):
        here = (source / folder).rglob("*.py")
        assert installed.issuperset(Path(name) / path.relative_to(source / folder) for path in here)


# Imports run downwards only.

ORDER = [
    {"selftest"},
    {"__init__", "info", "tune"},
    {"swap", "define"},
    {"layers", "timing"},
    {"recurrent_layer"},
    {"regularised"},
    {"arguments"},
    {"cell_modules"},
    {"convert", "stream", "tracing", "flattened"},
    {"freezing"},
    {"prepared", "patches"},
    {"trained", "delegated", "functional"},
    {"ops"},
    {"operators"},
    {"execute"},
    {"dispatch"},
    {"estimates", "results", "trial"},
    {"unmeasured"},
    {"delegate", "reference", "fits", "kernels", "table"},
    {"streams"},
    {"checks"},
    {"kept"},
    {"recurrence", "transformed"},
    {"weights", "derive", "boundaries", "precision", "call", "flat_weights", "subclasses", "flops"},
    {"cells", "version", "machine", "cache", "constant", "likeness", "settings", "chunk"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
SEQCELLS = sorted(path for path in (ROOT / "seqcells").rglob("*.py") if "kernels" not in path.parts)
MODULES = [path for path in SEQCELLS if path.parent.name == "seqcells"]


def type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree):
    """The parts of seqcells that a module of its top level imports, anywhere in it, in order."""
    for node in ast.iter_child_nodes(tree):
        if type_checking(node):
            continue
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module in (".", "seqcells"):
                yield from (alias.name for alias in node.names if alias.name in RANK)
            elif module.startswith((".", "seqcells.")):
                yield module.removeprefix("seqcells").split(".")[1]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (name[1] for name in names if name[0] == "seqcells" and len(name) > 1)
        yield from imports(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_run_downwards(path):
    assert path.stem in RANK, "a new module: give it its place in ORDER"
    for name in imports(ast.parse(path.read_text())):
        assert RANK[name] > RANK[path.stem], f"{path.stem} imports {name}, which is not below it"


def test_the_check_sees_imports():
    tree = ast.parse(
        "from . import ops\nfrom .cells import Cell\nimport seqcells.weights\ndef f():\n from .swap import x"
    )
    assert list(imports(tree)) == ["ops", "cells", "weights", "swap"]
    assert not list(imports(ast.parse("if TYPE_CHECKING:\n    from .dispatch import Call\nfrom torch import nn")))


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
    """The fourth cell proves the cell contract: nothing else may know of it."""
    knowing = {
        str(path.relative_to(ROOT / "seqcells"))
        for path in SEQCELLS
        if re.search("peephole_?lstm", ast.unparse(WithoutDocstrings().visit(ast.parse(path.read_text()))).lower())
    }
    assert knowing == {"__init__.py", "cells/__init__.py", "cells/peephole_lstm.py"}


# Layout.

FOLDERS = ("seqcells/cells", "seqcells/derive", "kernels", "benchmarks", "tests", "examples")
PRINTED = {ROOT / "kernels" / "triton" / name for name in ("cells.py", "staged_cells.py")}
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")] + MODULES


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
