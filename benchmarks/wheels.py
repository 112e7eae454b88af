"""Rivals from a folder of wheels, for a machine without a package index; nothing of the environment changes."""

import sys
import tempfile
import zipfile
from pathlib import Path

_kept: list[tempfile.TemporaryDirectory] = []


def use(folder: Path) -> list[str]:
    """Unpack the wheels to a temporary folder that imports may find things in, after all that is installed."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise SystemExit(f"no wheels in {folder}")
    _kept.append(tempfile.TemporaryDirectory())
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(_kept[-1].name)
    sys.path.append(_kept[-1].name)
    return [wheel.name for wheel in wheels]
