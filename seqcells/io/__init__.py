"""Run models of torch.nn and of other packages on the layers and engines of seqcells."""
