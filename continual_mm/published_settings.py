"""The numbers that MCN was published with, as keys of a scenario."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

PUBLISHED_SPACE: Mapping[str, Any] = MappingProxyType(
    {
        "dim": 6144,
        "clusters": 256,
        "cluster_weight": 1.0,
        "reconstruction_weight": 50.0,
        "reconstruction_width": 1024,
        "margin": 0.001,
        "scale": 1.0,
        "queue_batches": 20,
        "refresh_every": 20,
        "width": 128,
        "depth": 4,
        "feature_dropout": 0.0,
        "clips": 32,
    }
)
"""What ``[space]`` means in reference mode where it says nothing (MCN's released command)."""

PUBLISHED_TRAINING: Mapping[str, Any] = MappingProxyType(
    {
        "batch_size": 4096,
        "learning_rate": 1e-4,
        "schedule": "cosine",
        "warmup_steps": 5000,
        "clip_norm": 0.0,
    }
)
"""What ``[training]`` means in reference mode where it says nothing."""
