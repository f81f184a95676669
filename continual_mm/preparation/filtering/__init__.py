"""Which pairs are worth training on: scored by scorers that are trained on them, and selected."""
