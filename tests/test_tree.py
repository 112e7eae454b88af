"""The child-sum tree LSTM: a forest computed by levels equals its nodes one by one, forward and in every gradient."""

import copy
import io

import pytest
import torch
from support import assert_equal_to, gradients, needs_compiler
from torch import nn

import seqcells
from seqcells import ChildSumTreeLSTM
from seqcells.backends import reference
from seqcells.modules.tree import Levels

IN, H = 3, 5
pytestmark = pytest.mark.usefixtures("own_registry")

FORESTS = {
    "one": [-1],
    "singles": [-1, -1, -1],
    "chain": [1, 2, 3, 4, 5, -1],
    "reversed chain": [-1, 0, 1, 2, 3],
    "star": [3, 3, 3, -1, 3, 3],
    "binary": [-1, 0, 0, 1, 1, 2, 2],
    "uneven": [1, 4, 4, 2, -1, 4, 3, 6],
}


def shuffled(*trees, seed=0):
    """All nodes of several trees, in random order."""
    parents, first = [], 0
    for tree in trees:
        parents += [parent if parent < 0 else parent + first for parent in tree]
        first += len(tree)
    place = torch.randperm(len(parents), generator=torch.Generator().manual_seed(seed)).tolist()
    found = [0] * len(parents)
    for node, parent in enumerate(parents):
        found[place[node]] = parent if parent < 0 else place[parent]
    return found


FORESTS |= {"forest": shuffled(*FORESTS.values()), "other forest": shuffled(*FORESTS.values(), seed=1), "none": []}


def module(hidden=H, backend="reference", **options):
    return ChildSumTreeLSTM(IN, hidden, dtype=torch.float64, backend=backend, **options)


def forest(parents):
    """Features of the nodes, and the parents."""
    return torch.randn(len(parents), IN, dtype=torch.float64).requires_grad_(), torch.tensor(parents, dtype=torch.int64)


def node_by_node(tree, input, parents):
    """The paper's equations 2 to 8, by recursion from each root."""
    w = dict(zip("ifgo", tree.weight_ih.chunk(4), strict=True))
    u = dict(zip("ifgo", tree.weight_hh.chunk(4), strict=True))
    b = dict.fromkeys("ifgo", 0.0)
    if tree.bias:
        b = dict(zip("ifgo", (tree.bias_ih + tree.bias_hh).chunk(4), strict=True))
    found = {}

    def visit(node):
        children = [visit(k) for k, parent in enumerate(parents) if parent == node]
        total = sum(h for h, _ in children) if children else torch.zeros(tree.hidden_size, dtype=input.dtype)

        def pre(gate, h):
            return w[gate] @ input[node] + u[gate] @ h + b[gate]

        c = torch.sigmoid(pre("i", total)) * torch.tanh(pre("g", total))
        c = c + sum(torch.sigmoid(pre("f", h)) * cell for h, cell in children)
        found[node] = torch.sigmoid(pre("o", total)) * torch.tanh(c), c
        return found[node]

    for node, parent in enumerate(parents):
        if parent < 0:
            visit(node)
    return [torch.stack([found[k][index] for k in range(len(parents))]) for index in range(2)]


def everything(outputs, tree, input):
    return [*outputs, *gradients(outputs, [input, *tree.parameters()])]


@pytest.mark.parametrize("name", [name for name in FORESTS if name != "none"])
def test_it_is_the_tree_node_by_node(name):
    tree, (input, parents) = module(), forest(FORESTS[name])
    expected = everything(node_by_node(tree, input, FORESTS[name]), tree, input)
    assert_equal_to(everything(tree(input, parents), tree, input), expected)


@pytest.mark.parametrize(("hidden", "bias"), [(1, True), (1, False), (H, False)])
def test_one_unit_and_no_bias(hidden, bias):
    tree, (input, parents) = module(hidden, bias=bias), forest(FORESTS["forest"])
    expected = everything(node_by_node(tree, input, FORESTS["forest"]), tree, input)
    assert_equal_to(everything(tree(input, parents), tree, input), expected)


