"""The pages of docs/ and the README: their code runs, their links lead somewhere, their pictures are up to date."""

import importlib
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

import seqcells
from seqcells import cells

ROOT = Path(seqcells.__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

# A block of Python, and the comment that may stand before it: `<!-- test: skip, why -->`, `<!-- test: heavy, why -->`.
BLOCK = re.compile(r"^(?:<!-- test: (skip|heavy), .+? -->\n)?( *)```python[^\n]*\n(.*?)^\2```", re.M | re.S)


class Block(NamedTuple):
    line: int
    code: str
    heavy: bool


def blocks(page):
    """What runs on a page, in order."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        kind, indent, code = found.groups()
        code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        if kind != "skip":
            yield Block(text.count("\n", 0, found.start(3)), code, kind == "heavy")


def run(page, heavy, monkeypatch, folder):
    """The blocks of a page in one namespace; without ``heavy`` those that are quick."""
    monkeypatch.chdir(folder)
    name = f"page_{page.stem}"
    module = type(sys)(name)
    monkeypatch.setitem(sys.modules, name, module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no kernel is compiled here, and the reference says so
        for line, code, is_heavy in blocks(page):
            if heavy or not is_heavy:
                exec(compile("\n" * line + code, str(page), "exec"), vars(module))


def pages(heavy):
    """Those that have blocks, or heavy ones."""
    found = [page for page in PAGES if any(block.heavy >= heavy for block in blocks(page))]
    return pytest.mark.parametrize("page", found, ids=lambda page: page.name)


@pages(heavy=False)
def test_code_runs(page, monkeypatch, tmp_path, own_registry):
    run(page, False, monkeypatch, tmp_path)


@pytest.mark.heavy
@pages(heavy=True)
def test_heavy_code_runs(page, monkeypatch, tmp_path, own_registry, compiling):
    run(page, True, monkeypatch, tmp_path)


# Links.

PLAIN = re.compile(r"^```.*?^```|^ +```.*?^ +```|`[^`\n]*`|<!--.*?-->", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page):
    """Those of a page's headings, as Python-Markdown makes them, and of what the API page documents."""
    text = page.read_text()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M):
        words = re.sub(r"[`*]", "", heading).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower()))
    return found | set(re.findall(r"^::: (\S+)", text, re.M))


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """`mkdocs build --strict` asks the same; this needs no mkdocs."""
    for link in LINK.findall(PLAIN.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        there = DOCS / path if path else page
        assert there.exists(), f"{page.name}: there is no {link}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {path} has no #{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "experiments.md"], ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    """The log of experiments names files of its time, and the tutorial a file that its reader writes."""
    folders = "seqcells", "kernels", "benchmarks", "examples", "docs", "tests"
    known = {folder: [path.as_posix() for path in (ROOT / folder).rglob("*")] for folder in folders}
    for name in re.findall(r"`([\w/]+\.(?:py|h|cpp|cuh))`", page.read_text()):
        paths = [
            path for folder in folders[: 6 if "/" in name else 5] for path in known[folder]
        ]  # tests: by their path
        assert name == "nested.py" or any(path.endswith(f"/{name}") for path in paths), name


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert re.search(rf": {page.name}$", navigation, re.M), f"{page.name} is in no line of mkdocs.yml"


def test_what_the_api_page_documents_exists():
    for name in re.findall(r"^::: (\S+)", (DOCS / "api.md").read_text(), re.M):
        if name.startswith(("seqcells.io.keras", "seqcells.io.onnx")):
            continue  # they import other packages
        module, rest = name, []
        while True:
            try:
                there = importlib.import_module(module)
                break
            except ModuleNotFoundError:
                module, _, last = module.rpartition(".")
                rest.insert(0, last)
        for part in rest:
            there = getattr(there, part)


@pytest.mark.heavy
@pytest.mark.skipif(not shutil.which("mkdocs"), reason="mkdocs is not installed: pip install .[docs]")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = ["mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What scripts make.


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)


def test_pictures_are_up_to_date(scripts, own_registry):
    assert importlib.import_module("pictures").stale() == [], "python docs/pictures.py draws them"


def test_quotations_are_up_to_date(scripts):
    assert importlib.import_module("quotes").stale() == [], "python docs/quotes.py copies the code anew"


def test_the_cells_that_pages_count():
    count = len(set(cells.BUILT_IN) | set(cells.LIBRARY))
    for page in ("index.md", "write_a_cell.md"):
        assert f"{count} " in (DOCS / page).read_text()
    readme = (ROOT / "README.md").read_text()
    assert f"{count} cells with papers" in readme
    own, *named = re.search(r"^\| (peephole LSTM.*), (\d+) more, and cells of your own", readme, re.M).groups()
    assert count == len(own.split(", ")) + int(named[0]) + 4  # and torch.nn's: LSTM, GRU, RNN with two activations
