from .activations import sigmoid, tanh
from .base import Cell


class MUT1(Cell):
    """First mutant of Jozefowicz et al. 2015 (PMLR 37:2342): the candidate sees the input itself.

        z = σ(W_z x),  r = σ(W_r x + U_r h)
        h' = z tanh(V (r h) + tanh(x)) + (1 - z) h

    V is ``weight_candidate_l{k}`` (H, H). The input is as large as the state. torchrecurrent has a product of the input
    in the place of tanh's x, as `LinearMUT1` does.
    """

    name = "mut1"
    gates, recurrent_gates, states = ("z", "r"), ("r",), ("h",)
    products, streams = {"candidate": ("h",)}, {"input": "TBH"}

    @staticmethod
    def step(x, r, s, p):
        return mutated(x.z, x.r + r.r, tanh(x.input), s.h, p)


def mutated(update, reset, input, h, p):
    """The next state, from the gates' pre-activations, the candidate's input and the state h."""
    candidate = tanh(p.candidate(sigmoid(reset) * h) + input)
    return h + sigmoid(update) * (candidate - h)
