"""Cells that torch.nn lacks give the results of other packages with the same weights.

Each test makes weights in the package's form, maps them to a layer's, and writes out the package's step. Outputs, final
states and gradients agree in float64; the gradients are of the input, the initial states and the package's own weights.
"""

import pytest
import torch
from support import as_tuple, assert_equal_to, gradients, like_module, needs_compiler
from torch.func import functional_call
from torch.nn.functional import layer_norm, logsigmoid, normalize, rms_norm, silu
from written_out import IN, LAYERS, H, N, T, in_registry

from seqcells.cells import REGISTRY

sig, tanh = torch.sigmoid, torch.tanh


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


@pytest.fixture(params=["reference", pytest.param("cpu", marks=[pytest.mark.heavy, needs_compiler])])
def backend(request):
    if request.param == "cpu":
        request.getfixturevalue("compiling")
    return request.param


def leaf(*shape):
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


def rows(v, *order):
    """Row blocks in another order, or some of them."""
    return torch.cat([v.chunk(max(order) + 1)[k] for k in order])


def by_layer(name, backend, weights, x, hx, **options):
    """Output and final states of a layer with these weights; its other biases are zero."""
    layer = LAYERS[name](IN, H, dtype=torch.float64, backend=backend, **options)
    given = {f"{key}_l0": value for key, value in weights.items()}
    others = {key: torch.zeros_like(p) for key, p in layer.named_parameters() if key not in given}
    assert all(key.startswith("bias") for key in others)
    states = like_module([state[None] for state in hx])
    output, final = functional_call(layer, given | others, (x, states), strict=True)
    return [output, *(state[0] for state in as_tuple(final))]


def check(name, backend, w, mapped, step, hx=None, **options):
    """Compare results and gradients.

    Args:
        w: the package's weights by name.
        mapped: makes the layer's weights from ``w``.
        step: (w, x, *states) → the new states.
    """
    x, hx = leaf(T, N, IN), [leaf(N, H) for _ in REGISTRY[name].states] if hx is None else hx
    ours = by_layer(name, backend, mapped(w), x, hx, **options)
    states, outputs = hx, []
    for each in x:
        states = step(w, each, *states)
        outputs.append(states[0])
    theirs, leaves = [torch.stack(outputs), *states], [x, *(h for h in hx if h.requires_grad), *w.values()]
    assert_equal_to(ours, theirs, 1e-10)
    assert_equal_to(gradients(ours, leaves), gradients(theirs, leaves), 1e-10)


# GRU with the reset gate before the product.


def keras_gru():
    return {"kernel": leaf(IN, 3 * H), "recurrent_kernel": leaf(H, 3 * H), "bias": leaf(3 * H)}


def from_keras(w):
    """The order of the package's gates is z, r, h."""
    recurrent = w["recurrent_kernel"].T
    return {
        "weight_ih": rows(w["kernel"].T, 1, 0, 2),
        "bias_ih": rows(w["bias"], 1, 0, 2),
        "weight_hh": recurrent[[*range(H, 2 * H), *range(H)]],
        "weight_candidate": recurrent[2 * H :],
    }


def test_gru_reset_before_is_that_of_keras(backend):
    """`GRUCell` with ``reset_after=False`` (keras-team/keras, keras/src/layers/rnn/gru.py)."""

    def step(w, x, h):
        x_z, x_r, x_h = (x @ w["kernel"] + w["bias"]).chunk(3, -1)
        u_z, u_r, u_h = w["recurrent_kernel"].chunk(3, -1)
        z, r = sig(x_z + h @ u_z), sig(x_r + h @ u_r)
        return (z * h + (1 - z) * tanh(x_h + (r * h) @ u_h),)

    check("gru_reset_before", backend, keras_gru(), from_keras, step)


