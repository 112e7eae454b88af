"""The layer of any cell: a module with the interface of torch.nn's recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .. import functional
from ..call import choose
from ..call.describe import call_of
from ..request import checks, context
from ..request.call import Call, Choice
from ..request.streams import laid_out
from ..request.weights import Weights
from . import convert, flat_weights, packed_in_export, tracing
from .cell_modules import States
from .stateful import Stateful
from .stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

Results = tuple[Tensor | PackedSequence, States]
Kept = dict[str, Tensor | PackedSequence]


class RecurrentLayer(Stateful):
    """A stack of recurrent layers of one cell, with the interface of torch.nn's `RNNBase`.

    Args:
        input_size: number of features of the input.
        hidden_size: number of hidden units H.
        num_layers: number of layers L. Default: 1
        bias: whether layers have ``bias_ih`` and ``bias_hh``. Default: True
        batch_first: whether input and output are (N, T, features) instead of (T, N, features). States keep their
            layout. Default: False
        dropout: probability of zeroing an output of any layer but the last, in training. Default: 0
        bidirectional: whether a second direction reads the sequence backwards. Default: False
        proj_size: size P of a projection of the hidden state, for cells that allow one; 0 for none. Default: 0
        device, dtype: device and dtype of the parameters. Default: torch's
        backend: see `seqcells.call.choose`. Default: ``"auto"``
        recurrent_dropout: probability of zeroing a unit of the hidden state that the recurrent product reads, in
            training. One mask holds for all steps of a sequence, and the other units are scaled (Gal & Ghahramani
            2016). Default: 0
        zoneout: probability that a unit of a state keeps its value in a step. In evaluation the states are the
            expectation (Krueger et al. 2017). It is a number for all states, or one for each state by name,
            ``{"h": 0.05, "c": 0.5}``. Default: 0
        learn_hx: whether the initial states are parameters, zeros at first: ``initial_h`` (L·D, H or P), ``initial_c``
            (L·D, H) and so on by the states' names. They are used if a call gives no ``hx``, and at each reset without
            a ``reset_state``. Default: False
        stateful: whether a call without ``hx`` begins with the final states of the call before, detached: truncated
            backpropagation through time. `reset_states` forgets the kept states, and ``states`` reads or assigns them.
            The `state_dict` does not have them. Not for two directions, and not inside of torch.utils.checkpoint, which
            calls the layer twice. Default: False
        initial: initial values, for instance of a forget gate's bias: ``{"bias_ih.f": 1.0, "bias_hh.f": 0.0}``. Names
            are a bias with a gate, or one of the cell's own rows and scalars. They override `Cell.initial`.
            Default: none
        options: the cell's options, by name.

    Shapes are torch.nn's, with D directions, G gates and R recurrent gates: parameters ``weight_ih_l{k}{_reverse}``
    (G·H, features), ``weight_hh_…`` (R·H, P or H), ``bias_ih_…``, ``bias_hh_…``, ``weight_hr_…`` (P, H), then the
    cell's own parameters. All are drawn from U(-1/√H, 1/√H) in this order, except parameters with initial values.

    Raises:
        ValueError, TypeError: as torch.nn, for the constructor's arguments. ValueError for an unknown backend, for
            layers' inputs that the cell does not allow, and for a number that is no probability. ValueError for states,
            products and rows that the cell does not have; TypeError for options that it does not have.
    """

    mode: str
    dropout: float
    torch_class: ClassVar[type[nn.Module] | None] = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        backend: str = "auto",
        recurrent_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        learn_hx: bool = False,
        stateful: bool = False,
        initial: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        nn.Module.__init__(self)
        self.dropout = float(dropout)
        if proj_size and "proj_size" in self.cell.options:  # the cell itself has a size of this name
            options["proj_size"], proj_size = proj_size, 0
        if proj_size and not self.cell.projection:
            raise ValueError(f"proj_size argument is not supported for the {self.cell.name} cell")
        checks.constructor(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self._configure(options, hidden_size)
        self.mode = self.cell.base.name.upper()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._settle(backend)
        self._regularise(recurrent_dropout, zoneout)
        self._keep_states(stateful, bidirectional)
        checks.features(self.cell, hidden_size, self._features())
        sizes, count = self._sizes(), len(self._roles)
        for name, size in sizes.items():
            setattr(self, name, nn.Parameter(torch.empty(size, device=device, dtype=dtype)))
        names = [*sizes]
        self._all_weights = [names[k : k + count] for k in range(0, len(names), count)]
        self._take_initial(initial, self._roles)
        self._learn_states(learn_hx, device, dtype)
        self.flatten_parameters()
        self.reset_parameters()

    def _settle(self, backend: str) -> None:
        super()._settle(backend)
        self._roles = Weights.roles(self.cell, self.bias, self.proj_size > 0)

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        sizes, directions = {}, 2 if self.bidirectional else 1
        for layer, features in enumerate(self._features()):
            for suffix in ("", "_reverse")[:directions]:
                for role in self._roles:
                    own = Weights.shape(role, self.cell, features, self.hidden_size, self.proj_size)
                    sizes[f"{role}_l{layer}{suffix}"] = own
        return sizes

    def reset_parameters(self) -> None:
        """Draw all weights and biases from U(-1/√H, 1/√H), in the order of registration. Then set the initial values of
        the cell and of ``initial``. Learnt initial states become zeros."""
        stdv, learnt = 1.0 / math.sqrt(self.hidden_size), self._learnt_names()
        for name, weight in self.named_parameters():
            if name.removeprefix("parametrizations.").partition(".")[0] in learnt:
                nn.init.zeros_(weight)
            else:
                nn.init.uniform_(weight, -stdv, stdv)
        self._initialise(zip(self._roles * len(self._all_weights), self._flat_weights_names, strict=True))

    __prepare_scriptable__: Callable[..., NoReturn] = tracing.refuse_script

    _sizes_in_words = nn.RNNBase.extra_repr

    def extra_repr(self) -> str:
        chosen = "" if self.backend == "auto" else f", backend={self.backend!r}"
        return self._sizes_in_words() + self._told_options() + self._told_others() + chosen

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        *,
        lengths: Tensor | None = None,
        reset: Tensor | None = None,
        reset_state: States | None = None,
        keep: Sequence[str] = (),
        **streams: Tensor,
    ) -> Results | tuple[Tensor | PackedSequence, States, Kept]:
        """Run the sequences through the layers.

        Args:
            input: (T, N, input_size), (N, T, input_size) with ``batch_first``, (T, input_size) unbatched, or
                a PackedSequence.
            hx: the initial states, a tensor or, for cells of several states, a tuple. The first state is
                (L·D, N, H or P), the next are (L·D, N, H), or as the cell declares; without N if unbatched.
                Default: zeros, or the learnt states, or for a stateful layer the final states of the call before
            lengths: (N,) integers on any device, in any order, 0 allowed. The output is zero past a sequence's
                length, and the final state is the state at the length. The backward direction starts there. Input past
                the length does not matter. Not allowed with a PackedSequence, which has its own lengths.
            reset: bool, with the time and batch axes of the input (of the padded input for a PackedSequence).
                ``reset[t]`` is a boundary between t-1 and t, for instance the end of an episode. No value and no
                gradient crosses it, in any layer or direction. The state becomes zeros, or ``reset_state``, before
                step t, in the backward direction before step t-1. ``hx`` holds up to the first boundary. Flags
                past a length are ignored.
            reset_state: shaped like hx. Gradients flow to it. Default: zeros, or the learnt states
            keep: names of values that are also returned for all steps, such as an LSTM's cell states,
                ``keep=("c",)``. It holds for this call only. A name may be a state (after the step), or a value that
                the cell's `step` returns or names (``"forget"``). It may also be a gate that goes through one
                activation (``"f"``: the same value). ``"c"`` is the value of the last layer, whose output is returned.
                ``"c_l0"`` is the value of the first layer, as parameters are named. Default: none
            streams: further inputs of the cell by name: floating-point numbers of the input's dtype, bools or
                integers. The cell declares the axes: "TBH" (T, N, H), "TB" (T, N), "BH" (N, H). With ``batch_first``
                N comes before T. Unbatched streams lack N. For a PackedSequence they are padded. All layers and
                directions read the same values, unless one more axis comes first: (L·D, T, N, H). Values past a
                sequence's length do not matter. Gradients flow to streams.

        Returns:
            The output (…, D·H or D·P, or as the cell declares), in the form of the input; and the final states, in
            the form of hx. With ``keep`` also a dict of the kept values by name, each in the form of the output:
            (…, D·size), zero past a sequence's length. A value that is one number for each sequence or head has one
            unit for each.

        Raises:
            ValueError, RuntimeError: as torch.nn.
            TypeError, ValueError, RuntimeError: for ``lengths``, ``reset``, ``reset_state`` or streams of the
                wrong dtype, value or size; for a missing stream; for a name in ``keep`` that is no value.
            RuntimeError: a backend that was asked for by name cannot run here, or cannot run this call.
        """
        signature = None
        if isinstance(input, PackedSequence) and context.is_exporting():
            checks.no_lengths_besides(lengths)
            return packed_in_export.run(self, input, hx, reset=reset, reset_state=reset_state, keep=keep, **streams)
        if self.stateful and hx is None and isinstance(input, (Tensor, PackedSequence)):
            hx = self._begins_with(input)
        plain = lengths is None and reset is None and reset_state is None and isinstance(keep, tuple)
        plain = plain and not (keep or self.zoneout or (hx is None and self.learn_hx))
        if plain and not (self.training and (self.dropout or self.recurrent_dropout)):
            found, signature = self._prepared.run(self, input, hx, streams)
            if found:
                new = tuple(found[1]) if len(found[1]) > 1 else found[1][0]
                if self.stateful:
                    self._carry(new)
                return found[0], new
        boundaries = {"lengths": lengths, "reset": reset, "reset_state": reset_state}
        node = tracing.leaf(self, input, hx, streams=streams, keep=keep, **boundaries)
        if node is not None:
            return node
        batch_sizes = sorted_indices = unsorted_indices = None
        batched = True
        packed = isinstance(input, PackedSequence)
        if isinstance(input, PackedSequence):
            x, batch_sizes, sorted_indices, unsorted_indices = input
            hx = None if hx is None else self.permute_hidden(hx, sorted_indices)
        else:
            if input.dim() not in (2, 3):
                raise ValueError(self._rank_error.format(type(self).__name__, input.dim()))
            batched = input.dim() == 3
            hx = None if hx is None else self._batched_states(hx, batched)
            x = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        zeros = hx is None
        if hx is None:
            hx = self._initial_states(x, batch_sizes)
        self.check_forward_args(x, hx, batch_sizes)
        lengths, reset, reset_state = self._boundaries(
            x, batch_sizes, sorted_indices, batched, lengths, reset, reset_state
        )
        if streams or self.cell.streams:
            layout = self._layout(x, batch_sizes, sorted_indices, batched)
            streams = laid_out(self.cell, streams, x, layout)
        weights = self._weights()
        if self._is_regularised():
            streams = {**streams, **self._masks(x, *self._extent(x, batch_sizes))}
        found, final, *kept = functional.layers(
            self._cell_of_call(),
            x,
            self._states(hx),
            self._weights_of_call(weights),
            batch_sizes=batch_sizes,
            bidirectional=self.bidirectional,
            batch_first=self.batch_first and not packed,
            dropout=self.dropout,
            training=self.training,
            lengths=lengths,
            reset=reset,
            reset_states=None if reset_state is None else self._states(reset_state),
            streams=streams,
            keep=keep,
            backend=self.backend,
        )

        def in_form(values: Tensor) -> Tensor | PackedSequence:
            """The values in the form of the layer's input."""
            if batch_sizes is not None:
                return PackedSequence(values, batch_sizes, sorted_indices, unsorted_indices)
            return values if batched else values.squeeze(0 if self.batch_first else 1)

        output = in_form(found)
        if not batched:
            final = tuple(state.squeeze(1) for state in final)
        if signature and isinstance(output, Tensor):  # only calls with tensors are prepared
            steps_first = x.transpose(0, 1) if self.batch_first else x
            given = self._call(x, weights), steps_first, self._states(hx), weights, zeros
            self._prepared.remember(signature, self, *given, output, final, streams)
        new = self.permute_hidden(final[0] if len(final) == 1 else final, unsorted_indices)
        if self.stateful:
            self._carry(new)
        if kept:
            return output, new, {name: in_form(values) for name, values in kept[0].items()}
        return output, new

    _forward = forward
    """This class's `forward`. `is_plain` compares it to find an override."""

    def plan(
        self,
        input: Tensor | PackedSequence,
        hx: States | None = None,
        *,
        lengths: Any = None,
        reset: Any = None,
        reset_state: States | None = None,
        keep: Sequence[str] = (),
        **streams: Tensor,
    ) -> Choice:
        """The backend that ``forward`` would run for these arguments, and why.

        ``hx``, ``reset_state`` and streams make no difference. Grad mode, autocast and the number of threads do.
        """
        return choose.explain(self._call(input, self._weights(), lengths=lengths, reset=reset, keep=keep), self.backend)

    def _call(self, input: Tensor | PackedSequence, weights: list[Weights], **given: Any) -> Call:
        """The `Call` that `seqcells.call.choose` reads for these arguments."""
        packed, like, batch_first = None, input, False
        if isinstance(like, PackedSequence):
            like, packed, *_ = like
        elif like.dim() == 2:
            like = like.unsqueeze(1)
        else:
            batch_first = self.batch_first and like.dim() == 3
        options = {**given, "packed": packed, "batch_first": batch_first}
        options |= {"directions": 2 if self.bidirectional else 1, "layers": self.num_layers}
        options["dropout"] = bool(self.dropout and self.training)
        return call_of(self._cell_of_call(), "layers", like, weights[0], **options)

    def stream(self, batch_size: int = 1) -> Stream:
        """A `Stream` of the layer: it holds the states and computes one step per call, ``output = stream(input)``."""
        return Stream(self, batch_size)

    @classmethod
    def from_torch(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """A module of this class that shares the Parameter objects of torch.nn's ``module``. Errors: `convert`."""
        return convert.from_torch(module, cls, backend=backend)

    def to_torch(self) -> nn.Module:
        """A torch.nn module that shares this module's Parameter objects. Errors: `convert`."""
        return convert.as_torch(self)

    def _weights(self) -> list[Weights]:
        names, tensors = self._flat_weights_names, self._assigned()
        if tensors is None:
            tensors = flat_weights.read(self, names)
        elif len(tensors) != len(names):
            raise RuntimeError(f"Expected {len(names)} flat weights, got {len(tensors)}")
        tensors = checks.weights(names, tensors)
        count = len(self._roles)
        return [Weights.of(self._roles, tensors[k : k + count]) for k in range(0, len(names), count)]
