"""bfloat16 in the CPU engine: as near to float64 as torch.nn, only where allowed, always the same bits."""

import pytest
import torch
from support import TORCH_LAYERS, assert_equal_to, distance, gradients, layer, random_states, results

from seqcells.kernels import cpu
from seqcells.request.precision import bfloat16_products_allowed

if cpu.why_not_available():
    pytest.skip(f"the CPU engine is not here: {cpu.why_not_available()}", allow_module_level=True)

from seqcells.kernels.cpu import library, linear

BF16 = torch.bfloat16
needs_unit = pytest.mark.skipif(
    not library.multiplies_bfloat16(), reason="this machine has no unit for products of bfloat16 (AVX512-BF16)"
)
SIZES = ((1, 1, 5, 7), (1, 9, 16, 32), (9, 3, 33, 37), (40, 70, 7, 65))
"""Steps, batch, input size and hidden size."""


@pytest.fixture
def allowed():
    torch.backends.mkldnn.rnn.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.rnn.fp32_precision = "none"


def everything(module, input, states, training, **kwargs):
    """Outputs, final states and, in training, all gradients. Input and states are converted to the module's dtype."""
    dtype = module.weight_ih_l0.dtype
    leaves = [tensor.to(dtype).requires_grad_(training) for tensor in (input, *states)]
    with torch.set_grad_enabled(training):
        outputs = results(module, leaves[0], leaves[1:], **kwargs)
    return [*outputs, *(gradients(outputs, [*leaves, *module.parameters()]) if training else ())]


def data(name, sizes, dtype=BF16, proj_size=0):
    steps, batch, features, hidden = sizes
    input = torch.randn(steps, batch, features, dtype=dtype).double()
    states = random_states(name, 2, batch, hidden, proj_size=proj_size, dtype=dtype)
    return input, [state.double() for state in states]


def three(name, sizes, training, proj_size=0):
    """The results of torch.nn in float64 and in bfloat16, and our results in bfloat16, for the same numbers."""
    options = {"bidirectional": True, **({"proj_size": proj_size} if proj_size else {})}
    theirs = TORCH_LAYERS[name](*sizes[2:], dtype=BF16, **options)
    exact = TORCH_LAYERS[name](*sizes[2:], dtype=torch.float64, **options)
    ours = layer(name, *sizes[2:], dtype=BF16, backend="cpu", **options)
    for module in (exact, ours):
        module.load_state_dict(theirs.state_dict())
    given = data(name, sizes, proj_size=proj_size)
    return [everything(module, *given, training) for module in (exact, theirs, ours)]


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("name", "proj_size"), (*((name, 0) for name in TORCH_LAYERS), ("lstm", 5)))
def test_as_near_to_float64_as_torch(name, proj_size, sizes, training):
    truth, torchs, mine = three(name, sizes, training, proj_size)
    assert all(tensor.dtype == BF16 for tensor in mine)
    far = [(distance(m, t), distance(o, t)) for t, o, m in zip(truth, torchs, mine, strict=True)]
    assert all(ours <= 2 * theirs for ours, theirs in far), far


@pytest.mark.parametrize("name", ("lstm", "gru", "slstm"))
def test_lengths_and_resets(name):
    sizes = (11, 5, 9, 13)
    input, states = data(name, sizes)
    given = {"lengths": torch.tensor([0, 11, 4, 7, 1]), "reset": torch.rand(11, 5) < 0.3}
    exact = layer(name, *sizes[2:], dtype=torch.float64, bidirectional=True, backend="reference")
    ours = layer(name, *sizes[2:], dtype=BF16, bidirectional=True, backend="cpu")
    ours.load_state_dict(exact.state_dict())
    exact.load_state_dict(ours.state_dict())
    truth = everything(exact, input, states, True, **given)
    mine = everything(ours, input, states, True, **given)
    assert max(distance(m, t) for m, t in zip(mine, truth, strict=True)) < 0.02


