"""Adds rivals from a folder of wheels, for a machine without a package index. The environment does not change."""

import sys
import tempfile
import zipfile
from pathlib import Path

_kept: list[tempfile.TemporaryDirectory] = []


def use(folder: Path) -> list[str]:
    """Unpack the wheels to a temporary folder, which imports search after all installed packages."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"no wheels in {folder}")
    _kept.append(tempfile.TemporaryDirectory())
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(_kept[-1].name)
    sys.path.append(_kept[-1].name)
    return [wheel.name for wheel in wheels]
