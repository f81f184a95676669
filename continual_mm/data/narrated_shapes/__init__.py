"""The built-in dataset: short clips of a moving shape that is seen, heard and told about."""
