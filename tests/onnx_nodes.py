"""ONNX' recurrent nodes with random attributes, and their expected results: the specification's equations in numpy."""

import numpy as np
import onnx
from onnx import TensorProto, helper

KINDS = {"LSTM": ("iofc", 3), "GRU": ("zrh", 2), "RNN": ("i", 1)}
FUNCTIONS = {
    "Sigmoid": lambda x, a, b: 1 / (1 + np.exp(-x)),
    "Tanh": lambda x, a, b: np.tanh(x),
    "Relu": lambda x, a, b: np.maximum(x, 0),
    "Affine": lambda x, a, b: a * x + b,
    "LeakyRelu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "ThresholdedRelu": lambda x, a, b: np.where(x >= a, x, 0),
    "ScaledTanh": lambda x, a, b: a * np.tanh(b * x),
    "HardSigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "Elu": lambda x, a, b: np.where(x >= 0, x, a * (np.exp(np.minimum(x, 0)) - 1)),
    "Softsign": lambda x, a, b: x / (1 + np.abs(x)),
    "Softplus": lambda x, a, b: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
}
NUMBERS = {"Affine": 2, "ScaledTanh": 2, "HardSigmoid": 2, "LeakyRelu": 1, "ThresholdedRelu": 1, "Elu": 1}
"""The number of parameters of each function; functions not listed have none."""
T, N, F, H = 7, 3, 4, 5


def _number(rng, low, high):
    return float(np.float32(rng.uniform(low, high)))  # as precise as attributes are


