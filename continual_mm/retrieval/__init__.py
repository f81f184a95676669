"""Items of a dataset found by what a run learned."""
