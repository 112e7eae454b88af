"""Recurrent dropout, zoneout and DropConnect: against loops that are written out, with masks drawn by torch's
generator."""

import copy
import pickle

import pytest
import torch
from every_cell import OWN
from programs import check
from support import as_tuple, like_module, plain_if
from torch import nn
from torch.nn.functional import dropout, linear
from torch.nn.utils import parametrize
from torch.testing import assert_close
from written_out import IN, LAYERS, H, N, T, in_registry

import seqcells
from seqcells import cells
from seqcells.derive.transformed_cells import cell_of, transformed

P, SEED = 2, 11
sig = torch.sigmoid


@pytest.fixture(autouse=True)
def registered():
    with in_registry():
        yield


def lstm(w, x, h, c, masked):
    i, f, g, o = (linear(x, w["weight_ih"], w["bias_ih"]) + linear(masked, w["weight_hh"], w["bias_hh"])).chunk(4, -1)
    c = sig(f) * c + sig(i) * torch.tanh(g)
    h = sig(o) * torch.tanh(c)
    return (h @ w["weight_hr"].T if "weight_hr" in w else h), c


def gru(w, x, h, masked):
    (xr, xz, xn), (hr, hz, hn) = (
        linear(v, w[f"weight_{n}"], w[f"bias_{n}"]).chunk(3, -1) for n, v in (("ih", x), ("hh", masked))
    )
    r, z = sig(xr + hr), sig(xz + hz)
    return ((1 - z) * torch.tanh(xn + r * hn) + z * h,)


def gru_reset_before(w, x, h, masked):
    """Both products read the masked state; the carried part reads the whole state."""
    (xr, xz, xn), (hr, hz) = (
        linear(x, w["weight_ih"], w["bias_ih"]).chunk(3, -1),
        linear(masked, w["weight_hh"], w["bias_hh"]).chunk(2, -1),
    )
    r, z = sig(xr + hr), sig(xz + hz)
    return ((1 - z) * torch.tanh(xn + linear(r * masked, w["weight_candidate"], w["bias_candidate"])) + z * h,)


STEPS = {"lstm": lstm, "gru": gru, "gru_reset_before": gru_reset_before}
KINDS = {"lstm": seqcells.LSTM, "gru": seqcells.GRU, "gru_reset_before": LAYERS["gru_reset_before"]}


def drawn(layer, batch=N, steps=T):
    """The masks of a call in training, in the order of drawing: one for the product, then one for each state."""
    paths = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or H, *[H] * (len(layer.cell.states) - 1)]
    like = {"dtype": torch.float64}
    drop = torch.ones(paths, batch, sizes[0], **like)
    zoned = [torch.zeros(paths, steps, batch, size, **like) for size in sizes]
    if layer.recurrent_dropout:
        drop = dropout(drop, layer.recurrent_dropout)
    for k, probability in enumerate(probabilities(layer)):
        if probability:
            zoned[k] = torch.bernoulli(torch.full_like(zoned[k], probability))
    return drop, zoned


def probabilities(layer):
    """The probabilities of zoneout, in the order of the states."""
    states = layer.cell.states
    return [layer.zoneout.get(s, 0) if isinstance(layer.zoneout, dict) else layer.zoneout for s in states]


def loops(name, layer, x, hx, drop, zoned):
    """Output and final states of a plain call, in both directions."""
    parameters, sides, finals = dict(layer.named_parameters()), 1 + layer.bidirectional, []
    for k in range(layer.num_layers):
        outputs = []
        for d in range(sides):
            end, path = f"_l{k}" + "_reverse" * d, k * sides + d
            w = {key.removesuffix(end): p for key, p in parameters.items() if key.endswith(end)}
            states, output = [state[path] for state in hx], {}
            for t in range(T)[:: -1 if d else 1]:
                new = STEPS[name](w, x[t], *states, drop[path] * states[0])
                masks = [mask[path, t] for mask in zoned]
                states = [m * old + (1 - m) * n for m, old, n in zip(masks, states, new, strict=True)]
                output[t] = states[0]
            outputs.append(torch.stack([output[t] for t in range(T)]))
            finals.append(states)
        x = torch.cat(outputs, -1)
    return x, [torch.stack(each) for each in zip(*finals, strict=True)]


