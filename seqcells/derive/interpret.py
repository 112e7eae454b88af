"""Last, one way: run a program over tensors, in their dtype. It knows no cell, no gradient and no direction of time."""

import operator
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ..cells.activations import Activation
from .differentiate import Outer
from .expressions import Expression, Product
from .program import Program

ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
    ">": operator.gt,
}
Sizes = dict[str, int]
"""By axis."""


def interpret(program: Program, given: Mapping[str, Tensor], times: Iterable[int]) -> dict[str, Tensor]:
    """All steps of a program, in the order of ``times`` → its outputs, what it carried last, the weights' gradients.

    Args:
        given: the leaves by name, shaped as their axes say, and the weights (row blocks · units, units / heads).
    """
    sizes = _sizes(program, given)
    like = next(tensor for tensor in given.values() if tensor.is_floating_point())
    units = {f"units.{axis}": like.new_tensor(float(size)) for axis, size in sizes.items()}
    leaves = {**given, **units}
    outputs = {name: like.new_zeros([sizes[a] for a in output.axes]) for name, output in program.outputs.items()}
    weights = {f"d.{outer.weight}": torch.zeros_like(given[outer.weight]) for outer in program.outers}
    carried = {name: given[name] for name in program.carried}
    for t in times:
        value = _Values(leaves | carried, t)
        for stage in program.stages:
            for v in stage.gathers:
                value[v] = _gathered(v, [value[arg] for arg in v.args], given, sizes)
            for v in stage.block:
                value[v] = _elementwise(v, [value[arg] for arg in v.args])
        for name, (axes, v) in program.outputs.items():
            part = _along(value[v], axes, sizes)
            if "T" in axes:
                outputs[name][t] = part
            else:
                outputs[name] += part
        for outer in program.outers:
            _add_outer(weights[f"d.{outer.weight}"], outer, value[outer.d], value[outer.operand], sizes)
        carried = {name: _along(value[v], axes, sizes) for name, (axes, v) in program.carried.items()}
    return outputs | carried | weights


def _sizes(program: Program, given: Mapping[str, Tensor]) -> Sizes:
    """Of all axes, from the leaves."""
    leaves = {name: axes for name, axes in program.leaves.items() if not name.startswith("units.")}
    return {a: size for name, axes in leaves.items() for a, size in zip(axes, given[name].shape, strict=True)}


class _Values(dict[Expression, Tensor]):
    """The values of step t, each a matrix of sequences and units, with one of either where it is the same for all."""

    def __init__(self, leaves: Mapping[str, Tensor], t: int) -> None:
        self._leaves, self._t = leaves, t

    def __missing__(self, v: Expression) -> Tensor:
        if v.op == "constant":
            return next(iter(self._leaves.values())).new_tensor([[v.args[0]]])
        name, axes = v.args
        tensor = self._leaves[name][self._t] if "T" in axes else self._leaves[name]
        return tensor.reshape(tensor.shape[0] if "B" in axes else 1, tensor.shape[-1] if v.unit_axis else 1)


def _elementwise(v: Expression, arguments: list[Tensor]) -> Tensor:
    return v.op.tensor(*arguments) if isinstance(v.op, Activation) else ARITHMETIC[v.op](*arguments)


def _gathered(v: Expression, arguments: list[Tensor], weights: Mapping[str, Tensor], sizes: Sizes) -> Tensor:
    op = v.op
    if not isinstance(op, Product):
        return op.tensor(*arguments)
    rows = sizes[v.args[0].unit_axis or "H"] if op.transposed else sizes[op.axis]
    weight = _by_head(weights[op.weight], op.heads, rows)
    if op.transposed:
        ds = [_by_heads(d, op.heads, weight.shape[2]) for d in arguments]
        return sum(torch.einsum("bno,noi->bni", d, weight[k]) for k, d in zip(op.blocks, ds, strict=True)).flatten(1)
    operand = _by_heads(arguments[0], op.heads, weight.shape[3])
    return torch.einsum("bni,noi->bno", operand, weight[op.blocks[0]]).flatten(1)


def _add_outer(gradient: Tensor, outer: Outer, d: Tensor, operand: Tensor, sizes: Sizes) -> None:
    of_block = _by_head(gradient, outer.heads, sizes[outer.d.unit_axis or "H"])[outer.block]
    d, operand = _by_heads(d, outer.heads, of_block.shape[1]), _by_heads(operand, outer.heads, of_block.shape[2])
    rows = max(len(d), len(operand))
    of_block += torch.einsum("bno,bni->noi", d.expand(rows, -1, -1), operand.expand(rows, -1, -1))


def _by_head(weight: Tensor, heads: int, rows: int) -> Tensor:
    """(row blocks · rows, units / heads) → (row blocks, heads, rows of a head, units of a head)."""
    return weight.view(-1, heads, rows // heads, weight.shape[1])


def _by_heads(v: Tensor, heads: int, units: int) -> Tensor:
    return v.expand(-1, heads * units).unflatten(1, (heads, units))


def _along(value: Tensor, axes: str, sizes: Sizes) -> Tensor:
    """Repeated along the axes that it lacks, summed along those that it has too many."""
    if "B" not in axes:
        value = value.sum(0, keepdim=True)
    unit = axes.replace("T", "").replace("B", "")
    if not unit:
        value = value.sum(1, keepdim=True)
    shape = sizes["B"] if "B" in axes else 1, sizes[unit] if unit else 1
    return value.expand(shape).reshape([sizes[a] for a in axes if a != "T"])
