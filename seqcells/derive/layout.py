"""Fourth: where an engine has the values of a program. Nothing here is of one language.

After the last stage of a step comes the first one of the next, so what is carried passes in registers. What a later
stage reads of an earlier one is kept in memory of the engine's; so are the operands of gathers, which all threads read.
"""

from collections.abc import Iterable
from typing import NamedTuple

from ..cells import Cell
from ..cells.activations import where
from .derivation import Derivation
from .differentiate import Outer
from .expressions import DerivationError, Expression, Product, reachable
from .program import Program


class Slot(NamedTuple):
    """Where a value is: ``where`` and ``axes`` as pass.h has them, and a column, of units or numbers, of an array."""

    where: str
    axes: str
    array: str = ""
    column: int = 0
    working: bool = False
    """Whether the array is of the dtype that is computed in, not of the caller's."""


class Result(NamedTuple):
    """A value that a stage writes; ``adds`` to what is there."""

    value: Expression
    slot: Slot
    adds: bool = False


class Operand(NamedTuple):
    """What products read: vectors side by side. ``twice``: written for the next step while it is read for this one."""

    values: tuple[Expression, ...]
    twice: bool


class Multiplied(NamedTuple):
    """Row blocks ``of`` a weight applied to an operand; transposed, to the row blocks of the operand."""

    stage: int
    weight: str
    operand: int
    of: tuple[int, ...]
    values: tuple[Expression, ...]
    heads: int
    transposed: bool


class Kept(NamedTuple):
    """A value that a later stage reads; ``twice`` as `Operand`. ``bounded``: it is read where sequences end, alone."""

    value: Expression
    twice: bool
    bounded: bool


class Sum(NamedTuple):
    """A value that is summed up over steps and sequences, and the columns of arrays that get the sum."""

    value: Expression
    to: tuple[tuple[str, int, str], ...]
    """With the axes of the array."""


class Term(NamedTuple):
    """A row block of a weight's gradient: the columns of arrays that are multiplied, over all steps and sequences."""

    weight: str
    block: int
    heads: int
    d: tuple[str, int]
    operand: tuple[str, int]


class Layout(NamedTuple):
    """A program as an engine has it. ``blocks`` are each stage's elementwise values in order, also those that an
    earlier one has made but that cost less to make again than to keep."""

    program: Program
    blocks: list[list[Expression]]
    slots: dict[Expression, Slot]
    kept: list[Kept]
    operands: list[Operand]
    products: list[Multiplied]
    reductions: list[tuple[int, Expression]]
    results: list[list[Result]]
    sums: list[Sum]
    terms: list[Term]

    @property
    def arrays(self) -> list[str]:
        """The names of the caller's arrays that values are in, in order."""
        found = [slot.array for slot in self.slots.values()]
        found += [each.slot.array for results in self.results for each in results]
        found += [product.weight for product in self.products]
        found += [array for each in self.sums for array, *_ in each.to]
        found += [f"initial.{v.args[0].removeprefix('before.')}" for v, s in self.slots.items() if s.where == "BEFORE"]
        return [*dict.fromkeys(name for name in found if name)]

    @property
    def histories(self) -> dict[str, bool]:
        """What forward leaves of all steps for backward, besides the output: arrays, and whether of units."""
        slots = [each.slot for results in self.results for each in results if each.slot.axes.startswith("T")]
        return {slot.array: slot.axes.endswith("H") for slot in slots if slot.working}

    @property
    def gates_inside(self) -> bool:
        """Whether the input's gates may be made step by step: no reduction reads them, and no stage that precedes all
        products, since that runs with the step before."""
        read = [arg for v in self.blocks[0] for arg in v.inner] + [each.value for each in self.results[0]]
        read += [v.args[0] for _, v in self.reductions] + [v for each in self.operands for v in each.values]
        return not any(v in self.slots and self.slots[v].where == "GATE" for v in read)

    def columns(self, array: str) -> int:
        """How many columns of an array are written, each of all units or of one number."""
        slots = [each.slot for results in self.results for each in results]
        return 1 + max((slot.column for slot in slots if slot.array == array), default=-1)


