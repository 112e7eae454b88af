"""On a device type without our kernels, `auto` takes torch's own operator where it runs, otherwise the reference."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from elsewhere import CASES

from seqcells.backends import BACKENDS
from seqcells.call.choose import WITHOUT_KERNELS

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def told():
    """The report of a process that has such a device."""
    command = [sys.executable, HERE / "elsewhere.py"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("gradients", (True, False), ids=("gradients", "inference"))
@pytest.mark.parametrize("kind", CASES)
def test_torchs_operator_where_it_runs_else_the_reference(kind, gradients, told):
    """The device lacks the fused cells that torch's LSTM and GRU call. These are tried once and then not called."""
    call = told["calls"][f"{kind}, {gradients}"]
    assert call["away"] <= 1e-12, "torch.nn in float64, on the CPU"
    if kind.startswith("RNN"):
        assert call["backend"] == "torch" and (call["tried"], call["called"]) == (0, 0)
        assert call["reason"].startswith("a plain call: torch's own operator; no kernels of ours")
    else:
        assert call["backend"] == "reference" and (call["tried"], call["called"]) == (1, 0)
        assert call["reason"].startswith("torch's own operator fails here: Could not run 'aten::_thnn_fused_")
    assert call["reason"].endswith("no kernels of ours: there are none for elsewhere")


def test_what_torchs_operator_lacks_is_the_references(told):
    call = told["lengths"]
    assert call["backend"] == "reference" and "no lengths=" in call["reason"] and call["away"] <= 1e-12


def test_kernels_refuse_the_device_by_its_name(told):
    kernels = [name for name, entry in BACKENDS.items() if entry.engine]
    assert [name for name, error in told["names"].items() if error] == kernels
    for name in kernels:
        assert told["names"][name].startswith(f"backend='{name}' cannot run this call: ")
    assert BACKENDS["cpu"].why_not_available() or "elsewhere" in told["names"]["cpu"]


def test_info_says_what_auto_takes_there(told):
    (line,) = (line for line in told["report"].splitlines() if line.startswith("  elsewhere"))
    assert line.endswith(f"no kernels of ours; there auto takes {WITHOUT_KERNELS}")
