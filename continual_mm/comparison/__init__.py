"""Finished runs -> tables, figures, exports; no torch."""
