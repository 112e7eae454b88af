"""What every test runs under."""

import torch

# Small tensors: a second thread only waits, and takes a core from the next worker.
torch.set_num_threads(1)
