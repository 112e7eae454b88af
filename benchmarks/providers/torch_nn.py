"""torch.nn: the layers (oneDNN and cuDNN where torch takes them), a loop over its cells, and that loop compiled."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqcells.request.weights import Weights

from ..case import Case, Inputs
from .base import ONE_FEATURE, ONE_LAYER, Prepared, Provider, States, streamed, through_autograd

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": partial(nn.RNN, nonlinearity="tanh"),
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
}
CELLS: dict[str, Callable[..., nn.Module]] = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn_tanh": partial(nn.RNNCell, nonlinearity="tanh"),
    "rnn_relu": partial(nn.RNNCell, nonlinearity="relu"),
}


def loaded_layers(make: Callable[..., nn.Module], case: Case, weights: Weights, **extra: object) -> nn.Module:
    """The module of the case's layers and directions. ``weights`` are the first layer's; the case gives the weights of
    all other layers."""
    stack = {"num_layers": case.suite.layers, "bidirectional": case.suite.directions == 2}
    tensors = [tensor for each in (weights, *case.stack()[1:]) for tensor in each.present()]
    return _loaded(make, case, dict(zip(case.parameters(), tensors, strict=True)), stack | extra)


def loaded_cell(make: Callable[..., nn.Module], case: Case, weights: Weights, **extra: object) -> nn.Module:
    """The cell module with these weights."""
    return _loaded(make, case, dict(zip(case.roles(), weights.present(), strict=True)), extra)


def _loaded(
    make: Callable[..., nn.Module], case: Case, parameters: dict[str, Tensor], extra: dict[str, object]
) -> nn.Module:
    module = make(case.features, case.shape.hidden, device=case.device, dtype=case.dtype, **extra)
    module.load_state_dict(parameters)
    return module


Step = Callable[[Tensor, States], tuple[Tensor, States]]


def as_tuple(states: Tensor | Sequence[Tensor]) -> States:
    return (states,) if isinstance(states, Tensor) else tuple(states)


def as_hx(states: States) -> Tensor | States:
    return states if len(states) > 1 else states[0]


class TorchNN(Provider):
    """torch.nn.LSTM, GRU and RNN: the baseline of every ratio."""

    environment = {"KINETO_LOG_LEVEL": "99"}  # silences the profiler's log

    def __init__(self, name: str = "torch.nn") -> None:
        self.name = name

    def why_not(self, case: Case) -> str | None:
        return None if case.cell_name in LAYERS else f"torch.nn has no {case.cell_name}"

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        module = loaded_layers(LAYERS[case.cell_name], case, weights)
        prepared = self._prepared(case, module, inputs)
        return prepared._replace(notes=[engine(case, lambda: prepared.run(0)), *prepared.notes])

    def _prepared(self, case: Case, module: nn.Module, inputs: list[Inputs]) -> Prepared:
        if case.suite.streaming:

            def step(x: Tensor, states: States) -> tuple[Tensor, States]:
                output, hx = module(x.unsqueeze(0), as_hx(states))
                return output, as_tuple(hx)

            zeros = tuple(state.unsqueeze(0) for state in case.zero_states())
            return streamed(case, step, zeros, inputs, list(module.parameters()))
        if case.suite.lengths:

            def packed(given: Inputs) -> tuple[Tensor, States]:
                sequence = pack_padded_sequence(given.x, given.lengths, enforce_sorted=False)
                output, hx = module(sequence)
                return pad_packed_sequence(output, total_length=case.shape.steps)[0], as_tuple(hx)

            return through_autograd(case, packed, list(module.parameters()), inputs, ["packs, runs, pads again"])

        def forward(given: Inputs) -> tuple[Tensor, States]:
            output, hx = module(given.x)
            return output, as_tuple(hx)

        notes = [ONE_FEATURE] if case.suite.projected else []
        return through_autograd(case, forward, list(module.parameters()), inputs, notes)


class TorchCellLoop(Provider):
    """A Python loop over torch.nn.LSTMCell, GRUCell and RNNCell, as users write it to access each step."""

    name = "torch.nn cell loop"

    def why_not(self, case: Case) -> str | None:
        if case.suite.lengths:
            return "the loop has no lengths"
        if case.suite.layers > 1:
            return ONE_LAYER
        if case.suite.loads and not case.suite.streaming:
            return "the slowest already without load"
        return None if case.cell_name in CELLS else f"torch.nn has no cell for {case.cell_name}"

    def prepare(self, case: Case, weights: Weights, inputs: list[Inputs]) -> Prepared:
        module = loaded_cell(CELLS[case.cell_name], case, weights)

        def step(x: Tensor, states: States) -> tuple[Tensor, States]:
            states = as_tuple(module(x, as_hx(states)))
            return states[0], states

        if case.suite.streaming:
            return streamed(case, step, case.zero_states(), inputs, list(module.parameters()))
        loop = self.loop(step)
        zeros = case.zero_states()
        notes = [*self.notes, ONE_FEATURE] if case.suite.projected else self.notes
        return through_autograd(case, lambda given: loop(given.x, zeros), list(module.parameters()), inputs, notes)

    notes: Sequence[str] = ()

    def loop(self, step: Step) -> Callable[[Tensor, States], tuple[Tensor, States]]:
        """Make a loop over all steps from one step."""

        def all_steps(x: Tensor, states: States) -> tuple[Tensor, States]:
            outputs = []
            for row in x.unbind(0):
                output, states = step(row, states)
                outputs.append(output)
            return torch.stack(outputs), states

        return all_steps


class CompiledCellLoop(TorchCellLoop):
    """torch.compile of the cell loop, which it unrolls. The loop is compiled in pieces, because compiling takes as long
    as many runs."""

    name = "torch.compile of the loop"
    everyday = False
    environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
    PIECE = 10
    notes = [f"compiled in pieces of {PIECE} steps"]

    def why_not_available(self, device: str) -> str | None:
        if device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            return "torch.compile needs a C++ compiler"
        return None

    def why_not(self, case: Case) -> str | None:
        if case.suite.streaming:
            return "one step is no loop"
        if case.suite.projected:
            return "it cannot take gates_x: see the sequence suite"
        return super().why_not(case)

    def loop(self, step: Step) -> Callable[[Tensor, States], tuple[Tensor, States]]:
        torch._dynamo.reset()
        piece = torch.compile(super().loop(step), dynamic=False)

        def all_steps(x: Tensor, states: States) -> tuple[Tensor, States]:
            outputs = []
            for rows in x.split(self.PIECE):
                output, states = piece(rows, states)
                outputs.append(output)
            return torch.cat(outputs), states

        return all_steps


# operators that a profile may contain → the library that did the work
ENGINES = {
    "aten::_cudnn_rnn": "cuDNN (_cudnn_rnn ran)",
    "aten::miopen_rnn": "MIOpen",
    "aten::mkldnn_rnn_layer": "oneDNN",
}


def engine(case: Case, run: Callable[[], object]) -> str:
    """The library whose kernels ran, by the profiler, and on CUDA their precision."""
    with torch.autograd.profiler.profile(use_cpu=True) as profile:
        run()
    # Not profile.events(): for thousands of small operators it builds a tree, which takes longer than the operators.
    seen = {event.name() for event in profile.kineto_results.events()}
    who = next((label for operator, label in ENGINES.items() if operator in seen), "ATen's own steps")
    return f"{who}, {precision(case)}" if case.device == "cuda" else who


def precision(case: Case) -> str:
    """The precision of products that torch was allowed to use."""
    if case.dtype is not torch.float32:
        return case.dtype_name
    return f"TF32 {'allowed' if torch.backends.cudnn.allow_tf32 else 'off'} in cuDNN"
