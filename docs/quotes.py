"""The code that pages quote: ``python docs/quotes.py`` copies it anew, ``--check`` tells which pages are stale.

A page quotes a source file by a comment, and a fence that holds the lines::

    <!-- quote: kernels/triton/device/barrier.py from "def arrive(" to "tl.atomic_add" -->
    ``` { .python title="kernels/triton/device/barrier.py" }
    ...
    ```

The comment has what the first and the last quoted line contain, each the first such line; ``+2`` after it quotes two
lines more. The fence has its language in braces, since ruff formats fences of Python otherwise.
"""

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
QUOTE = re.compile(r'(<!-- quote: (\S+) from "(.*?)" to "(.*?)"(?: \+(\d+))? -->\n(```[^\n]*)\n)(.*?)\n```\n', re.S)


def quoted(path: str, first: str, last: str, more: str | None) -> str:
    """The lines of a quotation, without their common indentation.

    Raises:
        LookupError: no such lines are in the file.
    """
    lines = (ROOT / path).read_text().splitlines()
    begin = next((k for k, line in enumerate(lines) if first in line), None)
    end = None if begin is None else next((k for k, line in enumerate(lines) if k >= begin and last in line), None)
    if begin is None or end is None:
        raise LookupError(f"{path} has no lines from {first!r} to {last!r}")
    return textwrap.dedent("\n".join(lines[begin : end + 1 + int(more or 0)]))


def renewed(text: str) -> str:
    """A page with the code as the sources have it.

    Raises:
        ValueError: a comment has no fence behind it, or ruff would format the fence.
    """
    found = QUOTE.findall(text)
    if len(found) != text.count("<!-- quote: ") or any(fence.startswith("```python") for *_, fence, _ in found):
        raise ValueError("a quotation is a comment and a fence that ruff does not format")
    return QUOTE.sub(lambda each: f"{each[1]}{quoted(*each.groups()[1:5])}\n```\n", text)


def stale() -> list[Path]:
    """The pages whose code is not that of the sources."""
    return [page for page in sorted(HERE.glob("*.md")) if renewed(page.read_text()) != page.read_text()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Renew all; with ``--check`` 1 where a page is stale."""
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
