"""Lay out: where an engine stores the values of a program. The layout is the same for C++ and Triton.

A stage of an engine is the part of a program's stage for the units of one size, and has a number. The last stage of a
size is followed by its first stage of the next step, so carried values stay in registers. The engine's own memory holds
the values that a later stage reads, and the operands of gathers, which all threads read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..cells import Cell
from ..cells.activations import where
from .caller_arrays import Slot, columns_of, general, of_size
from .derivation import Derivation
from .differentiate import Outer
from .expressions import DerivationError, Expression, Product, reachable
from .program import Output, Program
from .stages import Stages, stages_of


class Result(NamedTuple):
    """A value that a stage writes; with ``adds`` the value is added to the number in the slot."""

    value: Expression
    slot: Slot
    adds: bool = False


class Operand(NamedTuple):
    """The operand of products: vectors of one size side by side, each written by a stage.

    ``twice``: the operand has two buffers, since it is written for the next step while it is read for this step.
    """

    values: tuple[Expression, ...]
    letter: str
    stages: tuple[int, ...]
    twice: bool


class Multiplied(NamedTuple):
    """A product of row blocks ``of`` a weight with an operand; if transposed, with the row blocks of the operand."""

    stage: int
    weight: str
    operand: int
    of: tuple[int, ...]
    values: tuple[Expression, ...]
    heads: int
    transposed: bool


class Kept(NamedTuple):
    """A value that a later stage reads; ``twice`` as in `Operand`.

    ``bounded``: the value is read only where a sequence has ended, so only calls with boundaries need it.
    """

    value: Expression
    twice: bool
    bounded: bool


class Sum(NamedTuple):
    """A value that is summed over steps and sequences, for the units of one size, and the columns that get the sum."""

    value: Expression
    letter: str
    to: tuple[tuple[str, int, str], ...]
    """Array, column, and axes of the array."""


class Term(NamedTuple):
    """A row block of a weight's gradient: the two array columns whose product is summed over steps and sequences."""

    weight: str
    block: int
    heads: int
    d: tuple[str, int]
    operand: tuple[str, int]


class Layout(NamedTuple):
    """A program in the form for an engine.

    ``blocks`` are each stage's elementwise values in order. They include values of earlier stages that are cheaper to
    recompute than to keep.
    """

    program: Program
    stages: Stages
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
        """The names of the caller's arrays that hold values, in order."""
        found = [slot.array for slot in self.slots.values() if slot.where != "COUNT"]
        found += [each.slot.array for results in self.results for each in results]
        found += [product.weight for product in self.products]
        found += [array for each in self.sums for array, *_ in each.to]
        found += [f"initial.{v.args[0].removeprefix('before.')}" for v, s in self.slots.items() if s.where == "BEFORE"]
        return [*dict.fromkeys(name for name in found if name)]

    @property
    def histories(self) -> dict[str, str]:
        """The arrays that forward leaves for backward, of all steps, besides the output.

        An array's value is the letter of its units' size; "" if it holds one number of each sequence.
        """
        found = {}
        for k, results in enumerate(self.results):
            slots = [each.slot for each in results if each.slot.axes.startswith("T") and each.slot.working]
            found |= {slot.array: self.stages.letter[k] if slot.axes.endswith("H") else "" for slot in slots}
        return found

    def for_weights(self) -> dict[str, str]:
        """The arrays that backward leaves for the weights' gradients, and their letters; not the gates' gradient."""
        found = {}
        for k, results in enumerate(self.results):
            arrays = [each.slot.array for each in results]
            found |= {array: self.stages.letter[k] for array in arrays if array.partition(".")[0] in FOR_WEIGHTS}
        return found

    @property
    def gates_inside(self) -> bool:
        """Whether the input's gates may be projected step by step instead of for all steps in advance.

        No reduction or product may read them. No first stage may read them either, as it runs in the previous step.
        """
        first = [self.stages.first(letter) for letter in self.stages.letters]
        read = [arg for k in first for v in self.blocks[k] for arg in v.inner]
        read += [each.value for k in first for each in self.results[k]]
        read += [v.args[0] for _, v in self.reductions] + [v for each in self.operands for v in each.values]
        return not any(v in self.slots and self.slots[v].where == "GATE" for v in read)

    @property
    def gates_at(self) -> int:
        """The first stage that may read the input's gates if they are projected step by step."""
        return next(k for k in range(1, self.stages.count) if self.stages.letter[k] == "H")

    def columns(self, array: str) -> int:
        """How many columns of an array are written; a column has all units, or one number."""
        slots = [each.slot for results in self.results for each in results]
        return 1 + max((slot.column for slot in slots if slot.array == array), default=-1)


