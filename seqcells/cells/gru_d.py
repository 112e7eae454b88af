from .activations import exp, relu, sigmoid, tanh, where
from .base import Cell
from .declared import Product


class GRUD(Cell):
    """GRU-D for inputs with missing values (Che et al. 2018, arXiv:1606.01865).

        x̂ = x where the mask is set, else μ + exp(-relu(w Δ + b)) (l - μ),  l' = x where the mask is set, else l
        d = exp(-relu(W_f Δ + b_f)) h
        r, z = σ(W x̂ + U d + V m),  n = tanh(W_n x̂ + U_n (r d) + V_n m)
        h' = d + z (n - d)

    Streams, each (T, N, features): ``mask`` m, 1 where a feature was observed and 0 where it is missing (the input's
    value there is ignored, even NaN); ``elapsed`` Δ, the time since the feature was observed. The second state
    l (features) is the last observation. The rows of ``weight_decay_l{k}`` (3, features) are w, b and μ, the mean to
    which a missing feature decays: 0 at first, for standardised inputs. The products: ``weight_fade_l{k}``
    (H, features) is W_f; ``weight_gates_l{k}`` (2 H, H) is U; ``weight_candidate_l{k}`` (H, H) is U_n;
    ``weight_x_l{k}`` and ``weight_m_l{k}`` (3 H, features) are W and V. The streams are as large as a layer's input, so
    a stack of layers needs H features.
    """

    name = "gru_d"
    recurrent_gates, states = (), {"h": "H", "last": "F"}
    streams = {"input": "TBF", "mask": "TBF", "elapsed": "TBF"}
    parameters = {"decay": {"w": "F", "b": "F", "mean": "F"}}
    products = {"fade": Product(("h",), "HF"), "candidate": ("n",), "gates": ("r", "z")}
    products |= {"x": Product(("r", "z", "n"), "HF", bias=False), "m": Product(("r", "z", "n"), "HF", bias=False)}
    initial = {"mean": 0.0}

    @staticmethod
    def step(x, r, s, p):
        guess = p.mean + exp(-relu(p.w * x.elapsed + p.b)) * (s.last - p.mean)
        of_x, of_m = p.x(where(x.mask > 0, x.input, guess)), p.m(x.mask)
        faded = exp(-relu(p.fade(x.elapsed))) * s.h
        of_h = p.gates(faded)
        reset, update = sigmoid(of_x.r + of_h.r + of_m.r), sigmoid(of_x.z + of_h.z + of_m.z)
        new = tanh(of_x.n + of_m.n + p.candidate(reset * faded))
        return faded + update * (new - faded), where(x.mask > 0, x.input, s.last)
