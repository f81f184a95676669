"""Evaluation by the book: protocols opened, judged at stage ends, read back and compared."""
