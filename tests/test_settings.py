"""Settings of the engines hold where they are set and nowhere else, and backward uses its forward's settings."""

import asyncio
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from functorch.compile import make_boxed_func
from support import ENGINES, assert_equal_to, gradients, layer
from torch._dynamo.backends.common import aot_autograd

import seqcells
from seqcells import info, settings
from seqcells.backends import BACKENDS, engine_of
from seqcells.call import choose, operators
from seqcells.kernels import cpu
from seqcells.request.call import Call
from seqcells.request.recurrence import Recurrence
from seqcells.request.weights import Weights
from seqcells.system.settings import Settings

DEFAULTS = (False, True, None, False)
T, B, F, H = 4, 2, 3, 5
needs_engine = pytest.mark.skipif(cpu.why_not_available() is not None, reason="the CPU engine is not built")
TRITON = [name for name in ENGINES if name.startswith("triton")]


def now():
    return seqcells.current_settings()


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


# Where they hold.


def test_defaults():
    assert now() == DEFAULTS and now()._fields == ("recompute", "meeting", "precision", "flags")


def test_blocks_lie_inside_each_other_and_name_what_they_change():
    with settings(recompute=True) as outer:
        assert outer == now() == (True, True, None, False)
        with settings(precision="tf32x3", meeting=False):
            assert now() == (True, False, "tf32x3", False)
            with settings(recompute=False, precision=None):
                assert now() == (False, False, None, False)
            assert now() == (True, False, "tf32x3", False)
        assert now() == outer
    assert now() == DEFAULTS


def test_an_exception_inside_leaves_them_as_they_were():
    with pytest.raises(KeyError), settings(flags=True), settings(recompute=True):
        raise KeyError
    assert now() == DEFAULTS


def test_a_function_is_decorated():
    @settings(recompute=True)
    def inside(depth):
        """Words."""
        return [now().recompute, *(inside(depth - 1) if depth else [])]

    assert inside(2) == [True] * 3 and not now().recompute
    assert inside.__name__ == "inside" and inside.__doc__ == "Words."


def test_what_runs_later_is_not_decorated():
    def generator():
        yield

    async def coroutine():
        pass

    async def both():
        yield

    for function in (generator, coroutine, both):
        with pytest.raises(TypeError, match="no generator and no coroutine function"):
            settings(recompute=True)(function)


def test_an_object_is_entered_again_and_by_many_threads():
    again = settings(recompute=True)
    with again, again:
        assert now().recompute
    assert not now().recompute
    together = threading.Barrier(8)

    def enter(k):
        for _ in range(50):
            with settings(precision=("ieee", "tf32")[k % 2]), again:
                together.wait()
                assert now() == (True, True, ("ieee", "tf32")[k % 2], False)
            assert now() == DEFAULTS
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(enter, range(8)))


def test_threads_do_not_see_each_others():
    with settings(recompute=True):
        assert in_a_thread(now) == DEFAULTS
        in_a_thread(settings(flags=True).__enter__)  # by a thread that ends inside the block
        assert now() == (True, True, None, False)


def test_the_process_has_defaults_for_all_threads_outside_of_blocks():
    before = seqcells.set_default_settings(recompute=True, precision="ieee")
    try:
        assert before == DEFAULTS
        assert now() == in_a_thread(now) == (True, True, "ieee", False)
        with settings(recompute=False):
            seqcells.set_default_settings(precision="tf32")
            assert now() == (False, True, "ieee", False)
            assert in_a_thread(now) == (True, True, "tf32", False)
        assert now() == (True, True, "tf32", False)
    finally:
        seqcells.set_default_settings(**before._asdict())
    assert now() == DEFAULTS