@pytest.mark.parametrize("dtype", (BF16, pytest.param(torch.float32, marks=needs_unit)), ids=str)
@pytest.mark.parametrize("name", ("lstm", "gru", "indrnn"))
def test_the_same_bits_for_any_number_of_threads(name, dtype, threads, allowed):
    module = layer(name, 131, 201, dtype=dtype, backend="cpu")
    input, states = data(name, (7, 33, 131, 201), dtype)
    states = [state[:1] for state in states]
    for training in (True, False):
        found = []
        for count in (1, 2, 3, 7):
            threads(count)
            found.append(everything(module, input, states, training))
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


@needs_unit
@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_float32_is_exact_unless_less_is_allowed(name, training, allowed):
    sizes = (20, 9, 33, 65)
    module = layer(name, *sizes[2:], bidirectional=True, backend="cpu")
    exact = TORCH_LAYERS[name](*sizes[2:], bidirectional=True, dtype=torch.float64)
    exact.load_state_dict(module.state_dict())
    given = data(name, sizes, torch.float32)
    truth = everything(exact, *given, training)
    rounded = everything(module, *given, training)
    for setting in ("none", "ieee", "tf32"):
        torch.backends.mkldnn.rnn.fp32_precision = setting
        assert_equal_to(everything(module, *given, training), [tensor.float() for tensor in truth], 3e-5)
    far = [distance(m, t) for m, t in zip(rounded, truth, strict=True)]
    assert all(tensor.dtype == torch.float32 for tensor in rounded)
    assert min(far) > 1e-5 and max(far) < 0.02, far


def test_the_switches_are_torchs():
    assert not bfloat16_products_allowed()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert bfloat16_products_allowed()
        torch.backends.mkldnn.rnn.fp32_precision = "ieee"
        assert not bfloat16_products_allowed()
        torch.backends.mkldnn.rnn.fp32_precision = "none"
        torch.set_float32_matmul_precision("high")
        assert not bfloat16_products_allowed()
        torch.backends.fp32_precision = "bf16"
        assert bfloat16_products_allowed()
        torch.backends.mkldnn.rnn.fp32_precision = "ieee"
        assert not bfloat16_products_allowed()
    finally:
        torch.backends.mkldnn.rnn.fp32_precision = "none"
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision(before)


def test_every_instruction_set(monkeypatch):
    for name in library.TARGETS:
        monkeypatch.setattr(library, "target", name)
        assert library.reads(BF16) and library.multiplies_bfloat16() == name.endswith("bf16")
        truth, torchs, mine = three("lstm", (9, 3, 5, 7), True)
        assert all(distance(m, t) <= 2 * distance(o, t) for t, o, m in zip(truth, torchs, mine, strict=True))


@pytest.mark.parametrize("sizes", ((1, 1, 1), (7, 65, 131), (100, 3, 64), (300, 200, 5), (4, 0, 3), (0, 4, 3)), ids=str)
def test_products(sizes, threads):
    rows, columns, depth = sizes
    a, b, bias = (
        torch.randn(rows, depth, dtype=BF16),
        torch.randn(depth, columns, dtype=BF16),
        torch.randn(columns, dtype=BF16),
    )
    expected = a.double() @ b.double() + bias.double()
    for count in (1, 2):
        threads(count)
        for left in (a, a.T.contiguous().T):
            for right in (b, b.T.contiguous().T):
                # Rounded once, to the nearest bfloat16, after a sum in float32.
                assert_equal_to([linear.gemm(left, right, bias).double()], [expected], 2**-8)


@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_a_stream_equals_the_sequence(name):
    module = layer(name, 5, 7, num_layers=2, dtype=BF16, backend="cpu")
    input = torch.randn(6, 3, 5, dtype=BF16)
    stream = module.stream(3)
    outputs = torch.stack([stream(x).clone() for x in input])
    with torch.no_grad():
        whole = module(input)[0]
    # A stream stores its state in bfloat16 between two steps.
    assert_equal_to([outputs.double()], [whole.double()], 0.02)
