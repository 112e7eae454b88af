"""A cell's forward and backward programs over time, and the same by a loop of its step under autograd."""

from types import SimpleNamespace

import torch
from torch.testing import assert_close

from seqcells.derive.derivation import derive
from seqcells.derive.hoist import hoist
from seqcells.derive.interpret import interpret, measured

T, B, H = 5, 3, 8
SIZES = {"T": T, "B": B, "H": H, "F": 6, "P": 4, "S": 7, "K": 2}


def hoisted(program, given, times, sizes=None):
    """Run like `interpret`, in three parts. A part without carried values takes the steps in another order."""
    results, sizes = {}, measured(program, given) if sizes is None else sizes
    for part in hoist(program):
        if part.roots:
            order = list(times) if part.carried else sorted(times, key=lambda t: (t % 2, t))
            results |= interpret(part, {**given, **results}, order, sizes)
    names = *program.outputs, *program.carried, *(f"d.{outer.weight}" for outer in program.outers)
    return {name: results[name] for name in names}


def forward(cell, derived, given, steps, run=interpret):
    """Run the forward program.

    ``given`` holds leaves, weights and initial states, named ``carried.h``. The result holds output, kept values, final
    states and saved values.
    """
    return run(derived.forward, given | applied(cell, given), steps)


def backward(cell, derived, given, results, grads, steps, run=interpret):
    """The gradients of all that forward was given, from the gradients ``grads`` of its results, each by its tensor's
    name."""
    history = {}
    for state in (name.removeprefix("after.") for name in results if name.startswith("after.")):
        initial, after = given[f"carried.{state}"][None], results[f"after.{state}"]
        history[f"before.{state}"] = torch.cat([initial, after[:-1]] if steps.step > 0 else [after[1:], initial])
    learnt = {name: v.detach().requires_grad_() for name, v in given.items() if name.startswith("weight_")}
    made = applied(cell, learnt)
    seeds = {f"d.{name}": d for name, d in grads.items()}
    plain = {name: v.detach() for name, v in made.items()}
    found = run(derived.backward, given | plain | results | history | seeds, steps[::-1])
    found = {name.removeprefix("d."): d for name, d in found.items()}
    if made:
        of_made = [found[name] for name in made]
        ds = torch.autograd.grad(list(made.values()), list(learnt.values()), of_made, allow_unused=True)
        found |= {name: d for name, d in zip(learnt, ds, strict=True) if d is not None}
    return found


def applied(cell, given):
    """The weights that `step` multiplies by, where the cell computes them from the learnt weights."""
    products = {name: product for name, product in cell.every_product.items() if f"weight_{name}" in given}
    learnt = {name: given[f"weight_{name}"] for name in products}
    parted = {n: w.view(len(products[n].rows) * products[n].heads, -1, w.shape[1]) for n, w in learnt.items()}
    return {f"weight_{n}": w.reshape(learnt[n].shape) for n, w in cell.weights(SimpleNamespace(**parted)).items()}


