"""Seeds that belong to one purpose."""

from itertools import product

import numpy as np
import torch

from continual_mm.system.seeds import seed_for


def test_a_seed_is_the_same_in_every_process_and_version():
    # By coreutils: printf "0\x1forder\x1f1" | b2sum --length 64.
    assert seed_for(0, "order", 1) == 0x838F591069B4F869 >> 1


def test_purposes_and_runs_do_not_share_seeds():
    seeds = [
        seed_for(seed, purpose, number)
        for seed, purpose, number in product(range(20), ("order", "memory", "draw"), range(20))
    ]
    assert len(set(seeds)) == 20 * 3 * 20


def test_seeds_spread_over_all_that_generators_take():
    seeds = [seed_for(number, "spread") for number in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    quarters = np.bincount([seed >> 61 for seed in seeds], minlength=4)
    assert quarters.min() > 400
    torch.Generator().manual_seed(max(seeds))
    np.random.default_rng(max(seeds))