def test_gru_reset_before_is_that_of_onnx(backend):
    """The operator GRU with ``linear_before_reset=0``, by onnx.reference; it has Keras' order of gates."""
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    w, x, h = keras_gru(), leaf(T, N, IN), leaf(N, H)
    with torch.no_grad():
        inputs = {"X": x, "W": w["kernel"].T[None], "R": w["recurrent_kernel"].T[None], "h": h[None]}
        inputs["B"] = torch.cat([w["bias"], torch.zeros(3 * H)])[None]
        names = ["X", "W", "R", "B", "", "h"]
        node = onnx.helper.make_node("GRU", names, ["Y", "Y_h"], hidden_size=H, linear_before_reset=0)
        types = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None)
            for name in (*filter(None, names), "Y", "Y_h")
        ]
        graph = onnx.helper.make_graph([node], "gru", types[:-2], types[-2:])
        evaluator = reference.ReferenceEvaluator(onnx.helper.make_model(graph))
        found = evaluator.run(None, {name: value.numpy() for name, value in inputs.items()})
        theirs = [torch.from_numpy(each) for each in found]
        ours = by_layer("gru_reset_before", backend, from_keras(w), x, [h])
    assert_equal_to(ours, [theirs[0][:, 0], theirs[1][0]], 1e-10)


# Norms.


def test_layer_norm_lstm_is_that_of_haste(backend):
    """`LayerNormLSTMCell` (lmnt-com/haste, frameworks/tf/layer_norm_lstm_cell.py), whose order of gates is i, g, f, o.

    Its biases follow the norms only. TensorFlow Addons' cell carries the normalised c, and so is another cell.
    """
    w = {"kernel": leaf(IN, 4 * H), "recurrent_kernel": leaf(H, 4 * H), "bias": leaf(4 * H)}
    w |= {"gamma": leaf(2, 4 * H), "gamma_h": leaf(H), "beta_h": leaf(H)}
    order = 0, 2, 1, 3

    def mapped(w):
        return {
            "weight_ih": rows(w["kernel"].T, *order),
            "weight_hh": rows(w["recurrent_kernel"].T, *order),
            "weight_norm_x": w["gamma"][0].view(4, H)[[*order]],
            "weight_norm_h": w["gamma"][1].view(4, H)[[*order]],
            "weight_norm_bias": w["bias"].view(4, H)[[*order]],
            "weight_norm_c": torch.stack([w["gamma_h"], w["beta_h"]]),
        }

    def step(w, x, h, c):
        v = layer_norm(x @ w["kernel"], (4 * H,), w["gamma"][0]) + w["bias"]
        i, g, f, o = (v + layer_norm(h @ w["recurrent_kernel"], (4 * H,), w["gamma"][1])).chunk(4, -1)
        c = sig(f) * c + sig(i) * tanh(g)
        return sig(o) * tanh(layer_norm(c, (H,), w["gamma_h"], w["beta_h"])), c

    check("layer_norm_lstm", backend, w, mapped, step)


def test_layer_norm_gru_is_that_of_skip_thoughts(backend):
    """`LayerNormGRUCell` (tensorflow/models, research/skip_thoughts/skip_thoughts/ops/gru_cell.py), after Ba et al.

    Its z is one minus ours, which gains and biases of the opposite sign produce. Its epsilon is 1e-12, and ours is set
    to it here. haste's cell has one norm for all three gates, and so is another cell.
    """
    w = {"w_h": leaf(H, 2 * H), "w_x": leaf(IN, 2 * H), "u": leaf(H, H), "w": leaf(IN, H)}
    w |= {f"{part}_{name}": leaf(w[name].shape[1]) for name in [*w] for part in ("gamma", "beta")}

    def mapped(w):
        sign = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
        both = {key: sign * w[key].view(2, H)[[1, 0]] for key in ("gamma_w_x", "gamma_w_h", "beta_w_x", "beta_w_h")}
        return {
            "weight_ih": torch.cat([rows(w["w_x"].T, 1, 0), w["w"].T]),
            "weight_hh": torch.cat([rows(w["w_h"].T, 1, 0), w["u"].T]),
            "weight_norm_x": torch.cat([both["gamma_w_x"], w["gamma_w"][None]]),
            "weight_norm_h": torch.cat([both["gamma_w_h"], w["gamma_u"][None]]),
            "weight_norm_bias": torch.cat([both["beta_w_x"] + both["beta_w_h"], w["beta_w"][None], w["beta_u"][None]]),
        }

    def step(w, x, h):
        def norm(v, name):
            return layer_norm(v @ w[name], w[name].shape[1:], w[f"gamma_{name}"], w[f"beta_{name}"])

        z, r = sig(norm(h, "w_h") + norm(x, "w_x")).chunk(2, -1)
        return ((1 - z) * h + z * tanh(r * norm(h, "u") + norm(x, "w")),)

    check("layer_norm_gru", backend, w, mapped, step)


