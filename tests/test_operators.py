"""The operators, for direct callers and for graphs: arguments are checked, results match the fakes, and no transform is
silently wrong."""

import pytest
import torch
from support import (
    ENGINES,
    MAIN,
    assert_equal_to,
    cases,
    cell,
    gradients,
    heavy_if,
    layer,
    plain_if,
    random_states,
    results,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from seqcells.call import execute, operators
from seqcells.cells import REGISTRY
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights

T, B, F, H = 5, 3, 4, 6
DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16
OPTIONS = {
    "plain": {},
    "two directions": {"directions": 2},
    "backwards": {"reverse": True},
    "lengths": {"lengths": True},
    "reset": {"reset": True},
    "projected": {"projected": 4},
    "without bias": {"bias": False},
}


def problem(name, dtype=torch.float64, directions=1, reverse=False, lengths=False, reset=False, projected=0, bias=True):
    """A recurrence of random tensors that require gradients."""
    cell, generator = REGISTRY[name], torch.Generator().manual_seed(3)
    width = projected or H

    def tensor(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).mul_(0.5).to(dtype).requires_grad_()

    def states():
        return [tensor(directions, B, H if k else width) for k in range(len(cell.states))]

    recurrent = len(cell.recurrent_gates) * H
    weights = [
        Weights(
            hh=tensor(recurrent, width) if recurrent else None,
            bias_hh=tensor(recurrent) if recurrent and bias else None,
            hr=tensor(projected, H) if projected else None,
            own=tuple(tensor(len(rows), H) for rows in cell.parameters.values()),
        )
        for _ in range(directions)
    ]
    return Recurrence(
        cell,
        tensor(T, B, directions * len(cell.gates) * H),
        states(),
        tuple(weights),
        torch.tensor([2, 0, T]) if lengths else None,
        torch.rand(T, B, generator=generator) < 0.4 if reset else None,
        states() if reset else None,
        reverse,
    )


def without_gradients(q):
    return q.replaced([tensor.detach() for tensor in q.differentiable()])


def kinds():
    for name, kind in REGISTRY.items():
        for option, settings in OPTIONS.items():
            if option == "projected" and not kind.projection:
                continue
            yield pytest.param(name, settings, id=f"{name}-{option}")


@plain_if(lambda dtype, name, **_: name in MAIN or dtype == torch.bfloat16)
@heavy_if(lambda **_: True)
@pytest.mark.parametrize("backend", ("reference", "cpu"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "settings"), kinds())
def test_results_are_what_compilers_were_told(name, settings, dtype, backend):
    """Dtype, shape and strides of each result equal the fake's, because compiled code reads the memory by them."""
    q = without_gradients(problem(name, dtype, **settings))
    args = operators.arguments(q, backend)
    real = torch.ops.seqcells.recurrence_forward(*args)
    count = 1 + len(q.states)
    more = [real[0], *real[count:]], [torch.ones_like(result) for result in real[:count]]
    real = [*torch.ops.seqcells.recurrence(*args), *real, *torch.ops.seqcells.recurrence_backward(*args, *more)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        args, more = torch.utils._pytree.tree_map_only(torch.Tensor, mode.from_tensor, (args, more))
        fake = [*torch.ops.seqcells.recurrence(*args), *torch.ops.seqcells.recurrence_forward(*args)]
        fake += torch.ops.seqcells.recurrence_backward(*args, *more)
    assert len(real) == len(fake)
    for mine, promised in zip(real, fake, strict=True):
        assert (mine.dtype, mine.shape, mine.stride()) == (promised.dtype, promised.shape, promised.stride())


@plain_if(lambda name, **_: name in MAIN)
@pytest.mark.parametrize("dtype", (torch.bfloat16, torch.float32), ids=str)
@pytest.mark.parametrize("name", REGISTRY)
def test_compiled_gradients_are_those_of_eager_calls(name, dtype):
    """With inductor, which reads the operators' results by the fakes' layout; with learnt initial states."""
    torch._dynamo.reset()
    module = layer(name, F, H, bidirectional=True, dtype=dtype, backend="cpu")
    input = torch.randn(T, B, F, dtype=dtype, requires_grad=True)
    hx = random_states(name, 2, B, H, dtype=dtype, requires_grad=True)
    leaves, found = [input, *hx, *module.parameters()], []
    for run in (module, torch.compile(module, fullgraph=True)):
        outputs = results(run, input, hx)
        found.append([*outputs, *gradients(outputs, leaves)])
    assert_equal_to(found[1], found[0], 2e-2 if dtype == torch.bfloat16 else 1e-5)


@plain_if(lambda name, **_: name == "gru")
@pytest.mark.parametrize("name", MAIN)
def test_compiled_gradients_under_autocast(name):
    torch._dynamo.reset()
    module = layer(name, F, H, backend="cpu")
    input = torch.randn(T, B, F, requires_grad=True)
    leaves, found = [input, *module.parameters()], []
    for run in (module, torch.compile(module, fullgraph=True)):
        with torch.autocast("cpu", torch.bfloat16):
            output = run(input)[0]
        found.append(gradients([output.float()], leaves))
    exact = gradients([module.double()(input.double())[0]], [*module.parameters()])
    for each in found:
        assert_equal_to([g.double() for g in each[1:]], exact, 5e-2)


# Changes of a tensor between forward and backward.


def _channels_last(tensor):
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _columns_first(tensor):
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if tensor.dim() else tensor


def _in_another_dtype(tensor):
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _negated(tensor):
    return torch._neg_view(-tensor) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("unpack", (_channels_last, _columns_first, _in_another_dtype, _negated))
@pytest.mark.parametrize("settings", ({}, {"bidirectional": True, "num_layers": 2}), ids=("plain", "deep"))
@pytest.mark.parametrize(("name", "backend"), [(n, b) for n, b in cases(MAIN, dtype=torch.float64) if b in ENGINES])
def test_what_was_saved_may_come_back_otherwise(name, backend, settings, unpack, device):
    module = layer(name, F, H, backend=backend, dtype=torch.float64, device=device, **settings)
    input = torch.randn(T, B, F, dtype=torch.float64, device=device, requires_grad=True)
    leaves = [input, *module.parameters()]
    expected = gradients([module(input)[0]], leaves)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor.clone(), unpack):
        found = gradients([module(input)[0]], leaves)
    assert_equal_to(found, expected, 1e-5 if unpack is _in_another_dtype else 1e-12)


def test_what_was_saved_must_come_back_as_large(device):
    module, input = layer("gru", F, H, backend="cpu"), torch.randn(T, B, F)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor[:1]):
        output = module(input)[0]
    with pytest.raises(RuntimeError, match="Expected what was saved or a gradient of size"):
        output.sum().backward()


