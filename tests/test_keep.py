"""Values that a call keeps of all steps besides the output, against torch loops that are written out."""

import pickle

import pytest
import torch
from programs import check
from support import as_tuple, plain_if
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close
from written_out import DIRECT, IN, H, N, T, in_registry, make, times

import seqcells
from seqcells import cells, functional
from seqcells.cells import Cell
from seqcells.cells.activations import sigmoid, tanh
from seqcells.derive.named_values import keeping

LENGTHS = [T, 0, 2]
sig = torch.sigmoid


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


def lstm(w, x, h, c):
    i, f, g, o = (times(w, "ih", x) + times(w, "hh", h)).chunk(4)
    i, f, g, o = sig(i), sig(f), torch.tanh(g), sig(o)
    c = f * c + i * g
    return {"h": o * torch.tanh(c), "c": c, "i": i, "f": f, "g": g, "o": o, "forget": f, "candidate": g}


def gru(w, x, h):
    (r, z, n), (hr, hz, hn) = times(w, "ih", x).chunk(3), times(w, "hh", h).chunk(3)
    r, z = sig(r + hr), sig(z + hz)
    n = torch.tanh(n + r * hn)
    return {"h": (1 - z) * n + z * h, "r": r, "z": z, "n": n, "reset": r, "new": n}


STEPS = {"lstm": (lstm, seqcells.LSTM, ("h", "c")), "gru": (gru, seqcells.GRU, ("h",))}


def loops(kind, layer, x, hx, lengths, reset, fresh):
    """For each layer: all values of a step by name, (T, N, D·H), zero past a sequence's length. Also returns the final
    states."""
    step, _, states = STEPS[kind]
    parameters, sides = dict(layer.named_parameters()), 1 + layer.bidirectional
    kept, finals = [], []
    for k in range(layer.num_layers):
        of_sides = []
        for d in range(sides):
            end = f"_l{k}" + "_reverse" * d
            w = {name.removesuffix(end): p for name, p in parameters.items() if name.endswith(end)}
            ends = []
            of_rows = []
            for n in range(N):
                place, found = k * sides + d, {}
                now = [state[place, n] for state in hx]
                for t in range(lengths[n])[:: -1 if d else 1]:
                    boundary = t + 1 if d else t
                    if boundary < lengths[n] and reset[boundary, n]:
                        now = [state[place, n] for state in fresh]
                    found[t] = step(w, x[t, n], *now)
                    now = [found[t][name] for name in states]
                like = step(w, x[0, n], *now)
                zero = {name: torch.zeros_like(v) for name, v in like.items()}
                of_rows.append({name: torch.stack([found.get(t, zero)[name] for t in range(T)]) for name in like})
                ends.append(torch.stack(now))
            of_sides.append({name: torch.stack([row[name] for row in of_rows], 1) for name in of_rows[0]})
            finals.append(torch.stack(ends, 1))
        kept.append({name: torch.cat([side[name] for side in of_sides], -1) for name in of_sides[0]})
        x = kept[-1]["h"]
    return kept, [torch.stack(each) for each in zip(*finals, strict=True)]


def problem(kind, **options):
    torch.manual_seed(2)
    layer = STEPS[kind][1](IN, H, dtype=torch.float64, **options)
    paths = layer.num_layers * (1 + layer.bidirectional)

    def states():
        return [torch.randn(paths, N, H, dtype=torch.float64, requires_grad=True) for _ in STEPS[kind][2]]

    return layer, torch.randn(T, N, IN, dtype=torch.float64, requires_grad=True), states(), states()


def like_hx(states):
    return states[0] if len(states) == 1 else tuple(states)


def gradients_agree(ours, theirs, leaves):
    seeds = [torch.randn_like(each) for each in theirs]
    found = [torch.autograd.grad(r, leaves, seeds, allow_unused=True, materialize_grads=True) for r in (ours, theirs)]
    assert_close(*found, rtol=1e-9, atol=1e-11)


KEEP = {"lstm": ("f", "c", "i", "h", "candidate", "o_l0", "c_l0", "forget"), "gru": ("h", "z", "new", "r_l0", "h_l0")}


