"""Host code that all plans share: launches, their configurations, memory of a pass, GEMMs by torch, gradients."""
