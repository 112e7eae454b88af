"""Line numbers of the code that pages quote: ``python docs/quotes.py`` renews them, ``--check`` tells which are stale.

A page quotes a source file by two lines, the second of which pymdownx.snippets reads::

    <!-- quote: kernels/triton/device/barrier.py from "def arrive(" to "tl.atomic_add" -->
    --8<-- "kernels/triton/device/barrier.py:60:64"

The first line has what the first and the last quoted line contain, each the first one that does; ``+2`` after it
quotes two lines more.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
QUOTE = re.compile(r'<!-- quote: (\S+) from "(.*?)" to "(.*?)"(?: \+(\d+))? -->.*?--8<-- "(.*?)"', re.S)


def place(path: str, first: str, last: str, more: str | None) -> str:
    """Where a quotation is, as pymdownx.snippets has it.

    Raises:
        LookupError: no such lines are in the file.
    """
    lines = (ROOT / path).read_text().splitlines()
    begin = next((k for k, line in enumerate(lines) if first in line), None)
    end = None if begin is None else next((k for k, line in enumerate(lines) if k >= begin and last in line), None)
    if begin is None or end is None:
        raise LookupError(f"{path} has no lines from {first!r} to {last!r}")
    return f"{path}:{begin + 1}:{end + 1 + int(more or 0)}"


def renewed(text: str) -> str:
    """A page with the right line numbers.

    Raises:
        ValueError: a comment has no quotation behind it, or the other way round.
    """
    if not len(QUOTE.findall(text)) == text.count("<!-- quote: ") == len(re.findall("--8 ?<", text)):
        raise ValueError("a quotation is a comment and a line for snippets, in a fence that ruff does not format")
    return QUOTE.sub(lambda found: found[0].replace(f'"{found[5]}"', f'"{place(*found.groups()[:4])}"'), text)


def stale() -> list[Path]:
    """The pages with other line numbers."""
    return [page for page in sorted(HERE.glob("*.md")) if renewed(page.read_text()) != page.read_text()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew all; with ``--check`` 1 where a page has wrong line numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing; name the pages that are stale")
    check = parser.parse_args(arguments).check
    pages = stale()
    for page in pages:
        print(f"{page.name}: stale" if check else f"{page.name}: renewed")
        if not check:
            page.write_text(renewed(page.read_text()))
    return int(check and bool(pages))


if __name__ == "__main__":
    sys.exit(main())
