"""The CPU engine: every instruction set, any number of threads and callers, no stale weights."""

import copy
import ctypes
import multiprocessing
import subprocess
import sys
import threading

import pytest
import torch
from support import MAIN, assert_equal_to, gradients, layer, plain_if, random_states, results

import seqcells
from seqcells.backends import BACKENDS
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu

if cpu.why_not_available():
    pytest.skip(f"the CPU engine is not here: {cpu.why_not_available()}", allow_module_level=True)

from seqcells.kernels.cpu import library, linear

LIKE = {"dtype": torch.float64}
DEEP = {"num_layers": 2, "bidirectional": True}


def everything(module, steps, batch, seed=0, training=True, **kwargs):
    """Outputs, final states and, in training, all gradients, for an input drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    dtype = module.weight_ih_l0.dtype
    count = module.num_layers * (2 if module.bidirectional else 1)
    input = torch.randn(steps, batch, module.input_size, generator=generator, dtype=dtype, requires_grad=training)
    states = random_states(module.cell.name, count, batch, module.hidden_size, generator=generator, dtype=dtype)
    with torch.set_grad_enabled(training):
        outputs = results(module, input, states, **kwargs)
    return [*outputs, *(gradients(outputs, [input, *module.parameters()]) if training else ())]


@plain_if(lambda name, sizes, training, **_: name in MAIN or (training and sizes == (5, 33, 37)))
@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("sizes", ((1, 1, 7), (3, 2, 1), (60, 1, 20), (5, 33, 37), (2, 100, 130)), ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_each_instruction_set_equals_the_reference(name, sizes, training, target):
    steps, batch, hidden = sizes
    module = layer(name, 9, hidden, backend="cpu", **DEEP, **LIKE)
    found = everything(module, steps, batch, training=training)
    module.backend = "reference"
    assert_equal_to(found, everything(module, steps, batch, training=training))


@pytest.mark.parametrize("training", (True, False), ids=("training", "inference"))
@pytest.mark.parametrize("sizes", ((20, 1, 300), (5, 33, 200)), ids=str)
@pytest.mark.parametrize("name", ("lstm", "gru", "rnn_tanh", "mingru"))
def test_the_same_bits_for_any_number_of_threads(name, sizes, training, threads):
    steps, batch, hidden = sizes
    module = layer(name, 130, hidden, backend="cpu")
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        found.append(everything(module, steps, batch, training=training))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_the_number_of_threads_may_change_between_forward_and_backward(name, threads):
    module, input = layer(name, 40, 200, backend="cpu"), torch.randn(12, 3, 40)
    found = []
    for count, later in ((1, 1), (1, 3), (3, 2), (2, 1)):
        threads(count)
        output = module(input)[0]
        threads(later)
        found.append(torch.autograd.grad(output.square().sum(), list(module.parameters())))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_many_callers_at_once(threads):
    """Forward and backward; each caller has another number of threads."""
    threads(2)
    module = layer("gru", 40, 200, backend="cpu")
    expected = [everything(module, 12, 3, seed) for seed in range(4)]
    wrong = []

    def call(seed):
        for count in range(8):
            threads(1 + (seed + count) % 3)
            found = everything(module, 12, 3, seed)
            if not all(torch.equal(a, b) for a, b in zip(found, expected[seed], strict=True)):
                wrong.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not any(caller.is_alive() for caller in callers)
    assert not wrong


def test_callers_that_are_a_team_of_openmp(threads):
    """The callers are OpenMP threads, as where torch computes in parallel."""
    runtime = ctypes.CDLL("libgomp.so.1")
    module, found = layer("lstm", 40, 200, backend="cpu"), []
    expected = everything(module, 12, 3)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def call(_):
        threads(2)
        found.append(everything(module, 12, 3))

    runtime.GOMP_parallel(call, None, 3, 0)
    assert len(found) == 3
    for each in found:
        assert all(torch.equal(a, b) for a, b in zip(each, expected, strict=True))


def _as_torch_leaves_it():
    """OpenMP's threads look for work for some milliseconds after a parallel operator of torch."""
    torch.zeros(1 << 20).add_(1)


