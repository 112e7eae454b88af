from .slstm import SLSTM


class MultiHeadSLSTM(SLSTM):
    """sLSTM with several heads (Beck et al. 2024, arXiv:2405.04517): weight_hh has a diagonal block for each.

    There are ``heads`` (4), and the recurrent product of a unit reads only units of the same head. All else is `SLSTM`.
    """

    name = "multi_head_slstm"
    options = {"heads": 4}
    projection = False
