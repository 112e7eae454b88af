"""What the Triton kernels take of a GPU, read from their machine code: no GPU is needed to compile them.

* `cases`: the calls asked about, each given to the engine itself on tensors without memory;
* `launches`: what it would launch for them, by Triton's own reckoning;
* `binaries`: those kernels compiled, and the code read.
"""
