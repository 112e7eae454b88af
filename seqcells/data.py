"""Batches for recurrent training by one or several processes: windows of a long sequence, or batches of near lengths.

Both kinds save the position of training (``state_dict()``) and continue from it (``load_state_dict()``), even with
another number of processes. An iteration continues after the last batch that was taken. After the end of an epoch the
next epoch begins.
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
"""How many batches' sequences are sorted together by default. More give nearer lengths, fewer give more randomness."""


class Resumable(ABC, Generic[Batch]):
    """An iteration over the batches of an epoch that counts the batches taken.

    Args:
        rank, world_size: the number of this process, counted from 0, and the number of processes. Default: those of
            torch.distributed if it is initialised, else 0 and 1

    Raises:
        TypeError, ValueError: ``rank`` or ``world_size`` is no such number, or one is given without the other.
    """

    epoch: int = 0
    """The number of finished epochs, or the number given to `set_epoch`."""
    position: int = 0
    """The number of batches of the epoch that were taken."""

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
        """The number of batches in the epoch, the same on every rank."""

    @abstractmethod
    def batch(self, index: int) -> Batch:
        """This rank's share of the batch with the given index."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Settings that must be the same to continue from this object's position."""

    def __iter__(self) -> Iterator[Batch]:
        while self.position < len(self):
            self.position += 1  # a `state_dict` during the loop's body counts this batch
            yield self.batch(self.position - 1)
        self.epoch, self.position = self.epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch. If it is the current epoch, the position stays, for training that continues from a file."""
        if _number("epoch", epoch, 0) != self.epoch:
            self.epoch, self.position = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The position of training, as numbers. It is the same on every rank.

        A DataLoader with workers asks for batches ahead of time. With one, replace ``"position"`` by the number of
        batches that were trained on.
        """
        return {"epoch": self.epoch, "position": self.position, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`, which may come from another number of processes.

        Raises:
            TypeError: ``state`` is no mapping of numbers.
            ValueError: ``state`` belongs to other batches, or its position is outside of the epoch.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state should be a mapping, got: {type(state).__name__}")
        for name, own in {"epoch": 0, "position": 0, **self._settings()}.items():
            if name not in state:
                raise ValueError(f"state has no {name!r}")
            if name not in ("epoch", "position") and state[name] != own:
                raise ValueError(f"state is that of other batches: its {name} is {state[name]}, here it is {own}")
        epoch, position = (_number(name, state[name], 0) for name in ("epoch", "position"))
        before, self.epoch = self.epoch, epoch  # the number of batches may depend on it
        if position > len(self):
            self.epoch = before
            raise ValueError(f"state has position {position} of an epoch that ends earlier")
        self.position = position


class ContiguousWindows(Resumable[tuple[Tensor, Tensor]]):
    """A long sequence divided into parallel rows, read window by window for truncated backpropagation through time.

    Each row of a window continues the same row of the window before. So a layer that is ``stateful``, or that is given
    the states before, reads each row as one long sequence. When `position` is 0, all rows are at their beginning. The
    end of the sequence that does not fill the rows, or a whole window, is left out.

    An iteration gives pairs (input, target) of shape (T, N, …), or (N, T, …) with ``batch_first``. The target is the
    input one step later. N is this rank's share of the rows. The shares of all ranks, in order, are the rows that a
    single process reads.

    Args:
        sequence: (length, …) of any dtype, on any device. It may be mapped from a file, because only windows are
            copied.
        rows: number of parallel rows, on all ranks together.
        steps: T, the number of time steps of a window.
        batch_first: whether the axis of rows comes before the axis of steps. Default: False
        rank, world_size: as in `Resumable`.

    Raises:
        TypeError: ``sequence`` is no tensor, or a number is no integer.
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
    """Batches of sequences with near lengths, so that little is padded. It is a DataLoader's ``batch_sampler``.

    Sequences are shuffled. Then ``pool`` sequences at a time are sorted by length and cut into batches, and the batches
    are shuffled. The result is the same on every rank and depends only on ``seed`` and epoch. Each batch is divided
    among the ranks, with long and short sequences for all. Every sequence comes once in an epoch.

    A `state_dict` fits only the same number of ranks. The exception is a ``batch_size``, if both numbers of ranks
    divide the number of sequences.

    All ranks have the same number of sequences of a batch. If the number of sequences is not divisible by the ranks,
    shares of one batch differ by one. That batch may exceed the budget if the budget has no room for two sequences on
    each rank.

    Args:
        lengths: the lengths of all sequences, integers in a list or a tensor (count,).
        batch_size: number of sequences of a batch, on all ranks together.
        time_steps: a budget for each batch instead of ``batch_size``: its number of sequences times its longest length,
            on all ranks together.
        shuffle: whether sequences and batches are shuffled. Default: True
        seed: the seed of the shuffles. Default: 0
        pool: number of sequences that are sorted together, rounded up to whole batches. Default: about 50 batches
        rank, world_size: as in `Resumable`.

    Raises:
        TypeError: lengths or a number are no integers.
        ValueError: a length is negative, or a number is too small.
        ValueError: not exactly one of ``batch_size`` and ``time_steps`` is given.
        ValueError: ``batch_size`` is not divisible by the ranks, or there are fewer sequences than ranks.
        ValueError: the budget is too small for the longest sequence on every rank.
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
        # With a batch_size, batches are the same for all numbers of ranks that divide the number of sequences.
        alike = self.time_steps is None and len(self._lengths) % self.world_size == 0
        unit = 1 if alike else self.world_size
        budget = {"batch_size": self.batch_size, "time_steps": self.time_steps}
        numbers = {"sequences": len(self._lengths), "lengths": self._known_by, **budget}
        return {**numbers, "shuffle": self.shuffle, "seed": self.seed, "pool": self.pool, "divisible_by": unit}

    def _batches(self) -> list[list[int]]:
        """The batches of the epoch, on all ranks together."""
        if self._made is None or self._made[0] != self.epoch:
            self._made = self.epoch, self._make()
        return self._made[1]

    def _make(self) -> list[list[int]]:
        chance, count = torch.Generator().manual_seed((self.seed + self.epoch) % 2**63), len(self._lengths)
        order = torch.randperm(count, generator=chance) if self.shuffle else torch.arange(count)
        batches: list[list[int]] = []
        # Only the last pool may have a size that the ranks do not divide. It has at least one sequence for each rank.
        starts = [*range(0, count - self.world_size + 1, self.pool)]
        for begin, end in zip(starts, [*starts[1:], count], strict=True):
            drawn = order[begin:end]
            batches += self._cut(drawn[self._lengths[drawn].argsort(stable=True)])
        if not self.shuffle:
            return batches
        return [batches[k] for k in torch.randperm(len(batches), generator=chance).tolist()]

    def _cut(self, pool: Tensor) -> Iterator[list[int]]:
        """Cut a pool, short sequences first, into batches. A batch grows by one sequence for each rank while the budget
        allows it. The first batch also takes the remainder of a division by the ranks."""
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
        return self.batch_size is None or count <= self.batch_size  # exactly one of the two is given


def collate_padded(items: Sequence[Any], *, batch_first: bool = False) -> tuple[Any, ...]:
    """A batch of sequences padded with zeros, for ``layer(input, lengths=lengths)``. It is a DataLoader's collate_fn.

    Args:
        items: sequences (length, …), or tuples that begin with a sequence. `torch.utils.data.default_collate` batches
            the other entries of the tuples.
        batch_first: whether the padded tensor is (N, T, …) instead of (T, N, …). Default: False

    Returns:
        The padded tensor, the lengths (N,) as int64, and the other entries of the tuples, each as one batch.

    Raises:
        TypeError: an item neither is nor begins with a tensor, or sequences have several dtypes.
        ValueError: there is no item, a sequence has no time axis, sequences differ in another axis, or tuples differ in
            length.
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
    """The value, checked to be an integer of at least ``least``. Raises TypeError or ValueError if it is not."""
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
