"""The resources of a GPU that the Triton kernels take, read from their machine code: compiling needs no GPU.

* `cases`: the calls to examine; the engine itself gets each call, on tensors without memory;
* `launches`: the kernels that the engine would launch for a call, as Triton specializes them;
* `binaries`: these kernels compiled, and their code read.
"""
