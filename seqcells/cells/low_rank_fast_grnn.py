from .declared import Product
from .fast_grnn import FastGRNN, gated


class LowRankFastGRNN(FastGRNN):
    """FastGRNN whose W and U are products of thin matrices (Kusupati et al. 2018, arXiv:1901.02358).

        W = W₁ W₂,  U = U₁ U₂

    W₁ is ``weight_w1_l{k}`` (H, input_rank), W₂ ``weight_w2_l{k}`` (input_rank, input_size), U₁ ``weight_u1_l{k}`` (H,
    recurrent_rank) and U₂ ``weight_u2_l{k}`` (recurrent_rank, H); both ranks are to be given. All else is `FastGRNN`.
    torchrecurrent has no such cell.
    """

    name = "low_rank_fast_grnn"
    gates, recurrent_gates, streams = (), (), {"input": "TBF"}
    sizes = {"P": "input_rank", "K": "recurrent_rank"}
    products = {"w2": Product(("p",), "PF", bias=False), "w1": Product(("h",), "HP", bias=False)}
    products |= {"u2": Product(("k",), "KH", bias=False), "u1": Product(("h",), "HK", bias=False)}

    @staticmethod
    def step(x, r, s, p):
        return gated(p.w1(p.w2(x.input)) + p.u1(p.u2(s.h)), s.h, p)
