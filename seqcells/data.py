"""Batches for recurrent training, by one process or by many: long sequences window by window, and short ones by length.

Both kinds say where in them training is (``state_dict()``) and go on from there (``load_state_dict()``), by as many
processes as there are then. An iteration goes on behind the last batch that was taken. The end of an epoch begins the
next.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler, default_collate

Batch = TypeVar("Batch")
POOL = 50
"""Batches whose sequences are sorted together by default: enough for near lengths, few enough for chance."""


class Resumable(ABC, Generic[Batch]):
    """The batches of an epoch, one after the other, of which it is known how many were taken.

    Args:
        rank, world_size: which of how many processes this one is. Default: as torch.distributed says, if it is
            initialised, else the only one

    Raises:
        TypeError, ValueError: ``rank`` or ``world_size`` is none, or one is given without the other.
    """

    epoch: int = 0
    """How many were finished, or what `set_epoch` said."""
    position: int = 0
    """How many batches of the epoch were taken."""

    world_size: int
    rank: int

    def __init__(self, rank: int | None = None, world_size: int | None = None) -> None:
        if (rank is None) != (world_size is None):
            raise ValueError("rank and world_size should be given together")
        if rank is None:
            there = distributed.is_available() and distributed.is_initialized()
            rank, world_size = (distributed.get_rank(), distributed.get_world_size()) if there else (0, 1)
        self.world_size, self.rank = _number("world_size", world_size, 1), _number("rank", rank, 0)
        if self.rank >= self.world_size:
            raise ValueError(f"rank should be below world_size, got {rank} of {world_size}")

    @abstractmethod
    def __len__(self) -> int:
        """The batches of the epoch, as many on every rank."""

    @abstractmethod
    def batch(self, index: int) -> Batch:
        """This rank's share of one of them."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What another must be like, to go on from this one's position."""

    def __iter__(self) -> Iterator[Batch]:
        while self.position < len(self):
            self.position += 1  # what is yielded is taken when somebody asks where training is
            yield self.batch(self.position - 1)
        self.epoch, self.position = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch; a position within that epoch stays, as when training goes on from a file."""
        if _number("epoch", epoch, 0) != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where training is, as numbers: the same on every rank.

        A DataLoader with workers asks for batches ahead of time. Who uses one puts the number of batches that were
        trained on in the place of ``"position"``.
        """
        return {"epoch": self.epoch, "position": self.position, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`, which may be that of another number of processes.

        Raises:
            TypeError: it is no mapping of numbers.
            ValueError: it is that of other batches, or of no position in them.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state should be a mapping, got: {type(state).__name__}")
        for name, own in {"epoch": 0, "position": 0, **self._settings()}.items():
            if name not in state:
                raise ValueError(f"state has no {name!r}")
            if name not in ("epoch", "position") and state[name] != own:
                raise ValueError(f"state is that of other batches: its {name} is {state[name]}, here it is {own}")
        epoch, position = (_number(name, state[name], 0) for name in ("epoch", "position"))
        before, self.epoch = self.epoch, epoch  # of which the number of batches may depend
        if position > len(self):
            self.epoch = before
            raise ValueError(f"state has position {position} of an epoch that ends earlier")
        self.position = position


class ContiguousWindows(Resumable[tuple[Tensor, Tensor]]):
    """A long sequence as rows beside each other, read window by window: truncated backpropagation through time.

    Each row of a window goes on where that row of the window before ended. So a layer that is ``stateful``, or that is
    given the states before, reads each row as one long sequence. Where `position` is 0 all rows begin anew. What does
    not fill the rows, or a whole window, is left out.

    Iterating gives pairs (input, target) of shape (T, N, …), or (N, T, …) with ``batch_first``: the target is the input
    one step later. N is this rank's share of the rows. Shares in the order of ranks are what one process reads.

    Args:
        sequence: (length, …) of any dtype, on any device; it may be mapped from a file, for only windows are copied.
        rows: how many lie beside each other, on all ranks together.
        steps: T, the time steps of a window.
        batch_first: whether rows come before steps. Default: False
        rank, world_size: as `Resumable` has them.

    Raises:
        TypeError: ``sequence`` is no tensor, or a number is none.
        ValueError: a number is below 1, rows are not divisible by the ranks, or the sequence fills no window.
    """

    rows: int
    steps: int
    batch_first: bool

    def __init__(
        self,
        sequence: Tensor,
        rows: int,
        steps: int,
        *,
        batch_first: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(rank, world_size)
        if not isinstance(sequence, Tensor):
            raise TypeError(f"sequence should be a tensor, got: {type(sequence).__name__}")
        if sequence.dim() < 1:
            raise ValueError("sequence should have a time axis, got a tensor of no axes")
        self.rows, self.steps, self.batch_first = _number("rows", rows, 1), _number("steps", steps, 1), batch_first
        if rows % self.world_size:
            raise ValueError(f"{rows} rows are not divisible by {self.world_size} ranks")
        self._length, each = len(sequence), len(sequence) // rows
        if each <= steps:
            raise ValueError(f"a sequence of {len(sequence)} steps has no {rows} rows of {steps + 1}")
        share = rows // self.world_size
        self._beside = sequence[: each * rows].unflatten(0, (rows, each))[self.rank * share : (self.rank + 1) * share]

    def __len__(self) -> int:
        return (self._beside.shape[1] - 1) // self.steps

    def batch(self, index: int) -> tuple[Tensor, Tensor]:
        begin = range(len(self))[index] * self.steps
        parts = (self._beside[:, start : start + self.steps] for start in (begin, begin + 1))
        input, target = (part if self.batch_first else part.transpose(0, 1) for part in parts)
        return input.contiguous(), target.contiguous()

    def _settings(self) -> dict[str, Any]:
        return {"rows": self.rows, "steps": self.steps, "length": self._length}


class BucketBatchSampler(Resumable[list[int]], Sampler[list[int]]):
    """Batches of sequences whose lengths are near each other, as a DataLoader's ``batch_sampler``: little is padded.

    Sequences are shuffled, so many of them at a time are sorted, cut into batches, and the batches are shuffled. All
    of that is the same on every rank and depends on ``seed`` and epoch alone. Each batch is divided among the ranks,
    long and short sequences alike. In an epoch every sequence comes once. A `state_dict` is for as many ranks, but for
    those of a ``batch_size`` where both numbers of ranks divide the number of sequences.

    All ranks have equally many sequences of a batch, but of one batch where their number is not divisible by the ranks:
    there, shares differ by one. That batch may exceed the budget, where it has no room for two sequences a rank.

    Args:
        lengths: of all sequences, integers, as a list or a tensor (count,).
        batch_size: sequences of a batch, on all ranks together.
        time_steps: the budget of a batch instead: its sequences times the longest of them, on all ranks together.
        shuffle: whether there is chance. Default: True
        seed: of chance. Default: 0
        pool: how many sequences are sorted together, rounded up to whole batches. Default: those of some 50 batches
        rank, world_size: as `Resumable` has them.

    Raises:
        TypeError: lengths or a number are none.
        ValueError: a length is negative, a number is too small, there is not exactly one of ``batch_size`` and
            ``time_steps``, ``batch_size`` is not divisible by the ranks, the budget is too small for the longest
            sequence on every rank, or there are fewer sequences than ranks.
    """

    batch_size: int | None
    time_steps: int | None
    shuffle: bool
    seed: int
    pool: int

    def __init__(
        self,
        lengths: Sequence[int] | Tensor,
        batch_size: int | None = None,
        *,
        time_steps: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        pool: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(rank, world_size)
        self._lengths = _lengths(lengths)
        self._known_by = zlib.crc32(self._lengths.numpy().tobytes())
        if (batch_size is None) == (time_steps is None):
            raise ValueError("either batch_size or time_steps should be given")
        count, longest = len(self._lengths), int(self._lengths.max()) if len(self._lengths) else 0
        if count < self.world_size:
            raise ValueError(f"{count} sequences are fewer than {self.world_size} ranks")
        self.batch_size = batch_size if batch_size is None else _number("batch_size", batch_size, 1)
        self.time_steps = time_steps if time_steps is None else _number("time_steps", time_steps, 1)
        if batch_size is not None and batch_size % self.world_size:
            raise ValueError(f"a batch of {batch_size} sequences is not divisible by {self.world_size} ranks")
        if time_steps is not None and time_steps < longest * self.world_size:
            each = f"a sequence of {longest} on each of {self.world_size} ranks"
            raise ValueError(f"{time_steps} time steps have no room for {each}")
        self.shuffle, self.seed = shuffle, _number("seed", seed, 0)
        if pool is None:
            mean = max(1.0, self._lengths.double().mean().item())
            pool = POOL * (batch_size or max(1, int((time_steps or 0) / mean)))
        unit = batch_size or self.world_size
        self.pool = -(-_number("pool", pool, 1) // unit) * unit
        self._made: tuple[int, list[list[int]]] | None = None

    def __len__(self) -> int:
        return len(self._batches())

    def batch(self, index: int) -> list[int]:
        return self._batches()[index][self.rank :: self.world_size]

    def _settings(self) -> dict[str, Any]:
        # Batches are the same for any number of ranks where each takes equally many of all sequences.
        alike = self.time_steps is None and len(self._lengths) % self.world_size == 0
        unit = 1 if alike else self.world_size
        budget = {"batch_size": self.batch_size, "time_steps": self.time_steps}
        numbers = {"sequences": len(self._lengths), "lengths": self._known_by, **budget}
        return {**numbers, "shuffle": self.shuffle, "seed": self.seed, "pool": self.pool, "divisible_by": unit}

    def _batches(self) -> list[list[int]]:
        """Those of the epoch, of all ranks together."""
        if self._made is None or self._made[0] != self.epoch:
            self._made = self.epoch, self._make()
        return self._made[1]

    def _make(self) -> list[list[int]]:
        chance, count = torch.Generator().manual_seed((self.seed + self.epoch) % 2**63), len(self._lengths)
        order = torch.randperm(count, generator=chance) if self.shuffle else torch.arange(count)
        batches: list[list[int]] = []
        # What is not divisible by the ranks is left to one pool, the last, which is never smaller than the ranks.
        starts = [*range(0, count - self.world_size + 1, self.pool)]
        for begin, end in zip(starts, [*starts[1:], count], strict=True):
            drawn = order[begin:end]
            batches += self._cut(drawn[self._lengths[drawn].argsort(stable=True)])
        if not self.shuffle:
            return batches
        return [batches[k] for k in torch.randperm(len(batches), generator=chance).tolist()]

    def _cut(self, pool: Tensor) -> Iterator[list[int]]:
        """A pool, short sequences first, as batches: each takes one sequence a rank for as long as the budget lets it,
        and the first takes what is not divisible."""
        indices, lengths, unit = pool.tolist(), self._lengths[pool].tolist(), self.world_size
        begin, end = 0, unit + len(indices) % unit
        while begin < len(indices):
            while end + unit <= len(indices) and self._allows(end + unit - begin, lengths[end + unit - 1]):
                end += unit
            yield indices[begin:end]
            begin, end = end, end + unit

    def _allows(self, count: int, longest: int) -> bool:
        if self.time_steps is not None:
            return count * longest <= self.time_steps
        return self.batch_size is None or count <= self.batch_size  # one of the two is given


def collate_padded(items: Sequence[Any], *, batch_first: bool = False) -> tuple[Any, ...]:
    """A batch of sequences, zeros behind their ends, for ``layer(input, lengths=lengths)``: a DataLoader's collate_fn.

    Args:
        items: sequences (length, …), or tuples that begin with one. What else the tuples have is put together as torch
            does, by `torch.utils.data.default_collate`.
        batch_first: whether the padded tensor is (N, T, …) instead of (T, N, …). Default: False

    Returns:
        The padded tensor, the lengths (N,) as int64, and the rest of the tuples, each as one batch.

    Raises:
        TypeError: an item neither is nor begins with a tensor, or sequences are of several dtypes.
        ValueError: there is no item, a sequence has no time axis, others have other axes behind that, or tuples are not
            equally long.
    """
    if not items:
        raise ValueError("a batch should have a sequence at least, got none")
    rows = [item if isinstance(item, tuple) else (item,) for item in items]
    sequences: list[Tensor] = []
    for sequence in (row[0] if row else None for row in rows):
        if not isinstance(sequence, Tensor):
            raise TypeError(f"a sequence should be a tensor, got: {type(sequence).__name__}")
        sequences.append(sequence)
        if sequence.dtype != sequences[0].dtype:
            raise TypeError(f"sequences should be of one dtype, got {sequences[0].dtype} and {sequence.dtype}")
        if sequence.dim() < 1 or sequence.shape[1:] != sequences[0].shape[1:]:
            found = [tuple(each.shape) for each in (sequences[0], sequence)]
            raise ValueError(f"sequences should differ in their first axis alone, got shapes {found[0]} and {found[1]}")
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"items should be equally long tuples, got {sorted({len(row) for row in rows})} parts")
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    others = (default_collate([*column]) for column in zip(*(row[1:] for row in rows), strict=True))
    return pad_sequence(sequences, batch_first=batch_first), lengths, *others


def _number(name: str, value: Any, least: int) -> int:
    """A whole number that is at least so large."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} should be {least} or above, got: {value}")
    return value


def _lengths(lengths: Sequence[int] | Tensor) -> Tensor:
    try:
        found = torch.as_tensor(lengths).cpu()
    except (RuntimeError, OverflowError) as problem:
        raise TypeError(f"lengths should be integers (count,): {problem}") from None
    if not found.numel():
        found = found.long()
    if found.dim() != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise TypeError(f"lengths should be integers (count,), got: {found.dtype} of shape {tuple(found.shape)}")
    if found.numel() and found.min() < 0:
        raise ValueError(f"lengths should be 0 or above, got: {int(found.min())}")
    return found.long()
