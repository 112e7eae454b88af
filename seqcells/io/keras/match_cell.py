"""The cell of seqcells with the equations and weights of a Keras cell, and cells of seqcells as Keras cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from keras import activations, layers, ops, saving
from keras.initializers import RandomUniform
from torch import Tensor

from ... import cells, functional
from ...cells import Cell
from ...cells import activations as ours
from ...derive.transformed_cells import transformed
from ...request import checks
from ...request.precision import without_autocast
from ...request.recurrence import output_units
from ...request.streams import names
from ...request.weights import Weights
from .cells import KerasDropoutGRU, KerasDropoutLSTM, KerasGRU, KerasGRUBefore, KerasLSTM, KerasRNN

ACTIVATIONS: dict[Any, ours.Activation] = {
    activations.tanh: ours.tanh,
    activations.sigmoid: ours.sigmoid,
    activations.relu: ours.relu,
    activations.softsign: ours.softsign,
    activations.softplus: ours.softplus,
    activations.elu: ours.elu,
    activations.hard_sigmoid: ours.hard_sigmoid,
    activations.exponential: ours.exp,
    activations.log_sigmoid: ours.log_sigmoid,
}
"""Keras' activations with their default arguments, and the activations of seqcells that equal them."""
DEFAULTS: dict[str, ours.Activation] = {"activation": ours.tanh, "recurrent_activation": ours.sigmoid}


def why_not(cell: Any) -> str | None:
    """Why no cell of seqcells has a Keras cell's equations, or None."""
    if type(cell) is RNNCell:
        return None
    if type(cell) not in MADE:
        return f"{type(cell).__name__} is no cell of Keras' own"
    functions = [cell.activation, *([cell.recurrent_activation] if type(cell) is not layers.SimpleRNNCell else [])]
    for function in functions:
        linear = function in (None, activations.linear) and type(cell) is layers.SimpleRNNCell
        if not (linear or (isinstance(function, Hashable) and function in ACTIVATIONS)):
            return f"no kernels for the activation {getattr(function, '__name__', type(function).__name__)}"
    return None


def of(cell: Any, training: bool) -> Equations:
    """A Keras cell in the form for the engines, with or without the dropout of training."""
    made = MADE[type(cell)](cell, training)
    cells.register(made.cell)  # graphs find the cell by its name
    return made


def dtype(cell: Any) -> torch.dtype:
    """The dtype in which Keras computes a cell."""
    return _tensor(cell.weights[0]).dtype


def _tensor(variable: Any) -> Tensor:
    """The torch tensor of a Keras variable; gradients of the tensor reach the variable."""
    return cast(Tensor, ops.convert_to_tensor(variable))


