"""Build and packaging; what pyproject.toml cannot say: the version, and where `seqcells.kernels` lies."""

import re
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (root / "seqcells" / "version.py").read_text()).group(1)

# `kernels/` is at the top level of the checkout and installed as seqcells.kernels. In a checkout the symlink
# seqcells/kernels stands for it; an installation does without, so clones without symlinks install too.
packages = [
    name for name in find_packages(include=["seqcells", "seqcells.*"]) if not name.startswith("seqcells.kernels")
]
kernels = ["seqcells.kernels"] + [f"seqcells.kernels.{d.name}" for d in (root / "kernels").iterdir() if d.is_dir()]

setup(
    version=version,
    packages=packages + sorted(name for name in kernels if "__pycache__" not in name),
    package_dir={"seqcells.kernels": "kernels"},
    package_data={"seqcells": ["py.typed"]},
)
