"""The files in which published work keeps its features, each read into records."""
