"""The suite ``cells``: every cell beside the same equations as a loop in torch, and beside LSTM."""
