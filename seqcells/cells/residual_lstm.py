from .activations import sigmoid, tanh
from .base import Cell
from .declared import Product


class ResidualLSTM(Cell):
    """Residual LSTM (Kim et al. 2017, arXiv:1701.03360): a peephole LSTM with the input added before the output gate.

        i = σ(W_i x + U_i h + p_i c),  f = σ(W_f x + U_f h + p_f c)
        c' = f c + i tanh(W_g x + U_g h),  o = σ(W_o x + U_o h + p_o c')
        h' = o (P tanh(c') + W_x x)

    P is ``weight_projection_l{k}`` (H, H); p_i, p_f and p_o are the rows of ``weight_peephole_l{k}`` (3, H). The paper
    and torchrecurrent have no bias of W_x x: here ``bias_ih.x`` begins at zero.
    """

    name = "residual_lstm"
    gates, recurrent_gates, states = ("i", "f", "g", "o", "x"), ("i", "f", "g", "o"), ("h", "c")
    parameters = {"peephole": ("i", "f", "o")}
    products = {"projection": Product(("m",), bias=False)}
    initial = {"bias_ih.x": 0.0}

    @staticmethod
    def step(x, r, s, p):
        input = sigmoid(x.i + r.i + p.i * s.c)
        forget = sigmoid(x.f + r.f + p.f * s.c)
        cell = forget * s.c + input * tanh(x.g + r.g)
        output = sigmoid(x.o + r.o + p.o * cell)
        return output * (p.projection(tanh(cell)) + x.x), cell
