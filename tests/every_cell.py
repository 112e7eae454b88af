"""Layers of the cells in tests/equations, the inputs of their calls, and their results by a plain loop of the step."""

import pytest
import torch
from equations import every
from programs import SIZES, B, H, T, loop

import seqcells
from seqcells import cells
from seqcells.cells import REGISTRY
from seqcells.derive.named_values import sizes_of

OWN, OPTIONS = every(), {"P": 4, "S": 7, "K": 2}
LAYERS, MODULES = {}, {}
for _name, _cell in OWN.items():
    LAYERS[_name], MODULES[_name] = seqcells.define(_cell)
    del REGISTRY[_name]


@pytest.fixture(autouse=True)
def registered():
    """Register the cells only during a test, because other tests go through the whole registry."""
    for cell in OWN.values():
        cells.register(cell)
    yield
    for name in OWN:
        del REGISTRY[name]


def features(cell):
    """The number of the input's features."""
    return H if cell.streams.get("input") == "TBH" else SIZES["F"]


def options(cell):
    return {option: OPTIONS[letter] for letter, option in cell.sizes.items()}


def make(name, kind=LAYERS, **others):
    torch.manual_seed(4)
    module = kind[name](features(OWN[name]), H, dtype=torch.float64, **options(OWN[name]), **others)
    with torch.no_grad():  # not ones and zeros, which would hide errors in what is multiplied by them
        for parameter in module.parameters():
            parameter.add_(torch.rand_like(parameter) / 4)
    return module


def sizes(cell):
    return SIZES | {"N": cell.heads(), "F": features(cell)}


def random(cell, axes, *first):
    """Positive random numbers, because times and masses are positive."""
    shape = [sizes(cell)[axis] for axis in axes]
    return torch.rand(*first, *shape, dtype=torch.float64).add_(0.1).requires_grad_()


def streams(cell, *first):
    return {name: random(cell, axes, *first) for name, axes in cell.streams.items() if name != "input"}


def states(cell, paths=1):
    return [random(cell, f"B{size}", paths) for size in cell.state_sizes.values()]


def looped(layer, x, hx, given, lengths=None, reset=None, fresh=None, keep=()):
    """Output, final states and kept values of a one-layer module, by `programs.loop`."""
    cell = layer.cell
    sides, parameters = 1 + layer.bidirectional, dict(layer.named_parameters())
    outputs, finals, kept = [], [], []
    valid = torch.arange(T)[:, None] < (torch.full((B,), T) if lengths is None else lengths)
    for d in range(sides):
        end = "_l0" + "_reverse" * d
        w = {name.removesuffix(end): p for name, p in parameters.items() if name.endswith(end)}
        leaves = {name: w[name] for name in w if name.startswith("weight_")}
        if cell.gates:
            of_x = (x @ w["weight_ih"].T + w["bias_ih"]).chunk(len(cell.gates), -1)
            leaves |= {f"x.{gate}": part for gate, part in zip(cell.gates, of_x, strict=True)}
        for name, product in cell.every_product.items():
            if product.bias:
                rows = zip(product.rows, w[f"bias_{name}"].chunk(len(product.rows)), strict=True)
                leaves |= {f"bias_{name}.{row}": part for row, part in rows}
        for name, rows in cell.parameters.items():
            leaves |= {f"p.{row}": part for row, part in zip(rows, w[f"weight_{name}"].unbind(0), strict=True)}
        leaves |= {f"p.{name}": w[f"weight_{name}"] for name in cell.scalars}
        leaves |= {f"x.{name}": x if name == "input" else given[name] for name in cell.streams}
        leaves |= {f"carried.{name}": state[d] for name, state in zip(cell.states, hx, strict=True)}
        leaves["valid"] = valid
        if reset is not None:
            fresh = [torch.zeros_like(state) for state in hx] if fresh is None else fresh
            leaves |= {f"reset_state.{name}": state[d] for name, state in zip(cell.states, fresh, strict=True)}
            met = reset & valid
            leaves["reset"] = torch.cat([met[1:], torch.zeros_like(met[:1])]) if d else met
        axes = sizes_of(cell, (cell.output or cell.states[0], *cell.kept))
        axes = {"output": f"TB{axes[cell.output or cell.states[0]]}"} | {f"kept.{n}": f"TB{axes[n]}" for n in cell.kept}
        found = loop(cell, axes, leaves, range(T)[:: -1 if d else 1], reset is not None, True)
        outputs.append(found["output"])
        finals.append([found[f"carried.{name}"] for name in cell.states])
        values = [found[f"kept.{name}"] for name in keep]
        kept.append([value if value.dim() == 3 else value.unsqueeze(-1) for value in values])
    together = [torch.cat(value, -1) for value in zip(*kept, strict=True)]
    return torch.cat(outputs, -1), [torch.stack(each) for each in zip(*finals, strict=True)], together
