"""Calls that differ only in the addresses of their tensors: prepared once, then launched."""
