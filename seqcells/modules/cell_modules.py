"""The cells as modules: one step per call, drop-in replacements of torch.nn's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, overload

import torch
from torch import Tensor, nn

from .. import cells, functional
from ..call import choose
from ..call.called import call_of
from ..request import checks
from ..request.call import Call, Choice
from ..request.kept import by_layer
from ..request.streams import of_one_sequence
from ..request.weights import Weights
from . import convert, tracing
from .freezing import Freezable
from .typed import States as States  # of layers too

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..request.kept import Names
    from .typed import OfStates, S_co


class RecurrentCell(Freezable):
    """One step of a cell, to the contract of torch.nn's `RNNCellBase`.

    Args:
        input_size: features of the input.
        hidden_size: hidden units H.
        bias: whether there are ``bias_ih`` and ``bias_hh``; otherwise they are None. Default: True
        device, dtype: of the parameters.
        backend: see `seqcells.call.choose`. Default: ``"auto"``
        initial: initial values of rows, scalars and biases, as of `RecurrentLayer`. Default: none
        options: those of the cell, by name.

    Parameters are ``weight_ih`` (G·H, input_size), ``weight_hh`` (R·H, H), ``bias_ih``, ``bias_hh`` and the
    cell's own parameters, all drawn from U(-1/√H, 1/√H), but for those that the cell gives initial values.

    Raises:
        ValueError: for an unknown backend.
        ValueError: for a cell that the input does not fit to.
        TypeError: for options that the cell has not.
    """

    torch_class: ClassVar[type[nn.Module] | None] = None

    if TYPE_CHECKING:

        @overload
        def __call__(
            self: OfStates[S_co], input: Tensor, hx: States | None = None, *, keep: tuple[()] = (), **streams: Tensor
        ) -> S_co: ...

        @overload
        def __call__(
            self: OfStates[S_co], input: Tensor, hx: States | None = None, *, keep: Names, **streams: Tensor
        ) -> tuple[S_co, dict[str, Tensor]]: ...

        @overload
        def __call__(
            self, input: Tensor, hx: States | None = None, *, keep: Sequence[str] = (), **streams: Tensor
        ) -> Any: ...

        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
        initial: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        nn.Module.__init__(self)
        self._configure(options, hidden_size)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self._settle(backend)
        checks.features(self.cell, hidden_size, [input_size])
        sizes = self._sizes()
        self._take_initial(initial, sizes)
        for role in self._roles:
            own = nn.Parameter(torch.empty(sizes[role], device=device, dtype=dtype)) if role in sizes else None
            self.register_parameter(role, own)
        self.reset_parameters()

    def _settle(self, backend: str) -> None:
        super()._settle(backend)
        self._roles = Weights.roles(self.cell, bias=True, projection=False)

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {
            role: Weights.shape(role, self.cell, self.input_size, self.hidden_size, proj_size=0)
            for role in self._roles
            if self.bias or not role.startswith("bias")
        }

    def reset_parameters(self) -> None:
        """Draw all parameters from U(-1/√H, 1/√H), in the order of registration; then set what the cell says."""
        stdv = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            nn.init.uniform_(weight, -stdv, stdv)
        self._initialise(zip(self._roles, self._roles, strict=True))

    _sizes_in_words = nn.RNNCellBase.extra_repr

    def extra_repr(self) -> str:
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return self._sizes_in_words() + self._told_options() + chosen

    def forward(self, input: Tensor, hx: States | None = None, *, keep: Sequence[str] = (), **streams: Tensor) -> Any:
        """One step.

        Args:
            input: (N, input_size), or (input_size,) unbatched.
            hx: the states, a tensor or, for cells of several states, a tuple: (N, H) each, or as large as the cell
                says, or (H,). Default: zeros
            keep: names of values of the step that are returned besides, as of `RecurrentLayer`. Default: none
            streams: by name what the cell reads besides its input, as of `RecurrentLayer`, but for the axis T:
                (N, H) for "TBH" and "BH", (N,) for "TB"

        Returns:
            The new states, in the form of hx; before them the output, if it is no state: (output, states). With
            ``keep`` there comes also a dict of the values by name, (N, ·) each.

        Raises:
            ValueError, RuntimeError: as torch.nn.
            RuntimeError: a backend that was asked for by name cannot run here, or cannot do this.
            TypeError, ValueError, RuntimeError: for ``keep`` that names no value, and for streams that are missing, or
                of the wrong dtype or size.
        """
        like, beside = None, self.cell.output not in ("", *self.cell.states)
        # What is prepared returns states alone, the first of them as the output.
        if self.cell.returns_first and isinstance(keep, tuple) and not (keep or streams):
            found, like = self._prepared.run(self, input, hx)
            if found:
                return tuple(found[1]) if len(found[1]) > 1 else found[1][0]
        node = tracing.leaf(self, input, hx, streams=streams, keep=keep)
        if node is not None:
            return node
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        batched = input.dim() == 2
        count = len(self.cell.states)
        states: tuple[Any, ...] = ()
        if hx is not None:
            tensor = isinstance(hx, Tensor)
            states = (hx,) if count == 1 else tuple(hx)
            for index, state in enumerate(states):
                if state.dim() not in (1, 2):
                    what = "hidden" if count == 1 else f"hx[{index}]"
                    raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead")
            if tensor and batched and count > 1:
                raise TypeError(f"hx should be a tuple of {count} tensors, not one Tensor")
            if len(states) != count:
                raise RuntimeError(f"{self.cell.name}_cell expects {COUNT.get(count, count)} hidden states")
        if not batched:
            input = input.unsqueeze(0)
        zeros = hx is None
        if zeros:
            states = self._zero_states(input)
        elif not batched:
            states = tuple(state.unsqueeze(0) for state in states)
        if not batched:
            streams = of_one_sequence(self.cell, streams)
        weights = self._weights()
        output = (self.cell.output,) if beside else ()
        if output:
            by_layer(self.cell, keep, 1)  # before anything is added to it
        wanted = (*keep, *output) if output else keep
        new, kept = functional.step_and_kept(self.cell, input, states, weights, streams, wanted, self.backend)
        if not batched:
            new = tuple(state.squeeze(0) for state in new)
            kept = {name: value.squeeze(0) for name, value in kept.items()}
        if like:
            before = [state.unsqueeze(0) for state in states]
            given = self._call(input, weights), input.unsqueeze(0), before, [weights], zeros
            self._prepared.remember(like, self, *given, new[0], new)
        final = new if count > 1 else new[0]
        results = *(kept[name] for name in output), final, *([{name: kept[name] for name in keep}] if keep else ())
        return results if len(results) > 1 else final

    def _zero_states(self, input: Tensor) -> tuple[Tensor, ...]:
        sizes = self.cell.sizes_by_letter(self.hidden_size) | {"F": self.input_size}
        letters = self.cell.state_sizes.values()
        zeros = {letter: input.new_zeros((input.size(0), sizes[letter])) for letter in dict.fromkeys(letters)}
        return tuple([zeros[letter] for letter in letters])

    _forward = forward
    """What `forward` is for as long as nobody has put another in its place."""

    __prepare_scriptable__: Callable[..., NoReturn] = tracing.refuse_script

    def plan(self, input: Tensor, *, keep: Sequence[str] = ()) -> Choice:
        """The backend that ``forward`` would run for such arguments, and why."""
        return choose.explain(self._call(input, self._weights(), keep=keep), self.backend)

    def _call(self, input: Tensor, weights: Weights, **given: Any) -> Call:
        """What `seqcells.call.choose` needs to know of such arguments."""
        return call_of(self.cell, "step", input, weights, **given)

    def _weights(self) -> Weights:
        tensors = [getattr(self, role) for role in self._roles]
        needed = [k for k, role in enumerate(self._roles) if self.bias or not role.startswith("bias")]
        checks.weights([self._roles[k] for k in needed], [tensors[k] for k in needed])
        return Weights.of(self._roles, tensors)

    @classmethod
    def from_torch(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """This class in place of torch.nn's, with the same parameters, not copies. Errors: `convert`."""
        return convert.from_torch(module, cls, backend=backend)

    def to_torch(self) -> nn.Module:
        """torch.nn's module with the same parameters, not copies. Errors: `convert`."""
        return convert.as_torch(self)