def loop(cell, axes_of, given, steps, reset, lengths):
    """Output, kept values and final states by a loop that shares only `step` with the derivation."""
    given, heads = given | applied(cell, given), cell.heads()
    letters, sizes = cell.state_sizes, SIZES | {"N": heads}

    def spread(v, size):
        """Expand a number of each head to a vector over units."""
        return v.repeat_interleave(H // heads, -1) if size == "N" else v

    def stored(v, axes):
        v = v.expand(*v.shape[:-1], H)[:, :: H // heads] if "N" in axes else v
        return v.squeeze(-1) if axes[-1] in "TB" else v

    def multiply(name, operand):
        product = cell.every_product[name]
        out = sizes[product.axes[0]] // product.heads
        rows = given[f"weight_{name}"].view(len(product.rows), product.heads, out, -1)
        parts = [spread(operand @ torch.block_diag(*block).T, product.axes[0]) for block in rows]
        if not product.bias:
            return parts
        biases = (given[f"bias_{name}.{row}"] for row in product.rows)
        return [part + spread(bias, product.axes[0]) for part, bias in zip(parts, biases, strict=True)]

    def read(name, axes, t):
        tensor = given[name][t] if "T" in axes else given[name]
        return tensor.unsqueeze(-1) if axes in ("TB", "B") else spread(tensor, axes[-1:])

    parameters = [read(f"p.{row}", size, 0) for row, size in cell.row_sizes.items()]
    parameters += [given[f"p.{name}"] for name in cell.scalars]
    p, states, found = cell.given(parameters, multiply), [given[f"carried.{name}"] for name in letters], {}
    for t in steps:
        if reset:
            boundary = given["reset"][t].unsqueeze(-1)
            # A value that no step reads is not given.
            fresh = [given.get(f"reset_state.{name}", s) for name, s in zip(letters, states, strict=True)]
            states = [torch.where(boundary, f, s) for f, s in zip(fresh, states, strict=True)]
        x = [given[f"x.{gate}"][t] for gate in cell.gates]
        x += [read(f"x.{name}", axes, t) for name, axes in cell.streams.items()]
        before = [spread(s, size) for s, size in zip(states, letters.values(), strict=True)]
        r = multiply("hh", cell.fed_back(x, before)) if cell.recurrent_gates else ()
        results = dict(zip(cell.results, cell.advance(x, r, before, p), strict=True))
        new = [stored(results[name], f"B{size}") for name, size in letters.items()]
        outputs = {"output": results[cell.output or cell.states[0]]} | {f"kept.{k}": results[k] for k in cell.kept}
        if lengths:
            valid = given["valid"][t].unsqueeze(-1)
            new = [torch.where(valid, n, s) for n, s in zip(new, states, strict=True)]
            outputs = {name: torch.where(valid, v, 0.0) for name, v in outputs.items()}
        for name, v in outputs.items():
            found.setdefault(name, [None] * T)[t] = stored(v, axes_of[name])
        states = new
    finals = {f"carried.{name}": s for name, s in zip(letters, states, strict=True)}
    return {name: torch.stack(v) for name, v in found.items()} | finals


def make(cell, derived, seed=0):
    """Values for all that a cell's forward program reads."""
    generator = torch.Generator().manual_seed(seed)
    like = {"generator": generator, "dtype": torch.float64}
    sizes, given = SIZES | {"N": cell.heads()}, {}
    leaves = {name: axes for name, axes in derived.forward.leaves.items() if not name.startswith("units.")}
    leaves |= {f"carried.{state}": f"B{size}" for state, size in cell.state_sizes.items()}
    leaves |= {f"x.{gate}": "TBH" for gate in cell.gates} | {f"x.{name}": axes for name, axes in cell.streams.items()}
    for name, axes in leaves.items():
        given[name] = torch.randn([sizes[a] for a in axes], **like)
    for name, (rows, (out, into), _, heads) in sorted(cell.every_product.items()):
        width = sizes[into] // heads
        given[f"weight_{name}"] = torch.randn(len(rows) * sizes[out], width, **like) / width**0.5
    if "carried.n" in given:  # a normaliser is positive
        given |= {n: given[n].abs() + 0.5 for n in ("carried.n", "reset_state.n") if n in given}
    for name in given:
        if name.startswith("reset_state.") and name != "reset_state.n":
            given[name][0] = 0  # units that are all equal
    if "valid" in given:
        given["valid"] = torch.arange(T).unsqueeze(1) < torch.tensor([T, 2, 4])
    if "reset" in given:
        # No reset after a sequence's end: it would replace the final state by a fresh one.
        given["reset"] = (torch.rand(T, B, generator=generator) < 0.3) & given.get("valid", torch.tensor(True))
    return {n: v.requires_grad_() if v.dtype == torch.float64 else v for n, v in given.items()}


def check(cell, run=interpret, reset=True, lengths=True, steps=range(T), **changed):
    """Results and all gradients of the programs equal the loop's."""
    derived = derive(cell, reset=reset, lengths=lengths)
    given = make(cell, derived) | changed
    axes_of = {name: output.axes for name, output in derived.forward.outputs.items()}
    wanted = loop(cell, axes_of, given, steps, reset, lengths)
    plain = {name: v.detach() for name, v in given.items()}
    results = forward(cell, derived, plain, steps, run)
    for name, v in wanted.items():
        assert_close(results[name], v.detach(), rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    grads = {name: torch.randn(v.shape, dtype=torch.float64) for name, v in wanted.items()}
    inputs = {name: v for name, v in given.items() if v.requires_grad}
    truth = torch.autograd.grad(list(wanted.values()), list(inputs.values()), list(grads.values()), allow_unused=True)
    found = backward(cell, derived, plain, results, grads, steps, run)
    for (name, v), d in zip(inputs.items(), truth, strict=True):
        d, mine = (torch.zeros_like(v) if each is None else each for each in (d, found.get(name)))
        assert_close(mine, d, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f"gradient of {name}: {m}")
    assert found.keys() <= inputs.keys()
