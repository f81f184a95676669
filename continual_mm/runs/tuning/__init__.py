"""Hyper-parameter search with Optuna, on validation items."""
