"""The echo state network: a fixed random reservoir, and a readout that is fitted in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .. import cells
from ..request import checks
from ..request.boundaries import valid_places
from .layers import UnprojectedLayer


class Reservoir(UnprojectedLayer):
    """Layers of `seqcells.cells.EchoState`; arguments as `RecurrentLayer`."""

    # A property keeps the cell out of the registry, and its file unread, until a process makes such a layer.
    _declared = cast("type[cells.Cell]", property(lambda layer: cells.EchoState))
    cell: type[cells.Cell] = cast(
        "type[cells.Cell]", property(lambda layer: cells.EchoState.configurations[layer._options])
    )
    weight_ih_l0: nn.Parameter
    weight_hh_l0: nn.Parameter
    bias_ih_l0: nn.Parameter
    bias_hh_l0: nn.Parameter

    if TYPE_CHECKING:

        @property
        def _form_of_states(self) -> Tensor: ...

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        cells.register(cells.EchoState)
        super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        cells.register(cells.EchoState)
        super().__setstate__(state)


class EchoStateNetwork(nn.Module):
    """An echo state network (Jaeger 2001; with leaking units Jaeger et al. 2007, doi:10.1016/j.neunet.2007.04.016).

        h' = (1 - a) h + a tanh(W x + b + U h),  y = V [x; h'] + c

    W, b and U are drawn once and are not trained. `fit` computes V and c by ridge regression.

    Args:
        input_size: number of features of the input x.
        hidden_size: number of units H of the reservoir.
        output_size: number of features of the output y.
        leak: the leaking rate a, above 0 and up to 1. Default: 0.3
        spectral_radius: the largest absolute value of an eigenvalue of U. Default: 0.9
        density: the share of nonzero weights in each row of U, above 0 and up to 1. Each row has at least one.
            Default: 0.1
        input_scale: W and b are drawn from U(-input_scale, input_scale). Default: 1
        batch_first: whether input and output are (N, T, features) instead of (T, N, features). Default: False
        device, dtype: device and dtype of the parameters. Default: torch's
        backend: see `seqcells.call.choose`. Default: ``"auto"``

    Attributes:
        reservoir: a `RecurrentLayer` whose parameters require no gradient.
        readout: a `torch.nn.Linear` that reads the input concatenated with the hidden state.

    Raises:
        ValueError, TypeError: as `RecurrentLayer`; ValueError for a leak, radius, density or scale out of range.
    """

    reservoir: Reservoir
    readout: nn.Linear
    spectral_radius: float
    density: float
    input_scale: float

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        *,
        leak: float = 0.3,
        spectral_radius: float = 0.9,
        density: float = 0.1,
        input_scale: float = 1.0,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, value, most in (
            ("leak", leak, 1.0),
            ("spectral_radius", spectral_radius, float("inf")),
            ("density", density, 1.0),
            ("input_scale", input_scale, float("inf")),
        ):
            if not isinstance(value, (int, float)) or not 0 < value <= most or value == float("inf"):
                words = "greater than zero" + (" and at most 1" if most == 1 else " and finite")
                raise ValueError(f"{name} should be {words}, got {value}")
        like = {"device": device, "dtype": dtype}
        self.spectral_radius, self.density, self.input_scale = spectral_radius, density, input_scale
        self.reservoir = Reservoir(
            input_size, hidden_size, batch_first=batch_first, backend=backend, leak=float(leak), **like
        ).requires_grad_(False)
        self.readout = nn.Linear(input_size + hidden_size, output_size, **like)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the reservoir anew from torch's default generator. The readout is initialised as a `torch.nn.Linear`."""
        layer = self.reservoir
        for weight in (layer.weight_ih_l0, layer.bias_ih_l0):
            nn.init.uniform_(weight, -self.input_scale, self.input_scale)
        nn.init.zeros_(layer.bias_hh_l0)
        layer.weight_hh_l0.copy_(self._recurrent(layer.hidden_size))
        self.readout.reset_parameters()

    def _recurrent(self, units: int) -> Tensor:
        """A random sparse matrix U (H, H) with the network's spectral radius."""
        kept = max(1, round(self.density * units))
        while True:
            like = {"dtype": torch.float64, "device": "cpu"}
            places = torch.rand(units, units, **like).argsort(-1)[:, :kept]
            weight = torch.zeros(units, units, **like)
            weight.scatter_(1, places, torch.rand(units, kept, **like) * 2 - 1)
            radius = torch.linalg.eigvals(weight).abs().max()
            if radius > 1e-6:  # with few units the graph of U may have no cycle: all eigenvalues are zero then
                return weight * (self.spectral_radius / radius)

    def forward(
        self, input: Tensor, hx: Tensor | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the sequences through the reservoir and the readout.

        Args:
            input: (T, N, input_size), (N, T, input_size) with ``batch_first``, or (T, input_size) unbatched.
            hx: the initial state of the reservoir, (1, N, H), or (1, H) unbatched. Default: zeros
            lengths: as in `RecurrentLayer`, but past a sequence's length the output is the readout of zeros, which is
                c. Default: all sequences have T steps

        Returns:
            The output (…, output_size) in the form of the input, and the reservoir's final state in the form of hx.
        """
        states, final, _ = self._states(input, hx, lengths)
        return self.readout(states), final

    def _states(self, input: Tensor, hx: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The readout's input (…, input_size + H), with zeros past a sequence's length; the final state; and the mask
        of the steps within the lengths, or None without lengths."""
        if not isinstance(input, Tensor):
            raise TypeError(f"input should be a Tensor, got {type(input).__name__}: sequences may have lengths=")
        hidden, final = self.reservoir(input, hx, lengths=lengths)
        within = None
        if lengths is not None:
            lengths = checks.as_tensor("lengths", lengths).to(input.device)
            within = valid_places(lengths, input, self.reservoir.batch_first)
            input = input.masked_fill(~within.unsqueeze(-1), 0)  # NaN in the padding would reach gradients
        return torch.cat([input, hidden], -1), final, within

    @torch.no_grad()
    def fit(
        self,
        input: Tensor,
        target: Tensor,
        *,
        ridge: float = 1e-6,
        washout: int = 0,
        lengths: Tensor | None = None,
        hx: Tensor | None = None,
    ) -> EchoStateNetwork:
        """Fit the readout by ridge regression: V and c minimise Σ |y - target|² + ridge |V|².

        Args:
            input: as for a call.
            target: the wanted output (…, output_size), in the form of the input.
            ridge: the weight of |V|², greater than zero. Default: 1e-6
            washout: number of time steps at the beginning of each sequence that the fit ignores, while the reservoir
                forgets its initial state. Default: 0
            lengths: as for a call. The fit ignores steps past a sequence's length. Default: all sequences have T steps
            hx: as for a call. Default: zeros

        Returns:
            The network itself.

        Raises:
            ValueError: for a ``ridge`` that is not positive and finite, and for a ``washout`` that is negative or no
                integer.
            ValueError: if no step is left to fit, and for values that are not finite.
            RuntimeError, TypeError: for a target of another size, or of complex numbers.
        """
        if not 0 < ridge < float("inf"):
            raise ValueError(f"ridge should be greater than zero and finite, got {ridge}")
        if not isinstance(washout, int) or washout < 0:
            raise ValueError(f"washout should be an integer, not negative, got {washout}")
        target = checks.as_tensor("target", target).to(input.device)
        if target.is_complex():
            raise TypeError(f"target should be real, got {target.dtype}")
        states, _, within = self._states(input, hx, lengths)
        checks.size("target", target, (*input.shape[:-1], self.readout.out_features))
        axis = 1 if self.reservoir.batch_first and input.dim() == 3 else 0
        used = torch.ones(input.shape[:-1], dtype=torch.bool, device=input.device) if within is None else within.clone()
        used.narrow(axis, 0, min(washout, input.shape[axis])).zero_()
        states = states[used].double()
        wanted = target[used].double()
        if not len(states):
            raise ValueError("no time step is left to be fitted")
        if not (states.isfinite().all() and wanted.isfinite().all()):
            raise ValueError("input and target should be finite where they are fitted")
        # Centring keeps c out of the penalty. Solving both terms as one least-squares problem, instead of the normal
        # equations, does not square the condition number.
        centre, mean = states.mean(0), wanted.mean(0)
        size = states.shape[1]
        rows = torch.cat([states - centre, ridge**0.5 * torch.eye(size, dtype=states.dtype, device=states.device)])
        found = torch.linalg.lstsq(rows, torch.cat([wanted - mean, wanted.new_zeros(size, wanted.shape[1])])).solution
        self.readout.weight.copy_(found.mT)
        self.readout.bias.copy_(mean - centre @ found)
        return self

    @torch.no_grad()
    def generate(self, input: Tensor, steps: int, hx: Tensor | None = None) -> Tensor:
        """Generate a sequence: each output is the next input. Input and output must have the same size.

        Args:
            input: (N, input_size), the first input.
            steps: the number T of outputs.
            hx: the reservoir's state before the first step, (1, N, H), as a call returns it. Default: zeros

        Returns:
            The outputs (T, N, output_size), or (N, T, output_size) with ``batch_first``.

        Raises:
            ValueError: if ``output_size`` is not ``input_size``, and for an input that is not 2D.
        """
        if input.dim() != 2:
            raise ValueError(f"input should be (N, input_size), got {list(input.shape)}")
        if self.readout.out_features != self.reservoir.input_size:
            sizes = self.readout.out_features, self.reservoir.input_size
            raise ValueError(f"output_size should be input_size to run freely, got {sizes[0]} and {sizes[1]}")
        axis, found = 1 if self.reservoir.batch_first else 0, []
        for _ in range(steps):
            output, hx = self(input.unsqueeze(axis), hx)
            input = output.squeeze(axis)
            found.append(input)
        return torch.stack(found, axis) if found else input.unsqueeze(axis).narrow(axis, 0, 0)
