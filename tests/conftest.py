"""Every test runs with uninitialised memory poisoned, and knows its device."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch wants for deterministic cuBLAS

import pytest
import torch


@pytest.fixture(autouse=True)
def poisoned_empty():
    """Under deterministic algorithms torch fills what `empty` returns with NaN: nothing unwritten stays hidden."""
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)


# Small tensors: a second thread only waits, and takes a core from the next worker.
torch.set_num_threads(1)

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def pytest_report_header():
    return f"devices: {', '.join(DEVICES)}" + (
        "" if torch.cuda.is_available() else " (no GPU here: nothing runs on cuda)"
    )


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.cuda] if name == "cuda" else []) for name in DEVICES])
def device(request):
    """Each device that this machine has."""
    return request.param
