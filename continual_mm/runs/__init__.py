"""Runs: train, checkpoint, watch, compare."""