class Equations:
    """A Keras cell in the form for the engines. Each kind of Keras cell has a subclass.

    * ``cell``: the cell of seqcells with the same equations;
    * ``gates``: for each of our gates in order, the place of the gate in Keras' order.
    """

    cell: type[Cell]
    gates: tuple[int, ...] = (0,)

    def __init__(self, theirs: Any, training: bool) -> None:
        self.theirs = theirs
        self.drops = training and 0 < theirs.dropout < 1
        self.drops_hidden = training and 0 < theirs.recurrent_dropout < 1

    def options(self) -> dict[str, Any]:
        """The activations of the Keras cell, as options of the cells in `seqcells.io.keras.cells`."""
        found = {name: getattr(self.theirs, name, None) for name in DEFAULTS}
        return {name: ACTIVATIONS[each] for name, each in found.items() if each in ACTIVATIONS}

    def ordered(self, rows: Tensor) -> Tensor:
        """Row blocks in our order of gates."""
        parts = rows.chunk(len(self.gates))
        return rows if [*self.gates] == sorted(self.gates) else torch.cat([parts[k] for k in self.gates])

    def values(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        """Kernel (G·H, features), recurrent kernel (G·H, H) and bias; gradients reach Keras' variables.

        The kernels are in our order of gates, the bias is in Keras' order and shape.
        """
        kernel, recurrent = (_tensor(v).to(dtype) for v in (self.theirs.kernel, self.theirs.recurrent_kernel))
        bias = None if self.theirs.bias is None else _tensor(self.theirs.bias).to(dtype)
        return self.ordered(kernel.mT), self.ordered(recurrent.mT), bias

    def weights(self, dtype: torch.dtype) -> Weights:
        """The weights in the form of seqcells."""
        kernel, recurrent, bias = self.values(dtype)
        bias = None if bias is None else self.ordered(bias)
        return Weights(kernel, recurrent, bias, None if bias is None else torch.zeros_like(bias))

    def input(self, x: Tensor) -> Tensor:
        """The input (B, T, features), multiplied by the dropout mask in training."""
        return x * self.theirs.get_dropout_mask(x[:, 0]).unsqueeze(1) if self.drops else x

    def gates_x(self, x: Tensor) -> Tensor | None:
        """The projected input (B, T, G·H) if the input has a dropout mask for each gate, else None."""
        if not self.drops or getattr(self.theirs, "implementation", 2) != 1:
            return None
        weights = self.weights(x.dtype)
        if weights.ih is None:
            raise TypeError("a cell of Keras has a weight of the input")
        masks = self.theirs.get_dropout_mask(x[:, 0])
        count = len(self.gates)
        biases = weights.bias_ih.chunk(count) if weights.bias_ih is not None else [None] * count
        parts = zip((masks[k] for k in self.gates), weights.ih.chunk(count), biases, strict=True)
        with without_autocast(x.device):
            return torch.cat([torch.nn.functional.linear(x * m.unsqueeze(1), w, b) for m, w, b in parts], -1)

    def streams(self, x: Tensor, hidden: Tensor) -> Mapping[str, Tensor]:
        """The masks of the hidden state (B, H), by name."""
        if not self.drops_hidden:
            return {}
        masks = self.theirs.get_recurrent_dropout_mask(hidden)
        masks = [masks] if isinstance(masks, Tensor) else [masks[k] for k in self.gates]
        return {name: mask.to(x.dtype) for name, mask in zip(names(self.cell), masks, strict=True)}


class SimpleRNN(Equations):
    """Keras' `SimpleRNNCell`."""

    cell: type[Cell]

    def __init__(self, theirs: Any, training: bool) -> None:
        super().__init__(theirs, training)
        activation = ACTIVATIONS.get(theirs.activation)
        built_in = {ours.tanh: cells.RNNTanh, ours.relu: cells.RNNReLU}
        other = {"linear": True} if activation is None else {"activation": activation}
        same = None if activation is None else built_in.get(activation)
        self.cell = same or KerasRNN.configured(**other)
        if self.drops_hidden:
            self.cell = transformed(self.cell, "recurrent_dropout")


class LSTM(Equations):
    """Keras' `LSTMCell`."""

    cell: type[Cell]
    gates: tuple[int, ...] = (0, 1, 2, 3)

    def __init__(self, theirs: Any, training: bool) -> None:
        super().__init__(theirs, training)
        options = self.options()
        if self.drops_hidden:
            self.cell = KerasDropoutLSTM.configured(**options)
        else:
            self.cell = cells.LSTM if options == DEFAULTS else KerasLSTM.configured(**options)

    def weights(self, dtype: torch.dtype) -> Weights:
        found = super().weights(dtype)
        if not self.drops_hidden or found.hh is None:
            return found
        return Weights(found.ih, bias_ih=found.bias_ih, own=tuple(found.hh.chunk(4)))


class GRU(Equations):
    """Keras' `GRUCell`."""

    cell: type[Cell]
    gates: tuple[int, ...] = (1, 0, 2)

    def __init__(self, theirs: Any, training: bool) -> None:
        super().__init__(theirs, training)
        options, after = self.options(), theirs.reset_after
        if self.drops_hidden:
            self.cell = KerasDropoutGRU.configured(**options, before=not after)
        elif after:
            self.cell = cells.GRU if options == DEFAULTS else KerasGRU.configured(**options)
        else:
            self.cell = KerasGRUBefore.configured(**options)

    def weights(self, dtype: torch.dtype) -> Weights:
        kernel, recurrent, bias = self.values(dtype)
        of_input, of_hidden = (None, None) if bias is None else (bias, None) if bias.dim() == 1 else bias
        of_input, of_hidden = (None if b is None else self.ordered(b) for b in (of_input, of_hidden))
        r, z, n = recurrent.chunk(3)
        if self.drops_hidden:
            if of_input is None or of_hidden is None:
                return Weights(kernel, bias_ih=of_input, own=(r, z, n))
            # The two biases of r and z are added. The candidate's recurrent bias stays separate, as the reset gate
            # multiplies it.
            units = len(n)
            both = torch.cat([of_input[: 2 * units] + of_hidden[: 2 * units], of_input[2 * units :]])
            return Weights(kernel, bias_ih=both, own=(r, z, n, of_hidden[2 * units :]))
        if self.theirs.reset_after:
            return Weights(kernel, recurrent, of_input, of_hidden)
        zeros = None if of_input is None else torch.zeros_like(of_input[: 2 * len(n)])
        return Weights(kernel, recurrent[: 2 * len(n)], of_input, zeros, own=(n,))


@saving.register_keras_serializable("seqcells")
class RNNCell(layers.Layer):
    """A cell of seqcells as a cell of Keras: ``keras.layers.RNN(RNNCell("LEM", 32, dt=0.5))``.

    Args:
        cell: the class of the cell, or its name in `seqcells.cells` or in the registry.
        units: the number of hidden units.
        use_bias: whether there are biases. Default: True
        kernel_initializer, recurrent_initializer, bias_initializer: the initializers of the input's weights, of all
            other products' weights, and of biases. Initial values that the cell declares have priority. Default: those
            of Keras' own cells
        options: the options of the cell, and of `keras.layers.Layer`.

    The weights have the names and shapes of `seqcells.RecurrentCell`.

    Raises:
        ValueError: there is no such cell, it reads streams, which Keras does not have, or a state is as large as the
            input.
    """

    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    cell: type[Cell]
    units: int
    use_bias: bool
    state_size: list[int]
    output_size: int

    def __init__(
        self,
        cell: type[Cell] | str,
        units: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        **options: Any,
    ) -> None:
        found = _named(cell) if isinstance(cell, str) else cell
        own = {name: options.pop(name) for name in [*options] if name in found.options}
        for name, value in own.items():
            if isinstance(found.options[name], ours.Activation) and isinstance(value, str):
                own[name] = ours.ACTIVATIONS[value]
        super().__init__(**options)
        if names(found):
            raise ValueError(
                f"the {found.name} cell reads streams, which Keras' layers have not: {', '.join(names(found))}"
            )
        cells.register(found)
        self.cell, self.units, self.use_bias = found.configured(**own), units, use_bias
        checks.constructor(1, units, 1, use_bias, False, 0.0, 0)
        checks.cell(self.cell)
        checks.sizes(self.cell, units)
        self._initializers = kernel_initializer, recurrent_initializer, bias_initializer
        self._own = own
        sizes = self.cell.sizes_by_letter(units)
        if "F" in self.cell.state_sizes.values():
            raise ValueError(f"the {found.name} cell has a state as large as its input, which Keras does not tell it")
        self.state_size = [sizes[letter] for letter in self.cell.state_sizes.values()]
        self.output_size = output_units(self.cell, units, 0)

    def build(self, input_shape: Sequence[int]) -> None:
        """Make the weights for an input (…, features)."""
        checks.features(self.cell, self.units, [input_shape[-1]])
        self._roles = Weights.roles(self.cell, self.use_bias, False)
        initial = self.cell.initial_values()
        of_input, recurrent, of_bias = self._initializers
        bound = 1 / math.sqrt(self.units)
        for role in self._roles:
            shape = Weights.shape(role, self.cell, input_shape[-1], self.units, 0)
            kind = of_input if role == "weight_ih" else of_bias if role.startswith("bias") else recurrent
            if role.removeprefix("weight_") in {*self.cell.parameters, *self.cell.scalars}:
                kind = RandomUniform(-bound, bound)
            variable = self.add_weight(shape=shape, initializer=kind, name=role)
            setattr(self, role, variable)
            if any(row in initial for row in self.cell.rows_of(role)):
                value = _tensor(variable).detach().clone()
                Weights.initialise(role, self.cell, value, initial)
                variable.assign(value)

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """One time step: input (B, features), states (B, ·) each → the output and the new states."""
        weights = MADE[RNNCell](self, training).weights(inputs.dtype)
        states = states if isinstance(states, (list, tuple)) else [states]
        name = self.cell.output or self.cell.states[0]
        keep = () if name in self.cell.states else (name,)
        new, kept = functional.step_and_kept(self.cell, inputs, [*states], weights, keep=keep)
        return kept[name] if keep else new[self.cell.states.index(name)], [*new]

    def get_config(self) -> dict[str, Any]:
        """The configuration that Keras saves."""
        kernel, recurrent, bias = self._initializers
        own = {k: v.name if isinstance(v, ours.Activation) else v for k, v in self._own.items()}
        own |= {"cell": _name(self.cell.base), "units": self.units, "use_bias": self.use_bias}
        initializers = {"kernel_initializer": kernel, "recurrent_initializer": recurrent, "bias_initializer": bias}
        return {**super().get_config(), **own, **initializers}


def _named(name: str) -> type[Cell]:
    known = {cell.__name__: cell for cell in cells.BUILT_IN.values()} | dict.fromkeys(cells.LIBRARY)
    if name in known:
        return known[name] or getattr(cells, name)
    return cells.named(name)


def _name(cell: type[Cell]) -> str:
    return cell.__name__ if getattr(cells, cell.__name__, None) is cell else cell.name


class OfOurs(Equations):
    """The form for the engines of an `RNNCell`, which has the weights of its cell."""

    cell: type[Cell]

    def __init__(self, theirs: RNNCell, training: bool) -> None:
        super().__init__(theirs, training)
        self.cell = theirs.cell

    def weights(self, dtype: torch.dtype) -> Weights:
        values = [_tensor(getattr(self.theirs, role)).to(dtype) for role in self.theirs._roles]
        return Weights.of(self.theirs._roles, values)


MADE: dict[type, Callable[[Any, bool], Equations]] = {
    layers.SimpleRNNCell: SimpleRNN,
    layers.LSTMCell: LSTM,
    layers.GRUCell: GRU,
    RNNCell: OfOurs,
}
"""The form for each exact class of a Keras cell, since a subclass may have other equations."""