@needs_compiler
@pytest.mark.parametrize("backend", ["cpu", "auto"])
@pytest.mark.parametrize("hidden", [1, 19])
def test_kernels(hidden, backend, compiling, monkeypatch):
    """Kernels of the step are compiled at first use; `auto` chooses them."""
    tree = module(hidden, backend)
    monkeypatch.setattr(reference, "layer", None)
    for parents in (FORESTS["forest"], FORESTS["singles"]):
        input, parents_ = forest(parents)
        expected = everything(node_by_node(tree, input, parents), tree, input)
        assert_equal_to(everything(tree(input, parents_), tree, input), expected)
        single = copy.deepcopy(tree).float()
        assert_equal_to([each.double() for each in single(input.float(), parents_)], expected[:2], 1e-6)


@needs_compiler
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_chain_is_torchs_lstm(backend, compiling):
    tree, lstm = module(backend=backend), nn.LSTMCell(IN, H, dtype=torch.float64)
    tree.load_state_dict(lstm.state_dict())
    assert [(name, each.shape) for name, each in tree.named_parameters()] == [
        (name, each.shape) for name, each in lstm.named_parameters()
    ]
    input, parents = forest(FORESTS["chain"])
    steps, hx = [], None
    for row in input:
        hx = lstm(row, hx)
        steps.append(hx)
    expected = [torch.stack(each) for each in zip(*steps, strict=True)]
    assert_equal_to(everything(tree(input, parents), tree, input), everything(expected, lstm, input))


def test_no_nodes():
    tree, (input, parents) = module(), forest([])
    outputs = tree(input, parents)
    assert all(each.shape == (0, H) and each.dtype == torch.float64 for each in outputs)
    found = gradients(outputs, [input, *tree.parameters()])
    assert not any(each.any() for each in found)


def test_second_gradients():
    tree, (input, parents) = module(2), forest(FORESTS["uneven"])
    assert torch.autograd.gradgradcheck(lambda each: tree(each, parents), input)


def test_a_tree_knows_nothing_of_the_others():
    tree = module()
    (first, parents), (second, _) = forest(FORESTS["uneven"]), forest(FORESTS["uneven"])
    count = len(parents)
    both = torch.cat([parents, torch.where(parents < 0, -1, parents + count)])
    expected = everything(tree(first, parents), tree, first)[:3]
    bad = torch.full_like(second, torch.nan)
    for order, place in (((first, bad), slice(0, count)), ((bad, first), slice(count, None))):
        outputs = [each[place] for each in tree(torch.cat(order), both)]
        assert_equal_to([*outputs, *gradients(outputs, [first])], expected)


