"""Pure functions: scores in, numbers out."""