def layouts(cell: type[Cell], derived: Derivation) -> tuple[Layout, Layout]:
    """Those of both passes, derived with all boundaries.

    Raises:
        DerivationError: the loop of kernels/cpu does not run such a cell: without gates, with sizes besides H, with
            reductions of heads, weights made of weights, or an output that is not its first state.
    """
    values = reachable([*derived.forward.roots, *derived.backward.roots])
    lacking = {
        "no gates": not cell.gates,
        "sizes besides H": any(v.unit_axis not in ("", "H") for v in values),
        "reductions of heads": any(getattr(v.op, "heads", 1) > 1 and not isinstance(v.op, Product) for v in values),
        "weights made of weights": cell.weights is not Cell.weights,
        "an output that is not its first state": cell.output not in ("", cell.states[0]),
    }
    if any(lacking.values()):
        raise DerivationError(
            f"{cell.__name__} has {', '.join(k for k, v in lacking.items() if v)}: no loop runs that yet"
        )
    columns = _columns(cell, derived)
    forward, backward = (_Places(columns, cell.states, p) for p in derived[:2])
    for name, output in derived.forward.outputs.items():
        if name != f"after.{cell.states[0]}":  # which is the output, wherever it is read
            forward.write(output.value, columns[name])
    for state, (name, onward) in zip(cell.states, derived.forward.carried.items(), strict=True):
        forward.carry(name, onward.value, f"initial.{state}", f"final.{state}")

    for state, (name, onward) in zip(cell.states, derived.backward.carried.items(), strict=True):
        backward.carry(name, onward.value, f"grad_final.{state}", f"grad_initial.{state}")
    summed: dict[Expression, list[tuple[str, int, str]]] = {}
    for name, output in derived.backward.outputs.items():
        slot = columns[name.removeprefix("d.")]
        to = f"grad_{slot.array}", slot.column
        if slot.where == "GATE":
            backward.write(output.value, slot._replace(where="GIVEN", array=to[0]))
            summed.setdefault(output.value, []).append(("grad_bias_ih", slot.column, "H"))
        elif output.axes in ("H", ""):
            summed.setdefault(output.value, []).append((*to, output.axes))
        else:
            adds = "T" not in output.axes
            backward.write(output.value, slot._replace(array=to[0], working=adds), adds)
    terms = [backward.term(outer, cell.states[0]) for outer in derived.backward.outers]
    sums = [Sum(value, tuple(to)) for value, to in summed.items()]
    return forward.layout([], []), backward.layout(sums, terms)


def _columns(cell: type[Cell], derived: Derivation) -> dict[str, Slot]:
    """Of each leaf and each result of forward its place."""
    found = {f"x.{gate}": Slot("GATE", "TBH", "gates_x", k) for k, gate in enumerate(cell.gates)}
    found |= {f"x.{name}": Slot("GIVEN", axes, f"x.{name}") for name, axes in cell.streams.items()}
    for name, value in derived.forward.outputs.items():
        if name.startswith("kept."):
            found[name] = Slot("GIVEN", value.axes, name)
            found[f"d.{name}"] = Slot("GIVEN", value.axes, f"grad_{name}")
    for name, rows in cell.parameters.items():
        found |= {f"p.{row}": Slot("GIVEN", "H", f"weight_{name}", k) for k, row in enumerate(rows)}
    found |= {f"p.{name}": Slot("GIVEN", "", f"weight_{name}") for name in cell.scalars}
    for name, rows in ({"hh": cell.recurrent_gates} | cell.rows_of_products()).items():
        found |= {f"bias_{name}.{row}": Slot("GIVEN", "H", f"bias_{name}", k) for k, row in enumerate(rows)}
    counts = {"BH": 0, "B": 0}
    for name, value in derived.saved.items():
        array = "saved" if value.unit_axis else "numbers"
        found[f"saved.{name}"] = Slot("GIVEN", f"T{value.axes}", array, counts[value.axes], True)
        counts[value.axes] += 1
    for k, state in enumerate(cell.states):
        found[f"fresh.{state}"] = Slot("GIVEN", "BH", f"fresh.{state}")
        found[f"after.{state}"] = Slot("GIVEN", "TBH", f"after.{state}" if k else "output", working=k > 0)
        before = f"after.{state}" if k else "previous"
        found[f"before.{state}"] = Slot("BEFORE" if k else "GIVEN", "TBH", before, working=k > 0)
    found |= {"output": Slot("GIVEN", "TBH", "output"), "d.output": Slot("GIVEN", "TBH", "grad_output")}
    return found | {"units.H": Slot("COUNT", "")}


