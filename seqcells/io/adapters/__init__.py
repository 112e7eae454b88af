"""Adapters to classes of other packages that hold recurrent layers; `owners` finds and adapts them."""
