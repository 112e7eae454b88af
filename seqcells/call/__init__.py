"""A call on its way to a backend: the choice, the operators of graphs, and what calls that are alike skip."""