def test_blocks_that_end_in_another_order_leave_nothing_behind():
    """As for blocks in generators that are stepped in turns."""
    first, second = settings(recompute=True), settings(flags=True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert now() == DEFAULTS


def test_a_block_inside_a_coroutine():
    async def task(recompute):
        await asyncio.sleep(0)
        with settings(recompute=recompute):
            return now().recompute

    async def both():
        return await asyncio.gather(task(True), task(False))

    assert asyncio.run(both()) == [True, False]


# Valid names and values.


@pytest.mark.parametrize("set_them", (settings, seqcells.set_default_settings), ids=("block", "process"))
def test_other_names_and_values_are_refused(set_them):
    for named in ({"recomputing": True}, {"backend": "cpu"}, {"recompute": True, "words": 1}):
        with pytest.raises(TypeError, match=r"no setting '\w+': choose among recompute, meeting, precision, flags"):
            set_them(**named)
    for name, value in (("recompute", 1), ("meeting", None), ("flags", "yes"), ("recompute", torch.tensor(True))):
        with pytest.raises(ValueError, match=rf"{name} should be one of .*True.*, got "):
            set_them(**{name: value})
    for value in ("TF32", "high", torch.float32, True, ""):
        with pytest.raises(ValueError, match="precision should be one of None, 'ieee', 'tf32', 'tf32x3', got "):
            set_them(precision=value)
    with pytest.raises(TypeError):
        set_them(True)
    assert now() == DEFAULTS


def test_words_and_back():
    assert Settings().words() == []
    for each in (Settings(), Settings(True, False, "tf32x3", True), Settings(precision="ieee")):
        assert Settings.of(*each.words()) == pickle.loads(pickle.dumps(each)) == each
    assert Settings(True, precision="tf32").words() == ["recompute=True", "precision=tf32"]
    for words, error in (("recompute", ValueError), ("recompute=1", ValueError), ("fast=True", TypeError)):
        with pytest.raises(error):
            Settings.of(words)


# Who is told.


def test_plan_and_info_tell_what_is_not_the_default(monkeypatch):
    monkeypatch.setattr("seqcells.kernels.triton.why_not_available", lambda: None)
    call = Call(layer("gru", F, H).cell, "layers", torch.device("cuda"), torch.float32)
    for name, backend in BACKENDS.items():
        monkeypatch.setitem(BACKENDS, name, backend._replace(why_not_available=lambda: None))
    assert choose.explain(call, "triton-stepwise").reason == "asked for by name"
    with settings(recompute=True, precision="ieee"):
        reason = choose.explain(call, "triton-stepwise").reason
        assert reason == "asked for by name; settings: recompute=True precision=ieee"
        assert "settings" not in choose.explain(call, "torch").reason
        told = [line.split(None, 1) for line in info.report().splitlines() if line]
    assert ["recompute", "True, by default False; one of False, True"] in told
    assert ["meeting", "True; one of True, False"] in told
    assert ["precision", "ieee, by default None; one of None, ieee, tf32, tf32x3"] in told


# What runs under them.


@pytest.fixture
def ran(monkeypatch):
    """For each call of the CPU engine, forward or backward: the settings that it ran under, in order."""
    engine, seen = engine_of("cpu"), []

    def recording(name):
        function = getattr(engine, name)

        def run(*args):
            seen.append((name, now()))
            return function(*args)

        monkeypatch.setattr(engine, name, run)

    recording("forward")
    recording("backward")
    return seen


@needs_engine
@pytest.mark.parametrize("observed", (False, True), ids=("eager", "by operators"))
def test_backward_has_its_forwards_in_any_thread_and_block(observed, ran):
    module = layer("gru", F, H, backend="cpu")
    input = torch.randn(T, B, F, requires_grad=True)
    watching = torch.overrides.BaseTorchFunctionMode() if observed else torch.enable_grad()
    with watching, settings(precision="ieee"):
        first = module(input)[0].sum()
        with settings(recompute=True):
            second = module(input)[0].sum()
    in_a_thread(first.backward)
    with settings(flags=True):
        second.backward()
        assert now() == (False, True, None, True)
    exact, once_more = Settings(precision="ieee"), Settings(recompute=True, precision="ieee")
    assert ran == [("forward", exact), ("forward", once_more), ("backward", exact), ("backward", once_more)]


@pytest.mark.parametrize("recompute", (False, True), ids=("saved", "recomputed"))
@pytest.mark.parametrize("name", TRITON)
def test_gradients_of_what_ran_inside_are_right_outside(name, recompute):
    """Also in Triton's interpreter: `test_triton` runs this test."""
    module, expected = layer("lstm", F, H, backend=name, dtype=torch.float64), layer("lstm", F, H, dtype=torch.float64)
    expected.load_state_dict(module.state_dict())
    input, found = torch.randn(T, B, F, dtype=torch.float64), []
    for each in (module, expected):
        with settings(recompute=recompute):
            output, _ = each(input)
        with settings(recompute=not recompute):
            found.append(gradients([output], [*each.parameters()]))
    assert_equal_to(*found)


@needs_engine
@pytest.mark.parametrize("training", (False, True), ids=("inference", "training"))
def test_a_prepared_call_is_not_taken_under_others(training, ran):
    module, input = layer("lstm", F, H, backend="cpu"), torch.randn(T, B, F)

    def runs_prepared():
        before = len(ran)
        module(input)
        return len(ran) == before

    with torch.set_grad_enabled(training):
        assert [runs_prepared() for _ in range(3)] == [False, False, True]
        with settings(recompute=True):
            assert [runs_prepared() for _ in range(3)] == [False, False, True]
            with settings(precision="ieee"):
                assert not runs_prepared()
        assert runs_prepared()
        with settings(recompute=True), settings(precision=None):
            assert runs_prepared()


@needs_engine
def test_a_stream_prepares_anew_under_others():
    stream, prepared = layer("lstm", F, H, backend="cpu").stream(), []

    def step():
        stream(torch.zeros(1, F))
        prepared.append(stream._inference)

    step()
    with settings(precision="ieee"):
        step()
    assert None not in prepared and prepared[0] is not prepared[1]


@needs_engine
def test_a_compiled_layer_is_compiled_for_each(ran):
    """Its backward, which runs elsewhere, uses its forward's settings."""
    torch._dynamo.reset()
    module, compilations = layer("gru", F, H, backend="cpu"), []

    def counting(graph, inputs):
        compilations.append(graph)
        return aot_autograd(fw_compiler=lambda each, _: make_boxed_func(each))(graph, inputs)

    compiled = torch.compile(module, fullgraph=True, backend=counting)
    input = torch.randn(T, B, F, requires_grad=True)
    outputs = []
    for named in ({}, {"recompute": True}, {}, {"recompute": True}, {"precision": "ieee"}):
        with settings(**named):
            outputs.append(compiled(input)[0])
    assert len(compilations) == 3
    expected = [Settings(), Settings(True), Settings(), Settings(True), Settings(precision="ieee")]
    assert ran == [("forward", each) for each in expected]
    del ran[:]
    for output in outputs:
        in_a_thread(output.sum().backward)
    assert ran == [("backward", each) for each in expected]


@needs_engine
def test_a_block_inside_of_what_is_compiled(ran):
    torch._dynamo.reset()
    module = layer("gru", F, H, backend="cpu")

    @torch.compile(fullgraph=True, backend="eager")
    def run(input):
        with settings(recompute=True):
            inside, _ = module(input)
        return inside, module(input)[0]

    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(*run(torch.randn(T, B, F))) and now() == DEFAULTS
    assert ran == [("forward", Settings(True)), ("forward", Settings())] * 2


@needs_engine
def test_a_graph_holds_those_that_it_was_made_in(ran):
    module, input = layer("gru", F, H, backend="cpu"), torch.randn(T, B, F)
    with settings(recompute=True):
        exported = torch.export.export(module, (input,)).module()
    with torch.no_grad():
        exported(input)
    assert ran[-1] == ("forward", Settings(True))


def test_an_operator_is_given_settings_that_there_are():
    cell = layer("rnn_tanh", F, H).cell
    q = Recurrence(cell, torch.randn(T, B, H), [torch.zeros(1, B, H)], (Weights(hh=torch.randn(H, H)),))
    *rest, asked = operators.arguments(q, "reference")
    assert asked == "reference"
    with settings(precision="ieee", recompute=True):
        assert operators.arguments(q, "reference")[-1] == "reference recompute=True precision=ieee"
    with pytest.raises(ValueError, match="precision should be one of"):
        torch.ops.seqcells.recurrence(*rest, "reference precision=half")


def test_reading_them_takes_no_time():
    """Below a microsecond, because every prepared call reads them."""
    import timeit

    with settings(recompute=True):
        assert min(timeit.repeat(now, number=10_000, repeat=5)) < 10_000 * 1e-6
