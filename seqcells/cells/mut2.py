from .mut1 import MUT1, mutated


class MUT2(MUT1):
    """Second mutant of Jozefowicz et al. 2015 (PMLR 37:2342): the reset gate sees the input itself.

        z = σ(W_z x + U_z h),  r = σ(x + U_r h)
        h' = z tanh(V (r h) + W_h x) + (1 - z) h

    V is ``weight_candidate_l{k}`` (H, H). The input is as large as the state. torchrecurrent has a product of the input
    in the place of the reset gate's x, as `LinearMUT2` does.
    """

    name, gates, recurrent_gates = "mut2", ("z", "h"), ("z", "r")

    @staticmethod
    def step(x, r, s, p):
        return mutated(x.z + r.z, x.input + r.r, x.h, s.h, p)
