"""Pure functions: tensors in, scalar out."""
