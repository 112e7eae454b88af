"""Layers exported by torch.onnx.export: nodes that ONNX has, otherwise a Scan, run by two runtimes."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from exported_layers import SIZES, F, H, Wrapped, inputs, shapes
from onnx.reference import ReferenceEvaluator
from support import plain_if
from torch import nn

import seqcells
from seqcells.io.onnx import load, translations

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.usefixtures("own_registry")


def exported(model, name, fixed=None):
    """The checked model, with dynamic time steps and sequences, or of a fixed size."""
    first = model.layer.batch_first
    given = inputs(name, *(fixed or SIZES[0]), batch_first=first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            given,
            dynamo=True,
            dynamic_shapes=None if fixed else shapes(name, first),
            custom_translation_table=translations(),
            verbose=False,
        )
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    return proto


def by_onnxruntime(proto):
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda *given: session.run(None, dict(zip(names, given, strict=True)))


def by_openvino(proto):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    core = openvino.Core()
    model = core.read_model(proto.SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *given: [*compiled(list(given)).values()]


RUNTIMES = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def compare(model, name, runtimes, dynamic=True):
    """Compare the results, at all sizes if axes are dynamic; return the operators of the graph."""
    for each in runtimes:
        run = None
        for seed, size in enumerate(SIZES if dynamic else SIZES[:1]):
            if run is None:
                proto = exported(model, name, None if dynamic else size)
                run = RUNTIMES[each](proto)
            given = inputs(name, *size, seed, model.layer.batch_first)
            with torch.no_grad():
                expected = model(*given)
            for a, b in zip(run(*(value.numpy() for value in given)), expected, strict=True):
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)
    return [node.op_type for node in proto.graph.node]


def defined(cell, *sizes, **options):
    """A layer of a library cell, which is in the registry while the test runs."""
    return seqcells.define(getattr(seqcells.cells, cell))[0](*sizes, **options)


NATIVE = {
    "LSTM": (lambda: seqcells.LSTM(F, H), "LSTM", 1),
    "LSTM, two layers both ways": (lambda: seqcells.LSTM(F, H, 2, bidirectional=True, batch_first=True), "LSTM", 2),
    "LSTM without biases": (lambda: seqcells.LSTM(F, H, bias=False), "LSTM", 1),
    "GRU": (lambda: seqcells.GRU(F, H), "GRU", 1),
    "GRU both ways without biases": (lambda: seqcells.GRU(F, H, bidirectional=True, bias=False), "GRU", 1),
    "RNN": (lambda: seqcells.RNN(F, H, bidirectional=True), "RNN", 1),
    "RNN relu": (lambda: seqcells.RNN(F, H, 2, nonlinearity="relu"), "RNN", 2),
    "peepholes": (lambda: seqcells.PeepholeLSTM(F, H, bidirectional=True), "LSTM", 1),
    "GRU reset before": (lambda: defined("GRUResetBefore", F, H, 2, bidirectional=True), "GRU", 2),
    "GRU reset before, no bias": (lambda: defined("GRUResetBefore", F, H, bias=False), "GRU", 1),
}


@plain_if(lambda kind, count, name, **_: kind in ("LSTM", "GRU") and count == 1 and name)
@pytest.mark.parametrize("name", [None, "lengths"])
@pytest.mark.parametrize(("make", "kind", "count"), NATIVE.values(), ids=NATIVE)
def test_cells_that_onnx_has(make, kind, count, name):
    """Each layer is one node, with dynamic time steps and sequences; ``lengths`` are its sequence_lens."""
    torch.manual_seed(0)
    operators = compare(Wrapped(make(), name), name, ["onnxruntime"])
    assert operators.count(kind) == count and not {"Scan", "Loop", "MatMul"} & {*operators}


@pytest.mark.heavy
@pytest.mark.parametrize("name", [None, "lengths"])
@pytest.mark.parametrize(("make", "kind", "count"), NATIVE.values(), ids=NATIVE)
def test_cells_that_onnx_has_by_openvino(make, kind, count, name):
    """OpenVINO ignores sequence_lens where axes are dynamic, and always ignores peepholes, also in other exporters'
    nodes."""
    torch.manual_seed(0)
    layer = make()
    if layer.mode == "PEEPHOLE_LSTM":
        pytest.skip("OpenVINO leaves peepholes out")
    compare(Wrapped(layer, name), name, ["openvino"], dynamic=name is None)


SCANNED = {
    "projection": (lambda: seqcells.LSTM(F, H, proj_size=2, bidirectional=True), None, {}),
    "a boundary": (lambda: seqcells.GRU(F, H, bidirectional=True), "reset", {}),
    "kept values": (lambda: seqcells.LSTM(F, H, 2), None, {"keep": ("c", "f", "c_l0")}),
    "JANET": (lambda: seqcells.JANET(F, H), "lengths", {}),
    "SLSTM": (lambda: seqcells.SLSTM(F, H, bidirectional=True), "lengths", {}),
    "layer norm": (lambda: defined("LayerNormLSTM", F, H), "reset", {}),
    "heads": (lambda: defined("MultiHeadSLSTM", F, H, heads=2), None, {}),
    "another output": (lambda: defined("SCRN", F, H, context_size=3, output_size=2), None, {}),
    "a stream": (lambda: defined("ContinuousTimeRNN", F, H), "elapsed", {}),
}


@plain_if(lambda name, always, **_: name == "lengths" or always)
@pytest.mark.parametrize(("make", "name", "always"), SCANNED.values(), ids=SCANNED)
def test_what_onnx_has_no_node_for_becomes_a_scan(make, name, always):
    torch.manual_seed(0)
    assert "Scan" in compare(Wrapped(make(), name, **always), name, ["onnxruntime"])


class Projected(nn.Module):
    """The input's part of the gates is not a product of the input alone."""

    def __init__(self):
        super().__init__()
        self.layer = seqcells.LSTM(F, H)

    def forward(self, input):
        (weights,) = self.layer._weights()
        gates = nn.functional.linear(input, weights.ih, weights.bias_ih)
        begin = [input.new_zeros(input.shape[1], H)] * 2
        return seqcells.functional.recurrence(self.layer.cell, gates + gates.sin(), begin, weights)[0]