@pytest.mark.parametrize("form", ["plain", "bounded"])
@pytest.mark.parametrize("kind", STEPS)
def test_values_of_all_steps_and_their_gradients(kind, form):
    """States, gates and named values of `step`; bounded: two layers, both directions, lengths, resets to given
    states."""
    bounded = form == "bounded"
    layer, x, hx, fresh = problem(kind, **({"num_layers": 2, "bidirectional": True} if bounded else {}))
    reset = torch.rand(T, N) < 0.4 if bounded else torch.zeros(T, N, dtype=torch.bool)
    lengths = LENGTHS if bounded else [T] * N
    given = {"lengths": torch.tensor(lengths), "reset": reset, "reset_state": like_hx(fresh)} if bounded else {}
    output, final, kept = layer(x, like_hx(hx), keep=KEEP[kind], **given)
    each, finals = loops(kind, layer, x, hx, lengths, reset, fresh)
    wanted = {name: each[0 if name.endswith("_l0") else -1][name.removesuffix("_l0")] for name in KEEP[kind]}
    assert [*kept] == [*KEEP[kind]]
    assert_close(kept, wanted, rtol=1e-10, atol=1e-12)
    assert (
        torch.equal(output, kept["h"])
        and not kept["h"].masked_select(torch.arange(T)[:, None, None] >= torch.tensor(lengths)[:, None]).any()
    )
    assert_close([*as_tuple(final)], finals, rtol=1e-10, atol=1e-12)
    leaves = [x, *hx, *layer.parameters(), *(fresh if bounded else ())]
    gradients_agree([*kept.values(), *as_tuple(final)], [*wanted.values(), *finals], leaves)


def test_each_form_of_input():
    """batch_first, packed, unbatched: a kept value has the form of the output."""
    layer, x, hx, _ = problem("lstm", bidirectional=True)
    kept = layer(x, tuple(hx), keep=("c",), lengths=torch.tensor([2, 4, 1]))[2]["c"]
    packed = pack_padded_sequence(x, torch.tensor([2, 4, 1]), enforce_sorted=False)
    output, _, found = layer(packed, tuple(hx), keep=("c",))
    assert isinstance(found["c"], PackedSequence) and torch.equal(found["c"].batch_sizes, output.batch_sizes)
    assert_close(pad_packed_sequence(found["c"], total_length=T)[0], kept)
    whole = layer(x, tuple(hx), keep=("c",))[2]["c"]
    one = layer(x[:, 1], tuple(state[:, 1] for state in hx), keep=("c",))[2]["c"]
    assert_close(one, whole[:, 1])
    layer.batch_first = True
    assert_close(layer(x.transpose(0, 1), tuple(hx), keep=("c",))[2]["c"], whole.transpose(0, 1))


@pytest.mark.parametrize("name", sorted(DIRECT.keys() - {"multi_head_slstm"}))
def test_states_of_every_cell(name):
    """All steps of all states, by the equations written out."""
    layer = make(name)
    x = torch.randn(T, N, IN, dtype=torch.float64)
    w = {key.removesuffix("_l0"): p for key, p in layer.named_parameters()}
    kept = layer(x, keep=layer.cell.states)[2]
    for n in range(N):
        states = [torch.zeros(H, dtype=torch.float64) for _ in layer.cell.states]
        for t in range(T):
            states = DIRECT[name](w, x[t, n], *states)
            assert_close([kept[state][t, n] for state in layer.cell.states], [*states])


# The names of values by cell; where weights make it simple, the same values by hand.
NAMED = {
    "gru_reset_before": ("reset", "update", "r", "z", "new"),
    "layer_norm_lstm": ("forget", "f", "xf", "c"),
    "layer_norm_gru": ("reset", "r", "update"),
    "mgu": ("forget", "f"),
    "multiplicative_lstm": ("forget", "f"),
    "block_gru": ("r", "z"),
    "recurrent_highway": ("hidden",),
    "multi_head_slstm": ("normaliser", "n", "stabiliser"),
}


def test_gates_of_the_new_cells():
    """By the equations written out, for the first step from zero states."""
    layer = make("layer_norm_lstm")
    x = torch.randn(1, N, IN, dtype=torch.float64)
    w = {key.removesuffix("_l0"): p for key, p in layer.named_parameters()}
    kept = layer(x, keep=("f", "forget"))[2]
    for n in range(N):
        gates = torch.nn.functional.layer_norm(
            times(w, "ih", x[0, n]), (4 * H,), w["weight_norm_x"].flatten(), w["weight_norm_bias"].flatten()
        )
        gates = gates + torch.nn.functional.layer_norm(w["bias_hh"], (4 * H,), w["weight_norm_h"].flatten())
        assert_close(kept["f"][0, n], sig(gates.chunk(4)[1]))
    assert torch.equal(kept["f"], kept["forget"])
    layer = make("gru_reset_before")
    w = {key.removesuffix("_l0"): p for key, p in layer.named_parameters()}
    update = sig(x[0] @ w["weight_ih"][H : 2 * H].T + w["bias_ih"][H : 2 * H] + w["bias_hh"][H:])
    assert_close(layer(x, keep=("z",))[2]["z"][0], update)


