from .activations import hard_sigmoid, sigmoid, tanh
from .declared import Product
from .sgu import SGU


class DSGU(SGU):
    """Deep simple gated unit (Gao & Glowacka 2016, arXiv:1604.02910): `SGU` with one product more.

        g = tanh(V ((W_g x) h)),  z = hard_sigmoid(W_z x + U_z h)
        h' = z σ(O (g h)) + (1 - z) h

    O is ``weight_out_l{k}`` (H, H), without a bias. torchrecurrent has the same equations and weights.
    """

    name = "dsgu"
    products = {**SGU.products, "out": Product(("h",), bias=False)}

    @staticmethod
    def step(x, r, s, p):
        new = sigmoid(p.out(tanh(p.gate(x.g * s.h)) * s.h))
        return s.h + hard_sigmoid(x.z + r.z) * (new - s.h)