@pytest.mark.heavy
def test_gates_that_no_product_of_weights_makes():
    operators = compare(Outputs(Projected()), None, ["onnxruntime"])
    assert "LSTM" in operators


class Outputs(nn.Module):
    """A module whose result is one tensor, in the form that `compare` expects."""

    def __init__(self, module):
        super().__init__()
        self.module, self.layer = module, module.layer

    def forward(self, input):
        return (self.module(input),)


@pytest.mark.parametrize("hidden", [H, 48])  # constants that the exporter folds, and constants that it leaves
def test_a_node_comes_back(hidden):
    """Exported, and imported as a layer again."""
    layer = seqcells.LSTM(F, hidden, bidirectional=True)
    proto = exported(Wrapped(layer), None)
    folded = onnx.load_model_from_string(proto.SerializeToString())
    (module,) = load(folded).values()
    x = torch.randn(5, 2, F)
    torch.testing.assert_close(module.layers[0](x)[0], layer(x)[0])
    torch.testing.assert_close([*module.layers[0].state_dict().values()], [*layer.state_dict().values()])


class FromStates(nn.Module):
    """A layer with given initial states."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input, lengths, states):
        hx = (states, states + 1) if self.layer.mode == "LSTM" else states
        output, final = self.layer(input, hx, lengths=lengths)
        return output, *(final if isinstance(final, tuple) else (final,))


@pytest.mark.parametrize("make", [seqcells.LSTM, seqcells.GRU])
def test_states_of_an_empty_sequence_stay(make):
    model = FromStates(make(F, H)).eval()
    given = torch.randn(5, 3, F), torch.tensor([5, 0, 2]), torch.randn(1, 3, H)
    with torch.no_grad():
        program = torch.onnx.export(model, given, dynamo=True, custom_translation_table=translations(), verbose=False)
        expected = model(*given)
    run = RUNTIMES["onnxruntime"](program.model_proto)
    for a, b in zip(run(*(value.numpy() for value in given)), expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("name", [None, "reset"])
def test_bfloat16_is_computed_in_float32(name):
    """No checker accepts such nodes before opset 22. onnxruntime lacks even products of bfloat16 on a CPU."""
    model = Wrapped(seqcells.LSTM(F, H, dtype=torch.bfloat16), name).eval()
    given = tuple(each.bfloat16() if each.is_floating_point() else each for each in inputs(name, *SIZES[0]))

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input, other=None):
            return [each.float() for each in self.model(input.bfloat16(), *(() if other is None else (other,)))]

    wide = given[0].float(), *given[1:]
    program = torch.onnx.export(Wide(), wide, dynamo=True, custom_translation_table=translations(), verbose=False)
    onnx.checker.check_model(program.model_proto, full_check=True)
    reference = ReferenceEvaluator(program.model_proto)
    names = [each.name for each in program.model_proto.graph.input]
    found = reference.run(None, dict(zip(names, (value.numpy() for value in wide), strict=True)))
    with torch.no_grad():
        expected = model(*given)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.float().numpy(), rtol=2e-2, atol=2e-2)


@pytest.mark.heavy
def test_packed_inputs():
    model = Wrapped(seqcells.GRU(F, H, bidirectional=True), "packed").eval()
    given = inputs("packed", *SIZES[0])
    program = torch.onnx.export(
        model,
        given,
        dynamo=True,
        dynamic_shapes=shapes("packed"),
        custom_translation_table=translations(),
        verbose=False,
    )
    run = RUNTIMES["onnxruntime"](program.model_proto)
    for seed, size in enumerate(SIZES):
        given = inputs("packed", *size, seed)
        with torch.no_grad():
            expected = model(*given)
        for a, b in zip(run(*(value.numpy() for value in given)), expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)


class Products(nn.Module):
    """The input's part of the gates comes from products of other shapes than a layer's."""

    def __init__(self, weight, bias):
        super().__init__()
        self.layer = seqcells.LSTM(F, H)
        self.weight, self.bias = nn.Parameter(torch.randn(*weight)), nn.Parameter(torch.randn(bias))

    def forward(self, input):
        (weights,) = self.layer._weights()
        begin = [input.new_zeros(input.shape[1], H)] * 2
        return seqcells.functional.recurrence(self.layer.cell, input @ self.weight + self.bias, begin, weights)[0]


@pytest.mark.heavy
@pytest.mark.parametrize(("weight", "bias"), [((SIZES[0][0], F, 4 * H), 4 * H), ((F, 4 * H), 1)])
def test_gates_of_other_products(weight, bias):
    model = Products(weight, bias).eval()
    given = inputs(None, *SIZES[0])
    program = torch.onnx.export(model, given, dynamo=True, custom_translation_table=translations(), verbose=False)
    with torch.no_grad():
        expected = model(*given)
    (found,) = RUNTIMES["onnxruntime"](program.model_proto)(*(value.numpy() for value in given))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
