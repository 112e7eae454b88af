"""Associative memories: Hopfield's binary network, and the continuous network, one step of which is attention."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Settled(NamedTuple):
    """The results of `HopfieldNetwork`; … stands for the axes of the given states without the last.

    * ``state``: (…, N), ±1, in the dtype of the given states;
    * ``settled``: (…) bool, whether no unit of the state would change;
    * ``sweeps``: (…) int64, the number of sweeps that the state needed, at most ``max_sweeps``.
    """

    state: Tensor
    settled: Tensor
    sweeps: Tensor


class HopfieldNetwork(nn.Module):
    """A network of units -1 and 1 that settles into stored patterns (Hopfield 1982, doi:10.1073/pnas.79.8.2554).

        W = Σ v vᵀ over the patterns v, with a diagonal of zeros
        v_i' = sign(Σ_j W_ij v_j), one unit after the other; if the sum is zero, the unit does not change
        E = -½ Σ_ij W_ij v_i v_j, which no such change raises

    Args:
        size: number of units N. According to the paper, they store about 0.15 N random patterns.
        device, dtype: device and dtype of the weights. Default: torch's

    The buffer ``weight`` (N, N) is W, zeros at first. It is a part of the state_dict, but no parameter.

    Raises:
        TypeError, ValueError: for a size that is no integer, or not greater than zero.
    """

    weight: Tensor

    def __init__(self, size: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if not isinstance(size, int) or isinstance(size, bool):
            raise TypeError(f"size should be of type int, got: {type(size).__name__}")
        if size <= 0:
            raise ValueError("size must be greater than zero")
        self.size = size
        self.register_buffer("weight", torch.zeros(size, size, device=device, dtype=dtype))

    def extra_repr(self) -> str:
        return str(self.size)

    @torch.no_grad()
    def store(self, patterns: Tensor) -> "HopfieldNetwork":
        """Add patterns, (…, N) of ±1 in any signed dtype, to the stored patterns. Returns the network itself.

        Raises:
            RuntimeError: for patterns of another size.
            TypeError: for a dtype that has no -1.
            ValueError: for values other than -1 and 1.
        """
        rows = self._units("patterns", patterns).flatten(0, -2)
        self.weight += (rows.mT @ rows).fill_diagonal_(0)
        return self

    def energy(self, state: Tensor) -> Tensor:
        """The energies E (…) of states (…, N). Errors: as `store`."""
        units = self._units("state", state)
        return (-0.5 * (units @ self.weight * units).sum(-1)).reshape(state.shape[:-1])

    @torch.no_grad()
    def update(self, state: Tensor, unit: int) -> Tensor:
        """The states (…, N) after an update of one unit in each. Errors: as `store`; IndexError for an unknown unit."""
        units = self._units("state", state).clone()
        self._update(units, unit)
        return units.reshape(state.shape).to(state.dtype)

    @torch.no_grad()
    def forward(self, state: Tensor, *, max_sweeps: int = 100, generator: torch.Generator | None = None) -> Settled:
        """Update units one by one until no unit changes.

        Args:
            state: (…, N) of ±1, in any signed dtype. Each row is an independent state.
            max_sweeps: the largest number of sweeps. A sweep updates every unit once. Default: 100
            generator: draws the order of units for each sweep; all rows use the same order. Default: None, which means
                from the first unit to the last

        Returns:
            The states, whether they are settled, and their numbers of sweeps: see `Settled`.

        Raises:
            RuntimeError, ValueError: as `store`; ValueError for a negative ``max_sweeps``.
        """
        if max_sweeps < 0:
            raise ValueError(f"max_sweeps should not be negative, got {max_sweeps}")
        units = self._units("state", state).clone()
        sweeps = torch.zeros(len(units), dtype=torch.int64, device=units.device)
        settled = self._is_settled(units)
        for _ in range(max_sweeps):
            if settled.all():
                break
            sweeps += ~settled
            order = range(self.size)
            if generator is not None:
                order = torch.randperm(self.size, generator=generator, device=generator.device).tolist()
            for unit in order:
                self._update(units, unit)
            settled = self._is_settled(units)
        batch = state.shape[:-1]
        return Settled(units.reshape(state.shape).to(state.dtype), settled.reshape(batch), sweeps.reshape(batch))

    def _update(self, units: Tensor, unit: int) -> None:
        """Update one unit of each row in place."""
        sums, own = units @ self.weight[unit], units[:, unit]
        own.copy_(torch.where(sums == 0, own, sums.sign()))

    def _is_settled(self, units: Tensor) -> Tensor:
        """For each row, whether no unit has a sum of the opposite sign, (·) bool."""
        return (units @ self.weight * units >= 0).all(-1)

    def _units(self, name: str, given: Tensor) -> Tensor:
        """The given states as rows, (·, N), in the weights' dtype. Their dtype, size and values are checked."""
        if given.dtype == torch.bool or not given.dtype.is_signed:
            raise TypeError(f"{name} should be of a dtype that has -1, got: {given.dtype}")
        _check_size(name, given, self.size)
        if not ((given == 1) | (given == -1)).all():
            raise ValueError(f"{name} should hold -1 and 1 alone")
        return given.to(self.weight.dtype).reshape(-1, self.size)


