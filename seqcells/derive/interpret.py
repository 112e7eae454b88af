"""Interpret: run a program on torch tensors, in their dtype; printed kernels are compared with it.

The interpreter knows nothing of cells, gradients or the direction of time.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from ..cells.activations import Activation
from .differentiate import Outer
from .expressions import Expression, Product
from .program import Program

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "neg": operator.neg,
    ">": operator.gt,
}
Sizes = dict[str, int]
"""The size of each axis, by its letter."""


def interpret(
    program: Program, given: Mapping[str, Tensor], times: Iterable[int], sizes: Sizes | None = None
) -> dict[str, Tensor]:
    """Run all steps of a program, in the order of ``times``.

    Args:
        given: the leaves by name, shaped as their axes say, and the weights (row blocks · units, units / heads).
        sizes: the sizes of all letters; must be given if only results have a letter. Default: `measured`

    Returns:
        The outputs, the carried values after the last step, and the weights' gradients, all by name.
    """
    sizes = measured(program, given) if sizes is None else sizes
    like = next(tensor for tensor in given.values() if tensor.is_floating_point())
    leaves = {**given, **{f"units.{axis}": like.new_tensor(float(size)) for axis, size in sizes.items()}}
    outputs = {name: like.new_zeros([sizes[a] for a in output.axes]) for name, output in program.outputs.items()}
    weights = {f"d.{outer.weight}": torch.zeros_like(given[outer.weight]) for outer in program.outers}
    carried = {name: given[name] for name in program.carried}
    for t in times:
        value = _Values(leaves | carried, t, sizes)
        for stage in program.stages:
            for v in stage.gathers:
                value[v] = _gathered(v, [value[arg] for arg in v.args], given, sizes)
            for v in stage.block:
                value[v] = _elementwise(v, [value[arg] for arg in v.args])
        for name, (axes, v) in program.outputs.items():
            part = _along(v, value[v], axes, sizes)
            if "T" in axes:
                outputs[name][t] = part
            else:
                outputs[name] += part
        for outer in program.outers:
            _add_outer(weights[f"d.{outer.weight}"], outer, value[outer.d], value[outer.operand], sizes)
        carried = {name: _along(v, value[v], axes, sizes) for name, (axes, v) in program.carried.items()}
    return outputs | carried | weights


def measured(program: Program, given: Mapping[str, Tensor]) -> Sizes:
    """The sizes of letters, as the shapes of leaves and weights show them."""
    leaves = {name: axes for name, axes in program.leaves.items() if not name.startswith("units.")}
    found = {a: size for name, axes in leaves.items() for a, size in zip(axes, given[name].shape, strict=True)}
    ops = [v.op for stage in program.stages for v in stage.gathers]
    heads = max((op.heads for op in ops if not isinstance(op, Product)), default=1)
    found |= {"N": heads} if heads > 1 else {}
    products = [op for op in ops if isinstance(op, Product) and not op.transposed]
    found |= {op.of: given[op.weight].shape[1] * op.heads for op in products}
    return found | {o.axes[1]: given[o.weight].shape[1] * o.heads for o in program.outers}


class _Values(dict[Expression, Tensor]):
    """The values of step t: matrices (sequences, units), with size 1 along an axis on which the value is constant.

    A number of each head is repeated for each of the head's units.
    """

    def __init__(self, leaves: Mapping[str, Tensor], t: int, sizes: Sizes) -> None:
        self._leaves, self._t, self._sizes = leaves, t, sizes

    def __missing__(self, v: Expression) -> Tensor:
        if v.op == "constant":
            return next(iter(self._leaves.values())).new_tensor([[v.args[0]]])
        name, axes = v.args
        tensor = self._leaves[name][self._t] if "T" in axes else self._leaves[name]
        matrix = tensor.reshape(tensor.shape[0] if "B" in axes else 1, tensor.shape[-1] if v.unit_axis else 1)
        return _for_units(matrix, v.unit_axis, self._sizes)


def _for_units(numbers: Tensor, axis: str, sizes: Sizes) -> Tensor:
    """Numbers of heads in the form for computation, one for each unit; other values are returned unchanged."""
    return numbers.repeat_interleave(sizes["H"] // sizes["N"], 1) if axis == "N" else numbers


def _for_heads(vector: Tensor, axis: str, sizes: Sizes) -> Tensor:
    """Numbers of heads in the form for storage, one for each head; other values are returned unchanged."""
    return vector[:, :: sizes["H"] // sizes["N"]] if axis == "N" and vector.shape[1] > 1 else vector


def _elementwise(v: Expression, arguments: list[Tensor]) -> Tensor:
    return v.op.tensor(*arguments) if isinstance(v.op, Activation) else ARITHMETIC[v.op](*arguments)


def _gathered(v: Expression, arguments: list[Tensor], weights: Mapping[str, Tensor], sizes: Sizes) -> Tensor:
    op = v.op
    if not isinstance(op, Product):
        return op.tensor(*arguments)
    weight = _by_head(weights[op.weight], op.heads, sizes[op.of if op.transposed else op.axis])
    blocks, width = weight[list(op.blocks)], weight.shape[2 if op.transposed else 3]
    operands = [_by_heads(_for_heads(v, op.of, sizes), op.heads, width) for v in arguments]
    if op.transposed:
        parts = [torch.einsum("bno,noi->bni", d, block) for d, block in zip(operands, blocks, strict=True)]
        found = reduce(torch.add, parts)
    else:
        found = torch.einsum("bni,noi->bno", operands[0], blocks[0])
    return _for_units(found.flatten(1), op.axis, sizes)


def _add_outer(gradient: Tensor, outer: Outer, d: Tensor, operand: Tensor, sizes: Sizes) -> None:
    of_block = _by_head(gradient, outer.heads, sizes[outer.axes[0]])[outer.block]
    parts = zip((d, operand), outer.axes, of_block.shape[1:], strict=True)
    d, operand = (_by_heads(_for_heads(v, axis, sizes), outer.heads, width) for v, axis, width in parts)
    rows = max(len(d), len(operand))
    of_block += torch.einsum("bno,bni->noi", d.expand(rows, -1, -1), operand.expand(rows, -1, -1))


def _by_head(weight: Tensor, heads: int, rows: int) -> Tensor:
    """(row blocks · rows, units / heads) → (row blocks, heads, rows of a head, units of a head)."""
    return weight.view(-1, heads, rows // heads, weight.shape[1])


def _by_heads(v: Tensor, heads: int, units: int) -> Tensor:
    return v.expand(-1, heads * units).unflatten(1, (heads, units))


def _along(v: Expression, value: Tensor, axes: str, sizes: Sizes) -> Tensor:
    """A value brought to ``axes``: repeated along axes that it lacks, summed over axes that ``axes`` does not have."""
    has, to = v.unit_axis, axes.replace("T", "").replace("B", "")
    if "B" not in axes:
        value = value.sum(0, keepdim=True)
    value = value if to == "H" else _for_heads(value, has, sizes)
    if has not in ("", to) and to != "H":
        value = value.unflatten(1, (sizes["N"], -1)).sum(2) if to == "N" else value.sum(1, keepdim=True)
    shape = sizes["B"] if "B" in axes else 1, sizes[to] if to else 1
    return value.expand(shape).reshape([sizes[a] for a in axes if a != "T"])
