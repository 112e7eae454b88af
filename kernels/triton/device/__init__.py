"""Device code: kernels, and the functions that kernels call."""