class ModernHopfield(nn.Module):
    """The continuous Hopfield network, one step of which is attention (Ramsauer et al. 2020, arXiv:2008.02217).

    The stored patterns are the columns of X.

        ξ' = X softmax(β Xᵀ ξ), the paper's eq. 3
        E = -lse(β, Xᵀ ξ) + ½ ξᵀξ + β⁻¹ log M + ½ (max |x|)², lse(β, z) = β⁻¹ log Σ exp(β z), its eqs. 1 and 2,
            which no step raises, and which is never negative

    Args:
        patterns: (M, N), M patterns of N numbers, or (…, M, N), a memory for each item of a batch. They become a
            buffer, which the state_dict has. A `torch.nn.Parameter` is learnt instead.
        beta: β, the inverse temperature. Default: 1/√N
        steps: the largest number of retrieval steps. Default: 1
        tolerance: a state stops after a step that moved it by less, in the Euclidean norm. Default: 0, no state stops

    Raises:
        ValueError: for fewer than two axes or no patterns; for a ``beta`` that is not positive and finite; for
            negative ``steps`` or ``tolerance``.
        TypeError: for patterns of no floating-point numbers.
    """

    patterns: Tensor
    beta: float
    steps: int
    tolerance: float

    def __init__(self, patterns: Tensor, *, beta: float | None = None, steps: int = 1, tolerance: float = 0.0) -> None:
        super().__init__()
        if not patterns.is_floating_point():
            raise TypeError(f"patterns should be floating-point numbers, got: {patterns.dtype}")
        if patterns.dim() < 2 or not patterns.shape[-2] or not patterns.shape[-1]:
            raise ValueError(f"patterns should be (…, M, N) with M and N greater than zero, got {[*patterns.shape]}")
        scale: float = patterns.shape[-1] ** -0.5 if beta is None else float(beta)
        if not 0 < scale < math.inf:
            raise ValueError(f"beta should be positive and finite, got {scale}")
        if not isinstance(steps, int):
            raise TypeError(f"steps should be of type int, got: {type(steps).__name__}")
        for name, value in (("steps", steps), ("tolerance", tolerance)):
            if not value >= 0:
                raise ValueError(f"{name} should not be negative, got {value}")
        self.beta, self.steps, self.tolerance = scale, steps, tolerance
        if isinstance(patterns, nn.Parameter):
            self.patterns = patterns
        else:
            self.register_buffer("patterns", patterns.clone())  # load_state_dict must not write to the caller's tensor

    def extra_repr(self) -> str:
        return f"{[*self.patterns.shape]}, beta={self.beta:.6g}, steps={self.steps}, tolerance={self.tolerance}"

    def forward(self, state: Tensor) -> Tensor:
        """Retrieve patterns for states. The result is differentiable in the states and in the patterns.

        Args:
            state: (…, N) in the patterns' dtype. For patterns (B, M, N) it is (N,), or (B, L, N) with L states for each
                memory, like the queries of attention.

        Returns:
            The states after the steps, in the same shape. For a batch of memories, a state (N,) gives (B, N).

        Raises:
            RuntimeError: for a size or dtype that does not match the patterns.
        """
        rows = self._rows(state)
        moving = None
        for _ in range(self.steps):
            new = torch.softmax(self.beta * (rows @ self.patterns.mT), -1) @ self.patterns
            if self.tolerance:
                # States that have stopped keep their values, so a result does not depend on the rest of the batch.
                new = new if moving is None else torch.where(moving, new, rows)
                moving = (new - rows).detach().norm(dim=-1, keepdim=True) >= self.tolerance
            rows = new
            if moving is not None and not moving.any():
                break
        return rows.squeeze(-2) if state.dim() == 1 else rows

    def energy(self, state: Tensor) -> Tensor:
        """The energies E (…) of states (…, N). Errors: as for a call."""
        rows = self._rows(state)
        count, largest = self.patterns.shape[-2], self.patterns.norm(dim=-1).amax(-1)
        found = 0.5 * rows.square().sum(-1) - torch.logsumexp(self.beta * (rows @ self.patterns.mT), -1) / self.beta
        found = found + math.log(count) / self.beta + 0.5 * largest.square().unsqueeze(-1)
        return found.squeeze(-1) if state.dim() == 1 else found

    def _rows(self, state: Tensor) -> Tensor:
        """The states with an axis of states before the axis of units."""
        _check_size("state", state, self.patterns.shape[-1])
        return state.unsqueeze(0) if state.dim() == 1 else state


def _check_size(name: str, given: Tensor, size: int) -> None:
    """RuntimeError if the last axis has another size than ``size``."""
    if given.dim() == 0 or given.shape[-1] != size:
        raise RuntimeError(f"Expected {name} of size (…, {size}), got {[*given.shape]}")
