"""Fourth: where an engine has the values of a program. Nothing here is of one language.

A stage of an engine is that of a program for the units of one size: it is known by its number. After the last one of a
size comes the next step's first one, so what is carried passes in registers. What a later stage reads of an earlier one
is kept in memory of the engine's; so are the operands of gathers, which all threads read.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..cells import Cell
from ..cells.activations import where
from .columns import Slot, columns_of, general, of_size
from .derivation import Derivation
from .differentiate import Outer
from .expressions import DerivationError, Expression, Product, reachable
from .program import Output, Program
from .stages import Stages, stages_of


class Result(NamedTuple):
    """A value that a stage writes; ``adds`` to what is there."""

    value: Expression
    slot: Slot
    adds: bool = False


class Operand(NamedTuple):
    """What products read: vectors of one size side by side, each written by a stage. ``twice``: written for the next
    step while it is read for this one."""

    values: tuple[Expression, ...]
    letter: str
    stages: tuple[int, ...]
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
    """A value that is summed up over steps and sequences, for the units of one size, and the columns of arrays that get
    the sum."""

    value: Expression
    letter: str
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
        """The names of the caller's arrays that values are in, in order."""
        found = [slot.array for slot in self.slots.values() if slot.where != "COUNT"]
        found += [each.slot.array for results in self.results for each in results]
        found += [product.weight for product in self.products]
        found += [array for each in self.sums for array, *_ in each.to]
        found += [f"initial.{v.args[0].removeprefix('before.')}" for v, s in self.slots.items() if s.where == "BEFORE"]
        return [*dict.fromkeys(name for name in found if name)]

    @property
    def histories(self) -> dict[str, str]:
        """What forward leaves of all steps for backward, besides the output: arrays, and the letters of their units'
        size, or "" for numbers."""
        found = {}
        for k, results in enumerate(self.results):
            slots = [each.slot for each in results if each.slot.axes.startswith("T") and each.slot.working]
            found |= {slot.array: self.stages.letter[k] if slot.axes.endswith("H") else "" for slot in slots}
        return found

    def for_weights(self) -> dict[str, str]:
        """Likewise what backward leaves for the weights' gradients, besides that of the gates."""
        found = {}
        for k, results in enumerate(self.results):
            arrays = [each.slot.array for each in results]
            found |= {array: self.stages.letter[k] for array in arrays if array.partition(".")[0] in FOR_WEIGHTS}
        return found

    @property
    def gates_inside(self) -> bool:
        """Whether the input's gates may be made step by step: no reduction reads them, and no stage that precedes all
        products, since that runs with the step before."""
        first = [self.stages.first(letter) for letter in self.stages.letters]
        read = [arg for k in first for v in self.blocks[k] for arg in v.inner]
        read += [each.value for k in first for each in self.results[k]]
        read += [v.args[0] for _, v in self.reductions] + [v for each in self.operands for v in each.values]
        return not any(v in self.slots and self.slots[v].where == "GATE" for v in read)

    @property
    def gates_at(self) -> int:
        """The first stage that may read the input's gates when they are made step by step."""
        return next(k for k in range(1, self.stages.count) if self.stages.letter[k] == "H")

    def columns(self, array: str) -> int:
        """How many columns of an array are written, each of all units or of one number."""
        slots = [each.slot for results in self.results for each in results]
        return 1 + max((slot.column for slot in slots if slot.array == array), default=-1)


def layouts(cell: type[Cell], derived: Derivation) -> tuple[Layout, Layout]:
    """Those of both passes, derived with all boundaries.

    Raises:
        DerivationError: no engine runs such a cell: with reductions of heads, heads of two sizes, or weights made of
            weights.
    """
    values = reachable([*derived.forward.roots, *derived.backward.roots])
    _check(cell, values)
    columns = columns_of(cell, values, derived)
    letters = dict.fromkeys(["H", *filter(None, (v.unit_axis for v in values))])
    forward, backward = (_Places(columns, p, stages_of(p, (*letters,))) for p in derived[:2])
    for name, output in derived.forward.outputs.items():
        if columns[name] != columns["output"] or name == "output":  # a state that is the output is read there
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
            # A number that is summed has no size of its own: any stage sums it that comes after it is made.
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
    """DerivationError where a cell has something of what is told, by name."""
    if any(found.values()):
        raise DerivationError(f"{cell.__name__} has {', '.join(name for name, has in found.items() if has)}: {words}")


FOR_WEIGHTS = "grad_products", "multiplied"
"""The arrays that backward leaves for the weights' gradients; of a size besides H its letter follows."""


class _Places:
    """Finds the places of one program's values."""

    def __init__(self, columns: dict[str, Slot], program: Program, stages: Stages) -> None:
        self._columns, self._program, self._stages = columns, program, stages
        self._between = {v for stage in program.stages for v in stage.gathers}
        self._slots: dict[Expression, Slot] = {}
        self._results: list[list[Result]] = [[] for _ in stages.letter]
        self._taken: dict[str, int] = {}

    def letter_of(self, value: Expression) -> str:
        """The size of the stage that makes a value."""
        return self._stages.letter[self._stages.making(value)]

    def write(self, output: Output, slot: Slot, adds: bool = False) -> None:
        slot = slot._replace(where="GIVEN" if slot.where == "GATE" else slot.where)
        stage = self._stages.making(output.value, output.axes.strip("TB"))
        self._results[stage].append(Result(output.value, slot, adds))

    def carry(self, name: str, onward: Output, begin: str, end: str) -> None:
        """What passes from the last stage to the first; its first values, and where its last ones go."""
        leaf = next((v for v in self._leaves() if v.args[0] == name), None)
        if leaf is not None:
            self._slots[leaf] = Slot("CARRIED", "BH", begin)
        slot = Slot("CARRIED", "BH", end, working=begin.startswith("grad"))
        self._results[self._stages.last(onward.axes.strip("B"))].append(Result(onward.value, slot))

    def term(self, outer: Outer, previous: str) -> Term:
        """Where the two vectors of an outer product are, over all steps: written for that alone where they are not.
        ``previous`` is the leaf that the caller has so."""
        operand, (rows, columns) = outer.operand, outer.axes
        if operand.op is where and operand.args[0].args[0] == "valid":
            operand = operand.args[1]
        entered = operand.args[2] if operand.op is where and operand.args[0].args[0] == "reset" else operand
        if entered.op == "leaf" and entered.args[0] == previous:
            to = "previous", 0
        else:
            # Zero where a sequence has ended: there may be anything.
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
        reductions.sort(key=lambda each: each[1].op.name != "mean")  # of which the variance of the same is made
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
        """What each stage makes: what it is there for, and what that is made of."""
        read = [(v, stage) for each in operands for v, stage in zip(each.values, each.stages, strict=True)]
        read += [(v, self._stages.making(v)) for each in gathers if not isinstance(each.op, Product) for v in each.args]
        found = []
        for k in range(len(self._results)):
            wanted = [each.value for each in self._results[k]] + [v for v, stage in read if stage == k]
            # What later stages read.
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
        """Whether a stage makes a value of an earlier one again: what boundaries choose, and what few operations make
        of what is in memory."""
        if not v.gathers and v.inner and not v.unit_axis:
            return True  # of numbers, which each stage has
        if v.op == ">" and not any(map(self._is_carried, v.args)):
            return True  # of what is kept, if need be: it is no vector of numbers itself
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
        return value in self._slots and self._slots[value].where == "CARRIED"

    def _kept(self, gathers: list[Expression], blocks: list[list[Expression]]) -> list[Kept]:
        """What a later stage reads of an earlier one, and what is reduced between stages."""
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
