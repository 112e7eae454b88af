"""What users hold: layers, cell modules, streams, and the way from torch.nn's modules to these and back."""
