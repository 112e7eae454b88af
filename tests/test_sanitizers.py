"""The CPU kernels read and write only their own memory, and do nothing undefined: the compiler's sanitizers watch."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parent / "kernels" / "cpu"
pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("sanitizers", ("address,undefined",))
def test_nothing_is_found(sanitizers, tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine")
    program = tmp_path / "driver"
    options = [
        "-std=c++17",
        "-O1",
        "-g",
        "-fopenmp",
        "-Wno-psabi",
        f"-fsanitize={sanitizers}",
        "-fno-sanitize-recover=all",
    ]
    subprocess.run(
        [compiler, *options, f"-I{KERNELS}", str(HERE / "sanitize" / "driver.cpp"), "-o", program], check=True
    )
    # OpenMP keeps its team to the end of the program, which is no leak of ours.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.endswith("0 failures\n")