CASES = {
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "zoneout": {"zoneout": 0.3},
    "zoneout apart": {"zoneout": {"c": 0.5, "h": 0.05}},
    "both": {"recurrent_dropout": 0.5, "zoneout": 0.2, "num_layers": 2, "bidirectional": True},
    "projected": {"recurrent_dropout": 0.5, "zoneout": {"h": 0.3, "c": 0.5}, "proj_size": P, "num_layers": 2},
}
OF_LSTM = "zoneout apart", "projected"
PAIRS = [(name, case) for name in KINDS for case in CASES if name == "lstm" or case not in OF_LSTM]


def problem(name, options):
    torch.manual_seed(1)
    layer = KINDS[name](IN, H, dtype=torch.float64, **options)
    paths = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or H, *[H] * (len(layer.cell.states) - 1)]
    hx = [torch.randn(paths, N, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    return layer, torch.randn(T, N, IN, dtype=torch.float64, requires_grad=True), hx


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_layer_is_the_loop(name, case, training):
    """Output, final states, gradients. In evaluation, products read the whole state, and zoneout takes its
    expectation."""
    layer, x, hx = problem(name, CASES[case])
    layer.train(training)
    torch.manual_seed(SEED)
    output, final = layer(x, like_module(hx))
    torch.manual_seed(SEED)
    drop, zoned = drawn(layer)
    if not training:
        drop = torch.ones_like(drop)
        zoned = [torch.full_like(mask, p) for mask, p in zip(zoned, probabilities(layer), strict=True)]
    wanted, finals = loops(name, layer, x, hx, drop, zoned)
    ours, theirs = [output, *as_tuple(final)], [wanted, *finals]
    assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    leaves, seeds = [x, *hx, *layer.parameters()], [torch.randn_like(each) for each in ours]
    assert_close(*(torch.autograd.grad(each, leaves, seeds) for each in (ours, theirs)), rtol=1e-9, atol=1e-11)


def test_one_mask_for_all_steps_of_a_sequence():
    """With weights that copy the state, a unit is zero forever or doubled in each step. Each sequence has another
    mask."""
    layer = seqcells.RNN(1, 64, nonlinearity="relu", bias=False, recurrent_dropout=0.5)
    with torch.no_grad():
        layer.weight_ih_l0.zero_()
        layer.weight_hh_l0.copy_(torch.eye(64))
    output = layer(torch.zeros(T, N, 1), torch.ones(1, N, 64))[0]
    assert all(((step == 0) == (output[0] == 0)).all() for step in output)
    assert torch.equal(output.amax((1, 2)), torch.tensor([2.0, 4, 8, 16])[:T])
    assert not torch.equal(output[0, 0], output[0, 1]) and 0.3 < (output[0] == 0).float().mean() < 0.7
    assert torch.equal(layer.eval()(torch.zeros(T, N, 1), torch.ones(1, N, 64))[0], torch.ones(T, N, 64))


def test_zoneout_keeps_units_bit_by_bit_and_draws_per_step():
    layer, x, hx = problem("gru", {"zoneout": 0.5})
    output = layer(x, hx[0])[0].detach()
    kept = [output[t] == (output[t - 1] if t else hx[0][0]) for t in range(T)]
    assert all(0 < each.float().mean() < 1 for each in kept) and not torch.equal(kept[0], kept[1])
    assert torch.equal(seqcells.GRU(IN, H, zoneout=1.0)(x.float(), hx[0].float())[1], hx[0].float())


def test_the_same_numbers_for_a_seed_and_others_for_another():
    layer, x, _ = problem("lstm", CASES["both"])
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(layer(x)[0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_forms_of_input():
    """Lengths, resets, packed input, batch_first: a mask belongs to its time step and sequence."""
    layer, x, _ = problem("lstm", CASES["both"])
    lengths, reset = torch.tensor([2, T, 1]), torch.rand(T, N) < 0.4

    def run(*args, **given):
        torch.manual_seed(SEED)
        return layer(*args, **given)

    expected = run(x, lengths=lengths, reset=reset)[0]
    layer.batch_first = True
    turned = run(x.transpose(0, 1), lengths=lengths, reset=reset.T)[0]
    assert torch.equal(turned.transpose(0, 1), expected)
    layer.batch_first = False
    order = torch.tensor([1, 0, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x[:, order], lengths[order])
    found = nn.utils.rnn.pad_packed_sequence(run(packed)[0])[0]
    assert_close(found, run(x[:, order], lengths=lengths[order])[0])
    assert run(x[:, 0])[0].shape == (T, 2 * H)
    anything = x.detach().masked_fill((torch.arange(T)[:, None] >= lengths).unsqueeze(-1), float("nan"))
    assert torch.equal(run(anything, lengths=lengths, reset=reset)[0], expected)


def test_evaluation_of_recurrent_dropout_is_the_plain_layer():
    """The same backend, prepared calls and streams too."""
    layer, x, _ = problem("lstm", {"recurrent_dropout": 0.5})
    plain = seqcells.LSTM(IN, H, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    layer.eval(), plain.eval()
    x = x.detach()
    for _ in range(4):
        assert torch.equal(layer(x)[0], plain(x)[0])
    assert layer.plan(x) == plain.plan(x) and layer.train().plan(x).backend == "reference"
    stream = layer.stream(N)
    with pytest.raises(RuntimeError, match=r"one mask for all steps of a sequence: call eval\(\)"):
        stream(x[0])
    layer.eval()
    assert_close(torch.stack([stream(step).clone() for step in x]), plain(x)[0])


def test_stream_of_zoneout():
    layer, x, _ = problem("lstm", {"zoneout": 0.4})
    stream, x = layer.eval().stream(N), x.detach()
    assert_close(torch.stack([stream(step).clone() for step in x]), layer(x)[0])


def test_what_is_kept_is_what_is_carried():
    layer, x, hx = problem("lstm", {"zoneout": {"c": 0.5}})
    _, final, kept = layer(x, tuple(hx), keep=("c", "cell", "f"))
    assert torch.equal(kept["c"][-1], final[1][0]) and not torch.equal(kept["cell"], kept["c"])
    assert (kept["c"] == kept["cell"]).float().mean() < 1


def test_any_cell():
    """Each cell of the registry and of the tests, with zoneout of all states and masks on all its products."""
    for name, cell in {**cells.BUILT_IN, **OWN}.items():
        sizes = dict.fromkeys([*cell.sizes.values(), *(["heads"] if "heads" in cell.options else [])], 2)
        features = H if cell.streams.get("input") == "TBH" else IN
        there = name in cells.REGISTRY
        kind = seqcells.define(cell)[0]
        layer = kind(features, H, zoneout=1.0, **sizes)
        hx = [torch.rand(1, N, s) for s in layer._state_sizes()]
        by_letter = {"T": T, "B": N, "N": 2, "H": H, "F": features}
        given = {n: torch.rand([by_letter[a] for a in axes]) for n, axes in cell.streams.items() if n != "input"}
        final = as_tuple(layer(torch.rand(T, N, features), like_module(hx), **given)[1])
        assert all(map(torch.equal, final, hx)), name
        if not there:
            del cells.REGISTRY[name]


@pytest.mark.parametrize("name", ["indrnn", "mingru"])
def test_without_a_product_of_the_state_there_is_no_recurrent_dropout(name):
    kind = {"indrnn": seqcells.IndRNN, "mingru": seqcells.MinGRU}[name]
    with pytest.raises(ValueError, match=f"the {name} cell has no product of its hidden state"):
        kind(IN, H, recurrent_dropout=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"recurrent_dropout": 1.5}, r"recurrent_dropout should be a number in range \[0, 1\] .*, got 1.5"),
        ({"recurrent_dropout": True}, "recurrent_dropout should be a number"),
        ({"recurrent_dropout": "much"}, "recurrent_dropout should be a number"),
        ({"zoneout": -0.1}, r"zoneout should be a number in range \[0, 1\]"),
        ({"zoneout": {"h": 2}}, "zoneout should be a number"),
        ({"zoneout": {"q": 0.5}}, "zoneout of q, but the states of the lstm cell are h, c"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        seqcells.LSTM(IN, H, **options)


# Inside a model.


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))], ids=["copy", "file"])
def test_copies_keep_the_options_and_the_state_dict_is_as_ever(way):
    layer, x, _ = problem("lstm", CASES["both"])
    assert repr(layer).endswith("bidirectional=True, recurrent_dropout=0.5, zoneout=0.2)")
    twin = way(layer)
    assert repr(twin) == repr(layer)
    found = []
    for each in (layer, twin):
        torch.manual_seed(SEED)
        found.append(each(x)[0])
    assert torch.equal(*found)
    nn.LSTM(IN, H, 2, bidirectional=True).load_state_dict(layer.state_dict())


def test_torchs_module_has_no_such_options():
    model = nn.Sequential(seqcells.LSTM(IN, H, recurrent_dropout=0.5, zoneout=0.1))
    with pytest.raises(TypeError, match=r"torch\.nn has no recurrent_dropout and no zoneout, which this LSTM has"):
        model[0].to_torch()
    seqcells.unswap(model)
    assert type(model[0]) is seqcells.LSTM
    model[0].recurrent_dropout = model[0].zoneout = 0.0
    seqcells.unswap(model)
    assert type(model[0]) is nn.LSTM and "zoneout" not in vars(model[0])
    seqcells.swap(model)
    model[0].zoneout = 0.5
    assert model[0](torch.rand(T, N, IN))[0].shape == (T, N, H)


# Second gradients, transforms, graphs.


def test_second_gradients():
    layer = seqcells.GRU(2, 2, dtype=torch.float64, recurrent_dropout=0.5, zoneout=0.3)

    def run(x):
        torch.manual_seed(SEED)
        return layer(x)[0]

    x = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (x,)) and torch.autograd.gradgradcheck(run, (x,))


@plain_if(lambda case: case == "projected")
@pytest.mark.parametrize("case", ["both", "projected"])
def test_compiled(case):
    layer, x, hx = problem("lstm", CASES[case])
    leaves, found = [x, *hx, *layer.parameters()], []
    for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(SEED)
        output = run(x, tuple(hx))[0]
        found.append([output, *torch.autograd.grad(output.sum(), leaves)])
    assert_close(*found)


def test_vmap_draws_as_it_is_told():
    layer, x, _ = problem("gru", {"recurrent_dropout": 0.5})
    many = torch.stack([x.detach()] * 3)
    same = torch.vmap(lambda x: layer(x)[0], randomness="same")(many)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(*torch.vmap(lambda x: layer(x)[0], randomness="different")(many)[:2])


def test_a_graph_names_what_the_cell_is_made_of():
    layer = problem("lstm", CASES["projected"])[0]
    name = layer._cell_of_call().name
    assert name == "lstm with projection(2) with recurrent_dropout with zoneout(h,c)"
    assert cell_of(name) is layer._cell_of_call()
    highway = LAYERS["recurrent_highway"](IN, H, depth=2, recurrent_dropout=0.5)._cell_of_call()
    assert highway.name == "recurrent_highway[depth=2] with recurrent_dropout" and highway.options == {"depth": 2}
    assert cell_of(highway.name) is highway
    for bad in ("lstm with luck", "lstm with zoneout(q)", "none with recurrent_dropout"):
        with pytest.raises(ValueError, match=r"unknown cell|zoneout of q|nothing transforms a cell by 'luck'"):
            cell_of(bad)


DERIVED = ["lstm", "gru", "gru_reset_before", "layer_norm_lstm", "recurrent_highway"]


@plain_if(lambda name: name in ("lstm", "gru_reset_before"))
@pytest.mark.parametrize("name", DERIVED)
def test_kernels_can_be_derived(name):
    """The derived programs of a transformed cell equal its step, forward and backward."""
    cell = cells.named(name)
    ways = ["projection(4)"] if cell.projection else []
    check(transformed(cell, *ways, "recurrent_dropout", f"zoneout({','.join(cell.states)})"))


# DropConnect: weights themselves are dropped (Wan et al. 2013; recurrent weights: Merity et al. 2018, weight-drop).


class DropConnect(nn.Module):
    """In training, a part of a weight is set to zero, with one mask for each call, and so for all its steps."""

    def forward(self, weight):
        return dropout(weight, 0.5, self.training)


def test_drop_connect_is_a_parametrization():
    layer, x, hx = problem("lstm", {})
    parametrize.register_parametrization(layer, "weight_hh_l0", DropConnect())
    torch.manual_seed(SEED)
    output = layer(x, tuple(hx))[0]
    torch.manual_seed(SEED)
    original = layer.parametrizations.weight_hh_l0.original
    w = {key: getattr(layer, f"{key}_l0").detach() for key in ("weight_ih", "bias_ih", "bias_hh")}
    w["weight_hh"] = dropout(original, 0.5)
    torch.manual_seed(SEED)
    states, wanted = [state[0] for state in hx], []
    for t in range(T):
        states = lstm(w, x[t], *states, states[0])
        wanted.append(states[0])
    assert_close(output, torch.stack(wanted))
    ours, theirs = (torch.autograd.grad(each.sum(), original)[0] for each in (output, torch.stack(wanted)))
    assert_close(ours, theirs)
    assert torch.equal(layer.eval()(x)[0], layer(x)[0]) and (ours == 0).any()