def layouts(cell: type[Cell], derived: Derivation) -> tuple[Layout, Layout]:
    """The layouts of forward and backward, which must be derived with all boundaries.

    Raises:
        DerivationError: no engine runs the cell, because it has reductions of heads, heads of two sizes, or weights
            made of weights.
    """
    values = reachable([*derived.forward.roots, *derived.backward.roots])
    _check(cell, values)
    columns = columns_of(cell, values, derived)
    letters = dict.fromkeys(["H", *filter(None, (v.unit_axis for v in values))])
    forward, backward = (_Places(columns, p, stages_of(p, (*letters,))) for p in derived[:2])
    for name, output in derived.forward.outputs.items():
        if columns[name] != columns["output"] or name == "output":  # a state may be the output, in one array
            forward.write(output, columns[name])
    for state, (name, onward) in zip(cell.states, derived.forward.carried.items(), strict=True):
        forward.carry(name, onward, f"initial.{state}", f"final.{state}")

    for state, (name, onward) in zip(cell.states, derived.backward.carried.items(), strict=True):
        backward.carry(name, onward, f"grad_final.{state}", f"grad_initial.{state}")
    summed: dict[tuple[Expression, str], list[tuple[str, int, str]]] = {}
    for name, output in derived.backward.outputs.items():
        slot, value = columns[name.removeprefix("d.")], output.value
        to = f"grad_{slot.array}", slot.column
        if slot.where == "GATE":
            backward.write(output, slot._replace(where="GIVEN", array=to[0]))
            summed.setdefault((value, "H"), []).append(("grad_bias_ih", slot.column, "H"))
        elif slot.axes in ("H", ""):
            # A value without units has no letter: any stage after the value is made may sum it.
            letter = output.axes or value.unit_axis or backward.letter_of(value)
            summed.setdefault((value, letter), []).append((*to, slot.axes))
        else:
            adds = "T" not in output.axes
            backward.write(output, slot._replace(array=to[0], working=adds), adds)
    previous = f"before.{cell.states[0]}" if columns["output"] == columns[f"after.{cell.states[0]}"] else ""
    terms = [backward.term(outer, previous) for outer in derived.backward.outers]
    sums = [Sum(*of, tuple(to)) for of, to in summed.items()]
    return forward.layout([], []), backward.layout(sums, terms)


def _check(cell: type[Cell], values: Sequence[Expression]) -> None:
    products = [v.op for v in values if isinstance(v.op, Product)]
    others = [v for v in values if not isinstance(v.op, Product)]
    lacking = {
        "reductions of heads": any("N" in v.axes or getattr(v.op, "heads", 1) > 1 for v in others),
        "heads of two sizes": any(op.heads > 1 and op.axis != op.of for op in products),
        "weights made of weights": cell.weights is not Cell.weights,
    }
    refuse(cell, lacking, "no loop runs that yet")


def refuse(cell: type[Cell], found: Mapping[str, bool], words: str) -> None:
    """Raise a `DerivationError` if a cell has one of the features in ``found``; the message names the features."""
    if any(found.values()):
        raise DerivationError(f"{cell.__name__} has {', '.join(name for name, has in found.items() if has)}: {words}")


FOR_WEIGHTS = "grad_products", "multiplied"
"""The arrays that backward leaves for the weights' gradients; for a size besides H the letter is appended."""


