"""Kernels in CUDA C++, compiled at run time by NVRTC: what Triton cannot say. Nothing here imports triton."""
