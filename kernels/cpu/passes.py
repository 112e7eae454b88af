"""The forward and the backward pass of a stack of layers, as programs."""

from collections.abc import Sequence
from typing import Any

from ... import fits
from ...recurrence import Recurrence
from .call import EngineCall, has_path, several_steps
from .program import MEMORY, WEIGHTS, At, Block, Program, are_read_in_place, named


class Passes:
    """What the two passes of a stack are, and where between them its values lie."""

    def __init__(
        self, layers: Sequence[Recurrence], wanted: Sequence[Recurrence], batch_first: bool, reads_output: bool
    ) -> None:
        for q in layers:
            fits.check(q)
        self._several_steps = several_steps(layers[0])
        self._wanted, self._batch_first, self._reads_output = wanted, batch_first, reads_output
        self._calls = [EngineCall(q, inside=True) for q in layers]
        dtype = layers[0].input.dtype
        self._size, self._features = dtype.itemsize, [q.input.shape[2] for q in layers]
        # What is kept between the passes is of the working dtype, and all lies in one block.
        self.in_place = self._calls[0].working == self._calls[0].dtype == dtype and all(
            are_read_in_place(q, call) and all(w.hr is None for w in q.weights)
            for q, call in zip(layers, self._calls, strict=True)
        )
        self.kept, self._memory = Block("kept"), Block(MEMORY)
        self._saved = [self._keep(k) for k in range(len(layers))]
        self._weights = [
            n for k, q in enumerate(layers) for d, w in enumerate(q.weights) for n in named(k, d, w).values()
        ]
        states = range(len(layers[0].states))
        self._initial, self._final = ([(end, state) for state in states] for end in ("initial", "final"))

    def forward(self) -> Any:
        """The program."""
        program = Program(["input", *self._initial, *self._final, "output", *self._weights, "kept"])
        for k in range(len(self._calls)):
            self._memory.free()
            self._forward(program, k)
        return program.done(self._memory.bytes)

    def backward(self) -> Any:
        """Likewise."""
        self._memory = Block(MEMORY)
        gradients = [("gradient", of) for of in ("input", *self._initial, *self._weights)]
        given = [("given", of) for of in ("output", *self._final)]
        program = Program(["input", *self._initial, "output", "kept", *given, *self._weights, *gradients])
        # What a layer hands to the one below lies before what it frees, and alternates.
        wide = self._calls[0].steps * self._calls[0].batch * max(self._features) * self._size
        count = 2 if len(self._calls) > 1 else 0
        passed: At | None = At(("given", "output"))
        for k in reversed(range(len(self._calls))):
            self._memory.free()
            between = [self._memory.take(wide) for _ in range(count)]
            passed = self._backward(program, k, passed, between[k % 2] if k else None)
        return program.done(self._memory.bytes)

    def _keep(self, k: int) -> dict[Any, At]:
        """Where a layer's values lie until backward."""
        call = self._calls[k]
        rows, hidden = call.steps * call.batch * self._size, call.hidden
        kept: dict[Any, At] = {"saved": self.kept.take(call.directions * rows * call.kernels.saves * hidden)}
        last = k == len(self._calls) - 1
        paths = has_path(call.kernels, call.weights[0])
        if last and not self._reads_output:
            paths[0] = True  # read in the output's place
        for state, has in enumerate(paths):
            if has:
                kept["path", state] = self.kept.take(call.directions * rows * hidden)
        kept["output"] = At("output") if last else self.kept.take(rows * call.directions * hidden)
        return kept

    def _common(self, k: int) -> list[dict[Any, At]]:
        """The addresses of each direction that both passes have."""
        call, kept = self._calls[k], self._saved[k]
        units, rows = call.hidden * self._size, call.steps * call.batch
        directions = []
        for d, w in enumerate(call.weights):
            at = {field: At(name) for field, name in named(k, d, w).items() if field not in ("weight_ih", "bias_ih")}
            at["output"] = kept["output"] + d * units
            at["saved"] = kept["saved"] + d * rows * call.kernels.saves * units
            at |= {field: place + d * rows * units for field, place in kept.items() if field[0] == "path"}
            at |= {("initial", s): self._state("initial", k, d, s) for s in range(len(call.states))}
            directions.append(at)
        return directions

    def _state(self, end: str, k: int, d: int, state: int, of: str | None = None) -> At:
        """A direction's part of the states that are an argument, or of their gradients."""
        call = self._calls[k]
        argument = (end, state) if of is None else (of, (end, state))
        return At(argument, (k * call.directions + d) * call.batch * call.hidden * self._size)

    def _input(self, program: Program, k: int) -> At:
        """A layer's input, (T, B, features)."""
        if k:
            return self._saved[k - 1]["output"]
        if not self._batch_first:
            return At("input")
        return program.steps_first(self._calls[0], self._features[0] * self._size, self._memory)

    def _side_by_side(self, program: Program, k: int, field: str, bytes: int) -> At | None:
        """A weight of all directions, one below the other."""
        call = self._calls[k]
        names = [named(k, d, w).get(field) for d, w in enumerate(call.weights)]
        if None in names or len(names) == 1:
            return None if None in names else At(names[0])
        place = self._memory.take(len(names) * bytes)
        for d, name in enumerate(names):
            program.copy((1, 1, bytes), (place + d * bytes, 0, 0), (At(name), 0, 0))
        return place

    def _forward(self, program: Program, k: int) -> None:
        call, size = self._calls[k], self._size
        features, units = self._features[k], len(call.cell.gates) * call.hidden
        rows, columns = call.steps * call.batch, call.directions * units
        directions = self._common(k)
        for d, at in enumerate(directions):
            at |= {("final", s): self._state("final", k, d, s) for s in range(len(call.states))}
        if not self._several_steps:
            input = self._input(program, k)
            for d, (w, at) in enumerate(zip(call.weights, directions, strict=True)):
                own = named(k, d, w)
                at |= {field: At(own[field]) for field in ("weight_ih", "bias_ih") if field in own}
                at["input"] = input
            program.layer("forward", call, call.flat({"features": features}), directions)
            return
        gates_x = self._memory.take(rows * columns * size)
        weight = self._side_by_side(program, k, "weight_ih", units * features * size)
        bias = self._side_by_side(program, k, "bias_ih", units * size)
        input = self._input(program, k)
        program.gemm(call, (rows, columns, features), (input, features, 1), (weight, 1, features), gates_x, bias)
        for d, at in enumerate(directions):
            at["gates_x"] = gates_x + d * units * size
        program.layer("forward", call, call.flat({"weight_ih": 0, "bias_ih": 0}), directions)

    def _backward(self, program: Program, k: int, grad_output: At, grad_input: At | None) -> At | None:
        """A layer's gradients; that of its input where it is told, or where the caller has it. Returns where."""
        call, size, wanted = self._calls[k], self._size, self._wanted[k]
        features, hidden, gates = self._features[k], call.hidden, len(call.cell.gates)
        rows, units = call.steps * call.batch, gates * hidden
        columns, own = call.directions * units, call.kernels.shared.count(-1) * hidden
        grad_gates = self._memory.take(rows * columns * size)
        grad_products = [self._memory.take(rows * own * size) for _ in call.weights]
        previous = [self._previous(program, k, d) for d in range(call.directions)]
        directions = self._common(k)
        for d, at in enumerate(directions):
            at["previous_hidden"], at["grad_output"] = previous[d], grad_output + d * hidden * size
            at["grad_gates_x"], at["grad_product"] = grad_gates + d * units * size, grad_products[d]
            for s in range(len(call.states)):
                at["grad_final", s] = self._state("final", k, d, s, "given")
                at["grad_initial", s] = self._state("initial", k, d, s, "gradient")
                if not wanted.states[s]:
                    at["grad_initial", s] = self._memory.take(call.states[s][d].nbytes)
            at |= {
                f"grad_{field}": At(("gradient", name))
                for field, name in self._wanted_of(k, d).items()
                if field in ("bias_ih", "bias_hh", "unit")
            }
            if call.unit[d] is not None and "grad_unit" not in at:
                at["grad_unit"] = self._memory.take(call.unit[d].nbytes)
        program.layer("backward", call, call.flat({}), directions)

        input = self._input(program, k)
        for d in range(call.directions):
            names = self._wanted_of(k, d)
            gates_of = (grad_gates + d * units * size, 1, columns)
            if "weight_ih" in names:
                out = At(("gradient", names["weight_ih"]))
                program.gemm(call, (units, features, rows), gates_of, (input, features, 1), out)
            for run in call.kernels.runs() if "weight_hh" in names else ():
                source, *by = (grad_products[d], 1, own) if run.own else gates_of
                out = At(("gradient", names["weight_hh"])) + run.first * hidden * hidden * size
                part = source + run.column * hidden * size, *by
                program.gemm(call, (run.count * hidden, hidden, rows), part, (previous[d], hidden, 1), out)
        if not k and not wanted.input:
            return None
        weight = self._side_by_side(program, k, "weight_ih", units * features * size)
        out, row = At(("gradient", "input")), features * size
        turned = not k and self._batch_first
        place = grad_input or (self._memory.take(rows * row) if turned else out)
        program.gemm(call, (rows, features, columns), (grad_gates, columns, 1), (weight, features, 1), place)
        if turned:
            program.copy((call.steps, call.batch, row), (out, row, call.steps * row), (place, call.batch * row, row))
        return place

    def _wanted_of(self, k: int, d: int) -> dict[str, Any]:
        """The weights of a direction whose gradients are wanted, by their fields."""
        wanted = self._wanted[k].weights[d]
        of = dict(zip(WEIGHTS, (*wanted[:5], any(wanted.own)), strict=True))
        return {field: name for field, name in named(k, d, self._calls[k].weights[d]).items() if of[field]}

    def _previous(self, program: Program, k: int, d: int) -> At:
        """(T, B, H): the hidden state that each step's product read."""
        call = self._calls[k]
        if not self._several_steps:
            return self._state("initial", k, d, 0)
        row, step = call.hidden * self._size, call.batch * call.hidden * self._size
        place = self._memory.take(call.steps * step)
        begin, rest = ((call.steps - 1) * step, 0) if call.reverse(d) else (0, step)
        program.copy((1, 1, step), (place + begin, 0, 0), (self._state("initial", k, d, 0), 0, 0))
        wide = call.directions * row
        output = self._saved[k]["output"] + d * row + (call.batch * wide if call.reverse(d) else 0)
        program.copy((1, (call.steps - 1) * call.batch, row), (place + rest, 0, row), (output, 0, wide))
        return place