class _Places:
    """Builds the layout of one program."""

    def __init__(self, columns: dict[str, Slot], program: Program, stages: Stages) -> None:
        self._columns, self._program, self._stages = columns, program, stages
        self._between = {v for stage in program.stages for v in stage.gathers}
        self._slots: dict[Expression, Slot] = {}
        self._results: list[list[Result]] = [[] for _ in stages.letter]
        self._taken: dict[str, int] = {}

    def letter_of(self, value: Expression) -> str:
        """The letter of the stage that makes a value."""
        return self._stages.letter[self._stages.making(value)]

    def write(self, output: Output, slot: Slot, adds: bool = False) -> None:
        slot = slot._replace(where="GIVEN" if slot.where == "GATE" else slot.where)
        stage = self._stages.making(output.value, output.axes.strip("TB"))
        self._results[stage].append(Result(output.value, slot, adds))

    def carry(self, name: str, onward: Output, begin: str, end: str) -> None:
        """Carry a value from step to step: array ``begin`` has its first values, array ``end`` gets its last values."""
        leaf = next((v for v in self._leaves() if v.args[0] == name), None)
        if leaf is not None:
            self._slots[leaf] = Slot("CARRIED", "BH", begin)
        slot = Slot("CARRIED", "BH", end, working=begin.startswith("grad"))
        self._results[self._stages.last(onward.axes.strip("B"))].append(Result(onward.value, slot))

    def term(self, outer: Outer, previous: str) -> Term:
        """The places of both vectors of an outer product, for all steps.

        A vector that no array holds is written to an array for the weights' gradients. ``previous`` names the leaf that
        the caller's array ``previous`` holds; "" if none.
        """
        operand, (rows, columns) = outer.operand, outer.axes
        if operand.op is where and operand.args[0].args[0] == "valid":
            operand = operand.args[1]
        entered = operand.args[2] if operand.op is where and operand.args[0].args[0] == "reset" else operand
        if entered.op == "leaf" and entered.args[0] == previous:
            to = "previous", 0
        else:
            # Writes the operand with its `where`: without, it could be any number after a sequence has ended.
            to = self._history(outer.operand, "multiplied", columns)
        return Term(outer.weight, outer.block, outer.heads, self._history(outer.d, "grad_products", rows), to)

    def _history(self, value: Expression, array: str, letter: str) -> tuple[str, int]:
        there = {of_size(each, letter) for each in FOR_WEIGHTS} | ({"grad_gates_x"} if letter == "H" else set())
        for results in self._results:
            for each in results:
                if each.value is value and each.slot.array in there:
                    return each.slot.array, each.slot.column
        array = of_size(array, letter)
        column = self._taken[array] = self._taken.get(array, -1) + 1
        self.write(Output(f"TB{letter}", value), Slot("GIVEN", "TBH", array, column))
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
            stage = self._stages.making(each.value, each.letter)
            self._results[stage].append(Result(each.value, Slot("SUM", "H", column=k)))
        blocks = self._blocks(gathers, operands)
        kept = self._kept(gathers, blocks)
        for k, each in enumerate(kept):
            self._slots[each.value] = Slot("KEPT", general(each.value.axes), column=k)
        products, reductions = [], []
        for v in gathers:
            stage = self._stages.of[v]
            if isinstance(v.op, Product):
                place = next(k for k, operand in enumerate(operands) if operand[:2] == (v.args, v.op.of))
                one = Multiplied(stage, v.op.weight, place, v.op.blocks, (v,), v.op.heads, v.op.transposed)
                last = products[-1] if products else None
                if last and not one.transposed and last[:3] == one[:3] and last.of[-1] + 1 == one.of[0]:
                    products[-1] = last._replace(of=last.of + one.of, values=last.values + one.values)
                else:
                    products.append(one)
            else:
                reductions.append((stage, v))
        reductions.sort(key=lambda each: each[1].op.name != "mean")  # a variance uses the mean of its values
        parts = blocks, self._slots, kept, operands, products, reductions, self._results, sums, terms
        return Layout(program, self._stages, *parts)

    def _operands(self, gathers: list[Expression]) -> list[Operand]:
        found = dict.fromkeys((v.args, v.op.of) for v in gathers if isinstance(v.op, Product))
        made = [[self._stages.making(v, letter) for v in values] for values, letter in found]
        return [
            Operand(values, letter, tuple(stages), any(not self._stages.before[k] for k in stages))
            for (values, letter), stages in zip(found, made, strict=True)
        ]

    def _blocks(self, gathers: list[Expression], operands: list[Operand]) -> list[list[Expression]]:
        """The elementwise values of each stage: its results, the values that later stages read, and their parts."""
        read = [(v, stage) for each in operands for v, stage in zip(each.values, each.stages, strict=True)]
        read += [(v, self._stages.making(v)) for each in gathers if not isinstance(each.op, Product) for v in each.args]
        found = []
        for k in range(len(self._results)):
            wanted = [each.value for each in self._results[k]] + [v for v, stage in read if stage == k]
            # Adds the values that later stages read.
            block = self._program.stages[self._stages.before[k]].block
            wanted += [v for v in block if self._stages.of[v] == k and not self._is_cheap(v)]
            made = self._made(wanted, k)
            found.append([v for v in reachable(made) if v in made])
        return found

    def _made(self, wanted: Iterable[Expression], stage: int) -> set[Expression]:
        todo, made = [*wanted], set()
        while todo:
            v = todo.pop()
            own = self._stages.of.get(v) == stage
            if v not in made and v.inner and v not in self._between and (own or self._is_cheap(v)):
                made.add(v)
                todo += v.inner
        return made

    def _is_cheap(self, v: Expression, most: int = 3) -> bool:
        """Whether later stages recompute a value instead of reading it from memory.

        They recompute choices at boundaries, and values that at most ``most`` levels of operations make from memory.
        """
        if not v.gathers and v.inner and not v.unit_axis:
            return True  # one number of each row, from numbers that each stage has
        if v.op == ">" and not any(map(self._is_carried, v.args)):
            return True  # a condition is no vector of numbers, so its arguments are kept instead, if necessary
        if v.gathers or not v.inner or most == 0 or self._is_entering(v):
            return False
        if v.op is where and v.args[0].args[0] in ("valid", "reset"):
            return all(self._is_there(arg, most) or arg.inner for arg in v.args[1:])
        return v.op in ("+", "-", "*", "neg", ">") and all(self._is_there(arg, most - 1) for arg in v.args)

    def _is_there(self, v: Expression, most: int) -> bool:
        """Whether a later stage has a value in memory, or recomputes it."""
        if v.op == "leaf":
            return not self._is_carried(v)
        return v.op == "constant" or self._is_entering(v) or self._is_cheap(v, most)

    def _is_entering(self, v: Expression) -> bool:
        """Whether a value is a state as it enters the step, after the choice at a reset."""
        return v.op is where and self._is_carried(v.args[2])

    def _unended(self, value: Expression) -> Expression:
        """The value in sequences that have not ended, without the choice at their end.

        A choice of a carried value stays, as only the first stage has carried values.
        """
        while value.op is where and value.args[0].args[0] == "valid" and not self._is_carried(value.args[1]):
            value = value.args[1]
        return value

    def _is_carried(self, value: Expression) -> bool:
        return value in self._slots and self._slots[value].where == "CARRIED"

    def _kept(self, gathers: list[Expression], blocks: list[list[Expression]]) -> list[Kept]:
        """The values that a later stage reads from an earlier stage, and the arguments of reductions."""
        reduced = dict.fromkeys(v.args[0] for v in gathers if not isinstance(v.op, Product))
        later: dict[Expression, bool] = {}
        plain: set[Expression] = {*reduced}
        before = self._stages.before
        for k, block in enumerate(blocks):
            made = {*block}
            ends = [each.value for each in self._results[k]]
            read = [arg for v in block for arg in v.inner] + ends
            unended = [arg for v in block if v is self._unended(v) for arg in v.inner] + ends
            plain |= {v for v in map(self._unended, unended) if v not in made}
            for v in read:
                of_units = v.unit_axis or v not in self._between
                if v.inner and of_units and v not in made and before[self._stages.of[v]] < before[k]:
                    later.setdefault(v, v in reduced and not before[self._stages.of[v]])
        for v in reduced:
            if v.inner or self._is_carried(v):
                later.setdefault(v, not before[self._stages.making(v)])
        return [Kept(value, twice, value not in plain) for value, twice in later.items()]