@pytest.mark.parametrize("heads", [1, 2])
def test_block_gru_is_that_of_sheeprl(backend, heads):
    """`LayerNormGRUCell` (Eclectic-Sheep/sheeprl, sheeprl/models/models.py), itself after DreamerV2's `GRUCell`.

    It has one linear map of state and input, whose part for the state is masked here where there are two blocks. The
    epsilon is torch.nn.LayerNorm's, 1e-5; sheeprl's DreamerV3 is configured with 1e-3.
    """
    block = torch.block_diag(*[torch.ones(H // heads, H // heads)] * heads)
    w = {"linear": leaf(3 * H, H + IN), "bias": leaf(3 * H), "gain": leaf(3 * H), "shift": leaf(3 * H)}

    def mapped(w):
        dense = w["linear"][:, :H].view(3, heads, H // heads, heads, H // heads)
        return {
            "weight_ih": w["linear"][:, H:],
            "weight_hh": torch.stack([dense[:, k, :, k] for k in range(heads)], 1).reshape(3 * H, H // heads),
            "bias_ih": w["bias"],
            "weight_norm": w["gain"].view(3, H),
            "weight_norm_bias": w["shift"].view(3, H),
        }

    def step(w, x, h):
        linear = w["linear"] * torch.cat([block.repeat(3, 1), torch.ones(3 * H, IN)], 1)
        v = torch.cat([h, x], -1) @ linear.T + w["bias"]
        reset, candidate, update = layer_norm(v, (3 * H,), w["gain"], w["shift"]).chunk(3, -1)
        update = sig(update - 1)
        return (update * tanh(sig(reset) * candidate) + (1 - update) * h,)

    check("block_gru", backend, w, mapped, step, heads=heads)


def test_dreamer_core_is_that_of_dreamerv3():
    """`RSSM._core` after the embedding of the stochastic state and action (danijar/dreamerv3, dreamerv3/rssm.py)."""
    blocks, size, embedding = 2, H // 2, 5
    w = {"in": leaf(H, embedding), "in_bias": leaf(embedding), "in_scale": leaf(embedding)}
    w |= {"hid": leaf(blocks, size + embedding + IN, size), "hid_bias": leaf(H), "hid_scale": leaf(H)}
    w |= {"gru": leaf(blocks, size, 3 * size), "gru_bias": leaf(3 * H)}

    def mapped(w):
        of_state, of_embedding, of_input = w["hid"].transpose(1, 2).reshape(H, -1).split([size, embedding, IN], 1)
        return {
            "weight_embedding": w["in"].T,
            "bias_embedding": w["in_bias"],
            "weight_norm_embedding": w["in_scale"][None],
            "weight_hh": of_state,
            "weight_embedded": of_embedding,
            "weight_ih": of_input,
            "bias_ih": w["hid_bias"],
            "weight_norm": w["hid_scale"][None],
            "weight_gates": w["gru"].view(blocks, size, 3, size).permute(2, 0, 3, 1).reshape(3 * H, size),
            "bias_gates": w["gru_bias"].view(blocks, 3, size).transpose(0, 1).reshape(3 * H),
        }

    def block_linear(w, name, v):
        return torch.einsum("nki,kio->nko", v, w[name]) + w[f"{name}_bias"].view(blocks, -1)

    def norm(w, name, v):
        return silu(rms_norm(v, v.shape[-1:], w[f"{name}_scale"], 1e-4))

    def step(w, x, h):
        embedded = norm(w, "in", h @ w["in"] + w["in_bias"])
        given = torch.cat([embedded, x], -1)[:, None].expand(N, blocks, embedding + IN)
        mixed = torch.cat([h.view(N, blocks, size), given], -1)
        mixed = norm(w, "hid", block_linear(w, "hid", mixed).reshape(N, H))
        gates = block_linear(w, "gru", mixed.view(N, blocks, size)).chunk(3, -1)
        reset, candidate, update = (gate.reshape(N, H) for gate in gates)
        update = sig(update - 1)
        return (update * tanh(sig(reset) * candidate) + (1 - update) * h,)

    check("dreamer_core", "reference", w, mapped, step, heads=blocks, embedding_size=embedding)


# Cells of several products.


def test_multiplicative_lstm_is_that_of_openai(backend):
    """`mlstm` with its weight norm (openai/generating-reviews-discovering-sentiment, encoder.py): gates i, f, o, u."""
    w = {"wx": leaf(IN, 4 * H), "wh": leaf(H, 4 * H), "wmx": leaf(IN, H), "wmh": leaf(H, H)}
    w |= {f"g{name[1:]}": leaf(w[name].shape[1]) for name in [*w]} | {"b": leaf(4 * H)}
    order = 0, 1, 3, 2

    def scaled(w):
        return [normalize(w[f"w{name}"], dim=0) * w[f"g{name}"] for name in ("x", "h", "mx", "mh")]

    def mapped(w):
        wx, wh, wmx, wmh = scaled(w)
        return {
            "weight_ih": torch.cat([wmx.T, rows(wx.T, *order)]),
            "weight_hh": wmh.T,
            "weight_intermediate": rows(wh.T, *order),
            "bias_intermediate": rows(w["b"], *order),
        }

    def step(w, x, h, c):
        wx, wh, wmx, wmh = scaled(w)
        m = (x @ wmx) * (h @ wmh)
        i, f, o, u = (x @ wx + m @ wh + w["b"]).chunk(4, -1)
        c = sig(f) * c + sig(i) * tanh(u)
        return sig(o) * tanh(c), c

    check("multiplicative_lstm", backend, w, mapped, step)


def test_recurrent_highway_is_that_of_its_authors(backend):
    """`RHNCell` without dropout, of depth 3 (jzilly/RecurrentHighwayNetworks, rhn.py): a matrix for each gate."""
    w = {f"input_{gate}": leaf(IN, H) for gate in "ht"} | {f"{gate}_{k}": leaf(H, H) for gate in "ht" for k in range(3)}
    w |= {f"bias_{gate}_{k}": leaf(H) for gate in "ht" for k in range(3)}

    def mapped(w):
        names = ["hh", "deeper1", "deeper2"]
        own = {f"weight_{name}": torch.cat([w[f"h_{k}"].T, w[f"t_{k}"].T]) for k, name in enumerate(names)}
        own |= {f"bias_{name}": torch.cat([w[f"bias_h_{k}"], w[f"bias_t_{k}"]]) for k, name in enumerate(names)}
        return own | {"weight_ih": torch.cat([w["input_h"].T, w["input_t"].T])}

    def step(w, x, s):
        for k in range(3):
            of_h, of_t = (s @ w[f"{gate}_{k}"] + w[f"bias_{gate}_{k}"] for gate in "ht")
            if k == 0:
                of_h, of_t = of_h + x @ w["input_h"], of_t + x @ w["input_t"]
            s = (tanh(of_h) - s) * sig(of_t) + s
        return (s,)

    check("recurrent_highway", backend, w, mapped, step, depth=3)


@pytest.mark.parametrize("begin", ["zero", "given"])
def test_multi_head_slstm_is_that_of_its_authors(backend, begin):
    """`slstm_forward` of the vanilla backend (NX-AI/xlstm, xlstm/blocks/slstm/src/vanilla), with its stabiliser m.

    A zero normaliser means here that no step was seen. The initial c, n and m have no gradient then; in xlstm they have
    one.
    """
    heads, size = 2, H // 2
    w = {"W": leaf(4 * H, IN), "R": leaf(heads, 4 * size, size), "b": leaf(4 * H)}
    hx = [leaf(N, H) for _ in "hcnm"]
    hx[2] = (hx[2].abs() + 0.5).detach().requires_grad_()  # a normaliser is positive
    if begin == "zero":
        hx = [torch.zeros(N, H, dtype=torch.float64) for _ in hx]

    def mapped(w):
        recurrent = w["R"].view(heads, 4, size, size).transpose(0, 1)
        return {"weight_ih": w["W"], "weight_hh": recurrent.reshape(4 * H, size), "bias_ih": w["b"]}

    def step(w, x, h, c, n, m):
        of_h = torch.einsum("nki,koi->nko", h.view(N, heads, size), w["R"])
        of_h = of_h.view(N, heads, 4, size).transpose(1, 2).reshape(N, 4 * H)
        i, f, z, o = (x @ w["W"].T + of_h + w["b"]).chunk(4, -1)
        carried = m + logsigmoid(f)
        new = i if (n == 0).all() else torch.maximum(i, carried)
        i, f = torch.exp(i - new), torch.exp(carried - new)
        c, n = f * c + i * tanh(z), f * n + i
        return sig(o) * c / n, c, n, new

    check("multi_head_slstm", backend, w, mapped, step, hx=hx, heads=heads)
