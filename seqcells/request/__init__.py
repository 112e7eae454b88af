"""Records of what a call asks for: a recurrence, weights, streams and boundaries; and checks in torch.nn's words."""
