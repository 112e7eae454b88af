"""A repeated inference call is prepared once, gives the results of the first call, and nothing stale."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.utils.prune as prune
from support import as_tuple, assert_equal_to, layer, like_module, random_states
from torch.nn.utils.parametrizations import weight_norm

import seqcells
from seqcells.cells import REGISTRY

LIKE = {"dtype": torch.float64}


def flat(results):
    output, final = results
    return [output, *as_tuple(final)]


def is_prepared(module, gradients=False):
    return module._prepared.has(gradients)


def call(module, *arguments, times=4):
    """The results of the same call, made several times."""
    with torch.no_grad():
        return [module(*arguments) for _ in range(times)]


@pytest.mark.parametrize(
    "options", ({}, {"num_layers": 2, "bidirectional": True, "batch_first": True}), ids=("", "deep")
)
@pytest.mark.parametrize("sizes", ((1, 3), (4, 1), (5, 2)), ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_layers(name, sizes, options):
    module = layer(name, 5, 7, backend="cpu", **options, **LIKE)
    input = torch.randn(*(sizes[::-1] if module.batch_first else sizes), 5, **LIKE)
    count = module.num_layers * (2 if module.bidirectional else 1)
    for hx in (None, like_module(random_states(name, count, sizes[1], 7, **LIKE))):
        found = call(module, input, hx)
        assert is_prepared(module)
        for again in found[1:]:
            assert_equal_to(flat(again), flat(found[0]), 0)
            assert [t.shape for t in flat(again)] == [t.shape for t in flat(found[0])]
        assert len({t.data_ptr() for results in found for t in flat(results)}) == len(found) * len(flat(found[0]))
    call(module, input[0] if 1 in sizes else input[:1])


@pytest.mark.parametrize("name", ("lstm", "gru", "rnn_tanh"))
def test_cells(name):
    cls = {"lstm": seqcells.LSTMCell, "gru": seqcells.GRUCell, "rnn_tanh": seqcells.RNNCell}[name]
    module = cls(5, 7, backend="cpu", **LIKE)
    for shape in ((3,), ()):
        hx = like_module(random_states(name, *shape, 7, **LIKE))
        first, *others = call(module, torch.randn(*shape, 5, **LIKE).fill_(0.5), hx)
        assert is_prepared(module)
        assert all(torch.equal(a, b) for again in others for a, b in zip(as_tuple(again), as_tuple(first), strict=True))
        assert as_tuple(first)[0].shape == (*shape, 7)


def test_a_call_that_is_not_like_it_goes_the_whole_way():
    module = layer("lstm", 5, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 2, 5, **LIKE)
    hx = tuple(random_states("lstm", 1, 2, 7, **LIKE))
    call(module, input, hx)
    expected = layer("lstm", 5, 7, backend="reference", **LIKE)
    expected.load_state_dict(module.state_dict())
    others = (
        (input, None),
        (input.flip(0), hx),
        (input[:2], hx),
        (torch.randn(3, 5, 2, **LIKE).transpose(1, 2), hx),
        (input[:, 0], None),
        (input[:, :1], tuple(state[:, :1] for state in hx)),
        (input, tuple(state.expand(1, 2, 7) for state in hx)),
    )
    for arguments in others:
        with torch.no_grad():
            assert_equal_to(flat(module(*arguments)), flat(expected(*arguments)))
        call(module, input, hx)
    assert module(input, hx)[0].requires_grad
    with torch.no_grad(), pytest.raises(RuntimeError, match="Expected hidden"):
        module(input, tuple(state[:, :1] for state in hx))
    with torch.no_grad(), pytest.raises(ValueError, match="does not match weight dtype"):
        module(input.float(), hx)
    call(module, input)
    with torch.no_grad(), pytest.raises(IndexError):
        module(input, ())
    with torch.no_grad(), pytest.raises(RuntimeError, match="kernels do not follow"):
        torch.func.vmap(lambda x: module(x, hx)[0])(torch.stack([input, -input]))


@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("batch_first", (False, True), ids=("steps first", "batch first"))
def test_tensors_that_lie_otherwise_again_and_again(batch_first, training):
    module = layer("gru", 5, 7, batch_first=batch_first, backend="cpu", **LIKE)
    theirs = module.to_torch()
    plain = torch.randn(4, 4, 5, **LIKE), torch.randn(1, 4, 7, **LIKE)
    others = (
        (plain[0].transpose(0, 1), plain[1]),
        (torch.randn(4, 8, 5, **LIKE)[:, ::2], plain[1]),
        (torch.randn(4, 4, 10, **LIKE)[..., ::2], plain[1]),
        (plain[0], plain[1][:, :1].expand(-1, 4, -1)),
        (plain[0], torch.randn(1, 8, 7, **LIKE)[:, ::2]),
    )
    with torch.set_grad_enabled(training):
        for arguments in (plain, *others, plain):
            for _ in range(4):
                assert_equal_to(flat(module(*arguments)), flat(theirs(*arguments)))


def test_what_is_wrong_is_told_as_ever_once_a_call_is_prepared():
    module, cell = layer("lstm", 5, 7, backend="cpu", **LIKE), seqcells.LSTMCell(5, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 2, 5, **LIKE)
    h, c = random_states("lstm", 1, 2, 7, **LIKE)
    call(module, input, (h, c)), call(cell, input[0], (h[0], c[0]))
    assert is_prepared(module) and is_prepared(cell)
    for hx in ((h, c, c), (h,), 5, h):
        expected = layer("lstm", 5, 7, backend="cpu", **LIKE)
        with torch.no_grad(), pytest.raises(Exception) as fresh:
            expected(input, hx)
        with torch.no_grad(), pytest.raises(fresh.type) as found:
            module(input, hx)
        assert str(found.value) == str(fresh.value)
    with torch.no_grad(), pytest.raises(RuntimeError, match="expects two hidden states"):
        cell(input[0], (h[0], c[0], c[0]))
    nested = torch.nested.nested_tensor([input[0], input[1, :1]])
    with torch.no_grad(), pytest.raises((NotImplementedError, RuntimeError)):
        module(nested)


@pytest.mark.parametrize("streaming", (False, True), ids=("layer", "stream"))
def test_tensors_that_are_one_and_the_same(streaming):
    """States that begin with the same zero tensor, and layers that share parameters."""
    module, zeros = layer("lstm", 7, 7, 2, backend="cpu", **LIKE), torch.zeros(2, 1, 7, **LIKE)
    module.weight_ih_l1 = module.weight_ih_l0
    input = torch.randn(3, 1, 7, **LIKE)
    if streaming:
        stream = module.stream()
        found = torch.stack([stream(x).clone() for x in input])
        assert stream._inference is not None
    else:
        found = call(module, input, (zeros, zeros))[-1][0]
        assert is_prepared(module)
    other = call(module, input, (zeros, zeros + 1))[-1][0]
    module.backend = "reference"
    assert_equal_to([found, other], [call(module, input, hx, times=1)[0][0] for hx in (None, (zeros, zeros + 1))])


def test_parameters_in_another_order():
    module = layer("rnn_tanh", 7, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 1, 7, **LIKE)
    call(module, input)
    prune.random_unstructured(module, "weight_ih_l0", 0.5)
    prune.remove(module, "weight_ih_l0")
    assert next(iter(module._parameters)) != "weight_ih_l0"
    found, stream = call(module, input)[-1][0], module.stream()
    assert is_prepared(module)
    steps = torch.stack([stream(x).clone() for x in input])
    assert_equal_to([steps], [found])
    module.bias_hh_l0 = torch.nn.Parameter(torch.randn(7, **LIKE))
    other = call(module, input)[-1][0]
    module.backend = "reference"
    assert_equal_to([other], [call(module, input, times=1)[0][0]])
    assert (found - other).abs().max() > 1e-3


def test_what_the_choice_depends_on_may_change():
    module = layer("gru", 5, 7, 2, dropout=0.5, backend="cpu", **LIKE).eval()
    input = torch.randn(3, 2, 5, **LIKE)
    (plain, _), *_ = call(module, input)
    module.train()
    (first, _), (second, _), *_ = call(module, input)
    assert not torch.equal(first, second)
    module.eval()
    module.backend = "torch"
    with torch.no_grad():
        assert torch.equal(module(input)[0], module.to_torch().eval()(input)[0])
        module.backend = "cpu"
        assert torch.equal(module(input)[0], plain)


def test_a_cells_nonlinearity_may_change():
    cell, input = seqcells.RNNCell(5, 7, backend="cpu", **LIKE), torch.randn(2, 5, **LIKE)
    theirs = cell.to_torch()
    for nonlinearity in ("tanh", "relu", "tanh"):
        cell.nonlinearity = theirs.nonlinearity = nonlinearity
        with torch.no_grad():
            assert_equal_to(call(cell, input), [theirs(input)] * 4)
    assert is_prepared(cell)
    cell.nonlinearity = "sigmoid"
    with pytest.raises(RuntimeError, match="Unknown nonlinearity: sigmoid"):
        call(cell, input)


def test_the_layout_may_change():
    module = layer("gru", 5, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 1, 5, **LIKE)
    call(module, input)
    module.batch_first = True
    found = call(module, input)
    module.backend = "reference"
    assert_equal_to(flat(found[0]), flat(call(module, input, times=1)[0]))


def test_threads_may_call_a_module_at_once():
    module = layer("lstm", 5, 7, 2, backend="cpu", **LIKE)
    inputs = [torch.randn(steps, 1, 5, **LIKE) for steps in (2, 30) * 2]
    expected = [call(module, input, times=1)[0][0] for input in inputs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(len(inputs)) as pool:
            found = list(pool.map(lambda input: call(module, input, times=500), inputs))
    finally:
        sys.setswitchinterval(interval)
    for results, output in zip(found, expected, strict=True):
        assert all(torch.equal(again, output) for again, _ in results)


def test_what_cannot_be_prepared_is_tried_once(monkeypatch):
    module = layer("lstm", 5, 7, backend="cpu", dtype=torch.float16)
    tried = []
    remember = module._prepared.remember
    monkeypatch.setattr(module._prepared, "remember", lambda *a: (tried.append(a), remember(*a)))
    call(module, torch.randn(3, 2, 5).half(), times=6)
    assert not is_prepared(module)
    assert len(tried) == 1


def test_without_torchs_check_of_tensors_nothing_is_prepared(monkeypatch):
    monkeypatch.delattr(torch._C._dynamo.guards, "TensorGuards")
    module, input = layer("lstm", 5, 7, backend="cpu", **LIKE), torch.randn(3, 1, 5, **LIKE)
    found, stream = call(module, input), module.stream()
    assert all(torch.equal(again[0], found[0][0]) for again in found) and not is_prepared(module)
    assert_equal_to([torch.stack([stream(x).clone() for x in input])], [found[0][0]])


def test_copies_begin_anew():
    module = layer("lstm", 5, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 2, 5, **LIKE)
    expected = call(module, input)[0][0]
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not is_prepared(other)
        with torch.no_grad():
            other.weight_hh_l0.mul_(2)
        assert torch.equal(call(module, input)[-1][0], expected)
        assert not torch.equal(call(other, input)[-1][0], expected)


@pytest.mark.parametrize(
    "change",
    (
        lambda m: m.weight_hh_l0.data.mul_(2),
        lambda m: setattr(m.weight_hh_l0, "data", torch.randn(7, 7, **LIKE)),
        lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data.t()),
        lambda m: setattr(m, "weight_ih_l0", torch.nn.Parameter(torch.randn(7, 5, **LIKE))),
        lambda m: weight_norm(m, "weight_hh_l0"),
        lambda m: torch.set_num_threads(1),
    ),
    ids=("in place", "data", "transposed", "parameter", "parametrized", "threads"),
)
def test_a_change_of_weights_counts_at_once(change):
    module = layer("rnn_tanh", 5, 7, backend="cpu", **LIKE)
    input, threads = torch.randn(3, 2, 5, **LIKE), torch.get_num_threads()
    call(module, input)
    assert is_prepared(module)
    try:
        change(module)
        found = call(module, input)
        module.backend = "reference"
        assert_equal_to([output for output, _ in found], [call(module, input, times=1)[0][0]] * len(found))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("streaming", (False, True), ids=("layer", "stream"))
@pytest.mark.parametrize(
    "remake",
    (
        weight_norm,
        lambda m, name: prune.l1_unstructured(m, name, 0.3),
    ),
    ids=("parametrized", "pruned"),
)
def test_weights_that_are_made_at_each_call_are_not_kept(remake, streaming):
    module = layer("rnn_tanh", 5, 7, backend="cpu", **LIKE)
    remake(module, "weight_hh_l0")
    input = torch.randn(3, 2, 5, **LIKE)
    stream = module.stream(2)
    call(module, input)
    for step in input:
        stream(step)
    with torch.no_grad():
        next(p for name, p in module.named_parameters() if "hh_l0" in name and "orig" in name).mul_(3)
    stream.reset()
    found = torch.stack([stream(step).clone() for step in input]) if streaming else call(module, input)[0][0]
    module.backend = "reference"
    assert_equal_to([found], [call(module, input, times=1)[0][0]])


@pytest.mark.parametrize(
    "change",
    (
        lambda m: prune.random_unstructured(m, "weight_hh_l0", 0.9),
        lambda m: setattr(m.weight_hh_l0, "data", m.weight_hh_l0.data.t()),
        lambda m: setattr(m.weight_hh_l0, "data", torch._neg_view(m.weight_hh_l0.data)),
    ),
    ids=("pruned", "transposed", "negated"),
)
def test_the_same_memory_seen_otherwise_counts_at_once(change):
    module = layer("rnn_tanh", 6, 6, bias=False, backend="cpu", **LIKE)
    stream, input = module.stream(), torch.randn(3, 1, 6, **LIKE)
    before = call(module, input)[0][0]
    with torch.no_grad():
        stream(input[0])
        change(module)
        stream.reset()
        found = [module(input)[0], torch.stack([stream(x).clone() for x in input])]
        module.backend = "reference"
        expected = module(input)[0]
    assert_equal_to(found, [expected] * 2)
    assert (found[0] - before).abs().max() > 1e-3


def _doubled_output(module, patch):
    forward = type(module).forward
    patch.setattr(type(module), "forward", lambda *args: (2 * forward(*args)[0], forward(*args)[1]))
    return 2


def _other_weight(module, patch):
    halved = property(lambda self: 0.5 * self._parameters["weight_hh_l0"])
    module.__class__ = type("Other", (type(module),), {"weight_hh_l0": halved})
    return 1


@pytest.mark.parametrize("change", (_doubled_output, _other_weight))
def test_another_class_or_forward_counts_at_once(change, monkeypatch):
    module, theirs = seqcells.GRU(5, 7, backend="cpu", **LIKE), torch.nn.GRU(5, 7, **LIKE)
    theirs.load_state_dict(module.state_dict())
    input, stream = torch.randn(3, 1, 5, **LIKE), module.stream()
    call(module, input)
    stream(input[0])
    stream.reset()
    assert is_prepared(module) and stream._inference is not None
    factor = change(module, monkeypatch)
    with torch.no_grad():
        theirs.weight_hh_l0 *= factor / 2
        expected = factor * theirs(input)[0]
    found = [*(output for output, _ in call(module, input)), torch.stack([stream(x).clone() for x in input])]
    assert_equal_to(found, [expected] * 5)


def test_a_weight_of_another_size_at_the_same_place_is_refused():
    module = layer("rnn_tanh", 5, 7, backend="cpu", **LIKE)
    input = torch.randn(3, 2, 5, **LIKE)
    call(module, input)
    module.weight_hh_l0.data = module.weight_hh_l0.data[:3]
    with pytest.raises(RuntimeError, match=r"Expected weight_hh of size \(7, 7\), got \[3, 7\]"):
        call(module, input)