COUNT = {2: "two"}
"""Numbers that torch.nn spells out."""


class LSTMCell(RecurrentCell):
    """A long short-term memory cell, in place of `torch.nn.LSTMCell`; arguments as `RecurrentCell`.

    Equations and sources: `seqcells.cells.LSTM`. ``hx`` is (h_0, c_0).
    """

    cell: type[cells.Cell] = cells.LSTM
    torch_class: ClassVar[type[nn.Module] | None] = nn.LSTMCell

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class GRUCell(RecurrentCell):
    """A gated recurrent unit, in place of `torch.nn.GRUCell`; arguments as `RecurrentCell`.

    Equations and sources: `seqcells.cells.GRU`.
    """

    cell: type[cells.Cell] = cells.GRU
    torch_class: ClassVar[type[nn.Module] | None] = nn.GRUCell

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class RNNCell(RecurrentCell):
    """An Elman cell, in place of `torch.nn.RNNCell`; arguments as `RecurrentCell`, and:

    Args:
        nonlinearity: ``"tanh"`` or ``"relu"``, the fourth argument; as in torch.nn any other is met with a
            RuntimeError by ``forward``. Default: ``"tanh"``

    Equations and sources: `seqcells.cells.RNNTanh`, `seqcells.cells.RNNReLU`.
    """

    torch_class: ClassVar[type[nn.Module] | None] = nn.RNNCell

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
        initial: Mapping[str, float] | None = None,
    ) -> None:
        # Before the rest, which asks for the cell.
        self.nonlinearity = nonlinearity
        super().__init__(input_size, hidden_size, bias, device, dtype, backend=backend, initial=initial)

    @property
    def cell(self) -> type[cells.Cell]:  # pyright: ignore[reportIncompatibleVariableOverride]  # nobody assigns it
        # As in torch.nn, the nonlinearity may be changed at any time.
        return cells.RNN_BY_NONLINEARITY.get(self.nonlinearity, cells.RNNTanh)

    def forward(self, input: Tensor, hx: States | None = None, **others: Any) -> Any:
        if self.nonlinearity not in cells.RNN_BY_NONLINEARITY:
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        return super().forward(input, hx, **others)

    _forward = forward
