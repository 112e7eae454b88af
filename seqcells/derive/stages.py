"""Divide: each stage of a program, split into one stage for each size of units (hidden size, projection size, …)."""

from typing import NamedTuple

from .expressions import DerivationError, Expression
from .program import Program


class Stages(NamedTuple):
    """The stages of a program, one for each size of units, by number.

    A letter names a size. Stage 0 is the first stage of the first letter. The first stages of the other letters are
    numbered from ``count`` on. All later stages have the numbers from 1 to ``count`` - 1.

    * ``letter``: the letter of each stage;
    * ``before``: how many stages of the undivided program come before each stage;
    * ``follows``: for a letter's last stage the letter's first stage, which runs next in the next step; else -1;
    * ``of``: the stage that makes each value.
    """

    letters: tuple[str, ...]
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]  # tuple.count is not called
    letter: list[str]
    before: list[int]
    follows: list[int]
    of: dict[Expression, int]

    def first(self, letter: str) -> int:
        """The first stage of a letter, before which nothing is gathered."""
        place = self.letters.index(letter)
        return place and self.count + place - 1

    def last(self, letter: str) -> int:
        """The last stage of a letter, which is followed by the letter's first stage in the next step."""
        return self.follows.index(self.first(letter))

    def making(self, value: Expression, letter: str = "") -> int:
        """The stage that makes a value; for a leaf the first stage.

        A value without units is attributed to a stage of ``letter``: the stage that makes the value, or the last one.

        Raises:
            DerivationError: a value without units is made after the last stage of ``letter``.
        """
        letter = value.unit_axis or letter
        if value in self.of and self.letter[self.of[value]] == (letter or self.letter[self.of[value]]):
            return self.of[value]
        if value not in self.of:
            return self.first(letter or self.letters[0])
        last = self.last(letter)
        if self.before[last] < self.before[self.of[value]]:
            raise DerivationError(f"no stage of units of the size {letter} comes after what is to be written for them")
        return last


def stages_of(program: Program, letters: tuple[str, ...]) -> Stages:
    """The stages of a program, divided by the sizes that ``letters`` name."""
    found = [(0, letters[0])]
    for n, stage in enumerate(program.stages[1:], 1):
        there = {v.unit_axis for v in (*stage.gathers, *stage.block)}
        last = n == len(program.stages) - 1
        there |= {letter for letter in letters if last and letter not in {each for _, each in found[1:]}}
        found += [(n, letter) for letter in letters if letter in there] or [(n, letters[0])]
    count = len(found)
    found += [(0, letter) for letter in letters[1:]]
    before, letter = ([*each] for each in zip(*found, strict=True))
    follows = [-1] * len(found)
    for k, each in enumerate(letters):
        follows[max(n for n in range(1, count) if letter[n] == each)] = k and count + k - 1
    of = {}
    for n, stage in enumerate(program.stages):
        own = {letter[k]: k for k in reversed(range(len(found))) if before[k] == n}
        first = min(own.values())
        of |= {v: own[v.unit_axis] if v.unit_axis else first for v in (*stage.gathers, *stage.block)}
    return Stages(letters, count, letter, before, follows, of)