def test_results_are_the_same_again_and_in_any_order():
    tree, (input, parents) = module(), forest(FORESTS["forest"])
    first, again = (everything(tree(input, parents), tree, input) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    order = torch.randperm(len(parents))
    place = order.argsort()
    moved = torch.where(parents < 0, -1, place[parents])[order]
    assert_equal_to(tree(input[order], moved), [each[order] for each in first[:2]])


@pytest.mark.parametrize("name", FORESTS)
def test_levels(name):
    """Each level has the nodes of one depth; places are the parents' positions on the next level."""
    parents = FORESTS[name]
    order, sizes, places = Levels.of(torch.tensor(parents, dtype=torch.int64))

    def depth(node):
        return 0 if parents[node] < 0 else 1 + depth(parents[node])

    levels = [each.tolist() for each in order.split(sizes)]
    deepest = len(sizes) - 1
    assert sorted(order.tolist()) == [*range(len(parents))]
    assert all(depth(node) == deepest - index for index, level in enumerate(levels) for node in level)
    for level, above, place in zip(levels, levels[1:], places.split(sizes), strict=False):
        assert [above[k] for k in place.tolist()] == [parents[node] for node in level]


def test_a_deep_chain():
    count = 2000
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    parents = torch.full((count,), -1)
    parents[order[:-1]] = order[1:]
    levels = Levels.of(parents)
    assert levels.sizes == [1] * count and torch.equal(levels.order, order)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fewer_bits(dtype):
    tree, (input, parents) = module(), forest(FORESTS["forest"])
    expected = tree(input, parents)
    low = copy.deepcopy(tree).to(dtype)
    outputs = low(input.to(dtype), parents)
    assert all(each.dtype == dtype for each in outputs)
    assert_equal_to([each.double() for each in outputs], expected, 2e-2)
    gradients(outputs, [*low.parameters()])
    with torch.autocast("cpu", dtype):
        outputs = tree.float()(input.float(), parents)
    assert all(each.dtype == dtype for each in outputs)
    assert_equal_to([each.double() for each in outputs], expected, 2e-2)


def test_lists_and_other_integers():
    tree, (input, parents) = module(), forest(FORESTS["uneven"])
    expected = tree(input, parents)
    for given in (parents.tolist(), parents.numpy(), parents.int(), parents.to(torch.int8)):
        assert all(torch.equal(a, b) for a, b in zip(tree(input, given), expected, strict=True))


def test_copies_files_and_words():
    tree, (input, parents) = module(), forest(FORESTS["uneven"])
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    for other in (copy.deepcopy(tree), torch.load(file, weights_only=False)):
        assert all(torch.equal(a, b) for a, b in zip(other(input, parents), tree(input, parents), strict=True))
    assert repr(tree) == "ChildSumTreeLSTM(3, 5, backend='reference')"
    assert repr(ChildSumTreeLSTM(3, 5, False)) == "ChildSumTreeLSTM(3, 5, bias=False)"
    assert not seqcells.swap(nn.Sequential(tree)).left


def test_parameters_are_drawn_as_torchs():
    torch.manual_seed(3)
    tree = ChildSumTreeLSTM(IN, 16)
    torch.manual_seed(3)
    lstm = nn.LSTMCell(IN, 16)
    assert all(torch.equal(a, b) for a, b in zip(tree.parameters(), lstm.parameters(), strict=True))
    assert ChildSumTreeLSTM(IN, H, device="meta", dtype=torch.bfloat16).weight_hh.shape == (4 * H, H)


@pytest.mark.parametrize(
    ("parents", "error", "words"),
    [
        ([1, 2, 0, -1], ValueError, "parents should be those of trees: node [012] is an ancestor of itself"),
        ([-1, 1, 1, 0], ValueError, "node 1 is an ancestor of itself"),
        ([-1, 0, 4, 1], ValueError, "parents should be from -1 to 3, the last of 4 nodes, got: -1 to 4"),
        ([-1, 0, -2, 1], ValueError, "got: -2 to 1"),
        ([-1.0, 0.0, 0.0, 0.0], TypeError, "parents should be integers, got: torch.float32"),
        ([False] * 4, TypeError, "parents should be integers, got: torch.bool"),
        ([-1, 0, 0], RuntimeError, r"Expected parents of size \(4,\), got \[3\]"),
        ([[-1, 0, 0, 0]], RuntimeError, r"Expected parents of size \(4,\), got \[1, 4\]"),
        (None, TypeError, "parents should be a tensor, an array or a list, got NoneType"),
    ],
)
def test_errors_of_parents(parents, error, words):
    input, _ = forest([-1] * 4)
    parents = parents if parents is None else torch.tensor(parents)
    with pytest.raises(error, match=words):
        module()(input, parents)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: module()(torch.zeros(IN), [-1]), ValueError, "ChildSumTreeLSTM: Expected input to be 2D, got 1D"),
        (lambda: module()(torch.zeros(1, 2), [-1]), RuntimeError, r"Expected input of size \(1, 3\), got \[1, 2\]"),
        (lambda: module()(torch.zeros(1, IN), [-1]), RuntimeError, "dtype"),
        (lambda: module(backend="torch")(*forest([-1])), RuntimeError, "backend='torch' cannot run this call"),
        (lambda: module(backend="fast"), ValueError, "fast"),
        (lambda: module(0), ValueError, "hidden_size must be greater than zero"),
        (lambda: module(2.0), TypeError, "hidden_size should be of type int, got: float"),
        (lambda: module(bias=1), TypeError, "bias should be of type bool, got: int"),
        (lambda: ChildSumTreeLSTM(0, 1), ValueError, "input_size must be greater than zero"),
    ],
)
def test_other_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_an_empty_list_of_parents():
    h, c = ChildSumTreeLSTM(3, 4)(torch.randn(0, 3), [])
    assert h.shape == c.shape == (0, 4)
