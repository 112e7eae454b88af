from seqcells.cells import Cell
from seqcells.cells.activations import tanh


class ClockworkRNN(Cell):
    """Clockwork RNN (Koutnik et al. 2014, arXiv:1402.3511): ``clock`` says which units are updated in which time step.
    A unit reads only units of its own or a longer period, which are later units here."""

    name = "clockwork_rnn"
    gates, states = ("h",), ("h",)
    streams = {"clock": "TH"}

    @staticmethod
    def weights(w):
        return {"hh": w.hh.triu()}

    @staticmethod
    def step(x, r, s, p):
        return s.h + x.clock * (tanh(x.h + r.h) - s.h)
