"""The way of a call to a backend: the choice of a backend, torch operators for graphs, and prepared calls."""
