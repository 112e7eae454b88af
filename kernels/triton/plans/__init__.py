"""Ways to run a layer, one file each, and `plan`, which chooses one by the layer's shape."""