# Arguments of the operators.


BAD = {
    "a state too few": (lambda q: q._replace(states=q.states[:1]), "lstm expects 2 hidden states, got 1"),
    "a state too many": (lambda q: q._replace(states=[*q.states, q.states[0]]), "lstm expects 2 hidden states, got 3"),
    "a reset state too few": (lambda q: q._replace(reset_states=q.states[:1]), "lstm expects 2 reset states, got 1"),
    "a state short": (lambda q: q._replace(states=[q.states[0][:, :2], q.states[1]]), "Expected h of size"),
    "a state of another rank": (lambda q: q._replace(states=[q.states[0][0], q.states[1]]), "Expected h of 3 dim"),
    "no recurrent weight": (lambda q: _weights(q, hh=None), "Expected weight_hh to be a tensor, got None"),
    "a short recurrent weight": (lambda q: _weights(q, hh=q.weights[0].hh[:-1]), "Expected weight_hh of size"),
    "a short bias": (lambda q: _weights(q, bias_hh=q.weights[0].bias_hh[1:]), "Expected bias_hh of size"),
    "rows of another cell": (lambda q: _weights(q, own=(torch.ones(1, H),)), "lstm expects 0 parameters of its own"),
    "no weights": (lambda q: q._replace(weights=()), "weights of one or two directions"),
    "no steps": (lambda q: q._replace(gates_x=q.gates_x[:0]), "Expected sequence length to be larger than 0 in RNN"),
    "short gates": (lambda q: q._replace(gates_x=q.gates_x[..., 1:]), "Expected gates_x of size"),
    "short lengths": (lambda q: q._replace(lengths=torch.ones(2, dtype=torch.int64)), "Expected lengths of size"),
    "lengths of another kind": (lambda q: q._replace(lengths=torch.ones(B)), "lengths should be integers"),
    "a reset of numbers": (lambda q: q._replace(reset=torch.ones(T, B)), "reset should be of dtype torch.bool"),
    "a last state of no size": (lambda q: q._replace(states=[q.states[0], q.states[1].sum()]), "Expected c of 3 dim"),
    "complex lengths": (lambda q: q._replace(lengths=torch.ones(B).cfloat()), "lengths should be integers"),
    "a state of another dtype": (lambda q: q._replace(states=[q.states[0].float(), q.states[1]]), "not the same dtype"),
}


def _weights(q, **changes):
    return q._replace(weights=tuple(w._replace(**changes) for w in q.weights))


@pytest.mark.parametrize("backend", ("cpu", "reference"))
@pytest.mark.parametrize("words", BAD)
def test_tensors_that_do_not_fit_together(words, backend):
    change, message = BAD[words]
    q = change(problem("lstm", reset=words == "a reset state too few")._replace(reset_states=None))
    with pytest.raises((RuntimeError, TypeError), match=message):
        execute.forward(q, backend, save=True)