def test_threads_that_torchs_operators_left_running_work_too(threads):
    """Calls between operators of torch, as in a model, for any number of threads, from several callers."""
    module = layer("lstm", 40, 200, backend="cpu")
    expected, wrong = everything(module, 12, 3), []

    def call():
        for count in (2, 2, 2, 3, 2, 1, 4):
            threads(count)
            for _ in range(6):
                _as_torch_leaves_it()
                found = everything(module, 12, 3)
                if not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)):
                    wrong.append(count)

    caller = threading.Thread(target=call)
    caller.start()
    call()
    caller.join(60)
    assert not caller.is_alive()
    assert not wrong


def _in_worker(module, count, training, queue):
    torch.set_num_threads(count)
    queue.put([tensor.detach().numpy() for tensor in everything(module, 12, 3, training=training)])


@pytest.mark.parametrize(("count", "training"), ((1, True), (2, False)))
def test_in_a_forked_worker(count, training, threads):
    """With one thread, as DataLoader's workers have. With several threads, torch's own operators would hang in a forked
    process; our engine does not."""
    threads(2)
    module = layer("lstm", 40, 200, backend="cpu")
    for _ in range(10):
        _as_torch_leaves_it()
        expected = everything(module, 12, 3, training=training)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_in_worker, args=(module, count, training, queue))
    worker.start()
    try:
        found = queue.get(timeout=60)
        worker.join(60)
    finally:
        worker.kill()
    assert worker.exitcode == 0
    assert_equal_to([torch.from_numpy(each) for each in found], [each.detach() for each in expected], 0)


FORKED_EARLY = """
import multiprocessing, torch
torch.set_num_threads(2)
torch.zeros(1 << 20).add_(1)  # OpenMP has threads now, which a copy of this process has not

def work():
    from seqcells.kernels.cpu import library
    import seqcells
    library.cores = lambda: 64
    layer = seqcells.LSTM(40, 200, backend="cpu")
    with torch.no_grad():
        for _ in range(20):
            layer(torch.randn(12, 3, 40))

worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
worker.join(60)
worker.kill()
raise SystemExit(worker.exitcode != 0)
"""


def test_in_a_worker_that_was_forked_before_the_engine_was_loaded():
    subprocess.run([sys.executable, "-c", FORKED_EARLY], check=True, timeout=90)


class _Encoded(torch.utils.data.Dataset):
    def __init__(self, module):
        self.module = module

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return everything(self.module, 12, 3, index, training=False)[0]


def test_in_the_workers_of_a_data_loader(threads):
    threads(2)
    encoded = _Encoded(layer("gru", 40, 200, backend="cpu"))
    expected = torch.stack([encoded[index] for index in range(len(encoded))])
    loader = torch.utils.data.DataLoader(
        encoded, batch_size=2, num_workers=2, timeout=60, multiprocessing_context="fork"
    )
    assert torch.equal(torch.cat(list(loader)), expected)


@pytest.mark.parametrize("name", ("lstm", "gru", "jordan"))
@pytest.mark.parametrize(("steps", "batch"), ((1, 1), (1, 20), (9, 3)))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
def test_a_frozen_layer_keeps_packed_weights(name, steps, batch, dtype, target):
    """The numbers stay the same as an unfrozen layer's, after each change that torch's version counters see. After
    other changes, freezing again takes the new weights."""
    module, input = (
        layer(name, 6, 21, num_layers=2, backend="cpu", dtype=dtype),
        torch.randn(steps, batch, 6, dtype=dtype),
    )
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    other = layer(name, 6, 21, num_layers=2, dtype=dtype).state_dict()
    changes = (
        lambda: None,
        lambda: module.weight_hh_l0.mul_(1.5),
        lambda: module.load_state_dict(other),
        lambda: setattr(module.weight_hh_l0, "data", torch.randn_like(module.weight_hh_l0)),
        lambda: setattr(module, "weight_ih_l0", torch.nn.Parameter(torch.randn_like(module.weight_ih_l0))),
        lambda: (module.weight_hh_l1.data.mul_(0.5), module.freeze()),
    )
    with torch.no_grad():
        stream = module.freeze().stream(batch)
        for change in changes:
            change()
            found = [module(input)[0] for _ in range(4)][-1]
            stream.reset()
            steps_found = torch.stack([stream(x).clone() for x in input])
            thawed = copy.deepcopy(module).unfreeze()
            thawed_stream = thawed.stream(batch)
            # A stream's states are rounded to the layer's dtype after each step.
            expected = [thawed(input)[0], torch.stack([thawed_stream(x).clone() for x in input])]
            assert_equal_to([found.double(), steps_found.double()], [each.double() for each in expected], tolerance)


