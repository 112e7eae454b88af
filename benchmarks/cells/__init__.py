"""The suite ``cells``: every cell's layer, a torch loop of the same equations, and LSTM."""
