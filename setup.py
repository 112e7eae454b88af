"""Build and packaging; what pyproject.toml cannot say: the version, and where `seqcells.kernels` lies."""

import hashlib
import os
import platform
import re
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

root = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (root / "seqcells" / "version.py").read_text()).group(1)

# `kernels/` is at the top level of the checkout and installed as seqcells.kernels. In a checkout the symlink
# seqcells/kernels stands for it; an installation does without, so clones without symlinks install too.
packages = [
    name for name in find_packages(include=["seqcells", "seqcells.*"]) if not name.startswith("seqcells.kernels")
]
folders = [path.relative_to(root) for path in (root / "kernels").rglob("*") if path.is_dir()]
kernels = ["seqcells.kernels"] + ["seqcells." + ".".join(folder.parts) for folder in folders]

# Cells that are compiled later are compiled with these headers, and run only where the engine was too.
headers = sorted((root / "kernels" / "cpu").glob("*.h"))
stamp = hashlib.sha256(b"".join(path.read_bytes() for path in headers)).hexdigest()[:16]

# From Python 3.11 on one binary serves every later Python, unless that has no lock of the interpreter.
stable = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")

# Plain C++: no libtorch, so one binary serves every torch. Optional: without a compiler the package works all the
# same, and `python -m seqcells.info` says what is missing. Who builds wheels sets SEQCELLS_ENGINE=required.
engine = Extension(
    "seqcells.kernels.cpu._engine",
    sources=sorted(str(path.relative_to(root)) for path in (root / "kernels" / "cpu").glob("*.cpp")),
    depends=[str(path.relative_to(root)) for path in headers],
    define_macros=[("SEQCELLS_HEADERS", f'"{stamp}"'), *([("Py_LIMITED_API", "0x030B0000")] if stable else [])],
    py_limited_api=stable,
    extra_compile_args=["-std=c++17", "-O3", "-fno-math-errno", "-g0", "-pthread", "-fvisibility=hidden", "-Wno-psabi"],
    extra_link_args=["-pthread", *(["-ldl"] if platform.system() == "Linux" else [])],
    language="c++",
    optional=os.environ.get("SEQCELLS_ENGINE") != "required",
)


class BuildSideBySide(build_ext):
    """A file an instruction set, minutes each: as many at a time as there are cores."""

    def build_extension(self, extension: Extension) -> None:
        compile_some = self.compiler.compile

        def compile_all(sources: list[str], **options: object) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                made = pool.map(lambda source: compile_some([source], **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile_all
        super().build_extension(extension)


setup(
    ext_modules=[] if sys.platform == "win32" else [engine],  # MSVC has no vector types as GCC's
    cmdclass={"build_ext": BuildSideBySide},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if stable else {},
    version=version,
    packages=packages + sorted(name for name in kernels if "__pycache__" not in name),
    package_dir={"seqcells.kernels": "kernels"},
    package_data={
        "seqcells": ["py.typed", "cells/*.pyi", "io/*/*.pyi", "measured/tables/*.json"],
        "seqcells.kernels.cpu": ["*.h", "*.cpp"],
        "seqcells.kernels.cuda": ["*.cuh"],
    },
)
