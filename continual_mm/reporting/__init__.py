"""Finished runs as one page for a reader, and as figures for papers."""
