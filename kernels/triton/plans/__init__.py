"""Plans: ways to run a layer, one file each. `plan` chooses one by the layer's shape."""
