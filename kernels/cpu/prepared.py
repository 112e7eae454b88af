"""Calls of a stack of layers that differ only in where their tensors lie, prepared once: a list of what is to be run,
with the places where addresses belong, which the extension goes through in one call."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import fits
from ...recurrence import Recurrence
from ...weights import Weights
from . import _engine, library
from .call import COUNT, EngineCall, has_path, place
from .library import gemm_handle, pooled, precision, threads

_WEIGHTS = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "unit"
"""The fields of a direction's `Weights`, in order."""


class _At(NamedTuple):
    """An address: so many bytes into an argument."""

    argument: Any
    ahead: int = 0

    def __add__(self, bytes: int) -> "_At":
        return _At(self.argument, self.ahead + bytes)


class _Block:
    """Arrays one after the other in one argument, each of whole cache lines."""

    def __init__(self, argument: str) -> None:
        self._argument, self._taken, self.bytes = argument, 0, 0

    def take(self, bytes: int) -> _At:
        place = _At(self._argument, self._taken)
        self._taken += -(-bytes // 64) * 64
        self.bytes = max(self.bytes, self._taken)
        return place

    def free(self) -> None:
        """All that was taken may be taken again."""
        self._taken = 0


MEMORY = "memory"
"""The argument that a program has for itself, while it runs: what is passed from run to run."""


class _Program:
    """What is to be run, in order.

    Args:
        arguments: the names of what it is called with.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        self._arguments = len(arguments)
        self._which = {name: k for k, name in enumerate([*arguments, MEMORY])}
        self._runs: list[tuple[str, int, list[int], list[tuple[int, int, int]]]] = []

    def add(self, what: str, handle: int, fields: list[int], addresses: Mapping[int, _At]) -> None:
        places = [(field, self._which[at.argument], at.ahead) for field, at in addresses.items()]
        self._runs.append((what, handle, fields, places))

    def layer(self, what: str, call: EngineCall, fields: list[int], directions: Sequence[Mapping[Any, _At]]) -> None:
        """A layer's pass, ``"forward"`` or ``"backward"``, with the addresses of each direction by their fields."""
        each = enumerate(directions)
        at = {d * COUNT + place(name): address for d, addresses in each for name, address in addresses.items()}
        self.add(what, call.kernels.handle, fields, at)

    def gemm(
        self,
        call: EngineCall,
        sizes: tuple[int, int, int],
        left: tuple[_At, int, int],
        right: tuple[_At, int, int],
        out: _At,
        bias: _At | None = None,
    ) -> None:
        """A product of ``sizes`` (rows, columns, depth); each matrix with its strides, in numbers."""
        (a, *a_by), (b, *b_by) = left, right
        fields = [*sizes, threads(), 0, *a_by, 0, *b_by, 0, 0]
        at = {4: a, 7: b, 11: out} | ({} if bias is None else {10: bias})
        self.add("gemm", gemm_handle(call.precision), fields, at)

    def copy(self, sizes: tuple[int, int, int], to: tuple[_At, int, int], source: tuple[_At, int, int]) -> None:
        """Planes of rows of bytes; each array with its strides, in bytes."""
        (to_at, *to_by), (from_at, *from_by) = to, source
        self.add("copy", 0, [*sizes, 0, *to_by, 0, *from_by], {3: to_at, 6: from_at})

    def steps_first(self, call: EngineCall, row: int, memory: _Block) -> _At:
        """A copy of the input (B, T, ·), whose rows have so many bytes, as (T, B, ·)."""
        place = memory.take(call.steps * call.batch * row)
        turned = _At("input"), row, call.steps * row
        self.copy((call.steps, call.batch, row), (place, call.batch * row, row), turned)
        return place

    def done(self, bytes: int) -> Any:
        """What runs it, in memory of so many bytes of its own."""
        return _engine.prepared(self._runs, self._arguments, bytes)


class _Circumstances(NamedTuple):
    """What a prepared call depends on besides its tensors."""

    threads: int
    target: str
    precision: str

    @staticmethod
    def of(storage: torch.dtype) -> "_Circumstances":
        return _Circumstances(threads(), library.target, precision(storage))


def _are_read_in_place(q: Recurrence, call: EngineCall) -> bool:
    """Whether weights are read where the layer has them; otherwise they were converted, or laid out anew."""
    pairs = zip(q.weights, call.weights, strict=True)
    return all(len(w.unit) < 2 and all(map(operator.is_, w.present(), own.present())) for w, own in pairs)


def _named(k: int, d: int, weights: Weights) -> dict[str, tuple[int, int, str]]:
    """The arguments of a direction's weights, by their fields."""
    given = zip(_WEIGHTS, (*weights[:5], next(iter(weights.unit), None)), strict=True)
    return {field: (k, d, field) for field, tensor in given if tensor is not None}


class Inference:
    """A stack's inference, prepared for all calls that differ only in where their tensors lie.

    The gates' parts from the input never exist as a whole: they are made for a few steps at a time, by the thread that
    uses them. Weights are read where they lie, so what is written to them between two calls counts in the second.

    Args:
        layers: one below the other, each from its input; of that and of states only shapes and dtypes count.
        versions: what is known of the weights while packed copies of them are kept. Default: none are kept
        batch_first: whether the input lies as (B, T, features). Default: False
    """

    def __init__(self, layers: Sequence[Recurrence], versions: Any = None, batch_first: bool = False) -> None:
        self.versions, self.keeps = versions, versions is not None
        self._kept: list[Tensor] = []
        self._storage = layers[0].input.dtype
        self._made_for = _Circumstances.of(self._storage)
        self.in_place, memory, input = True, _Block(MEMORY), _At("input")
        states, weights = range(len(layers[0].states)), []
        for k, q in enumerate(layers):
            weights += [name for d, w in enumerate(q.weights) for name in _named(k, d, w).values()]
        ends = [(end, state) for end in ("initial", "final") for state in states]
        program = _Program(["input", *ends, *(("output", k) for k in range(len(layers))), *weights])
        for k, q in enumerate(layers):
            fits.check(q)
            call = EngineCall(q, inside=True)
            self.in_place &= _are_read_in_place(q, call)
            size, directions = call.dtype.itemsize, []
            if batch_first and not k:
                input = program.steps_first(call, q.input.shape[2] * size, memory)
            for d, w in enumerate(call.weights):
                at = {field: _At(name) for field, name in _named(k, d, w).items()}
                at["input"] = _At(("output", k - 1)) if k else input
                at["output"] = _At(("output", k), d * call.projected * size)
                for state, like in enumerate(call.states):
                    ahead = (k * call.directions + d) * like[0].numel() * size
                    at |= {(end, state): _At((end, state), ahead) for end in ("initial", "final")}
                directions.append(at)
            sizes = {"features": q.input.shape[2]}
            fields = call.flat(sizes)
            if self.keeps and self.in_place:
                whole = call.flat({**sizes, "weight_ih": [w.ih for w in call.weights]})
                for first in range(0, len(whole), COUNT):
                    fields[first + place("packed")] = self._pack(call, whole[first : first + COUNT])
            program.layer("forward", call, fields, directions)
        self._run = program.done(memory.bytes)

    def _pack(self, call: EngineCall, fields: list[int]) -> int:
        """The address of a direction's packed weights, which live as long as this does."""
        memory = pooled((-(-_engine.pack(call.kernels.handle, 0, *fields) // 4),), torch.float32)
        _engine.pack(call.kernels.handle, memory.data_ptr(), *fields)
        self._kept.append(memory)
        return memory.data_ptr()

    def __call__(self, *tensors: Tensor | None) -> None:
        """Read and write the input, initial states (None for zeros), final states, each layer's output, and the weights
        as they are `present` in each direction: contiguous, of the working dtype; no result may overlap with what is
        read, but a last output of one step with its final hidden state."""
        self._run(*tensors)

    def holds(self) -> bool:
        """Whether it would be prepared alike now."""
        return self._made_for == _Circumstances.of(self._storage)


class Training:
    """A stack's forward and backward, prepared likewise.

    Args:
        layers: one below the other, each from its input, without lengths, resets and projections, in float32 or
            float64; of all tensors only shapes and dtypes count.
        wanted: the same layers, with a bool in the place of each tensor: whether its gradient is wanted.
        batch_first: whether the input and its gradient lie as (B, T, features). Default: False
    """

    def __init__(self, layers: Sequence[Recurrence], wanted: Sequence[Recurrence], batch_first: bool = False) -> None:
        self._dtype = layers[0].input.dtype
        self._made_for = _Circumstances.of(self._dtype)
        self._states = len(layers[0].states)
        passes = _Passes(layers, wanted, batch_first)
        self.in_place = passes.in_place
        if self.in_place:
            self._forward, self._backward, self._kept = passes.forward(), passes.backward(), passes.kept.bytes

    def forward(self, *tensors: Tensor | None) -> Tensor:
        """Read the input, initial states (None for zeros); write final states and the output, which may be the final
        hidden state of one step; read the weights as they are `present`. Returns what backward needs besides."""
        place = 2 + 2 * self._states
        kept = pooled((max(1, self._kept // self._dtype.itemsize),), self._dtype)
        self._forward(*tensors[:place], kept, *tensors[place:])
        return kept

    def backward(self, *tensors: Tensor | None) -> None:
        """Read the input, initial states, the output, what forward returned, the gradients of output and final states,
        and the weights; write the gradients of the input, of initial states, all of them, and of weights, each if it is
        wanted."""
        self._backward(*tensors)

    def holds(self) -> bool:
        """Whether it would be prepared alike now."""
        return self._made_for == _Circumstances.of(self._dtype)


class _Passes:
    """What the two passes of a stack are, and where between them its values lie."""

    def __init__(self, layers: Sequence[Recurrence], wanted: Sequence[Recurrence], batch_first: bool) -> None:
        for q in layers:
            fits.check(q)
        self._wanted, self._batch_first = wanted, batch_first
        self._calls = [EngineCall(q, inside=True) for q in layers]
        dtype = layers[0].input.dtype
        self._size, self._features = dtype.itemsize, [q.input.shape[2] for q in layers]
        # What is kept between the passes is of the working dtype, and all lies in one block.
        self.in_place = self._calls[0].working == self._calls[0].dtype == dtype and all(
            _are_read_in_place(q, call) and all(w.hr is None for w in q.weights)
            for q, call in zip(layers, self._calls, strict=True)
        )
        self.kept, self._memory = _Block("kept"), _Block(MEMORY)
        self._saved = [self._keep(k) for k in range(len(layers))]
        self._weights = [
            n for k, q in enumerate(layers) for d, w in enumerate(q.weights) for n in _named(k, d, w).values()
        ]
        states = range(len(layers[0].states))
        self._initial, self._final = ([(end, state) for state in states] for end in ("initial", "final"))

    def forward(self) -> Any:
        """The program."""
        program = _Program(["input", *self._initial, *self._final, "output", "kept", *self._weights])
        for k in range(len(self._calls)):
            self._memory.free()
            self._forward(program, k)
        return program.done(self._memory.bytes)

    def backward(self) -> Any:
        """Likewise."""
        self._memory = _Block(MEMORY)
        gradients = [("gradient", of) for of in ("input", *self._initial, *self._weights)]
        given = [("given", of) for of in ("output", *self._final)]
        program = _Program(["input", *self._initial, "output", "kept", *given, *self._weights, *gradients])
        # What a layer hands to the one below lies before what it frees, and alternates.
        wide = self._calls[0].steps * self._calls[0].batch * max(self._features) * self._size
        count = 2 if len(self._calls) > 1 else 0
        passed: _At | None = _At(("given", "output"))
        for k in reversed(range(len(self._calls))):
            self._memory.free()
            between = [self._memory.take(wide) for _ in range(count)]
            passed = self._backward(program, k, passed, between[k % 2] if k else None)
        return program.done(self._memory.bytes)

    def _keep(self, k: int) -> dict[Any, _At]:
        """Where a layer's values lie until backward."""
        call = self._calls[k]
        rows, hidden = call.steps * call.batch * self._size, call.hidden
        kept: dict[Any, _At] = {"saved": self.kept.take(call.directions * rows * call.kernels.saves * hidden)}
        for state, has in enumerate(has_path(call.kernels, call.weights[0])):
            if has:
                kept["path", state] = self.kept.take(call.directions * rows * hidden)
        last = k == len(self._calls) - 1
        kept["output"] = _At("output") if last else self.kept.take(rows * call.directions * hidden)
        return kept

    def _common(self, k: int) -> list[dict[Any, _At]]:
        """The addresses of each direction that both passes have."""
        call, kept = self._calls[k], self._saved[k]
        units, rows = call.hidden * self._size, call.steps * call.batch
        directions = []
        for d, w in enumerate(call.weights):
            at = {field: _At(name) for field, name in _named(k, d, w).items() if field not in ("weight_ih", "bias_ih")}
            at["output"] = kept["output"] + d * units
            at["saved"] = kept["saved"] + d * rows * call.kernels.saves * units
            at |= {field: place + d * rows * units for field, place in kept.items() if field[0] == "path"}
            at |= {("initial", s): self._state("initial", k, d, s) for s in range(len(call.states))}
            directions.append(at)
        return directions

    def _state(self, end: str, k: int, d: int, state: int, of: str | None = None) -> _At:
        """A direction's part of the states that are an argument, or of their gradients."""
        call = self._calls[k]
        argument = (end, state) if of is None else (of, (end, state))
        return _At(argument, (k * call.directions + d) * call.batch * call.hidden * self._size)

    def _input(self, program: _Program, k: int) -> _At:
        """A layer's input, (T, B, features)."""
        if k:
            return self._saved[k - 1]["output"]
        if not self._batch_first:
            return _At("input")
        return program.steps_first(self._calls[0], self._features[0] * self._size, self._memory)

    def _side_by_side(self, program: _Program, k: int, field: str, bytes: int) -> _At | None:
        """A weight of all directions, one below the other."""
        call = self._calls[k]
        names = [_named(k, d, w).get(field) for d, w in enumerate(call.weights)]
        if None in names or len(names) == 1:
            return None if None in names else _At(names[0])
        place = self._memory.take(len(names) * bytes)
        for d, name in enumerate(names):
            program.copy((1, 1, bytes), (place + d * bytes, 0, 0), (_At(name), 0, 0))
        return place

    def _forward(self, program: _Program, k: int) -> None:
        call, size = self._calls[k], self._size
        features, units = self._features[k], len(call.cell.gates) * call.hidden
        rows, columns = call.steps * call.batch, call.directions * units
        gates_x = self._memory.take(rows * columns * size)
        weight = self._side_by_side(program, k, "weight_ih", units * features * size)
        bias = self._side_by_side(program, k, "bias_ih", units * size)
        input = self._input(program, k)
        program.gemm(call, (rows, columns, features), (input, features, 1), (weight, 1, features), gates_x, bias)
        directions = self._common(k)
        for d, at in enumerate(directions):
            at["gates_x"] = gates_x + d * units * size
            at |= {("final", s): self._state("final", k, d, s) for s in range(len(call.states))}
        program.layer("forward", call, call.flat({"weight_ih": 0, "bias_ih": 0}), directions)

    def _backward(self, program: _Program, k: int, grad_output: _At, grad_input: _At | None) -> _At | None:
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
            at |= {
                f"grad_{field}": _At(("gradient", name))
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
                out = _At(("gradient", names["weight_ih"]))
                program.gemm(call, (units, features, rows), gates_of, (input, features, 1), out)
            for run in call.kernels.runs() if "weight_hh" in names else ():
                source, *by = (grad_products[d], 1, own) if run.own else gates_of
                out = _At(("gradient", names["weight_hh"])) + run.first * hidden * hidden * size
                part = source + run.column * hidden * size, *by
                program.gemm(call, (run.count * hidden, hidden, rows), part, (previous[d], hidden, 1), out)
        if not k and not wanted.input:
            return None
        weight = self._side_by_side(program, k, "weight_ih", units * features * size)
        out, row = _At(("gradient", "input")), features * size
        turned = not k and self._batch_first
        place = grad_input or (self._memory.take(rows * row) if turned else out)
        program.gemm(call, (rows, features, columns), (grad_gates, columns, 1), (weight, features, 1), place)
        if turned:
            program.copy((call.steps, call.batch, row), (out, row, call.steps * row), (place, call.batch * row, row))
        return place

    def _wanted_of(self, k: int, d: int) -> dict[str, Any]:
        """The weights of a direction whose gradients are wanted, by their fields."""
        wanted = self._wanted[k].weights[d]
        of = dict(zip(_WEIGHTS, (*wanted[:5], any(wanted.unit)), strict=True))
        return {field: name for field, name in _named(k, d, self._calls[k].weights[d]).items() if of[field]}

    def _previous(self, program: _Program, k: int, d: int) -> _At:
        """(T, B, H): the hidden state that each step's product read."""
        call = self._calls[k]
        row, step = call.hidden * self._size, call.batch * call.hidden * self._size
        place = self._memory.take(call.steps * step)
        begin, rest = ((call.steps - 1) * step, 0) if call.reverse(d) else (0, step)
        program.copy((1, 1, step), (place + begin, 0, 0), (self._state("initial", k, d, 0), 0, 0))
        wide = call.directions * row
        output = self._saved[k]["output"] + d * row + (call.batch * wide if call.reverse(d) else 0)
        program.copy((1, (call.steps - 1) * call.batch, row), (place + rest, 0, row), (output, 0, wide))
        return place
