"""A repeated call with gradients is prepared once, gives the results of the first call, and nothing stale."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from support import MAIN, as_tuple, assert_equal_to, layer, like_module, plain_if, random_states
from torch.utils.checkpoint import checkpoint

import seqcells
from seqcells.cells import REGISTRY
from seqcells.kernels import cpu

if cpu.why_not_available():
    pytest.skip(f"the CPU engine is not here: {cpu.why_not_available()}", allow_module_level=True)

DEEP = {"num_layers": 3, "bidirectional": True, "batch_first": True}
CELLS = {"lstm": seqcells.LSTMCell, "gru": seqcells.GRUCell, "rnn_tanh": seqcells.RNNCell}
TIMES = 4


def problem(name, sizes=(4, 3), states=True, dtype=torch.float64, backend="cpu", **options):
    """A layer, its input and states, all with gradients."""
    module = layer(name, 5, 7, backend=backend, dtype=dtype, **options)
    steps, batch = sizes
    generator = torch.Generator().manual_seed(3)
    shape = (batch, steps) if module.batch_first else sizes
    input = torch.randn(*shape, 5, generator=generator, dtype=dtype, requires_grad=True)
    count = module.num_layers * (2 if module.bidirectional else 1)
    given = random_states(name, count, batch, 7, generator=generator, dtype=dtype) if states else []
    return module, input, [state.requires_grad_() for state in given]


def everything(module, input, states, leaves=None, loss=None):
    """Outputs and gradients of one call."""
    found = module(input, like_module(states) if states else None)
    outputs = [found] if isinstance(found, torch.Tensor) else [found[0], *as_tuple(found[1])]
    leaves = [input, *states, *module.parameters()] if leaves is None else leaves
    weighted = [(o * torch.arange(o.numel(), dtype=o.dtype).view(o.shape).cos()).sum() for o in outputs]
    total = sum(weighted) if loss is None else loss(*outputs)
    return [*outputs, *torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)]


def same(found, expected, tolerance=0):
    for each in found:
        assert_equal_to(each, expected, tolerance)
        assert [t.shape for t in each] == [t.shape for t in expected]


@plain_if(lambda name, sizes, dtype, **_: name in MAIN or (dtype == torch.float64 and sizes == (5, 2)))
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)
@pytest.mark.parametrize("states", (False, True), ids=("zeros", "states"))
@pytest.mark.parametrize("options", ({}, DEEP, {"bias": False, "bidirectional": True}), ids=("", "deep", "unbiased"))
@pytest.mark.parametrize("sizes", ((1, 1), (1, 3), (4, 1), (5, 2)), ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_layers(name, sizes, options, states, dtype):
    if options.get("bias") is False and not REGISTRY[name].recurrent_gates:
        options = {"bidirectional": True}
    call = problem(name, sizes, states, dtype, **options)
    first, *others = [everything(*call) for _ in range(TIMES)]
    assert call[0]._prepared.has(gradients=True) == (len(REGISTRY[name].parameters) < 2)
    same(others, first)
    if dtype == torch.float64:
        call[0].backend = "reference"
        assert_equal_to(first, everything(*call))


@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float16), ids=str)
def test_narrow_numbers_go_the_whole_way(dtype):
    """Such calls are not prepared, because values kept for backward are wider than the dtype."""
    call = problem("lstm", dtype=dtype, **DEEP)
    first, *others = [everything(*call) for _ in range(TIMES)]
    assert not call[0]._prepared.has(gradients=True)
    same(others, first)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("shape", ((3,), ()), ids=("batch", "one"))
def test_chains_of_cells(name, shape):
    """The first step has states without gradients, all later steps have states with gradients. Both kinds of calls are
    prepared."""
    torch.manual_seed(0)
    module = CELLS[name](5, 7, backend="cpu", dtype=torch.float64)
    inputs = torch.randn(6, *shape, 5, dtype=torch.float64, requires_grad=True)

    def chain():
        hx = like_module(
            random_states(name, *shape, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        )
        for input in inputs:
            hx = module(input, hx)
        return [
            *as_tuple(hx),
            *torch.autograd.grad(sum(state.sin().sum() for state in as_tuple(hx)), [inputs, *module.parameters()]),
        ]

    first, *others = [chain() for _ in range(TIMES)]
    known = module._prepared._known[True]
    assert len(known) == 2 and all(each.call for each in known)
    same(others, first)
    module.backend = "reference"
    assert_equal_to(first, chain())


@pytest.mark.parametrize("name", ("lstm", "gru", "indrnn"))
def test_only_what_is_wanted(name):
    """Also where the lower layer has no gradients and runs as in inference."""
    module, input, states = problem(name, num_layers=2)
    parameters = dict(module.named_parameters())
    gradients = everything(module, input, states)[1 + len(states) :]
    full = dict(zip(["input", *range(len(states)), *parameters], gradients, strict=True))
    for wanted in parameters.keys() & {"weight_ih_l0", "weight_hh_l1", "bias_ih_l1", "bias_hh_l0"}:
        for key, parameter in parameters.items():
            parameter.requires_grad_(key == wanted)
        plain = input.detach(), [state.detach() for state in states]
        first, *others = [everything(module, *plain, [parameters[wanted]]) for _ in range(TIMES)]
        same(others, first)
        assert_equal_to(first[-1:], [full[wanted]])
    module.requires_grad_(False)
    for _ in range(TIMES):
        assert torch.equal(everything(module, input, states, [input])[-1], full["input"])
    assert module._prepared.has(gradients=True)


@pytest.mark.parametrize("options", ({}, DEEP), ids=("", "deep"))
def test_of_one_of_the_results(options):
    module, input, states = problem("lstm", **options)
    for loss in (
        lambda y, h, c: y.square().sum(),
        lambda y, h, c: h.sum(),
        lambda y, h, c: c.cos().sum(),
        lambda y, h, c: y.sum().expand(3).sum(),
        lambda y, h, c: y[..., ::2].sum() + c[:1].sum(),
    ):
        first, *others = [everything(module, input, states, loss=loss) for _ in range(TIMES)]
        same(others, first)
        module.backend = "reference"
        assert_equal_to(first, everything(module, input, states, loss=loss))
        module.backend = "cpu"


HOOKS = {
    "fortran": (lambda t: np.asfortranarray(t.detach().numpy()), lambda a: torch.from_numpy(a)),
    "laid out otherwise": (lambda t: t.detach(), lambda t: t.transpose(0, -1).contiguous().transpose(0, -1)),
    "a copy": (lambda t: t.detach().clone(), lambda t: t),
    "offset": (lambda t: t.detach(), lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)),
    "negated": (lambda t: t.detach(), lambda t: torch._neg_view(-t)),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_saved_tensors_that_come_back_in_another_form(kind):
    for options in ({}, DEEP):
        call = problem("gru", **options)
        first, *_ = [everything(*call) for _ in range(TIMES)]
        with torch.autograd.graph.saved_tensors_hooks(*HOOKS[kind]):
            found = [everything(*call) for _ in range(2)]
        same([*found, everything(*call)], first)


def test_kept_elsewhere():
    module, input, states = problem("lstm", num_layers=2)
    first, *_ = [everything(module, input, states) for _ in range(TIMES)]
    with torch.autograd.graph.save_on_cpu():
        same([everything(module, input, states)], first)


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_computed_again(name, before):
    """A call and its recomputation save the same tensors, also where the recomputation is the first prepared call, or
    is no longer prepared."""
    module, input, states = problem(name, num_layers=2)
    others = [torch.randn(steps, 2, 5, dtype=torch.float64) for steps in range(5, 11)]
    for _ in range(before):
        module(input, like_module(states))

    def call(again):
        hx, outputs = like_module(states), []
        for part in input.chunk(2):
            output, hx = checkpoint(module, part, hx, use_reentrant=False) if again else module(part, hx)
            outputs.append(output)
        for other in others:
            module(other)
        return torch.autograd.grad(torch.cat(outputs).sin().sum(), [input, *states, *module.parameters()])

    for _ in range(3):
        assert_equal_to(call(True), call(False), 0)


@pytest.mark.parametrize("name", CELLS)
def test_states_of_cells_may_be_changed_in_place(name):
    """The states of torch.nn's LSTMCell and GRUCell may be changed, too: a policy masks states where an episode has
    ended."""
    torch.manual_seed(0)
    module = CELLS[name](5, 7, dtype=torch.float64, backend="cpu")
    inputs, mask = torch.randn(8, 3, 5, dtype=torch.float64), torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64)

    def chain(masked):
        hx = like_module(random_states(name, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
        for input in inputs:
            hx = module(input, hx)
            hx = like_module([masked(state) for state in as_tuple(hx)])
        return torch.autograd.grad(sum(state.sin().sum() for state in as_tuple(hx)), list(module.parameters()))

    for _ in range(TIMES):
        assert_equal_to(chain(lambda state: state.mul_(mask)), chain(lambda state: state * mask), 0)
    assert module._prepared.has(gradients=True)


@pytest.mark.parametrize("options", ({}, DEEP), ids=("", "deep"))
@pytest.mark.parametrize("name", ("lstm", "gru"))
def test_gradients_of_gradients(name, options):
    def found(module, input, states):
        hx = like_module(states) if states else None
        leaves = [input, *states, *module.parameters()]
        output, final = module(input, hx)
        total = output.square().sum() + sum(state.cos().sum() for state in as_tuple(final))
        first = torch.autograd.grad(total, leaves, create_graph=True)
        return [*first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)]

    for states in (False, True):
        call = problem(name, (3, 2), states, **options)
        results = [found(*call) for _ in range(TIMES)]
        assert call[0]._prepared.has(gradients=True)
        call[0].backend = "reference"
        expected = found(*call)
        for each in results:
            assert_equal_to(each, expected)


def test_many_gradients_in_one():
    module, input, states = problem("gru")
    for _ in range(TIMES):
        output, _ = module(input, states[0])
    seeds = torch.randn(3, *output.shape, dtype=output.dtype)
    one = [torch.autograd.grad(output, module.weight_hh_l0, seed, retain_graph=True)[0] for seed in seeds]
    together = torch.autograd.grad(output, module.weight_hh_l0, seeds, is_grads_batched=True)[0]
    assert_equal_to([together], [torch.stack(one)])


def test_twice_and_none_of_the_gradients_is_anothers():
    module, input, states = problem("lstm", **DEEP)
    for _ in range(TIMES):
        output, final = module(input, like_module(states))
    leaves = [input, *states, *module.parameters()]
    total = output.sum() + final[1].sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    second = torch.autograd.grad(total, leaves)
    assert all(map(torch.equal, first, second))
    storages = [t.untyped_storage().data_ptr() for t in [*first, *second, output, *final]]
    assert len({*storages}) == len(storages)


def test_what_was_changed_in_between_is_told():
    module, input, states = problem("lstm")
    for _ in range(TIMES):
        output, _ = module(input, like_module(states))
    with torch.no_grad():
        module.weight_hh_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
    output, _ = module(input, like_module(states))
    torch.relu_(output)
    with pytest.raises(RuntimeError, match=r"output\.clone\(\)"):
        output.sum().backward()


def test_weights_that_change_count_at_once():
    initial = problem("gru", num_layers=2)[0].state_dict()

    def trained(backend):
        module, input, states = problem("gru", backend=backend, num_layers=2)
        module.load_state_dict(initial)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        losses = []
        for step in range(8):
            if step == 5:
                module.weight_hh_l1 = torch.nn.Parameter(module.weight_hh_l1.detach() * 0.5)
            optimizer.zero_grad()
            loss = module(input, states[0])[0].square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    assert_equal_to(trained("cpu"), trained("reference"))


def test_weights_that_are_one():
    module, input, states = problem("rnn_tanh", num_layers=2)
    module.weight_hh_l1 = module.weight_hh_l0
    first, *others = [everything(module, input, states) for _ in range(TIMES)]
    same(others, first)
    module.backend = "reference"
    assert_equal_to(first, everything(module, input, states))


def test_training_and_inference_do_not_forget_each_other():
    module, input, states = problem("lstm")
    for _ in range(TIMES):
        everything(module, input, states)
        with torch.no_grad():
            module(input[:1], None)
    assert module._prepared.has(gradients=True) and module._prepared.has(gradients=False)


def test_some_lengths_in_turn_are_all_prepared():
    module = layer("gru", 5, 7, backend="cpu", dtype=torch.float64)
    inputs = [torch.randn(steps, 2, 5, dtype=torch.float64, requires_grad=True) for steps in (3, 5, 4)]
    first = [everything(module, input, []) for input in inputs]
    for _ in range(3):
        for input, expected in zip(inputs, first, strict=True):
            same([everything(module, input, [])], expected)
    assert sum(bool(known.call) for known in module._prepared._known[True]) == 3


def test_threads_may_train_a_module_at_once():
    calls = [problem("gru", sizes, num_layers=2) for sizes in itertools.product((3, 4), (1, 2))]
    module = calls[0][0]
    for own, _, _ in calls:
        own.load_state_dict(module.state_dict())
    expected = [everything(module, input, states) for _, input, states in calls]

    def train(k):
        return [everything(module, *calls[(k + turn) % 4][1:]) for turn in range(12)]

    with ThreadPoolExecutor(4) as pool:
        for k, found in enumerate(pool.map(train, range(4))):
            for turn, each in enumerate(found):
                same([each], expected[(k + turn) % 4])


def test_an_input_that_is_itself_a_view():
    """A view made without grad mode would take requires_grad from its base, not from this input."""
    module, data = seqcells.GRU(3, 4, batch_first=True, backend="cpu"), torch.randn(10, 5, 3)
    for call in range(TIMES):
        input = data[2 * call : 2 * call + 2].requires_grad_()
        module(input)[0].sum().backward()
        assert input.grad is not None
