"""The forward and backward passes of a stack of layers, as lists of runs."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...request import check_recurrence
from ...request.recurrence import Recurrence
from ...request.streams import names
from .layer_call import LayerCall, kernels_of, named, row_blocks, several_steps
from .run_list import MEMORY, At, Block, RunList, are_read_in_place, arguments_of, streams_of

AGAIN = "output once more"
"""A copy of a single step's output, for backward. The caller's output is the hidden state too, and the caller may
change it."""
OF_INPUT = "weight_ih", "bias_ih"


class StackPasses:
    """The two passes of a stack, and where the values that forward leaves for backward lie."""

    def __init__(
        self, layers: Sequence[Recurrence], wanted: Sequence[Recurrence[bool]], batch_first: bool, reads_output: bool
    ) -> None:
        for q in layers:
            check_recurrence.check(q)
        # A separate product projects the input if there are several steps, or if the cell demands it.
        self._several_steps = several_steps(layers[0])
        self._inside = not self._several_steps and kernels_of(layers[0]).gates_inside
        self._wanted, self._batch_first, self._reads_output = wanted, batch_first, reads_output
        self._layers = layers
        self._calls = [LayerCall(q, inside=True) for q in layers]
        dtype = layers[0].input.dtype
        self._size, self._features = dtype.itemsize, [q.input.shape[2] for q in layers]
        # Values between the passes have the working dtype, and all lie in one block.
        first = self._calls[0]
        self.in_place = first.working == first.dtype == dtype and first.kernels.writes_gradients_once
        # A gradient that is summed over the steps would have to start at zero.
        axes, read = first.cell.streams, first.kernels.places[True]
        self.in_place &= all(each.startswith("T") for each in axes.values())
        self.in_place &= bool(first.cell.gates) or "grad_x.input" in read
        self._streams = [("stream", name) for name in names(first.cell)]
        for q, call in zip(layers, self._calls, strict=True):
            self.in_place &= are_read_in_place(q, call)
        self.kept, self._memory = Block("kept"), Block(MEMORY)
        self._saved = [self._keep(k) for k in range(len(layers))]
        each = [arguments_of(call, k, d) for k, call in enumerate(self._calls) for d in range(call.directions)]
        self._weights = [argument for arguments in each for argument in arguments.values()]
        states = range(len(layers[0].states))
        self._initial, self._final = ([(end, state) for state in states] for end in ("initial", "final"))

    def forward(self) -> Any:
        """The forward pass as a list of runs."""
        runs = RunList(["input", *self._streams, *self._initial, *self._final, "output", *self._weights, "kept"])
        for k in range(len(self._calls)):
            self._memory.free()
            self._forward(runs, k)
        return runs.done(self._memory.bytes)

    def backward(self) -> Any:
        """The backward pass as a list of runs."""
        self._memory = Block(MEMORY)
        gradients = [("gradient", of) for of in ("input", *self._initial, *self._weights)]
        given = [("given", of) for of in ("output", *self._final)]
        read = ["input", *self._streams, *self._initial, "output", "kept"]
        runs = RunList([*read, *given, *self._weights, *gradients])
        # Each layer takes memory anew. The two places for gradients between layers come first in it, so their addresses
        # stay the same, and layers alternate between them.
        wide = self._calls[0].steps * self._calls[0].batch * max(self._features) * self._size
        count = 2 if len(self._calls) > 1 else 0
        passed: At | None = At(("given", "output"))
        for k in reversed(range(len(self._calls))):
            self._memory.free()
            between = [self._memory.take(wide) for _ in range(count)]
            passed = self._backward(runs, k, passed, between[k % 2] if k else None)
        return runs.done(self._memory.bytes)

    def _keep(self, k: int) -> dict[str, At]:
        """Where the values of a layer lie until backward."""
        call = self._calls[k]
        rows = call.directions * call.steps * call.batch * self._size
        kept = {name: self.kept.take(rows * width) for name, width in call.keeps().items()}
        last = k == len(self._calls) - 1
        if last and not self._reads_output:
            kept[AGAIN] = self.kept.take(rows * call.output_width)
        kept["output"] = At("output") if last else self.kept.take(rows * call.output_width)
        return kept

    def _common(self, k: int) -> list[dict[str, At]]:
        """The addresses that both passes have in each direction, without the input's weights."""
        call, kept = self._calls[k], self._saved[k]
        rows, widths, directions = call.steps * call.batch * self._size, call.keeps(), []
        for d in range(call.directions):
            at = {name: At(argument) for name, argument in arguments_of(call, k, d).items() if name not in OF_INPUT}
            at |= {name: kept[name] + d * rows * width for name, width in widths.items()}
            at["output"] = kept["output"] + d * call.output_width * self._size
            directions.append(at | self._states("initial", "initial", k, d))
        return directions

    def _of_input(self, k: int) -> list[dict[str, At]]:
        """The addresses of the input's weights in each direction."""
        call = self._calls[k]
        each = (arguments_of(call, k, d) for d in range(call.directions))
        return [{name: At(arguments[name]) for name in OF_INPUT if name in arguments} for arguments in each]

    def _states(self, name: str, end: str, k: int, d: int, of: str | None = None) -> dict[str, At]:
        """A direction's part of all states, or of their gradients, as arrays of that name."""
        states = self._calls[k].cell.states
        return {f"{name}.{state}": self._state(end, k, d, s, of) for s, state in enumerate(states)}

    def _state(self, end: str, k: int, d: int, state: int, of: str | None = None) -> At:
        """A direction's part of an argument with one of the states, or with its gradient."""
        call = self._calls[k]
        argument = (end, state) if of is None else (of, (end, state))
        return At(argument, (k * call.directions + d) * call.states[state][0].nbytes)

    def _input(self, runs: RunList, k: int) -> At:
        """A layer's input, (T, B, features)."""
        if k:
            return self._saved[k - 1]["output"]
        if not self._batch_first:
            return At("input")
        return runs.steps_first(self._calls[0], self._features[0] * self._size, self._memory, At("input"))

    def _streams_of(self, runs: RunList, k: int, input: At) -> dict[str, At]:
        """The addresses of a layer's streams."""
        return streams_of(runs, self._layers[k], self._calls[k], input, self._batch_first, self._memory)

    def _forward(self, runs: RunList, k: int) -> None:
        call, kept, features = self._calls[k], self._saved[k], self._features[k]
        input, of_input, gates = self._input(runs, k), self._of_input(k), []
        if not self._inside and call.cell.gates:
            gates = runs.projected(call, input, features, of_input, self._memory)
        directions, streams = self._common(k), self._streams_of(runs, k, input)
        for d, at in enumerate(directions):
            at |= streams | ({"gates_x": gates[d]} if gates else {"input": input} | of_input[d] if self._inside else {})
            at |= self._states("final", "final", k, d)
        runs.layer(False, call, call.fields(False, features if self._inside else 0), directions)
        if AGAIN in kept:
            bytes = call.directions * call.steps * call.batch * call.output_width * self._size
            runs.copy((1, 1, bytes), (kept[AGAIN], 0, 0), (kept["output"], 0, 0))

    def _backward(self, runs: RunList, k: int, grad_output: At, grad_input: At | None) -> At | None:
        """A layer's gradients. The input's gradient goes to ``grad_input``, or to the caller's tensor for it. Returns
        its address, or None if it is not wanted."""
        call, size, wanted = self._calls[k], self._size, self._wanted[k]
        features, units = self._features[k], len(call.cell.gates) * call.hidden
        rows, columns = call.steps * call.batch, call.directions * units
        grad_gates = self._memory.take(rows * columns * size)
        previous = call.kernels.reads_previous and [self._previous(runs, k, d) for d in range(call.directions)]
        directions, again, input = self._common(k), self._saved[k].get(AGAIN), self._input(runs, k)
        streams, widths = self._streams_of(runs, k, input), call.widths()
        of_streams = [f"grad_{name}" for name in streams if f"grad_{name}" in call.kernels.places[True]]
        for d, at in enumerate(directions):
            at |= streams | {name: self._memory.take(rows * widths[name] * size) for name in of_streams}
            if again:
                at["output"] = again + d * call.output_width * size
            at |= {name: self._memory.take(rows * width * size) for name, width in call.makes().items()}
            at |= {"grad_output": grad_output + d * call.output_width * size}
            at |= {"previous": previous[d]} if previous else {}
            at |= {"grad_gates_x": grad_gates + d * units * size} | self._states("grad_final", "final", k, d, "given")
            at |= self._states("grad_initial", "initial", k, d, "gradient")
            for state, like, want in zip(call.cell.states, call.states, wanted.states, strict=True):
                if not want:
                    at[f"grad_initial.{state}"] = self._memory.take(like[d].nbytes)
            for name, tensor in named(call.cell, call.weights[d]).items():
                if name in self._wanted_of(k, d):
                    at[f"grad_{name}"] = At(("gradient", (k, d, name)))
                elif name not in OF_INPUT and call.kernels.sums(name):
                    at[f"grad_{name}"] = self._memory.take(tensor.nbytes)
        runs.layer(True, call, call.fields(True, 0), directions)

        for d, at in enumerate(directions):
            for name in self._wanted_of(k, d):
                tensor = named(call.cell, call.weights[d])[name]
                if name == "weight_ih":
                    gates_of = grad_gates + d * units * size, 1, columns
                    runs.gemm(call, (units, features, rows), gates_of, (input, features, 1), at["grad_weight_ih"])
                elif not call.kernels.sums(name):
                    self._grad_weight(runs, call, name, tensor, at, widths)
        if not k and not wanted.input:
            return None
        weight = runs.side_by_side(self._of_input(k), "weight_ih", units * features * size, self._memory)
        out, row = At(("gradient", "input")), features * size
        turned = not k and self._batch_first
        place = grad_input or (self._memory.take(rows * row) if turned else out)
        if weight is not None:
            runs.gemm(call, (rows, features, columns), (grad_gates, columns, 1), (weight, features, 1), place)
        if "grad_x.input" in of_streams:
            as_stream, *others = (at["grad_x.input"] for at in directions)
            for other in others:
                runs.sum(rows * features, size, as_stream, other)
            if weight is None:
                runs.copy((1, 1, rows * row), (place, 0, 0), (as_stream, 0, 0))
            else:
                runs.sum(rows * features, size, place, as_stream)
        if turned:
            runs.copy((call.steps, call.batch, row), (out, row, call.steps * row), (place, call.batch * row, row))
        return place

    def _grad_weight(
        self, runs: RunList, call: LayerCall, name: str, weight: Tensor, at: dict[str, At], widths: dict[str, int]
    ) -> None:
        """The products that make a weight's gradient; see `gradients.gradient`."""
        count, size = call.steps * call.batch, self._size
        blocks = row_blocks(call.cell, name)
        rows, columns = weight.shape[0] // blocks, weight.shape[1]
        for run in call.kernels.runs:
            if run.weight != name:
                continue
            left, right = at[run.d.array], at[run.operand.array]
            for begin, height, of_block, of_operand in run.parts(rows, columns):
                factors = (
                    (left + (run.d.column * rows + of_block) * size, 1, widths[run.d.array]),
                    (
                        right + (run.operand.column * columns * run.heads + of_operand) * size,
                        widths[run.operand.array],
                        1,
                    ),
                )
                runs.gemm(call, (height, columns, count), *factors, at[f"grad_{name}"] + begin * columns * size)

    def _wanted_of(self, k: int, d: int) -> list[str]:
        """The names of the weights of a direction whose gradients are wanted."""
        call, wanted = self._calls[k], self._wanted[k].weights[d]
        return [name for name, want in named(call.cell, wanted).items() if want]

    def _previous(self, runs: RunList, k: int, d: int) -> At:
        """The hidden state (T, B, P) that each step's product read."""
        call = self._calls[k]
        if not self._several_steps:
            return self._state("initial", k, d, 0)
        row, step = call.state_width * self._size, call.batch * call.state_width * self._size
        place = self._memory.take(call.steps * step)
        begin, rest = ((call.steps - 1) * step, 0) if call.reverse(d) else (0, step)
        runs.copy((1, 1, step), (place + begin, 0, 0), (self._state("initial", k, d, 0), 0, 0))
        wide = call.directions * row
        output = self._saved[k]["output"] + d * row + (call.batch * wide if call.reverse(d) else 0)
        runs.copy((1, (call.steps - 1) * call.batch, row), (place + rest, 0, row), (output, 0, wide))
        return place
