"""The package's folder on disk: its path, atomic writes of files, locks with a time limit."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from seqcells.system import cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A temporary home folder, without environment variables that lead elsewhere."""
    for name in ("SEQCELLS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "expected"),
    (("linux", ".cache/seqcells"), ("darwin", "Library/Caches/seqcells"), ("win32", "AppData/Local/seqcells/cache")),
)
def test_the_systems_place(platform, expected, home, monkeypatch):
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert cache.folder("tables", "x") == home / expected / "tables" / "x"
    assert not list(home.iterdir())


def test_variables_lead_elsewhere(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache.folder() == home / "xdg" / "seqcells"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder().is_relative_to(home)
    monkeypatch.setenv("SEQCELLS_CACHE", "~/own")
    assert cache.folder() == home / "own"
    monkeypatch.setenv("SEQCELLS_CACHE", "relative")
    assert cache.folder() == Path.cwd() / "relative"
    monkeypatch.setenv("SEQCELLS_CACHE", "")
    assert cache.folder().is_relative_to(home / ".cache") or sys.platform != "linux"


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "deep" / "file"
    for content in ("tést", b"\x00bytes"):
        cache.write(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_what_stood_there_stays_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    cache.write(path, "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    with pytest.raises(OSError, match="No space left") as found:
        cache.write(path, "after")
    assert found.value.errno == 28
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "file"
    texts = [str(k) * 100_000 for k in range(8)]
    threads = [threading.Thread(target=cache.write, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in texts and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    """A file has the folder's name. This fails for root too, whom permissions do not stop."""
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path / "taken"))
    path = cache.folder("tables", "x.json")
    assert not list(path.parent.glob("*"))
    with pytest.raises(OSError, match=r"cannot write to .*taken.*: set SEQCELLS_CACHE to a folder"):
        cache.write(path, "{}")
    with pytest.raises(OSError, match="SEQCELLS_CACHE"), cache.lock("any", timeout=0):
        pass


def test_what_is_not_the_caches_does_not_speak_of_it(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="cannot write to") as found:
        cache.write(tmp_path / "taken" / "x.json", "{}")
    assert "SEQCELLS_CACHE" not in str(found.value)


def test_without_a_home(home, monkeypatch, tmp_path):
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert not list(cache.folder("tables").glob("*"))
    with pytest.raises(OSError, match=r"the home directory is unknown.*SEQCELLS_CACHE"):
        cache.write(cache.folder("tables", "x.json"), "{}")
    assert not list(tmp_path.iterdir())


HOLD = """
import sys, time
from seqcells.system import cache
with cache.lock("mine", timeout=10):
    print("held", flush=True)
    time.sleep(60)
"""


def test_locks_are_of_one_process_and_die_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQCELLS_CACHE", str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(Path(cache.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError, match=r"another process holds .*mine\.lock"), cache.lock("mine", timeout=0.05):
            pass
        with cache.lock("another", timeout=0):
            pass
        other.kill()
    with cache.lock("mine", timeout=5):
        pass
