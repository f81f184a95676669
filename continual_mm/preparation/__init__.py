"""Before training: media and published files -> datasets, and what is in them."""
