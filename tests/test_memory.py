"""The peak memory of a training step: all that the Triton engine allocates, without running a kernel.

The figures equal a GPU's except for rounding. They come from torch's profile of the CPU where Triton interprets, so
`test_triton` runs this file in such a process. A GPU's own figures, beside cuDNN's, are in tests/test_triton_cuda.py.
"""

import os

import pytest
import torch
from support import layer, like_module, random_states
from torch.profiler import profile

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs Triton's interpreter", allow_module_level=True)

import seqcells
from seqcells.kernels.triton.host import configurations, gemm, gradients, launch, recompute_window
from seqcells.kernels.triton.plans import stepwise

T, B, H = 512, 16, 64
# Limits in units of one output (T, B, H), for forward and backward. LSTM keeps the output, c and the gates i, f, g, o.
# GRU keeps the output, the gates r, z, n and the product of n's gate. Recomputing, LSTM keeps the output and c, GRU the
# output. Forward also has the input's part of the gates. Backward also has its gradient, and for GRU the product's
# gradient and the hidden state before each step.
WHOLE = {"lstm": (10, 10), "gru": (8, 12)}
RECOMPUTED = {"lstm": (6, 4), "gru": (4, 3)}


@pytest.fixture
def without_kernels(monkeypatch):
    """Replace launches and products by nothing, because products on the CPU copy their operands. Disable oneDNN, which
    allocates memory for bfloat16."""
    monkeypatch.setattr(launch.Launch, "__call__", lambda self, start, stop: None)
    monkeypatch.setattr(launch.Repeated, "__call__", lambda self, values: None)
    for module in (gemm, stepwise, recompute_window, gradients):
        monkeypatch.setattr(module, "multiply", lambda a, b, out: out.zero_())
    monkeypatch.setattr(gemm, "IN_FLOAT64", False)
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def peak(run):
    """A function's result, and its peak of allocated bytes."""
    with profile(profile_memory=True) as profiled:
        found = run()
    changes = [each for each in profiled.profiler.kineto_results.events() if each.name() == "[memory]"]
    taken = most = 0
    for change in sorted(changes, key=lambda each: each.start_ns()):
        taken += change.nbytes()
        most = max(most, taken)
    return found, most


@pytest.mark.parametrize("wide", (0, 2), ids=("narrow", "batch-first"))
@pytest.mark.parametrize("recompute", (False, True), ids=("saved", "recomputed"))
@pytest.mark.parametrize("backend", ("triton-stepwise", "triton-persistent"))
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.usefixtures("without_kernels")
def test_training_step(name, backend, recompute, wide, monkeypatch):
    """With an input of few features; or, batch first, with a wide input of ``wide`` outputs' size that has a gradient.
    The products with the wide input need a copy, and batch first adds one copy of the output's gradient."""
    monkeypatch.setattr(configurations, "RECOMPUTE_BYTES", 0)
    batch_first = wide > 0
    module = layer(name, wide * H or 4, H, batch_first=batch_first, backend=backend, dtype=torch.bfloat16)
    shape = (B, T) if batch_first else (T, B)
    input = torch.randn(*shape, module.input_size, dtype=torch.bfloat16, requires_grad=batch_first)
    states = [state.bfloat16() for state in random_states(name, 1, B, H)]
    given = torch.zeros(*shape, H, dtype=torch.bfloat16)
    leaves = [*module.parameters(), *[input] * batch_first]
    with seqcells.settings(recompute=recompute):
        # as in training, where the third step with the same signature is prepared, if the backend can
        for _ in range(2):
            torch.autograd.grad(module(input, like_module(states))[0], leaves, given)
        (output, _), forward = peak(lambda: module(input, like_module(states)))
        _, backward = peak(lambda: torch.autograd.grad(output, leaves, given))
    unit = output.nbytes
    kept = forward - (len(module.cell.gates) + wide) * unit
    found = forward / unit, (kept + backward) / unit
    most = (RECOMPUTED if recompute else WHOLE)[name]
    for mine, limit in zip(found, (most[0] + wide, most[1] + 2 * wide + batch_first), strict=True):
        assert mine <= limit + 0.6, found
