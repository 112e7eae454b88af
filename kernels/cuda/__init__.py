"""Kernels in CUDA C++, compiled at run time by NVRTC, for what Triton cannot express. Nothing here imports triton."""
