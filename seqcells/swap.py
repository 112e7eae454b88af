"""Replace torch's recurrent modules inside a model."""

from typing import NamedTuple

from torch import nn

from . import convert
from .cell_modules import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN

OURS = {ours.torch_class: ours for ours in (LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell)}


class Swapped(NamedTuple):
    """What `swap` did, by the modules' names in the model."""

    replaced: dict[str, nn.Module]
    """The new modules."""
    left: dict[str, str]
    """Recurrent modules of torch that stayed, and why."""

    def __str__(self) -> str:
        lines = [f"{name}: now seqcells.{type(module).__name__}" for name, module in self.replaced.items()]
        lines += [f"{name}: left, {reason}" for name, reason in self.left.items()]
        return "\n".join(lines) or "no recurrent module of torch.nn in this model"


def swap(model: nn.Module, *, backend: str = "auto") -> Swapped:
    """Replace every recurrent layer and cell of torch.nn inside ``model``, in place.

    The new modules hold the same Parameter objects (an optimizer made before goes on working), hooks and
    training mode; a module that occurs in several places is replaced by one in all of them. Subclasses and
    parametrized modules are left alone.

    Returns:
        What was replaced, and what was left and why.

    Raises:
        TypeError: ``model`` is itself such a module; use ``seqcells.LSTM.from_torch``.
    """
    if isinstance(model, (nn.RNNBase, nn.RNNCellBase)):
        raise TypeError(
            f"the model is itself a {type(model).__name__}: use seqcells' from_torch, which returns a new one"
        )
    report = Swapped({}, {})
    done: dict[nn.Module, nn.Module] = {}
    for path, parent in list(model.named_modules()):
        for name, child in list(parent._modules.items()):
            if not isinstance(child, (nn.RNNBase, nn.RNNCellBase)):
                continue
            full = f"{path}.{name}" if path else name
            try:
                if child not in done:
                    ours = OURS.get(type(child))
                    done[child] = convert.rebuilt(child, ours and ours.torch_class, ours, backend=backend)
            except (TypeError, ValueError) as reason:
                report.left[full] = str(reason)
            else:
                setattr(parent, name, done[child])
                report.replaced[full] = done[child]
    return report
