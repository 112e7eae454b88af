"""What each dtype is computed in."""

import torch

# float16 and bfloat16 are for storage: states and sums are float32.
WORKING_DTYPE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
