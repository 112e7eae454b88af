"""Hooks of MkDocs (the option `hooks` in mkdocs.yml): a filter of its warnings."""

import logging


class Known(logging.Filter):
    """Leaves out a warning about what griffe need not read: the names of `seqcells.cells` that a table has."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "Unsupported item in seqcells.cells.__all__" not in record.getMessage()


def on_startup(**_: object) -> None:
    """Before pages are built."""
    logging.getLogger("mkdocs.plugins.griffe").addFilter(Known())
