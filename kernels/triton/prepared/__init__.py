"""Calls that differ only in where their tensors lie: prepared once, then launched."""