def test_freezing_is_a_promise_that_can_be_taken_back():
    """A frozen layer does not see a write through ``.data``; the thawed layer does."""
    module, input = layer("lstm", 6, 10, backend="cpu").freeze(), torch.randn(1, 1, 6)
    with torch.no_grad():
        before = [module(input)[0] for _ in range(4)][-1]
        module.weight_hh_l0.data.mul_(1.5)
        module.weight_ih_l0.data.mul_(1.5)
        assert torch.equal(module(input)[0], before)
        after = module.unfreeze()(input)[0]
        assert not torch.equal(after, before)
        module.backend = "reference"
        assert_equal_to([after], [module(input)[0]], 1e-6)


@pytest.mark.parametrize("steps", (1, 30))
def test_a_change_of_weights_counts_at_once(steps):
    module = layer("lstm", 6, 10, backend="cpu", **LIKE)
    stream, input = module.stream(), torch.randn(steps, 1, 6, **LIKE)
    changes = (
        lambda: torch.optim.SGD(module.parameters(), lr=0.5).step(),
        lambda: module.load_state_dict(layer("lstm", 6, 10, **LIKE).state_dict()),
        lambda: module.weight_hh_l0.data.mul_(1.5),
        lambda: setattr(module.weight_hh_l0, "data", torch.randn(40, 10, **LIKE)),
        lambda: setattr(module, "weight_ih_l0", torch.nn.Parameter(torch.randn(40, 6, **LIKE))),
    )
    module(input)[0].sum().backward()
    for change in changes:
        with torch.no_grad():
            module(input)
            stream(input[0])
        change()
        stream.reset()
        with torch.no_grad():
            found = [module(input)[0], torch.stack([stream(x).clone() for x in input])]
            module.backend = "reference"
            expected = module(input)[0]
            module.backend = "cpu"
        assert_equal_to(found, [expected, expected])


def test_kept_memory_can_be_given_back():
    module = layer("lstm", 64, 128, backend="cpu")
    expected = everything(module, 20, 32)
    assert seqcells.empty_cache() >= 1 << 16
    assert seqcells.empty_cache() == 0
    assert all(map(torch.equal, everything(module, 20, 32), expected))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("sizes", ((1, 1, 1), (7, 65, 130), (100, 3, 64), (300, 200, 5), (4, 0, 3), (0, 4, 3)), ids=str)
def test_products(sizes, dtype, target, threads):
    rows, columns, depth = sizes
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    a, b = torch.randn(rows, depth, dtype=dtype), torch.randn(depth, columns, dtype=dtype)
    bias = torch.randn(columns, dtype=dtype)
    for count in (1, 2):
        threads(count)
        for left in (a, a.T.contiguous().T):
            for right in (b, b.T.contiguous().T):
                assert_equal_to([linear.gemm(left, right, bias)], [a @ b + bias], tolerance)


def test_large_memory_is_used_again_and_poisoned_in_tests():
    first = library.pooled((1 << 20,), torch.float32)
    assert first.isnan().all()
    address = first.data_ptr()
    del first
    again = library.pooled((1 << 20,), torch.float32)
    assert again.data_ptr() == address
    assert library.pooled((1 << 20,), torch.float32).data_ptr() != address


def test_plan_without_the_extension(monkeypatch):
    without = BACKENDS["cpu"]._replace(why_not_available=lambda: "its extension is not built")
    monkeypatch.setitem(BACKENDS, "cpu", without)
    module = seqcells.GRU(4, 6, backend="cpu")
    with pytest.raises(RuntimeError, match="its extension is not built"):
        module(torch.randn(3, 1, 4))
    module.backend = "auto"
    choice = module.plan(torch.randn(3, 1, 4))
    assert choice.backend == "torch" and "its extension is not built" in choice.reason
