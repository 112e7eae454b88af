"""A repeated call of torch's operator is prepared once, equals torch.nn's result to the bit, and costs little."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch
from chunks import as_if_with_cudnn, broken, is_whole, lie_in_one_chunk, recorded
from delegations import NAMED, TIMES, everything, flat, prepare, same, states_for
from modules import IN, H, N, T, both, each_module, example, make
from support import gradients, like_module, plain_if
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import seqcells
from seqcells import functional
from seqcells.backends import torch_ops
from seqcells.call.signature import Signature

PACKAGE = str(Path(seqcells.__file__).parent)


@pytest.fixture
def whole(monkeypatch):
    """The calls that took the full path, through checks and the choice of a backend."""
    made = []
    for name in ("layers", "step_and_kept"):
        function = getattr(functional, name)
        monkeypatch.setattr(functional, name, lambda *a, run=function, **k: (made.append(a), run(*a, **k))[1])
    return made


# What torch.nn gives.


@plain_if(lambda kind, given, training, **_: given == training or kind == "LSTM")
@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize("given", (False, True), ids=("zeros", "states"))
@each_module
def test_torch_nns_numbers_first_and_later(kind, settings, given, training, whole):
    theirs, ours = both(kind, settings)
    ours.backend = "torch"
    dropout = getattr(ours, "dropout", 0)
    for mode in (True, False) if not dropout else (False,):
        theirs.train(mode), ours.train(mode), whole.clear()
        input = example(theirs)
        batch = input.shape[:1] if hasattr(theirs, "weight_ih") or theirs.batch_first else input.shape[1:2]
        states = states_for(theirs, batch) if given else []
        expected = everything(theirs, input, states, training)
        for _ in range(TIMES):
            same(everything(ours, input, states, training), expected)
        assert len(whole) == 2, "the third is prepared"


@pytest.mark.parametrize("dtype", (torch.float64, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"))
def test_other_numbers(kind, dtype, whole):
    theirs, ours = (each.to(dtype) for each in both(kind, {}))
    ours.backend = "torch"
    for training in (False, True):
        try:
            expected = everything(theirs, example(theirs), states_for(theirs), training)
        except RuntimeError as refusal:  # by oneDNN, for some processors
            pytest.skip(str(refusal))
        for _ in range(TIMES):
            same(everything(ours, example(ours), states_for(ours), training), expected)
    assert len(whole) == 4


def layouts(module):
    """Inputs and states in all memory layouts, by name."""
    cell = hasattr(module, "weight_ih")
    generator = torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    if cell:
        yield "one", random(IN), states_for(module, ())
        yield "sliced", random(N, 2 * IN)[:, ::2], states_for(module)
        yield "turned", random(IN, N).t(), [random(H, N).t() for _ in states_for(module)]
        yield "expanded", random(N, IN), [s[:1].expand(N, -1) for s in states_for(module)]
        return
    shape = (N, T) if module.batch_first else (T, N)
    yield "one", random(T, IN), states_for(module, ())
    yield "one, zeros", random(T, IN), []
    yield "turned", random(*shape[::-1], IN).transpose(0, 1), []
    yield "sliced", random(shape[0], 2 * shape[1], IN)[:, ::2], states_for(module)
    yield "expanded", random(*shape, IN), [s[:, :1].expand(-1, N, -1) for s in states_for(module)]
    yield "a batch's", random(*shape, IN), [s[:, ::2] for s in states_for(module, (2 * N,))]
    yield "one step", random(1, 1, IN), states_for(module, (1,))


@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
@pytest.mark.parametrize(
    ("kind", "settings"),
    (
        ("LSTM", {"bidirectional": True}),
        ("GRU", {"num_layers": 2}),
        ("GRU", {"batch_first": True}),
        ("LSTMCell", {}),
        ("RNNCell", {}),
    ),
    ids=str,
)
def test_however_its_tensors_lie(kind, settings, training, whole):
    theirs, ours = both(kind, settings)
    ours.backend = "torch"
    for _, input, states in layouts(theirs):
        whole.clear()

        def call(module, input=input, states=states):
            with torch.set_grad_enabled(training):
                found = flat(module(input, like_module(states) if states else None))
            return [*found, *gradients(found, [*module.parameters()])] if training else found

        # Our layer makes states contiguous, and with contiguous states a CPU's products round differently.
        expected = call(theirs, states=[*states] if "Cell" in kind else [state.contiguous() for state in states])
        for _ in range(TIMES):
            same(call(ours), expected)
        assert len(whole) == 2


@pytest.mark.parametrize("kind", ("GRU", "RNN", "LSTMCell", "GRUCell"))
def test_gradients_of_gradients(kind):
    def found(module):
        outputs = flat(module(example(module)))
        leaves = [*module.parameters()]
        first = torch.autograd.grad(sum(o.sin().sum() for o in outputs), leaves, create_graph=True)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)]

    theirs, ours = (each.double() for each in both(kind, {}))
    ours.backend = "torch"
    expected = found(theirs)
    for _ in range(TIMES):
        same(found(ours), expected)
    assert ours._prepared.has(gradients=True)


def test_training_with_an_optimizer(whole):
    losses = []
    for module in both("LSTM", {"num_layers": 2}):
        module.backend = "torch"
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        for _ in range(6):
            optimizer.zero_grad()
            loss = module(example(module))[0].square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    same(losses[6:], losses[:6])
    assert len(whole) == 2


# What a module keeps.


def test_nobody_can_write_to_the_zeros_that_are_kept():
    for kind in ("LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"):
        theirs, module = both(kind, {})
        module.backend = "torch"
        for training in (False, True):
            expected = everything(theirs, example(theirs), [], training)
            for _ in range(TIMES):
                same(everything(module, example(module), [], training), expected)
                with torch.no_grad():
                    for result in flat(module(example(module))):
                        result.fill_(torch.nan)


def test_zeros_that_were_made_in_inference_mode_are_saved_later():
    module = make(seqcells, "GRU", NAMED)
    input, theirs = example(module), module.to_torch()
    for mode in (torch.no_grad, torch.enable_grad):
        with torch.inference_mode(), mode():
            for _ in range(TIMES):
                module(input)
        assert module._prepared.has(gradients=mode is torch.enable_grad)
    for _ in range(TIMES):
        for training in (False, True):
            same(everything(module, input, [], training), everything(theirs, input, [], training))
        same(
            gradients([module(input)[0]], [*module.parameters()]), gradients([theirs(input)[0]], [*theirs.parameters()])
        )


def test_on_other_devices_zeros_are_new_each_time(monkeypatch):
    given, operator = [], torch_ops.OPERATORS["gru"][0]
    monkeypatch.setitem(torch_ops.OPERATORS, "gru", (lambda *a: (given.append(a[1]), operator(*a))[1], None))
    for device, count in (("cpu", 1), ("meta", 3)):
        module = seqcells.GRU(IN, H, device=device, **NAMED)
        for _ in range(6):
            module(torch.zeros(T, N, IN, device=device))
        kept = given[-3:]
        assert len({id(zeros) for zeros in kept}) == count and all(zeros.device.type == device for zeros in kept)
        assert all(zeros.shape == (1, N, H) and zeros.dtype == torch.float32 for zeros in kept)


def test_copies_begin_anew():
    module = prepare(make(seqcells, "LSTM", NAMED))
    expected = everything(module, example(module), [], False)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not other._prepared.has(gradients=False)
        with torch.no_grad():
            other.weight_hh_l0 *= 2
        theirs = other.to_torch()
        for _ in range(TIMES):
            same(everything(other, example(other), [], False), everything(theirs, example(other), [], False))
        same(everything(module, example(module), [], False), expected)


# Calls that must take the full path.


def test_calls_that_are_never_prepared(whole):
    module = make(seqcells, "GRU", {"num_layers": 2, **NAMED})
    input = example(module)
    packed = pack_padded_sequence(input, [T, 3, 2])
    module.dropout = 0.5
    for arguments, training in (((input,), True), ((packed,), False)):
        whole.clear()
        module.train(training)
        for _ in range(TIMES):
            module(*arguments)
        assert len(whole) == TIMES
    whole.clear()
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(TIMES):
            module(input)
    assert len(whole) == TIMES
    module.backend = "auto"
    for options in ({"lengths": torch.tensor([T, 3, 2])}, {"reset": torch.zeros(T, N, dtype=torch.bool)}):
        for _ in range(TIMES):
            module(input, **options)
    assert len(whole) == 3 * TIMES and not any(module._prepared.has(mode) for mode in (True, False))


def test_under_autocast_a_prepared_call_is_not_taken():
    theirs, ours = both("GRU", {})
    ours.backend = "torch"
    prepare(ours, training=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = flat(theirs(example(theirs)))
        for _ in range(TIMES):
            same(flat(ours(example(ours))), expected)
    prepare(ours, training=True)


def test_functional_call_and_transforms():
    theirs, ours = both("GRU", {})
    ours.backend = "torch"
    prepare(ours, training=True)
    new = {name: parameter.detach() * 2 for name, parameter in theirs.named_parameters()}

    def loss(new, module):
        return torch.func.functional_call(module, new, (example(module),))[0].sin().sum()

    for _ in range(TIMES):
        differentiable = [{k: v.clone().requires_grad_() for k, v in new.items()} for _ in range(2)]
        both_losses = [loss(each, module) for each, module in zip(differentiable, (theirs, ours), strict=True)]
        same([both_losses[1]], [both_losses[0]])
        found = [torch.autograd.grad(x, [*each.values()]) for x, each in zip(both_losses, differentiable, strict=True)]
        same(found[1], found[0])
        same(torch.func.grad(loss)(new, ours).values(), torch.func.grad(loss)(new, theirs).values())


def test_compiled_after_it_was_prepared():
    module = prepare(make(seqcells, "GRU", NAMED))
    expected = flat(module(example(module)))
    same(flat(torch.compile(module, backend="eager", fullgraph=True)(example(module))), expected)


def test_saved_and_computed_again():
    """A checkpoint counts saved tensors: a call and its recomputation save the same tensors, prepared or not."""
    module = make(seqcells, "GRU", NAMED)
    for before in range(4):
        for _ in range(before):
            module(example(module))
        input, found = example(module).requires_grad_(), []
        for run in (module, lambda x: checkpoint(module, x, use_reentrant=False)):
            found.append(torch.autograd.grad(run(input)[0].sin().sum(), [input, *module.parameters()]))
        same(*found)


def test_threads_may_call_a_module_at_once():
    module = make(seqcells, "LSTM", NAMED)
    inputs = [torch.randn(steps, N, IN) for steps in (2, 3, 4, 5, 6)]
    expected = [everything(module.to_torch(), input, [], True) for input in inputs]

    def call(k):
        for turn in range(20):
            at = (k + turn) % len(inputs)
            same(everything(module, inputs[at], [], True)[:3], expected[at][:3])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))


# Weights in one chunk, as on a GPU.


@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
def test_weights_in_one_chunk(training, monkeypatch):
    asked, given = as_if_with_cudnn(monkeypatch), recorded(monkeypatch)
    module = prepare(make(seqcells, "LSTM", {"num_layers": 2, **NAMED}), training=training)
    count = len(asked)
    expected = everything(module, example(module), [], training)
    assert is_whole(module) and len(asked) == count
    assert all(a is b for a, b in zip(given[-1], module.parameters(), strict=True))
    broken(module)
    same(everything(module, example(module), [], training), expected)
    assert len(asked) == count + 1 and lie_in_one_chunk(given[-1]) and not is_whole(module)


# Its cost.


def functions_of_ours(call):
    """The names of our functions that a call calls."""
    called = []

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            called.append((Path(frame.f_code.co_filename).stem, frame.f_code.co_name))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize("kind", ("LSTM", "GRU", "RNN", "LSTMCell"))
def test_few_functions_of_ours_are_called(kind):
    """Each call takes a tenth of a microsecond or more. Calls are counted, because other programs disturb a clock."""
    module = make(seqcells, kind, NAMED)
    for states in ([], states_for(make(nn, kind, {}))):
        prepare(module, states=states)
        with torch.no_grad():
            arguments = example(module), like_module(states) if states else None
            called = functions_of_ours(partial(module, *arguments))
        assert 5 < len(called) <= 18, called


def test_what_was_tried_in_vain_is_told_at_one_look(monkeypatch):
    module = make(seqcells, "GRU", NAMED)
    weight_norm(module, "weight_hh_l0")
    for _ in range(3):
        module(example(module))
    assert not module._prepared.has(gradients=True)
    monkeypatch.setattr(Signature, "of", lambda *a: pytest.fail("noted once more"))
    monkeypatch.setattr("seqcells.request.context.is_observed", lambda *a: pytest.fail("asked once more"))
    called = functions_of_ours(lambda: module._prepared.run(module, example(module), None))
    assert len(called) <= 12, called
