"""The base class of result files, for suites with a command of their own."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from . import machine, result_files, schema


@dataclass(kw_only=True)
class Record:
    """One run of a suite: where, when and by what it was made. A subclass adds its rows."""

    WHAT: ClassVar[str]
    """The suite's name, for error messages."""
    VERSION: ClassVar[int] = 1

    schema: int
    date: str
    commit: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def made_here(cls, device: str, threads: int, command: str, **others: Any) -> Self:
        """A report of this machine without rows."""
        described = {"machine": machine.describe(device, threads), "versions": machine.versions()}
        told = {"schema": cls.VERSION, "date": machine.now(), "commit": machine.commit(), "command": command}
        return cls(**told, **described, **others)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load a report from a file.

        Raises:
            SchemaError: the file is not a report of this suite.
        """
        data = json.loads(Path(path).read_text())
        if not isinstance(data, dict) or data.get("schema") != cls.VERSION:
            raise schema.SchemaError(f"{path}: not a {cls.WHAT} report of version {cls.VERSION}")
        return schema.read(cls, data, str(path))

    def save(self, path: str | Path) -> None:
        result_files.write(self, path)
