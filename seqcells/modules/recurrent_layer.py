"""The layer of any cell: a module to the contract of torch.nn's recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .. import functional
from ..call import choose
from ..call.called import call_of
from ..request import checks
from ..request.call import Call, Choice
from ..request.streams import laid_out
from ..request.weights import Weights
from . import convert, flat_weights, tracing, unpacked
from .cell_modules import States
from .stateful import Stateful
from .stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

Results = tuple[Tensor | PackedSequence, States]
Kept = dict[str, Tensor | PackedSequence]


class RecurrentLayer(Stateful):
    """A stack of recurrent layers of one cell, to the contract of torch.nn's `RNNBase`.

    Args:
        input_size: features of the input.
        hidden_size: hidden units H.
        num_layers: layers L. Default: 1
        bias: whether there are ``bias_ih`` and ``bias_hh``. Default: True
        batch_first: whether input and output are (N, T, features) instead of (T, N, features); states are
            not concerned. Default: False
        dropout: probability of zeroing an output of any layer but the last, in training. Default: 0
        bidirectional: whether a second direction reads the sequence backwards. Default: False
        proj_size: size P of a projection of the hidden state, 0 for none (cells that allow one). Default: 0
        device, dtype: of the parameters.
        backend: see `seqcells.call.choose`. Default: ``"auto"``
        recurrent_dropout: probability of zeroing a unit of the hidden state that the recurrent product reads, in
            training, by one mask for all steps of a sequence; the rest is scaled (Gal & Ghahramani 2016). Default: 0
        zoneout: probability that a unit of a state stays as it was in a step; in evaluation the expectation of that
            (Krueger et al. 2017). A number for all states, or one for each by name, ``{"h": 0.05, "c": 0.5}``.
            Default: 0
        learn_hx: whether the initial states are parameters, which count where a call gives no ``hx`` and, without a
            ``reset_state``, at each reset: ``initial_h`` (L·D, H or P), ``initial_c`` (L·D, H) and so on by the states'
            names, zeros at first. Default: False
        stateful: whether a call without ``hx`` begins with the states that the call before ended with, detached:
            truncated backpropagation through time. `reset_states` begins anew, ``states`` are those kept; neither is in
            the `state_dict`. Not for two directions, and not inside of torch.utils.checkpoint, which calls twice.
            Default: False
        initial: initial values, of a forget gate's bias for instance: ``{"bias_ih.f": 1.0, "bias_hh.f": 0.0}``. Names
            are those of biases with a gate, and of the cell's own rows and scalars; see `Cell.initial`, before which
            they go. Default: none
        options: those of the cell, by name.

    Shapes are those of torch.nn: parameters ``weight_ih_l{k}{_reverse}`` (G·H, features), ``weight_hh_…``
    (R·H, P or H), ``bias_ih_…``, ``bias_hh_…``, ``weight_hr_…`` (P, H), then the cell's own parameters;
    all drawn from U(-1/√H, 1/√H), in that order, but for those that the cell gives initial values.

    Raises:
        ValueError, TypeError: as torch.nn, for the constructor's arguments; ValueError for an unknown backend;
            ValueError for a cell that the layers' inputs do not fit to, for what is no probability, and for states,
            products and rows that the cell has not; TypeError for options that it has not.
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
        if proj_size and "proj_size" in self.cell.options:  # a size of the cell's own
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
        """Draw all weights and biases from U(-1/√H, 1/√H), in the order of registration; then set what the cell and
        ``initial`` say. Learnt initial states become zeros."""
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
            hx: the initial states, a tensor or, for cells of several states, a tuple: (L·D, N, H or P), the
                others (L·D, N, H), or as large as the cell says; without N if unbatched. Default: zeros, or what
                is learnt, or for a stateful layer what the call before ended with
            lengths: (N,) integers on any device, in any order, 0 allowed: the output is zero past a
                sequence's length, the final state is the one at it, and the backward direction starts there.
                What the input holds past it does not matter. Not with a PackedSequence, which has its own.
            reset: bool, the time and batch axes of the input (of the padded one for a PackedSequence):
                ``reset[t]`` is a boundary between t-1 and t, an episode that ended there. Nothing crosses
                it, no value and no gradient, in any layer or direction: the state becomes zeros, or
                ``reset_state``, before step t, in the backward direction before step t-1. ``hx`` counts up
                to the first boundary; flags past a length count for nothing.
            reset_state: shaped like hx, gradient flows to it. Default: zeros, or what is learnt
            keep: names of values of all steps that are returned besides, such as an LSTM's cell states,
                ``keep=("c",)``. Each call says what it keeps: the next one is again as torch.nn has it. A name is
                that of a state (after the step), of a value that the cell's `step` returns or names
                (``"forget"``), or of a gate that it puts through one activation (``"f"``: the same). It means
                the last layer, whose output is returned; ``"c_l0"`` means the first, as parameters are named.
                Default: none
            streams: by name what the cell reads besides its input, floating-point numbers of the input's dtype, or
                truths or integers. Axes are as the cell says: "TBH" (T, N, H), "TB" (T, N), "BH" (N, H); with
                ``batch_first`` N before T, without N if unbatched, padded for a PackedSequence. All layers and
                directions read the same, unless one axis more comes first: (L·D, T, N, H). What they hold past a
                sequence's length does not matter. Gradients flow to them

        Returns:
            The output (…, D·H or D·P, or as large as the cell says), in the form of the input, and the final
            states, in the form of hx. With
            ``keep`` also a dict of the values by name, each in the form of the output: (…, D·size), zero past a
            sequence's length; a number of each sequence or head counts as one unit of each.

        Raises:
            ValueError, RuntimeError: as torch.nn.
            TypeError, ValueError, RuntimeError: for ``lengths``, ``reset``, ``reset_state`` or streams of the
                wrong dtype, value or size; for a stream that is missing; for ``keep`` that names no value.
            RuntimeError: a backend that was asked for by name cannot run here, or cannot do this.
        """
        like = None
        if isinstance(input, PackedSequence) and torch.compiler.is_exporting():
            checks.no_lengths_besides(lengths)
            return unpacked.run(self, input, hx, reset=reset, reset_state=reset_state, keep=keep, **streams)
        if self.stateful and hx is None and isinstance(input, (Tensor, PackedSequence)):
            hx = self._begins_with(input)
        plain = lengths is None and reset is None and reset_state is None and isinstance(keep, tuple)
        plain = plain and not (keep or self.zoneout or (hx is None and self.learn_hx))
        if plain and not (self.training and (self.dropout or self.recurrent_dropout)):
            found, like = self._prepared.run(self, input, hx, streams)
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
            """In that of the input."""
            if batch_sizes is not None:
                return PackedSequence(values, batch_sizes, sorted_indices, unsorted_indices)
            return values if batched else values.squeeze(0 if self.batch_first else 1)

        output = in_form(found)
        if not batched:
            final = tuple(state.squeeze(1) for state in final)
        if like and isinstance(output, Tensor):  # only calls of tensors are like others
            steps_first = x.transpose(0, 1) if self.batch_first else x
            given = self._call(x, weights), steps_first, self._states(hx), weights, zeros
            self._prepared.remember(like, self, *given, output, final, streams)
        new = self.permute_hidden(final[0] if len(final) == 1 else final, unsorted_indices)
        if self.stateful:
            self._carry(new)
        if kept:
            return output, new, {name: in_form(values) for name, values in kept[0].items()}
        return output, new

    _forward = forward
    """What `forward` is for as long as nobody has put another in its place."""

    def plan(
        self, input: Tensor | PackedSequence, *, lengths: Any = None, reset: Any = None, keep: Sequence[str] = ()
    ) -> Choice:
        """The backend that ``forward`` would run for such arguments, and why."""
        return choose.explain(self._call(input, self._weights(), lengths=lengths, reset=reset, keep=keep), self.backend)

    def _call(self, input: Tensor | PackedSequence, weights: list[Weights], **given: Any) -> Call:
        """What `seqcells.call.choose` needs to know of such arguments."""
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
        """The layer one step per call, the stream holding the states: ``output = stream(input)``. See `Stream`."""
        return Stream(self, batch_size)

    @classmethod
    def from_torch(cls, module: nn.Module, *, backend: str = "auto") -> Self:
        """This class in place of torch.nn's, with the same parameters, not copies. Errors: `convert`."""
        return convert.from_torch(module, cls, backend=backend)

    def to_torch(self) -> nn.Module:
        """torch.nn's module with the same parameters, not copies. Errors: `convert`."""
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