class _Places:
    """Finds the places of one program's values."""

    def __init__(self, columns: dict[str, Slot], states: tuple[str, ...], program: Program) -> None:
        self._columns, self._program = columns, program
        self._stage = {v: k for k, stage in enumerate(program.stages) for v in (*stage.gathers, *stage.block)}
        self._between = {v for stage in program.stages for v in stage.gathers}
        self._slots: dict[Expression, Slot] = {}
        self._results: list[list[Result]] = [[] for _ in program.stages]
        self._others: dict[str, int] = {"grad_products": 0, "multiplied": 0}
        self._written: dict[tuple[Expression, str], tuple[str, int]] = {}

    def stage(self, value: Expression) -> int:
        """The stage that makes a value; leaves are there before the first."""
        return self._stage.get(value, 0)

    def write(self, value: Expression, slot: Slot, adds: bool = False) -> None:
        slot = slot._replace(where="GIVEN" if slot.where == "GATE" else slot.where)
        self._results[self.stage(value)].append(Result(value, slot, adds))

    def carry(self, name: str, value: Expression, begin: str, end: str) -> None:
        """What passes from the last stage to the first; its first values, and where its last ones go."""
        leaf = next((v for v in self._leaves() if v.args[0] == name), None)
        if leaf is not None:
            self._slots[leaf] = Slot("CARRIED", "BH", begin)
        self._results[-1].append(Result(value, Slot("CARRIED", "BH", end, working=begin.startswith("grad"))))

    def term(self, outer: Outer, first: str) -> Term:
        """Where the two vectors of an outer product are, over all steps: written for that alone where they are not."""
        operand = outer.operand
        if operand.op is where and operand.args[0].args[0] == "valid":
            operand = operand.args[1]
        entered = operand.args[2] if operand.op is where and operand.args[0].args[0] == "reset" else operand
        if entered.op == "leaf" and entered.args[0] == f"before.{first}":
            to = "previous", 0
        else:
            to = self._history(outer.operand, "multiplied")  # zero where a sequence has ended: there may be anything
        return Term(outer.weight, outer.block, outer.heads, self._history(outer.d, "grad_products"), to)

    def _history(self, value: Expression, array: str) -> tuple[str, int]:
        for results in self._results:
            for each in results:
                if each.value is value and each.slot.array in ("grad_gates_x", *self._others):
                    return each.slot.array, each.slot.column
        column = self._others[array]
        self._others[array] += 1
        self.write(value, Slot("GIVEN", "TBH", array, column))
        return array, column

    def _leaves(self) -> list[Expression]:
        values = [v for stage in self._program.stages for u in (*stage.gathers, *stage.block) for v in (u, *u.inner)]
        values += self._program.roots
        return [*dict.fromkeys(v for v in values if v.op == "leaf")]

    def layout(self, sums: list[Sum], terms: list[Term]) -> Layout:
        program, stages = self._program, self._program.stages
        for leaf in self._leaves():
            if leaf not in self._slots and leaf.args[0] not in ("valid", "reset"):
                self._slots[leaf] = self._columns[leaf.args[0]]
        gathers = [v for stage in stages for v in stage.gathers]
        operands = self._operands(gathers)
        for k, each in enumerate(sums):
            self._results[self.stage(each.value)].append(Result(each.value, Slot("SUM", "H", column=k)))
        blocks = self._blocks(gathers)
        kept = self._kept(gathers, blocks)
        for k, each in enumerate(kept):
            self._slots[each.value] = Slot("KEPT", each.value.axes, column=k)
        products, reductions = [], []
        for v in gathers:
            stage = self.stage(v)
            if isinstance(v.op, Product):
                place = next(k for k, operand in enumerate(operands) if operand.values == v.args)
                one = Multiplied(stage, v.op.weight, place, v.op.blocks, (v,), v.op.heads, v.op.transposed)
                last = products[-1] if products else None
                if last and not one.transposed and last[:3] == one[:3] and last.of[-1] + 1 == one.of[0]:
                    products[-1] = last._replace(of=last.of + one.of, values=last.values + one.values)
                else:
                    products.append(one)
            else:
                reductions.append((stage, v))
        reductions.sort(key=lambda each: each[1].op.name != "mean")  # of which the variance of the same is made
        return Layout(program, blocks, self._slots, kept, operands, products, reductions, self._results, sums, terms)

    def _operands(self, gathers: list[Expression]) -> list[Operand]:
        found = dict.fromkeys(v.args for v in gathers if isinstance(v.op, Product))
        return [Operand(values, any(self.stage(v) == 0 for v in values)) for values in found]

    def _blocks(self, gathers: list[Expression]) -> list[list[Expression]]:
        """What each stage makes: what it is there for, and what that is made of."""
        operands = [arg for v in gathers for arg in v.args]
        found = []
        for k in range(len(self._program.stages)):
            wanted = [each.value for each in self._results[k]] + [v for v in operands if self.stage(v) == k]
            # What later stages read.
            wanted += [v for v in self._program.stages[k].block if not self._is_cheap(v)]
            found.append([v for v in reachable(self._made(wanted, k)) if v in self._made(wanted, k)])
        return found

    def _made(self, wanted: Iterable[Expression], stage: int) -> set[Expression]:
        todo, made = [*wanted], set()
        while todo:
            v = todo.pop()
            if v not in made and v.inner and v not in self._between and (self.stage(v) == stage or self._is_cheap(v)):
                made.add(v)
                todo += v.inner
        return made

    def _is_cheap(self, v: Expression, most: int = 3) -> bool:
        """Whether a stage makes a value of an earlier one again: what boundaries choose, and what few operations make
        of what is in memory."""
        if not v.gathers and v.inner and not v.unit_axis:
            return True  # of numbers, which each stage has
        if v.gathers or not v.inner or most == 0 or self._is_entering(v):
            return False
        if v.op is where and v.args[0].args[0] in ("valid", "reset"):
            return all(self._is_there(arg, most) or arg.inner for arg in v.args[1:])
        return v.op in ("+", "-", "*", "neg", ">") and all(self._is_there(arg, most - 1) for arg in v.args)

    def _is_there(self, v: Expression, most: int) -> bool:
        """Whether a later stage finds a value in memory, or makes it."""
        if v.op == "leaf":
            return not self._is_carried(v)
        return v.op == "constant" or self._is_entering(v) or self._is_cheap(v, most)

    def _is_entering(self, v: Expression) -> bool:
        """Whether it is a state as it enters the step."""
        return v.op is where and self._is_carried(v.args[2])

    def _unended(self, value: Expression) -> Expression:
        """What a value is in sequences that have not ended; what is carried is there for the first stage alone."""
        while value.op is where and value.args[0].args[0] == "valid" and not self._is_carried(value.args[1]):
            value = value.args[1]
        return value

    def _is_carried(self, value: Expression) -> bool:
        return value.op == "leaf" and self._slots[value].where == "CARRIED"

    def _kept(self, gathers: list[Expression], blocks: list[list[Expression]]) -> list[Kept]:
        """What a later stage reads of an earlier one, and what is reduced between stages."""
        reduced = dict.fromkeys(v.args[0] for v in gathers if not isinstance(v.op, Product))
        later: dict[Expression, bool] = {}
        plain: set[Expression] = {*reduced}
        for k, block in enumerate(blocks):
            made = {*block}
            ends = [each.value for each in self._results[k]]
            read = [arg for v in block for arg in v.inner] + ends
            unended = [arg for v in block if v is self._unended(v) for arg in v.inner] + ends
            plain |= {v for v in map(self._unended, unended) if v not in made}
            for v in read:
                of_units = v.unit_axis or v not in self._between
                if v.inner and of_units and v not in made and self.stage(v) < k:
                    later.setdefault(v, v in reduced and self.stage(v) == 0)
        for v in reduced:
            if v.inner or self._is_carried(v):
                later.setdefault(v, self.stage(v) == 0)
        return [Kept(value, twice, value not in plain) for value, twice in later.items()]
