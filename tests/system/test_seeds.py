"""Seeds that belong to one purpose."""

from itertools import product

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
