"""What the files of suites with a command of their own have in common."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import Self

from . import files, machine, schema


@dataclass(kw_only=True)
class Record:
    """A run of such a suite: where, when and by what it was made. A subclass adds its rows."""

    WHAT: ClassVar[str]
    """The suite's name, for errors."""
    VERSION: ClassVar[int] = 1

    schema: int
    date: str
    commit: str
    command: str
    machine: dict[str, Any]
    versions: dict[str, str]

    @classmethod
    def made_here(cls, device: str, threads: int, command: str, **others: Any) -> Self:
        """One without rows, of this machine."""
        described = {"machine": machine.describe(device, threads), "versions": machine.versions()}
        told = {"schema": cls.VERSION, "date": machine.now(), "commit": machine.commit(), "command": command}
        return cls(**told, **described, **others)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """From a file; SchemaError where it is not one of these."""
        data = json.loads(Path(path).read_text())
        if not isinstance(data, dict) or data.get("schema") != cls.VERSION:
            raise schema.SchemaError(f"{path}: not a {cls.WHAT} report of version {cls.VERSION}")
        return schema.read(cls, data, str(path))

    def save(self, path: str | Path) -> None:
        files.write(self, path)
