"""Layers that keep their states from batch to batch, for truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import is_tracing
from torch.nn.utils.rnn import PackedSequence

from ..request import checks, context
from .cell_modules import States
from .dropout_zoneout import Regularised

TWO_WAYS = "a bidirectional layer cannot be stateful: its second direction begins at the end"


class Stateful(Regularised):
    """The part of a layer that keeps states. Users may assign the option at any time, like torch.nn's ``dropout``.

    The kept states are not in the `state_dict`, so files match torch.nn's. They are no buffers, so no data-parallel
    wrapper sends one process's states to another.
    """

    stateful: bool = False
    """Whether a call begins with the final states of the call before."""
    _carried: tuple[Tensor, ...] | None = None
    _anew: Tensor | None = None
    """The mask of sequences that begin with initial states at the next call, (N,) bool."""
    _own_state = (*Regularised._own_state, "stateful", "_carried", "_anew")

    def _keep_states(self, stateful: bool, bidirectional: bool) -> None:
        """Check and set the option.

        Raises:
            TypeError: ``stateful`` is no bool.
            ValueError: the layer is bidirectional.
        """
        if not isinstance(stateful, bool):
            raise TypeError(f"stateful should be of type bool, got: {type(stateful).__name__}")
        if stateful and bidirectional:
            raise ValueError(TWO_WAYS)
        if stateful:
            self.stateful = True

    def _beyond_torch(self) -> list[str]:
        return [*super()._beyond_torch(), *(["stateful"] if self.stateful else [])]

    @property
    def states(self) -> States | None:
        """The states that the next call of a stateful layer begins with, in the form of hx. None means initial states.

        They may be assigned, for instance when training continues from a file.
        """
        carried, anew = self._carried, self._anew
        if carried is None:
            return None
        if anew is not None:
            carried = tuple(self._renewed(anew, index, state) for index, state in enumerate(carried))
        return carried[0] if len(carried) == 1 else carried

    @states.setter
    def states(self, new: States | None) -> None:
        if new is not None:
            states = self._states(new)
            if not all(isinstance(state, Tensor) and state.dim() in (2, 3) for state in states):
                raise TypeError(f"states should be tensors in the form of hx, got {type(new).__name__}")
        self._carry(new)

    def reset_states(self, rows: Tensor | None = None) -> None:
        """Let a stateful layer's next call begin with its initial states, zeros or the learnt ones.

        Args:
            rows: (N,) bool, the sequences of the batch that begin with initial states. The other sequences keep their
                states. Default: all sequences, and the next batch may have another size

        Raises:
            TypeError, RuntimeError: for ``rows`` of another dtype or size.
        """
        carried, anew = self._carried, self._anew
        if rows is None:
            self._carried = self._anew = None
        elif carried is None:
            checks.rows(rows, None, torch.device("cpu"))
        else:
            chosen = checks.rows(rows, _batch_of(carried) or 1, carried[0].device)
            self._anew = chosen if anew is None else anew | chosen

    def _renewed(self, anew: Tensor, index: int, state: Tensor) -> Tensor:
        """The state with initial values in the sequences of the mask ``anew``. Learnt initial values get gradients."""
        batched = state if state.dim() == 3 else state.unsqueeze(1)
        initial = batched.new_zeros(())
        if self.learn_hx:
            initial = getattr(self, self._learnt_names()[index]).unsqueeze(1).to(state.dtype)
        return torch.where(anew.view(1, -1, 1), initial, batched).reshape(state.shape)

    def _begins_with(self, input: Tensor | PackedSequence) -> States | None:
        """The initial states of a stateful layer's call without ``hx``. None if no states are kept.

        Raises:
            ValueError: the layer is bidirectional.
            RuntimeError: the kept states have another number of sequences than the input.
        """
        if self.bidirectional:
            raise ValueError(TWO_WAYS)
        carried = self._carried
        if carried is None:
            return None
        sizes = _batch_of(carried), self._batch(input)
        if sizes[0] != sizes[1]:
            kept, given = ("no batch axis" if size is None else f"{size} sequences" for size in sizes)
            words = "reset_states() lets the next batch be of another size"
            raise RuntimeError(f"the layer keeps the states of {kept}, got an input of {given}: {words}")
        dtype = input.dtype if isinstance(input, Tensor) else input.data.dtype
        if carried[0].dtype != dtype and dtype.is_floating_point:  # the last call ran under autocast, in its dtype
            self._carried = tuple(state.to(dtype) for state in carried)
        return self.states

    def _carry(self, states: States | None) -> None:
        """Keep detached copies of the states for the next call.

        Raises:
            RuntimeError: a transform or trace is active, outside of which the states have no meaning.
        """
        self._anew = None
        if states is None:
            self._carried = None
            return
        given = (states,) if isinstance(states, Tensor) else tuple(states)
        if context.is_exporting() or (not torch.compiler.is_compiling() and _are_anothers(given)):
            words = "set its stateful to False, and pass hx from call to call"
            raise RuntimeError(f"a stateful layer keeps states, which no transform, trace or export can: {words}")
        if torch.compiler.is_compiling():
            self._carried = tuple(state.detach().clone() for state in given)
            return
        with torch.inference_mode(False):  # autograd cannot save inference tensors for a later call
            self._carried = tuple(state.detach().clone() for state in given)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        if self._carried is not None:
            self._carried = tuple(fn(state) for state in self._carried)
            if self._anew is not None:
                self._anew = self._anew.to(self._carried[0].device)
        return self


def _batch_of(states: tuple[Tensor, ...]) -> int | None:
    """The number of sequences of the states, or None for unbatched states."""
    return states[0].shape[1] if states[0].dim() == 3 else None


def _are_anothers(states: tuple[Tensor, ...]) -> bool:
    """Whether the states belong to a transform or trace, outside of which they have no meaning."""
    if context.in_transform() or is_tracing():
        return True
    return any(isinstance(state, torch._subclasses.FakeTensor) for state in states)