@pytest.mark.parametrize("name", NAMED)
def test_names_of_the_new_cells(name):
    """Keeping values changes nothing else: the numbers have the same bits where everything is computed from the
    graph."""
    layer, x = make(name), torch.randn(T, N, IN, dtype=torch.float64)
    layer.backend = "reference"
    output, final = layer(x)
    again, last, kept = layer(x, keep=NAMED[name])
    assert torch.equal(output, again) and all(map(torch.equal, as_tuple(final), as_tuple(last)))
    assert all(value.shape == (T, N, H) and value.isfinite().all() for value in kept.values())


def test_numbers_of_sequences_and_heads():
    class Reduced(Cell):
        """A number of each sequence, a number of each head, and a vector that is the same for all sequences."""

        name, gates, states, options = "reduced", ("h",), ("h",), {"heads": 2}
        parameters = {"u": ("u",)}

        @staticmethod
        def step(x, r, s, p):
            largest, of_heads, level = cells.units.max(s.h), cells.units.sum(s.h, p.heads), sigmoid(p.u)
            return tanh(x.h + r.h + level * largest) + of_heads

    layer = seqcells.define(Reduced)[0](IN, H, dtype=torch.float64, bidirectional=True)
    x = torch.randn(T, N, IN, dtype=torch.float64)
    output, _, kept = layer(x, keep=("largest", "of_heads", "level"))
    del cells.REGISTRY["reduced"]
    assert {name: value.shape[2] for name, value in kept.items()} == {"largest": 2, "of_heads": 4, "level": 2 * H}
    before = torch.cat([torch.zeros(1, N, H, dtype=torch.float64), output[:-1, :, :H]])
    assert_close(kept["largest"][..., 0], before.amax(-1))
    assert_close(kept["of_heads"][..., :2], before.unflatten(-1, (2, -1)).sum(-1))
    assert_close(kept["level"][2, 1, H:], sig(layer.weight_u_l0_reverse[0]))


def test_a_projected_layer_keeps_states_of_two_sizes():
    layer = seqcells.LSTM(IN, H, num_layers=2, proj_size=2, bidirectional=True, dtype=torch.float64)
    output, (_, c), kept = layer(torch.randn(T, N, IN, dtype=torch.float64), keep=("h", "c", "c_l0", "o"))
    assert torch.equal(kept["h"], output) and kept["h"].shape == (T, N, 4)
    assert torch.equal(kept["c"][-1, :, :H], c[2]) and torch.equal(kept["c"][0, :, H:], c[3])
    assert torch.equal(kept["c_l0"][-1, :, :H], c[0]) and torch.equal(kept["c_l0"][0, :, H:], c[1])
    projected = (kept["o"] * torch.tanh(kept["c"]))[..., :H] @ layer.weight_hr_l1.T
    assert_close(kept["h"][..., :2], projected)


def test_a_cell_module_keeps_too():
    module = seqcells.LSTMCell(IN, H, dtype=torch.float64)
    x, hx = torch.randn(N, IN, dtype=torch.float64), [torch.randn(N, H, dtype=torch.float64) for _ in "hc"]
    (h, c), kept = module(x, tuple(hx), keep=("f", "c"))
    wanted = [lstm(dict(module.named_parameters()), x[n], hx[0][n], hx[1][n]) for n in range(N)]
    assert_close(kept, {name: torch.stack([each[name] for each in wanted]) for name in ("f", "c")})
    assert_close((h, c), module(x, tuple(hx)))
    assert_close(module(x[0], tuple(s[0] for s in hx), keep=("f",))[1]["f"], kept["f"][0])


def test_functions_keep_too():
    layer, x, hx, _ = problem("gru")
    (w,) = layer._weights()
    gates_x = torch.nn.functional.linear(x, w.ih, w.bias_ih)
    found = functional.recurrence(layer.cell, gates_x, [hx[0][0]], w, keep=("z",))
    assert_close(found[2], layer(x, hx[0], keep=("z",))[2])
    assert_close(functional.step(layer.cell, x[0], [hx[0][0]], w, keep=("z",))[1]["z"], found[2]["z"][0])


@pytest.mark.parametrize(
    ("keep", "error", "words"),
    [
        (("q",), ValueError, "the lstm cell has no value 'q' to keep: it has c, candidate, cell, f, forget, g, h, i, "),
        (("c_l2",), ValueError, "there is no layer 2 to keep c_l2 of: there are 2"),
        (("q_l0",), ValueError, "has no value 'q' to keep"),
        ("c", TypeError, r'keep should be a sequence of names, such as keep=\("c",\), got: \'c\''),
        ((1,), TypeError, "keep should be a sequence of names"),
        (("c f",), ValueError, "keep should have names of values, got: 'c f'"),
    ],
)
def test_bad_names(keep, error, words):
    layer = seqcells.LSTM(IN, H, num_layers=2)
    with pytest.raises(error, match=words):
        layer(torch.randn(T, N, IN), keep=keep)
    with pytest.raises(error, match=words.replace("c_l2 of: there are 2", "c_l2 of: there are 1")):
        seqcells.LSTMCell(IN, H)(torch.randn(N, IN), keep=keep)


