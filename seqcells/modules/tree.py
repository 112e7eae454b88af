"""The tree LSTM: a node's state is computed from its children's states, for all nodes of one depth at once."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .. import cells, functional
from ..backends import check_name
from ..cells.activations import sigmoid, tanh
from ..request import checks
from ..request.weights import Weights


class ChildSumTreeStep(cells.Cell):
    """The step of a node of `ChildSumTreeLSTM`.

        c' = i u + carried
        h' = o tanh(c')
        carried' = σ(x.f + W_forget h' + b_forget) c'

    ``carried'`` is the node's cell state after its parent's forget gate. Before the step, h and ``carried`` are sums
    over the node's children. c is not read, and x.f is a projection of the parent's input. This is no cell for
    sequences, so `seqcells.cells` does not name it.
    """

    name = "child_sum_tree_lstm"
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    recurrent_gates: ClassVar[tuple[str, ...]] = ("i", "g", "o")
    states: ClassVar[Any] = ("h", "c", "carried")
    products: ClassVar[Mapping[str, Any]] = {"forget": ("f",)}

    @staticmethod
    def step(x: Any, r: Any, s: Any, p: Any) -> Any:
        cell = sigmoid(x.i + r.i) * tanh(x.g + r.g) + s.carried
        hidden = sigmoid(x.o + r.o) * tanh(cell)
        return hidden, cell, sigmoid(x.f + p.forget(hidden)) * cell


class Levels(NamedTuple):
    """The nodes of a forest by depth, the deepest level first, so that all children of a level are in the level before.

    (Levels by height would have children in all earlier levels, and the gradients of sums would cost depth times
    nodes.)

    * ``order``: the nodes, level by level; ``sizes``: the number of nodes on each level, at least one level;
    * ``places``: for each node in that order, the place of its parent among the nodes of the next level.
    """

    order: Tensor
    sizes: list[int]
    places: Tensor

    @classmethod
    def of(cls, parents: Tensor) -> "Levels":
        """The levels of a forest, from the parents of all nodes, (M,) int64.

        Raises:
            ValueError: a parent is out of range, or the parents have a cycle.
        """
        count = len(parents)
        if count and not -1 <= int(parents.min()) <= int(parents.max()) < count:
            words = f"from -1 to {count - 1}, the last of {count} nodes"
            raise ValueError(f"parents should be {words}, got: {int(parents.min())} to {int(parents.max())}")
        # An extra node at the end, which index -1 finds, is above all roots. Each round doubles the distance to the
        # ancestor.
        ancestor = torch.cat([parents, parents.new_full((1,), -1)])
        depth = (ancestor >= 0).to(torch.int64)
        for _ in range(count.bit_length()):
            depth, ancestor = depth + depth[ancestor], ancestor[ancestor]
        within = int(ancestor.max())  # a node that has met no root after so many steps is in or below a cycle
        if within >= 0:
            raise ValueError(f"parents should be those of trees: node {within} is an ancestor of itself")
        depth = depth[:-1]
        order, counts = depth.argsort(descending=True, stable=True), depth.bincount()
        place = order.argsort() - (count - counts.cumsum(0))[depth]
        return cls(order, counts.flip(0).tolist() or [0], place[parents[order]])


class ChildSumTreeLSTM(nn.Module):
    """The child-sum tree LSTM (Tai, Socher & Manning 2015, arXiv:1503.00075, eqs. 2-8).

    Node j has the children k; h̃ is the sum of their h_k:

        i = σ(W_i x_j + U_i h̃ + b_i), o = σ(W_o x_j + U_o h̃ + b_o), u = tanh(W_u x_j + U_u h̃ + b_u)
        f_k = σ(W_f x_j + U_f h_k + b_f), one gate for each child
        c_j = i u + Σ f_k c_k
        h_j = o tanh(c_j)

    All nodes of one depth form one batch, whichever trees they are in. The deepest nodes come first, and a call takes
    as many steps as the deepest tree has levels. The step's kernels are compiled at first use, as for any cell.

    Args:
        input_size: number of features of a node.
        hidden_size: number of hidden units H.
        bias: whether the module has ``bias_ih`` and ``bias_hh``. Without, both are None. Default: True
        device, dtype: device and dtype of the parameters. Default: torch's
        backend: see `seqcells.call.choose`; ``"torch"`` has no such step. Default: ``"auto"``

    Parameters are those of `torch.nn.LSTMCell`, with gates in the order i, f, g (the paper's u), o. ``weight_ih`` is
    (4·H, input_size), ``weight_hh`` (4·H, H), ``bias_ih`` and ``bias_hh`` (4·H,), drawn from U(-1/√H, 1/√H). On a
    chain, whose nodes have one child each, the module equals that LSTM. The paper's biases are ``bias_ih + bias_hh``.

    Raises:
        ValueError, TypeError: as torch.nn's LSTM, for the constructor's arguments; ValueError for an unknown backend.
    """

    input_size: int
    hidden_size: int
    bias: bool
    backend: str
    weight_ih: nn.Parameter
    weight_hh: nn.Parameter
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        checks.constructor(input_size, hidden_size, 1, bias, False, 0.0, 0)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.backend = check_name(backend)
        rows = 4 * hidden_size
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        for name, shape in (shapes | {"bias_ih": (rows,), "bias_hh": (rows,)}).items():
            there = bias or name in shapes
            own = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if there else None
            self.register_parameter(name, own)
        self.reset_parameters()

    reset_parameters: Callable[..., None] = nn.RNNCellBase.reset_parameters
    _sizes_in_words = nn.RNNCellBase.extra_repr

    def extra_repr(self) -> str:
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return self._sizes_in_words() + chosen

    def forward(self, input: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the states of all nodes of a forest.

        Args:
            input: (M, input_size), the features of the nodes of all trees, in any order.
            parents: (M,) integers on any device, a tensor, an array or a list: the index of each node's parent
                among the nodes, -1 for a root.

        Returns:
            h and c, (M, H) each, in the order of the nodes. Under autocast they have autocast's dtype.

        Raises:
            ValueError: as torch.nn, for an input that is not 2D; for parents out of range, or in a cycle.
            TypeError: for parents that are no integers.
            RuntimeError: for wrong sizes or dtypes, and for a backend that was asked for by name and cannot run here.
        """
        if input.dim() != 2:
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D, got {input.dim()}D instead")
        checks.size("input", input, (len(input), self.input_size))
        parents = checks.as_tensor("parents", parents)
        if parents.numel():  # an empty list has no integer dtype
            checks.integers("parents", parents)
        checks.size("parents", parents, (len(input),))
        parents = parents.to(torch.int64)
        levels = Levels.of(parents)
        order, places = levels.order.to(input.device), levels.places.to(input.device)
        # A root has its own input in the place of its parent's. No node reads the resulting ``carried``.
        above = torch.where(parents < 0, torch.arange(len(parents), device=parents.device), parents).to(input.device)

        # index_select instead of indexing: its gradient adds rows in a fixed order.
        i, f, g, o = linear(input, self.weight_ih, self.bias_ih).chunk(4, -1)
        gates = torch.cat([i, f.index_select(0, above), g, o], -1).index_select(0, order)
        weights = self._weights(gates.dtype)
        cells.register(ChildSumTreeStep)  # graphs find the cell by its name
        h = carried = gates.new_zeros(0, self.hidden_size)
        found = []
        to = [places[:0], *places.split(levels.sizes)]
        for size, gates_x, place in zip(levels.sizes, gates.split(levels.sizes), to, strict=False):
            nothing = gates.new_zeros(size, self.hidden_size)
            states = nothing.index_add(0, place, h), nothing, nothing.index_add(0, place, carried)
            _, (h, c, carried) = functional.recurrence(
                ChildSumTreeStep, gates_x.unsqueeze(0), states, weights, backend=self.backend
            )
            found.append((h, c))
        back = order.argsort()
        h, c = (torch.cat(each).index_select(0, back) for each in zip(*found, strict=True))
        return h, c

    def _weights(self, dtype: torch.dtype) -> Weights:
        """The weights of `ChildSumTreeStep`, in which the forget gate's rows are a separate product."""

        def parted(rows: Tensor) -> tuple[Tensor, Tensor]:
            i, f, g, o = rows.to(dtype).chunk(4)
            return torch.cat([i, g, o]), f

        hh, forget = parted(self.weight_hh)
        if self.bias_hh is None:
            return Weights(hh=hh, own=(forget,))
        bias, bias_forget = parted(self.bias_hh)
        return Weights(hh=hh, bias_hh=bias, own=(forget, bias_forget))
