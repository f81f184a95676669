"""Datasets that outgrow memory: folders of memory-mapped Arrow shards, written and read."""
