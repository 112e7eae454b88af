from .slstm import SLSTM


class MultiHeadSLSTM(SLSTM):
    """sLSTM with several heads (Beck et al. 2024, arXiv:2405.04517): weight_hh has a diagonal block for each.

    Units of different ones of the ``heads`` (4) do not see each other within the recurrence; all else is `SLSTM`.
    """

    name = "multi_head_slstm"
    options = {"heads": 4}
    projection = False
