"""ONNX' recurrent nodes as our layers: ONNX' own tests, and random attributes against its equations and onnxruntime."""

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_nodes import KINDS, Drawn, F, H, N, T

import seqcells
from seqcells.io.onnx import load

INPUTS = "X", "sequence_lens", "initial_h", "initial_c"
pytestmark = pytest.mark.usefixtures("own_registry")


def run(module, inputs, dtype=torch.float64):
    """The node's outputs as arrays."""
    given = [None if name not in inputs else torch.from_numpy(np.array(inputs[name])) for name in INPUTS]
    given = [each.to(dtype) if each is not None and each.is_floating_point() else each for each in given]
    with torch.no_grad():
        return [each.numpy() for each in module(*given)]


@pytest.fixture(scope="module")
def node_tests():
    """ONNX' own tests of its recurrent operators."""
    from onnx.backend.test.case.node import collect_testcases

    with np.errstate(all="ignore"):
        return [test for test in collect_testcases(None) if test.model.graph.node[0].op_type in KINDS]


@pytest.mark.filterwarnings("ignore")
def test_onnx_own_tests(node_tests):
    assert len(node_tests) >= 18
    for test in node_tests:
        (inputs, outputs), graph = test.data_sets[0], test.model.graph
        given = {each.name: np.array(value) for each, value in zip(graph.input, inputs, strict=True)}
        (module,) = load(test.model, {name: torch.from_numpy(value) for name, value in given.items()}).values()
        found = dict(zip(graph.node[0].output, run(module, given, torch.float32), strict=False))
        for each, expected in zip(graph.output, outputs, strict=True):
            np.testing.assert_allclose(found[each.name], expected, rtol=1e-5, atol=1e-6, err_msg=test.name)


