"""What all plans share on the host: launches, their configurations, memory of a pass, products by torch, gradients."""