def test_a_gate_without_one_activation_has_no_value():
    """RAN's candidate is added without an activation; SGRN's only gate goes into two activations."""

    def step(x, r, s, p):
        return tanh(sigmoid(x.i + r.i) * x.g + sigmoid(x.g + r.g) * tanh(x.g + r.g))

    cell = type(
        "Unclear", (Cell,), {"name": "unclear", "gates": ("i", "g"), "states": ("h",), "step": staticmethod(step)}
    )
    layer = seqcells.define(cell)[0](IN, H)
    del cells.REGISTRY["unclear"]
    assert layer(torch.randn(T, N, IN), keep=("i",))[2]["i"].shape == (T, N, H)
    with pytest.raises(ValueError, match="no value 'g' to keep: it has h, i"):
        layer(torch.randn(T, N, IN), keep=("g",))


def test_which_backend_keeps_and_why_no_other():
    layer, x = seqcells.LSTM(IN, H), torch.randn(T, N, IN)
    choice = layer.plan(x, keep=("c",))
    assert choice.backend == "reference" and "torch's operators have no keep=" in choice.reason
    assert "its kernels keep no values of steps" in choice.reason
    for backend, words in (("cpu", "keep no values"), ("torch", "no keep=")):
        layer.backend = backend
        with pytest.raises(RuntimeError, match=f"backend='{backend}' cannot run this call: .*{words}"):
            layer(x, keep=("c",))


# Second gradients, transforms, graphs.


def test_second_gradients():
    layer = seqcells.LSTM(2, 2, dtype=torch.float64)
    x = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x, keep=("c", "f"))[2]["f"], (x,))


def test_transforms():
    """vmap over inputs, jvp against the gradient."""
    layer, x, _, _ = problem("gru")
    x = x.detach()

    def run(x):
        return layer(x, keep=("z",))[2]["z"]

    many = torch.stack([x, x.flip(0)])
    assert_close(torch.vmap(run)(many), torch.stack([run(each) for each in many]))
    tangent = torch.randn_like(x)
    _, ours = torch.func.jvp(run, (x,), (tangent,))
    assert_close(ours.sum(), (torch.func.grad(lambda x: run(x).sum())(x) * tangent).sum())


@plain_if(lambda kind: kind == "lstm")
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_compiled(kind):
    layer, x, hx, _ = problem(kind, bidirectional=True, num_layers=2)

    def run(x):
        return layer(x, like_hx(hx), keep=KEEP[kind], lengths=torch.tensor(LENGTHS))[2]

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    leaves, found = [x, *hx, *layer.parameters()], []
    for each in (run, compiled):
        kept = each(x)
        found.append([*kept.values(), *torch.autograd.grad([v.sum() for v in kept.values()], leaves)])
    assert_close(*found)


def test_exported():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = seqcells.LSTM(IN, H)

        def forward(self, x):
            return self.rnn(x, keep=("c", "i"))

    model = Model()
    x = torch.randn(T, N, IN)
    steps = torch.export.Dim("steps", min=2)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: steps},))
    longer = torch.randn(T + 3, N, IN)
    assert_close(program.module()(longer)[2], model(longer)[2])
    traced = torch.fx.symbolic_trace(model)
    assert_close(traced(longer)[2], model(longer)[2])


@plain_if(lambda dtype: dtype == torch.bfloat16)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype):
    layer, x = seqcells.LSTM(IN, H), torch.randn(T, N, IN)
    exact = layer(x, keep=("c",))[2]["c"]
    with torch.autocast("cpu", dtype):
        output, _, kept = layer(x, keep=("c",))
    assert kept["c"].dtype == output.dtype
    assert_close(kept["c"].float(), exact, atol=0.05, rtol=0.05)
    kept = layer.to(dtype)(x.to(dtype), keep=("c",))[2]
    assert kept["c"].dtype == dtype
    assert_close(kept["c"].float(), exact, atol=0.05, rtol=0.05)


def test_the_next_call_keeps_nothing():
    """A module that has kept values can be pickled as before."""
    layer = pickle.loads(pickle.dumps(seqcells.LSTM(IN, H)))
    x = torch.randn(T, N, IN)
    assert len(layer(x, keep=("c",))) == 3 and len(layer(x)) == 2
    for _ in range(3):  # prepared from the third call on
        assert_close(layer(x)[0], layer(x, keep=("h",))[2]["h"])


@pytest.mark.parametrize(("cell", "names"), [(cells.LSTM, ("f", "c", "cell")), (cells.LayerNormGRU, ("r", "xr"))])
def test_kernels_can_be_derived_of_what_is_kept(cell, names):
    """The derived forward and backward programs have each kept value of all steps, and its gradient."""
    check(keeping(cell, names))
