"""Models of other frameworks on the engines of seqcells, and their weights in its layers."""
