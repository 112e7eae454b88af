"""The cluster plan on a GPU at full size: as near to float64 as torch.nn, repeatable, capturable, without a spill."""

import pytest
import torch
from nearness import too_far

import seqcells

pytestmark = pytest.mark.cuda
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from seqcells.kernels.triton.plans import cluster  # noqa: E402, it imports triton

if cluster.why_not_on(torch.device("cuda")):
    pytest.skip(cluster.why_not_on(torch.device("cuda")), allow_module_level=True)

BACKEND, DEVICE = "cuda-cluster", "cuda"


@pytest.fixture(autouse=True)
def exact_products():
    """Overrides the fixture: float32 has the default precision of recurrent layers."""


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch, hidden", [(8, 512), (60, 512), (16, 256), (130, 128), (3, 100), (16, 768), (5, 1)])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh"])
def test_as_near_as_torch(name, batch, hidden, dtype):
    assert not too_far(name, BACKEND, (60, batch, 64, hidden), dtype, DEVICE)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_float32_by_tf32(name):
    assert not too_far(name, BACKEND, (60, 16, 64, 128), torch.float32, DEVICE)


def test_both_directions_of_two_layers():
    assert not too_far("lstm", BACKEND, (30, 9, 64, 256), torch.bfloat16, DEVICE, num_layers=2, bidirectional=True)


def training(module, input, **given):
    output, _ = module(input, **given)
    return [output, *torch.autograd.grad(output.float().square().sum(), module.parameters())]


@pytest.mark.parametrize("hidden", [512, 128])
def test_the_same_bits_every_time(hidden):
    module = seqcells.LSTM(64, hidden, device=DEVICE, dtype=torch.bfloat16, backend=BACKEND)
    input = torch.randn(300, 70, 64, device=DEVICE).to(torch.bfloat16)
    first = training(module, input)
    for _ in range(5):
        assert all(map(torch.equal, first, training(module, input)))


def test_lengths_and_resets_as_the_persistent_plan():
    module = seqcells.GRU(64, 256, device=DEVICE, dtype=torch.bfloat16, backend=BACKEND, bidirectional=True)
    input = torch.randn(50, 20, 64, device=DEVICE).to(torch.bfloat16)
    given = {"lengths": torch.randint(0, 51, (20,)), "reset": torch.rand(50, 20, device=DEVICE) < 0.1}
    ours = training(module, input, **given)
    module.backend = "triton-persistent"
    for a, b in zip(ours, training(module, input, **given), strict=True):
        torch.testing.assert_close(a, b, rtol=3e-2, atol=3e-2)


def test_a_cuda_graph_captures_it():
    module = seqcells.LSTM(64, 256, device=DEVICE, dtype=torch.bfloat16, backend=BACKEND)
    input = torch.randn(40, 8, 64, device=DEVICE).to(torch.bfloat16)
    with torch.no_grad():
        expected = module(input)[0].clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = module(input)[0]
        output.zero_()
        graph.replay()
    assert torch.equal(output, expected)


def test_no_kernel_takes_memory_in_the_place_of_registers(monkeypatch):
    seen = []
    launch = cluster.launch
    monkeypatch.setattr(cluster, "launch", lambda text, *rest: (seen.append(text), launch(text, *rest)))
    for hidden in (512, 256, 128):
        module = seqcells.LSTM(64, hidden, device=DEVICE, dtype=torch.bfloat16, backend=BACKEND)
        training(module, torch.randn(9, 8, 64, device=DEVICE).to(torch.bfloat16))
    assert len(seen) == 6
    assert [cluster.stack_bytes(text, torch.device(DEVICE)) for text in seen] == [0] * 6
