"""What runs on a GPU: kernels, and the functions that kernels call."""
