from .activations import sigmoid, tanh
from .antisymmetric_rnn import AntisymmetricRNN


class GatedAntisymmetricRNN(AntisymmetricRNN):
    """AntisymmetricRNN with an input gate (Chang et al. 2019, arXiv:1902.09689), which shares the recurrent product.

        A = U - Uᵀ - γ I
        h' = h + ε σ(W_z x + A h) tanh(W_h x + A h)

    Options and weights are those of `AntisymmetricRNN`; ``bias_hh`` is in both sums. torchrecurrent's code leaves it
    out of the gate; here ``bias_hh`` subtracted from ``bias_ih.z`` does the same.
    """

    name = "gated_antisymmetric_rnn"
    gates, recurrent_gates = ("z", "h"), ("h",)

    @staticmethod
    def step(x, r, s, p):
        damped = r.h - p.gamma * s.h
        return s.h + p.epsilon * sigmoid(x.z + damped) * tanh(x.h + damped)