def test_names_that_are_not_the_cells():
    q = without_gradients(problem("lstm"))
    cell, program, tensors, names, *rest = operators.arguments(q, "cpu")
    for changed, message in (
        ((cell, "0" * 16, tensors, names, *rest), "other equations of the lstm cell"),
        ((cell, program, tensors[:-1], names, *rest), "Expected a name for each"),
        ((cell, program, tensors, names.replace("state_c", "state_x"), *rest), "lstm expects state_c"),
        ((cell, program, [*tensors, tensors[0]], f"{names} dt", *rest), "lstm reads no dt"),
        (("lstmm", program, tensors, names, *rest), "unknown cell"),
    ):
        for operator in (torch.ops.seqcells.recurrence, torch.ops.seqcells.recurrence_forward):
            with pytest.raises((RuntimeError, ValueError), match=message):
                operator(*changed)


@pytest.mark.parametrize("backend", ("cpu", "reference"))
def test_what_backward_is_given(backend):
    q = without_gradients(problem("lstm"))
    args = operators.arguments(q, backend)
    output, *rest = torch.ops.seqcells.recurrence_forward(*args)
    final, saved = rest[:2], rest[2:]
    run = torch.ops.seqcells.recurrence_backward
    expected = run(*args, [output, *saved], [output, *final])

    def strided(tensor):
        return torch.stack([tensor, tensor], -1)[..., 0]

    assert_equal_to(run(*args, [*map(strided, (output, *saved))], [*map(strided, (output, *final))]), expected)
    bad = [([output[1:], *saved], [output, *final]), ([output, *saved], [output, *final[:1]])]
    bad += [([output, *saved], [output[1:], *final]), ([output, *saved], [output, final[0][:, :1], final[1]])]
    if saved:
        bad += [([output, *saved[:-1]], [output, *final]), ([output, saved[0][:, 1:], *saved[1:]], [output, *final])]
    for kept, given in bad:
        with pytest.raises(RuntimeError, match="Expected"):
            run(*args, kept, given)


@pytest.mark.parametrize("dtype", (torch.float8_e5m2, torch.float8_e4m3fn, torch.int32, torch.bool), ids=str)
@pytest.mark.parametrize("name", MAIN)
def test_numbers_that_nobody_computes_with(name, dtype):
    module, input = layer(name, 30, 64).to(torch.float32), torch.zeros(T, B, 30).to(dtype)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    for backend in ("auto", "cpu", "reference"):
        module.backend = backend
        with pytest.raises(RuntimeError, match=r"not implemented for|cannot run this call|can't be cast"):
            module(input)
    q = problem(name)
    with pytest.raises(RuntimeError, match="not implemented for"):
        execute.forward(q.replaced([t.detach().to(dtype) for t in q.differentiable()]), "cpu", save=False)


@pytest.mark.parametrize("backend", ("auto", "cpu", "reference", "torch"))
@pytest.mark.parametrize("weight", ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))
def test_a_module_that_lost_a_weight(weight, backend):
    module, input = layer("lstm", F, H, backend=backend), torch.randn(T, B, F)
    module(input)
    setattr(module, weight, None)
    with pytest.raises(TypeError, match=f"expected {weight} to be a tensor, got None"):
        module(input)


@pytest.mark.parametrize("weight", ("weight_ih", "weight_hh", "bias_hh"))
def test_a_cell_that_lost_a_weight(weight):
    module, input = cell("gru", F, H), torch.randn(B, F)
    setattr(module, weight, None)
    with pytest.raises(TypeError, match=f"expected {weight} to be a tensor, got None"):
        module(input)


@pytest.mark.parametrize("what", ("meta", "zero"))
def test_what_was_saved_must_have_memory(what):
    module, input = layer("lstm", F, H, backend="cpu"), torch.randn(T, B, F, requires_grad=True)
    change = {"meta": lambda t: t.to("meta"), "zero": lambda t: torch._efficientzerotensor(t.shape, dtype=t.dtype)}[
        what
    ]
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, change):
        output = module(input)[0]
    if what == "meta":
        with pytest.raises(RuntimeError, match=r"on cpu, got .* on meta"):
            output.sum().backward()
    else:
        output.sum().backward()
        assert input.grad.isfinite().all()


def test_tensors_on_several_devices_are_refused():
    q = without_gradients(problem("lstm"))
    args = operators.arguments(_weights(q, hh=q.weights[0].hh.to("meta")), "cpu")
    for operator in (torch.ops.seqcells.recurrence, torch.ops.seqcells.recurrence_forward):
        with pytest.raises(RuntimeError, match="on one device, got cpu and meta"):
            operator(*args)
    args = operators.arguments(q, "cpu")
    output, *rest = torch.ops.seqcells.recurrence_forward(*args)
    with pytest.raises(RuntimeError, match="on one device, got cpu and meta"):
        torch.ops.seqcells.recurrence_backward(*args, [output, *rest[2:]], [output.to("meta"), *rest[:2]])
    module = layer("gru", F, H)
    module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.to("meta"))
    torch._dynamo.reset()
    for run in (module, torch.compile(module, backend="aot_eager")):
        with pytest.raises(RuntimeError, match=r"cpu.*meta|meta.*cpu|same device"):
            run(torch.randn(T, B, F))
