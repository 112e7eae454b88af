"""The modules that users hold: layers, cell modules and streams, and the conversion from and to torch.nn's modules."""
