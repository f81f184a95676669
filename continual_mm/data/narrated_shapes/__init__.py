"""A generated dataset of short clips: a moving shape, an instrument, a caption."""
