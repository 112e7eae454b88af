"""What each dtype is computed in."""

import torch

# float16 and bfloat16 are for storage: states and sums are float32.
WORKING_DTYPE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def bfloat16_products_allowed() -> bool:
    """Whether float32 layers on the CPU may round what they multiply to bfloat16; sums stay float32.

    The switches are torch's own: ``torch.backends.mkldnn.rnn.fp32_precision = "bf16"``, or the same on
    ``torch.backends.mkldnn`` or ``torch.backends``, whose setting it takes on unless it has one; and where it has none,
    ``torch.set_float32_matmul_precision("medium")``. (torch.nn heeds only
    the first, and not on every processor.)
    """
    own = _setting("mkldnn", "rnn")
    return own == "bf16" or (own == "none" and _setting("mkldnn", "matmul") == "bf16")


# What the properties of `torch.backends` ask, at a seventh of their time: single steps ask before each.
_setting = torch._C._get_fp32_precision_getter
