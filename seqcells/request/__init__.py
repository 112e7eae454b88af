"""What a call asks for: a recurrence over time, its weights, streams and boundaries, checked in torch.nn's words."""
