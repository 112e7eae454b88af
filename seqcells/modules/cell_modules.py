"""Cells as modules that compute one time step per call: drop-in replacements for torch.nn's cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, overload

import torch
from torch import Tensor, nn

from .. import cells, functional
from ..call import choose
from ..call.describe import call_of
from ..request import checks
from ..request.call import Call, Choice
from ..request.keep_argument import by_layer
from ..request.streams import of_one_sequence
from ..request.weights import Weights
from . import convert, tracing
from .freezing import Freezable
from .static_types import States as States  # layers import it from here

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..request.keep_argument import Names
    from .static_types import OfStates, S_co


class RecurrentCell(Freezable):
    """One time step of a cell, with the interface of torch.nn's `RNNCellBase`.

    Args:
        input_size: number of features of the input.
        hidden_size: number of hidden units H.
        bias: whether the module has ``bias_ih`` and ``bias_hh``. Without, both are None. Default: True
        device, dtype: device and dtype of the parameters. Default: torch's
        backend: see `seqcells.call.choose`. Default: ``"auto"``
        initial: initial values of rows, scalars and biases, as in `RecurrentLayer`. Default: none
        options: the cell's options, by name.

    With G gates and R recurrent gates, the parameters are ``weight_ih`` (G·H, input_size), ``weight_hh`` (R·H, H),
    ``bias_ih`` (G·H,), ``bias_hh`` (R·H,) and the cell's own parameters. All are drawn from U(-1/√H, 1/√H), except
    parameters that have initial values.

    Raises:
        ValueError: for an unknown backend.
        ValueError: for an ``input_size`` that the cell does not allow.
        TypeError: for options that the cell does not have.
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
        """Draw all parameters from U(-1/√H, 1/√H), in the order of registration. Then set the initial values."""
        stdv = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            nn.init.uniform_(weight, -stdv, stdv)
        self._initialise(zip(self._roles, self._roles, strict=True))

    _sizes_in_words = nn.RNNCellBase.extra_repr

    def extra_repr(self) -> str:
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return self._sizes_in_words() + self._told_options() + chosen

    def forward(self, input: Tensor, hx: States | None = None, *, keep: Sequence[str] = (), **streams: Tensor) -> Any:
        """Compute one time step.

        Args:
            input: (N, input_size), or (input_size,) unbatched.
            hx: the states, a tensor or, for cells of several states, a tuple: (N, H) each, or (H,) unbatched. The cell
                may declare other sizes than H. Default: zeros
            keep: names of the step's values that are also returned, as in `RecurrentLayer`. Default: none
            streams: further inputs of the cell by name, as in `RecurrentLayer`, without the axis T: (N, H) for "TBH"
                and "BH", (N,) for "TB".

        Returns:
            The new states, in the form of hx. If the cell's output is not a state: (output, states). With ``keep``, a
            dict of the kept values by name, (N, ·) each, follows.

        Raises:
            ValueError, RuntimeError: as torch.nn.
            RuntimeError: a backend that was asked for by name cannot run here, or cannot run this call.
            TypeError, ValueError, RuntimeError: for a name in ``keep`` that is no value, and for streams that are
                missing, or of the wrong dtype or size.
        """
        signature, beside = None, self.cell.output not in ("", *self.cell.states)
        # A prepared call returns states only, so it needs a cell whose output is its first state.
        if self.cell.returns_first and isinstance(keep, tuple) and not (keep or streams):
            found, signature = self._prepared.run(self, input, hx)
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
            by_layer(self.cell, keep, 1)  # check the caller's names before the output is added to them
        wanted = (*keep, *output) if output else keep
        new, kept = functional.step_and_kept(self.cell, input, states, weights, streams, wanted, self.backend)
        if not batched:
            new = tuple(state.squeeze(0) for state in new)
            kept = {name: value.squeeze(0) for name, value in kept.items()}
        if signature:
            before = [state.unsqueeze(0) for state in states]
            given = self._call(input, weights), input.unsqueeze(0), before, [weights], zeros
            self._prepared.remember(signature, self, *given, new[0], new)
        final = new if count > 1 else new[0]
        results = *(kept[name] for name in output), final, *([{name: kept[name] for name in keep}] if keep else ())
        return results if len(results) > 1 else final

    def _zero_states(self, input: Tensor) -> tuple[Tensor, ...]:
        sizes = self.cell.sizes_by_letter(self.hidden_size) | {"F": self.input_size}
        letters = self.cell.state_sizes.values()
        zeros = {letter: input.new_zeros((input.size(0), sizes[letter])) for letter in dict.fromkeys(letters)}
        return tuple([zeros[letter] for letter in letters])

    _forward = forward
    """This class's `forward`. `is_plain` compares it to find an override."""

    __prepare_scriptable__: Callable[..., NoReturn] = tracing.refuse_script

    def plan(self, input: Tensor, hx: States | None = None, *, keep: Sequence[str] = (), **streams: Tensor) -> Choice:
        """The backend that ``forward`` would run for these arguments, and why.

        ``hx`` and streams make no difference. Grad mode, autocast and the number of threads do.
        """
        return choose.explain(self._call(input, self._weights(), keep=keep), self.backend)

    def _call(self, input: Tensor, weights: Weights, **given: Any) -> Call:
        """The `Call` that `seqcells.call.choose` reads for these arguments."""
        return call_of(self.cell, "step", input, weights, **given)

    def _weights(self) -> Weights:
        tensors = [getattr(self, role) for role in self._roles]
        needed = [k for k, role in enumerate(self._roles) if self.bias or not role.startswith("bias")]
        checks.weights([self._roles[k] for k in needed], [tensors[k] for k in needed])
        return Weights.of(self._roles, tensors)

    @classmethod
    def from_torch(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """A module of this class that shares the Parameter objects of torch.nn's ``module``. Errors: `convert`."""
        return convert.from_torch(module, cls, backend=backend)

    def to_torch(self) -> nn.Module:
        """A torch.nn module that shares this module's Parameter objects. Errors: `convert`."""
        return convert.as_torch(self)


COUNT = {2: "two"}
"""Numbers that torch.nn's error messages spell out."""


class LSTMCell(RecurrentCell):
    """A long short-term memory cell, a replacement for `torch.nn.LSTMCell`. Arguments: see `RecurrentCell`.

    Equations and sources: `seqcells.cells.LSTM`. ``hx`` is (h_0, c_0).
    """

    cell: type[cells.Cell] = cells.LSTM
    torch_class: ClassVar[type[nn.Module] | None] = nn.LSTMCell

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> tuple[Tensor, Tensor]: ...


class GRUCell(RecurrentCell):
    """A gated recurrent unit, a replacement for `torch.nn.GRUCell`. Arguments: see `RecurrentCell`.

    Equations and sources: `seqcells.cells.GRU`.
    """

    cell: type[cells.Cell] = cells.GRU
    torch_class: ClassVar[type[nn.Module] | None] = nn.GRUCell

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...


class RNNCell(RecurrentCell):
    """An Elman cell, a replacement for `torch.nn.RNNCell`. Arguments: see `RecurrentCell`, and:

    Args:
        nonlinearity: ``"tanh"`` or ``"relu"``, the fourth argument. As in torch.nn, ``forward`` raises a RuntimeError
            for any other value. Default: ``"tanh"``

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
        # Set first: the base class's constructor reads `cell`.
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