SEEDS = range(24)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_attributes(kind, seed):
    """By the specification's equations."""
    drawn = Drawn(kind, seed)
    (module,) = load(drawn.model("float64"), backend="reference").values()
    for found, expected in zip(run(module, drawn.inputs), drawn.results(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_each_attribute_is_drawn_at_least_twice():
    for kind in KINDS:
        seen = Counter()
        for seed in SEEDS:
            drawn = Drawn(kind, seed)
            for name, value in drawn.attributes.items():
                each = [(name, v) for v in value] if name == "activations" else [(name, value)]
                seen.update({*each} if name in ("activations", "direction", "layout") else {(name, str(value)[:1])})
            seen.update((name, True) for name in drawn.inputs | drawn.weights)
        wanted = [("direction", d) for d in ("forward", "reverse", "bidirectional")] + [("layout", 0), ("layout", 1)]
        wanted += [(name, True) for name in ("B", "sequence_lens", "initial_h", *(["P"] if kind == "LSTM" else []))]
        other = {"LSTM": "input_forget", "GRU": "linear_before_reset"}.get(kind)
        wanted += [(other, "0"), (other, "1")] if other else []
        assert min(seen[each] for each in wanted) >= 2, seen
        assert sum(count for (name, _), count in seen.items() if name == "clip") >= 2


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_random_attributes_by_onnxruntime(kind, compiling):
    """In float32, by the engine; nodes that the runtime refuses are covered by the test above."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    ran = 0
    for seed in SEEDS:
        drawn = Drawn(kind, seed, layout=0)
        model = drawn.model()
        inputs = {k: v if k == "sequence_lens" else v.astype("float32") for k, v in drawn.inputs.items()}
        try:
            session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
            expected = session.run(None, inputs)
        except Exception as why:
            print(f"{kind} {seed}: {why}")
            continue
        (module,) = load(model).values()
        exact = drawn.results()
        if max(np.abs(each).max() for each in exact) > 100:
            continue  # unbounded functions: float32 results would differ too much
        for found, theirs, truth in zip(run(module, inputs, torch.float32), expected, exact, strict=True):
            np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
            if np.allclose(theirs, truth, rtol=1e-4, atol=1e-5):  # else the runtime computes something else
                np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-5)
                ran += 1
    assert ran >= 10


def test_default_attributes_are_layers_of_torchs_contract():
    for kind, ours, theirs in (("LSTM", seqcells.LSTM, torch.nn.LSTM), ("RNN", seqcells.RNN, torch.nn.RNN)):
        drawn = Drawn(kind, 0, direction="bidirectional")
        drawn.attributes = {"hidden_size": H, "direction": "bidirectional"}
        drawn.weights.pop("P", None)
        (module,) = load(drawn.model("float64")).values()
        (layer,) = module.layers
        assert type(layer) is ours
        twin = theirs(F, H, bidirectional=True, bias="B" in drawn.weights, dtype=torch.float64)
        twin.load_state_dict(layer.state_dict())
        x = torch.from_numpy(drawn.inputs["X"])
        assert torch.allclose(twin(x)[0], layer(x)[0])


def test_a_graph_and_graphs_in_it(tmp_path):
    """By name, from a file, from constants, and in a branch; gradients reach the weights."""
    drawn = [Drawn(kind, seed, direction="forward", activations=[]) for seed, kind in enumerate(KINDS)]
    nodes, values = [], []
    for k, each in enumerate(drawn):
        each.attributes = {"hidden_size": H}
        each.weights.pop("P", None)
        each.inputs = {"X": each.inputs["X"].reshape(T, N, F)}
        graph = each.model("float64").graph
        for old in [*graph.initializer]:
            array = onnx.numpy_helper.from_array(each.weights[old.name], f"{old.name}{k}")
            nodes.append(helper.make_node("Constant", [], [array.name], value=array))
        node = graph.node[0]
        names = [f"{name}{k}" if name in each.weights else name for name in node.input]
        nodes.append(helper.make_node(node.op_type, names, [f"Y{k}"], name=f"layer{k}", **each.attributes))
    branch = helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info("Y0", 11, None)])
    outer = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    inputs = [
        helper.make_tensor_value_info("X", TensorProto.DOUBLE, (T, N, F)),
        helper.make_tensor_value_info("yes", 9, ()),
    ]
    graph = helper.make_graph([outer], "outer", inputs, [helper.make_tensor_value_info("out", 11, None)], values)
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    modules = load(tmp_path / "model.onnx")
    # There are two branches, and each has its own nodes.
    assert [*modules] == [*(f"layer{k}" for k in range(3)), *(f"layer{k}_2" for k in range(3))]
    for each, module in zip(drawn * 2, modules.values(), strict=True):
        np.testing.assert_allclose(run(module, each.inputs)[0], each.results()[0], rtol=1e-9)
        module(torch.from_numpy(each.inputs["X"]))[0].sum().backward()
        assert all(parameter.grad is not None for parameter in module.parameters())
    assert [*load((tmp_path / "model.onnx").read_bytes())] == [*modules]


WRONG = {
    "no constant": (lambda model: model.graph.initializer.pop(), "is no constant"),
    "a direction": (lambda model: attribute(model, "direction", "sideways"), "direction should be"),
    "an activation": (
        lambda model: attribute(model, "activations", ["Swish", "Tanh", "Tanh"]),
        "there is no activation",
    ),
    "their number": (lambda model: attribute(model, "activations", ["Tanh"]), "should have 3 activations, got 1"),
    "a size": (lambda model: attribute(model, "hidden_size", H + 1), "should be of size"),
}


def attribute(model, name, value):
    node = model.graph.node[0]
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


@pytest.mark.parametrize(("change", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_node_of_the_operator(change, words):
    drawn = Drawn("LSTM", 1)
    drawn.attributes = {"hidden_size": H}
    model = drawn.model()
    change(model)
    with pytest.raises(ValueError, match=words):
        load(model)


def single(kind, **others):
    """A model of one node with the default attributes, and its weights and inputs."""
    drawn = Drawn(kind, 0, direction="forward", activations=[])
    drawn.attributes = {"hidden_size": H, **others}
    drawn.weights.pop("P", None)
    return drawn, drawn.model("float32")


def test_weights_that_the_graph_computes_of_constants():
    """Exporters leave such graphs: W is concatenated from parts in another order."""
    drawn, model = single("GRU")
    graph = model.graph
    node, weight = graph.node[0], next(each for each in graph.initializer if each.name == "W")
    array = onnx.numpy_helper.to_array(weight)
    graph.initializer.remove(weight)
    graph.initializer.append(onnx.numpy_helper.from_array(array.reshape(3, H, F)[[2, 0, 1]].copy(), "parts"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 0]), "order"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 3 * H, F]), "shape"))
    made = [
        helper.make_node("Gather", ["parts", "order"], ["ordered"]),
        helper.make_node("Reshape", ["ordered", "shape"], ["W"]),
    ]
    graph.node.remove(node)
    graph.node.extend([*made, node])
    (module,) = load(model).values()
    (plain,) = load(drawn.model("float32")).values()
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)


def test_values_count_before_initializers_of_the_same_name():
    drawn, model = single("RNN")
    model.graph.input.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, drawn.weights["W"].shape))
    (module,) = load(model, {"W": np.zeros_like(drawn.weights["W"], dtype="float32")}).values()
    assert not module.layers[0].weight_ih_l0.any()
    assert module.layers[0].weight_hh_l0.any()


@pytest.mark.parametrize("version", [22, 17])
def test_nodes_in_functions_of_the_model(version):
    """ONNX inlines functions in place of their calls, but only functions of the model's own opset."""
    drawn, model = single("RNN")
    node, opset = model.graph.node[0], helper.make_opsetid("", version)
    function = helper.make_function("own", "Layer", [*node.input], [*filter(None, node.output)], [node], [opset])
    call = helper.make_node("Layer", [*node.input], [*filter(None, node.output)], domain="own")
    model.graph.node.remove(node)
    model.graph.node.append(call)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    if version != model.opset_import[0].version:
        with pytest.raises(ValueError, match="of another opset than the model: Layer"):
            load(model)
        return
    (module,) = load(model).values()
    (plain,) = load(drawn.model("float32")).values()
    assert torch.equal(module.layers[0].weight_ih_l0, plain.layers[0].weight_ih_l0)


@pytest.mark.parametrize(("kind", "others"), [("GRU", {}), ("LSTM", {"clip": 0.5}), ("RNN", {})])
def test_modules_are_copied_and_pickled(kind, others, tmp_path):
    _, model = single(kind, **others)
    (module,) = load(model).values()
    torch.save(module, tmp_path / "module.pt")
    x = torch.randn(T, N, F)
    for again in (torch.load(tmp_path / "module.pt", weights_only=False), copy.deepcopy(module)):
        assert type(again.layers[0]).__name__ == type(module.layers[0]).__name__
        for a, b in zip(again(x), module(x), strict=True):
            assert torch.equal(a, b)


REFUSED = {
    "an attribute": ({"foo": 1}, {}, "LSTM has no attribute foo"),
    "another's attribute": ({"linear_before_reset": 1}, {}, "LSTM has no attribute linear_before_reset"),
    "a layout": ({"layout": 7}, {}, "layout should be 0 or 1"),
    "a clip": ({"clip": -1.0}, {}, "clip should be above 0"),
    "a tensor": ({}, {"Q": torch.zeros(1)}, "LSTM has no Q"),
    "a dtype": ({}, {"R": torch.zeros(1, 4 * H, H).double()}, "R should be of W's floating-point dtype"),
    "axes": ({}, {"B": torch.zeros(8 * H)}, "B should not have 1 axes"),
}


@pytest.mark.parametrize(("attributes", "tensors", "words"), REFUSED.values(), ids=REFUSED)
def test_what_no_node_has(attributes, tensors, words):
    given = {"W": torch.zeros(1, 4 * H, F), "R": torch.zeros(1, 4 * H, H), **tensors}
    with pytest.raises(ValueError, match=words):
        seqcells.io.onnx.Node("LSTM", attributes, given)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_lengths_that_are_none(direction):
    node = seqcells.io.onnx.Node(
        "GRU", {"direction": direction}, {"W": torch.zeros(1, 3 * H, F), "R": torch.zeros(1, 3 * H, H)}
    )
    x = torch.randn(T, 2, F)
    with pytest.raises(ValueError, match="lengths should be between 0 and the number of steps"):
        node(x, torch.tensor([T + 4, 1]))
    with pytest.raises(TypeError, match="integers"):
        node(x, torch.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="GRU has no initial_c"):
        node(x, initial_c=torch.zeros(1, 2, H))
    with pytest.raises(ValueError, match="an input of 3 axes"):
        node(x[0])
    assert node(x, [1, 2])[0].shape == (T, 1, 2, H)