class Drawn:
    """A node, its weights and inputs by name, and the results."""

    def __init__(self, kind, seed, **attributes):
        self.kind, rng = kind, np.random.default_rng(seed)
        letters, functions = KINDS[kind]
        self.attributes = {"hidden_size": H, **self._drawn(rng, functions), **attributes}
        self.directions = 2 if self.attributes.get("direction") == "bidirectional" else 1
        count = self.directions
        gates = len(letters)

        def normal(*shape):
            return rng.normal(size=shape) / 2

        self.weights = {"W": normal(count, gates * H, F), "R": normal(count, gates * H, H)}
        if rng.random() < 0.7:
            self.weights["B"] = normal(count, 2 * gates * H)
        if kind == "LSTM" and rng.random() < 0.5:
            self.weights["P"] = normal(count, 3 * H)
        self.inputs = {"X": normal(T, N, F) * 2}
        if rng.random() < 0.6:
            self.inputs["sequence_lens"] = rng.integers(1, T + 1, N).astype("int32")
        if rng.random() < 0.6:
            self.inputs["initial_h"] = normal(count, N, H)
            if kind == "LSTM":
                self.inputs["initial_c"] = normal(count, N, H)
        if self.attributes.get("layout"):
            self.inputs = {k: v if k == "sequence_lens" else v.swapaxes(0, 1) for k, v in self.inputs.items()}

    def _drawn(self, rng, functions):
        """Random attributes; each is present in about two of three nodes."""
        found = {"direction": str(rng.choice(["forward", "reverse", "bidirectional"]))}
        count = functions * (2 if found["direction"] == "bidirectional" else 1)
        if rng.random() < 0.8:
            names = [str(name) for name in rng.choice([*FUNCTIONS], count)]
            numbers = [NUMBERS.get(name, 0) for name in names]
            found["activations"] = names
            found["activation_alpha"] = [_number(rng, 0.1, 0.9) for number in numbers if number]
            found["activation_beta"] = [_number(rng, 0.1, 0.9) for number in numbers if number > 1]
        choices = {"clip": lambda: _number(rng, 0.3, 1.5), "layout": lambda: int(rng.integers(2))}
        if self.kind == "LSTM":
            choices["input_forget"] = lambda: int(rng.integers(2))
        if self.kind == "GRU":
            choices["linear_before_reset"] = lambda: int(rng.integers(2))
        found |= {name: draw() for name, draw in choices.items() if rng.random() < 0.7}
        return {name: value for name, value in found.items() if value != []}

    def model(self, dtype="float32"):
        """The node as a graph whose weights are constants."""
        order = "X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"
        given = self.inputs | self.weights
        names = [name if name in given else "" for name in order]
        while not names[-1]:
            names.pop()
        outputs = ["Y", "Y_h", *(["Y_c"] if self.kind == "LSTM" else [])]
        node = helper.make_node(self.kind, names, outputs, name="node", **self.attributes)
        kinds = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
        inputs = [
            helper.make_tensor_value_info(k, TensorProto.INT32 if k == "sequence_lens" else kinds[dtype], v.shape)
            for k, v in self.inputs.items()
        ]
        weights = [onnx.numpy_helper.from_array(value.astype(dtype), name) for name, value in self.weights.items()]
        values = [helper.make_tensor_value_info(name, kinds[dtype], None) for name in outputs]
        graph = helper.make_graph([node], "one", inputs, values, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)

    def results(self):
        """Y, Y_h and, for an LSTM, Y_c by the specification."""
        layout = self.attributes.get("layout", 0)
        given = {k: v if k == "sequence_lens" or not layout else v.swapaxes(0, 1) for k, v in self.inputs.items()}
        lengths = given.get("sequence_lens", np.full(N, T))
        y = np.zeros((T, self.directions, N, H))
        finals = [np.zeros((self.directions, N, H)) for _ in range(2 if self.kind == "LSTM" else 1)]
        for d in range(self.directions):
            backwards = self.attributes.get("direction") == "reverse" or d == 1
            for n, length in enumerate(lengths):
                states = [
                    given[k][d, n] if k in given else np.zeros(H) for k in ("initial_h", "initial_c")[: len(finals)]
                ]
                times = range(length)
                for t in reversed(times) if backwards else times:
                    states = self._step(given["X"][t, n], states, d)
                    y[t, d, n] = states[0]
                for final, state in zip(finals, states, strict=True):
                    final[d, n] = state
        return [y.transpose(2, 0, 1, 3), *(each.swapaxes(0, 1) for each in finals)] if layout else [y, *finals]

    def _functions(self, d):
        """The functions of a direction, with clipping first."""
        _, count = KINDS[self.kind]
        names = self.attributes.get("activations")
        if names is None:
            names = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[self.kind]
            names = names * self.directions
        alphas, betas = (
            iter(self.attributes.get("activation_alpha", ())),
            iter(self.attributes.get("activation_beta", ())),
        )
        made = []
        for name in names:
            numbers = NUMBERS.get(name, 0)
            alpha, beta = next(alphas) if numbers else 0, next(betas) if numbers > 1 else 0
            made.append(lambda x, name=name, alpha=alpha, beta=beta: FUNCTIONS[name](self._clipped(x), alpha, beta))
        return made[d * count : (d + 1) * count]

    def _clipped(self, x):
        clip = self.attributes.get("clip")
        return x if clip is None else np.clip(x, -clip, clip)

    def _step(self, x, states, d):
        letters, _ = KINDS[self.kind]
        w, r = self.weights["W"][d], self.weights["R"][d]
        wb, rb = np.split(self.weights["B"][d], 2) if "B" in self.weights else (np.zeros(len(w)),) * 2
        p = (
            dict(zip("iof", np.split(self.weights["P"][d], 3), strict=True))
            if "P" in self.weights
            else dict.fromkeys("iof", 0)
        )
        of_input = dict(zip(letters, np.split(w @ x + wb, len(letters)), strict=True))
        rows, biases = (dict(zip(letters, np.split(each, len(letters)), strict=True)) for each in (r, rb))
        h = states[0]
        sums = {k: of_input[k] + rows[k] @ h + biases[k] for k in letters}
        if self.kind == "RNN":
            (f,) = self._functions(d)
            return [f(sums["i"])]
        if self.kind == "GRU":
            f, g = self._functions(d)
            z, reset = f(sums["z"]), f(sums["r"])
            if self.attributes.get("linear_before_reset"):
                new = g(of_input["h"] + reset * (rows["h"] @ h + biases["h"]))
            else:
                new = g(of_input["h"] + rows["h"] @ (reset * h) + biases["h"])
            return [(1 - z) * new + z * h]
        f, g, last = self._functions(d)
        c = states[1]
        i = f(sums["i"] + p["i"] * c)
        forget = 1 - i if self.attributes.get("input_forget") else f(sums["f"] + p["f"] * c)
        c = forget * c + i * g(sums["c"])
        return [f(sums["o"] + p["o"] * c) * last(c), c]
