"""torch.fx treats layers and cells as leaves, like torch.nn's; TorchScript is refused with a message."""

import pytest
import torch
from modules import IN, KINDS, H, T, each_module, example, make
from support import as_tuple, assert_equal_to
from torch import nn
from torch.fx.proxy import TraceError

import seqcells
from seqcells.modules import tracing


class Model(nn.Module):
    """A recurrent module between two other modules, whose states are made from its own."""

    def __init__(self, recurrent):
        super().__init__()
        dtype = next(recurrent.parameters()).dtype
        self.below, self.recurrent = nn.Linear(IN, IN, dtype=dtype), recurrent

    def forward(self, input):
        return self.recurrent(self.below(input).tanh())


def calls(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_module"]


@each_module
def test_a_module_is_a_leaf_as_torchs_is(kind, settings):
    theirs, ours = (Model(make(library, kind, settings)).eval() for library in (nn, seqcells))
    ours.load_state_dict(theirs.state_dict())
    traced, expected = torch.fx.symbolic_trace(ours), torch.fx.symbolic_trace(theirs)
    assert [str(node) for node in traced.graph.nodes] == [str(node) for node in expected.graph.nodes]
    assert calls(traced.graph) == ["below", "recurrent"]
    input = example(theirs.recurrent)
    found, wanted = (as_tuple(graph(input)) for graph in (traced, expected))
    flat = [[t for each in results for t in as_tuple(each)] for results in (found, wanted)]
    assert_equal_to(*flat, 1e-5)


class Options(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.cell = seqcells.LSTM(IN, H), seqcells.LSTMCell(IN, H)

    def forward(self, input, lengths, h, c):
        output, (h, c) = self.lstm(input, (h.sin(), c), lengths=lengths)
        h, c = self.cell(input[0], (h[0], c[0]))
        return output, h + c


def test_states_and_our_own_arguments_are_the_nodes_too():
    model, states = Options(), torch.randn(2, 1, 3, H)
    traced = torch.fx.symbolic_trace(model)
    assert calls(traced.graph) == ["lstm", "cell"]
    arguments = torch.randn(T, 3, IN), torch.tensor([5, 0, 2]), *states
    assert_equal_to(traced(*arguments), model(*arguments), 0)


class Sub(seqcells.GRU):
    def forward(self, input, hx=None):
        return super().forward(input * 2, hx)


def _hooked():
    module = seqcells.GRU(IN, H)
    module.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return module


@pytest.mark.parametrize("recurrent", (lambda: Sub(IN, H), _hooked), ids=("subclass", "hook"))
def test_what_is_no_leaf_is_one_for_our_tracer(recurrent):
    model = Model(recurrent())
    with pytest.raises(TraceError, match=r"hooks or a forward of its own.*seqcells\.tracing\.Tracer"):
        torch.fx.symbolic_trace(model)
    traced = torch.fx.GraphModule(model, tracing.Tracer().trace(model))
    assert calls(traced.graph) == ["below", "recurrent"]
    plain, input = nn.GRU(IN, H), torch.randn(T, 2, IN)
    plain.load_state_dict(model.recurrent.state_dict())
    assert_equal_to([traced(input)[0]], [plain(2 * model.below(input).tanh())[0]], 1e-5)


def test_a_layer_alone_has_no_graph():
    with pytest.raises(TraceError, match="trace a module that contains it"):
        torch.fx.symbolic_trace(seqcells.LSTM(IN, H))


@pytest.mark.parametrize("kind", ("LSTM", "GRUCell", "PeepholeLSTM", "PeepholeLSTMCell"))
@pytest.mark.parametrize("inside", (False, True), ids=("alone", "inside"))
def test_torchscript_is_refused_in_words(kind, inside):
    module = getattr(seqcells, kind)(IN, H)
    words = f"torch.jit.script cannot compile seqcells' {kind}: use torch.export or torch.jit.trace"
    with pytest.raises(RuntimeError) as refusal:
        torch.jit.script(nn.Sequential(module) if inside else module)
    assert str(refusal.value).startswith(words) and ("to_torch()" in str(refusal.value)) == ("Peephole" not in kind)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ("LSTM-layers", "GRUCell"))
def test_what_torchscript_is_refused_for_can_be_traced_exported_and_scripted_as_torchs(kind):
    module = make(seqcells, *KINDS[kind])
    input, other = example(module), example(module, seed=2)
    with torch.no_grad():
        expected = module(other)
        exported = torch.export.export(module, (input,)).module()
        # torch's layers are scripted inside another module
        scripted = torch.jit.script(nn.Sequential(module.to_torch()))
        for program in (torch.jit.trace(module, (input,)), scripted, exported):
            found = program(other)
            pairs = [[t for each in as_tuple(results) for t in as_tuple(each)] for results in (found, expected)]
            assert_equal_to(*pairs, 1e-5)
