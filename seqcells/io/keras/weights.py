"""Copy the weights of Keras' recurrent layers into layers of seqcells, and back."""

from __future__ import annotations

from typing import Any

import torch
from keras import layers
from torch import Tensor, nn

from ... import cells
from ...modules.define import layer_of
from ...modules.recurrent_layer import RecurrentLayer
from . import match_cell
from .cells import KerasGRUBefore
from .match_cell import Equations


def to_layer(layer: Any) -> RecurrentLayer:
    """A layer of seqcells with the equations of a layer of Keras and copies of its weights, ``batch_first``.

    Args:
        layer: a built keras.layers.LSTM, GRU, SimpleRNN or RNN of one cell, or a Bidirectional of such a layer with
            ``merge_mode="concat"``. Options that only affect calls are not copied: ``return_sequences``,
            ``go_backwards``, masks, dropout.

    Raises:
        TypeError: the layer is of another kind.
        ValueError: the layer is not built, no cell of seqcells has its equations, or the two directions of a
            Bidirectional layer cannot be one layer.
    """
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    if len(parts) == 2 and layer.merge_mode != "concat":
        raise ValueError(f"merge_mode={layer.merge_mode!r}: layers of seqcells have two directions side by side")
    made = [_equations(part) for part in parts]
    if len({(each.cell, each.theirs.units, each.theirs.use_bias) for each in made}) > 1:
        raise ValueError("the two directions differ in equations, units or biases")
    with torch.no_grad():
        weights = [each.weights(match_cell.dtype(each.theirs)) for each in made]
    first = weights[0].first
    cell = made[0].cell
    if hasattr(parts[0].cell, "kernel"):
        features = parts[0].cell.kernel.shape[0]
    elif weights[0].ih is not None:
        features = weights[0].ih.shape[1]
    else:
        raise ValueError(f"the {cell.name} cell has no weight of the input, which tells its features")
    options = {"bias": weights[0].bias_ih is not None, "batch_first": True, "bidirectional": len(parts) == 2}
    options |= {"device": first.device, "dtype": first.dtype}
    ours = layer_of(cell)(features, parts[0].cell.units, **options)
    with torch.no_grad():
        for own, theirs in zip(ours._weights(), weights, strict=True):
            for parameter, value in zip(own.present(), theirs.present(), strict=True):
                parameter.copy_(value)
    return ours


def _equations(layer: Any) -> Equations:
    if not isinstance(layer, layers.RNN):
        raise TypeError(f"expected a recurrent layer of Keras, got {type(layer).__name__}")
    if not layer.built:
        raise ValueError("the layer has no weights yet: build it, or call it once")
    why_not = match_cell.why_not(layer.cell)
    if why_not:
        raise ValueError(why_not)
    return match_cell.of(layer.cell, training=False)


def _cell(module: Any) -> type[cells.Cell] | None:
    """The cell of a layer of seqcells or torch.nn; None for another module."""
    if isinstance(module, RecurrentLayer):
        return module.cell
    if isinstance(module, nn.RNN):
        return cells.RNN_BY_NONLINEARITY[module.nonlinearity]
    return next(
        (cell for kind, cell in {nn.LSTM: cells.LSTM, nn.GRU: cells.GRU}.items() if isinstance(module, kind)), None
    )


def assign(layer: Any, module: nn.Module) -> None:
    """Copy the weights of a layer of torch.nn or seqcells (an LSTM, GRU or RNN of one layer) into a layer of Keras.

    Args:
        layer: a built layer of Keras with the same sizes and equations, or a Bidirectional of such a layer. If Keras
            has one bias, it gets the sum of the module's two biases.
        module: the module whose weights are copied.

    Raises:
        TypeError: the module is no such layer, or the layer is no recurrent layer of Keras.
        ValueError: the layer is not built; or equations, sizes, or numbers of layers or directions differ; or only one
            of both has biases.
    """
    cell = _cell(module)
    if cell is None or not isinstance(module, (RecurrentLayer, nn.RNNBase)):
        raise TypeError(
            f"expected a layer of seqcells, or an LSTM, GRU or RNN of torch.nn, got {type(module).__name__}"
        )
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    if module.num_layers != 1 or len(parts) != 1 + module.bidirectional or module.proj_size:
        raise ValueError("the module should have one layer, without projection, and as many directions")
    for part, suffix in zip(parts, ("", "_reverse"), strict=False):
        own = {
            name.removesuffix(suffix).removesuffix("_l0"): p.detach()
            for name, p in module.named_parameters()
            if name.endswith(f"_l0{suffix}")
        }
        made = _equations(part)
        if isinstance(made, match_cell.OfOurs) or not _same(made.cell, cell):
            raise ValueError(f"{type(part).__name__} has other equations than {type(module).__name__}")
        if made.theirs.use_bias != module.bias:
            raise ValueError(f"one of {type(part).__name__} and {type(module).__name__} has biases, the other has none")
        _assign(made, own, type(module).__name__)


def _same(theirs: type[cells.Cell], ours: type[cells.Cell]) -> bool:
    """Whether two cells have the same equations, possibly under different names."""
    return ours is theirs or (ours is cells.GRUResetBefore and theirs is KerasGRUBefore)


def _assign(made: Equations, own: dict[str, Tensor], name: str) -> None:
    theirs = made.theirs
    kernel, recurrent = own["weight_ih"], own["weight_hh"]
    if "weight_candidate" in own:
        recurrent = torch.cat([recurrent, own["weight_candidate"]])
    if kernel.shape != tuple(reversed(theirs.kernel.shape)) or recurrent.shape != tuple(
        reversed(theirs.recurrent_kernel.shape)
    ):
        raise ValueError(f"{name} has weights of other sizes than {type(theirs).__name__}")
    # Both permutations of gates are their own inverses, so `ordered` works in this direction too.
    theirs.kernel.assign(made.ordered(kernel).mT)
    theirs.recurrent_kernel.assign(made.ordered(recurrent).mT)
    if theirs.bias is None:
        return
    zeros = kernel.new_zeros(len(kernel))
    of_input, of_hidden = own.get("bias_ih", zeros), own.get("bias_hh", zeros)
    if "weight_candidate" in own:
        of_hidden = torch.cat([of_hidden, own.get("bias_candidate", zeros[: len(own["weight_candidate"])])])
    of_input, of_hidden = made.ordered(of_input), made.ordered(of_hidden)
    theirs.bias.assign(torch.stack([of_input, of_hidden]) if len(theirs.bias.shape) == 2 else of_input + of_hidden)
