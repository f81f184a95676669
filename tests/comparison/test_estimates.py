"""Means and intervals of strategies, from ranks in memory."""

import math
from pathlib import Path

import numpy as np
import pytest

from continual_mm.comparison.estimates import (
    METRICS,
    Draws,
    Estimate,
    intransigence,
    measures,
    old_chance,
    start,
)
from continual_mm.metrics.retrieval import recall_at
from continual_mm.runs.finished import FinishedRun, PairFacts, Ranked
from continual_mm.system.errors import InputError

OLD, NEW = PairFacts(0, "old", 0.0), PairFacts(1, "new", 0.0)


def seed_of(pairs, ranked, *, stages=2):
    """One seed of a strategy; what it is called does not matter here."""
    arrivals = ((),) * stages
    return FinishedRun(Path(), "", "", 0, False, {}, {}, arrivals, pairs, ranked, 0, 0.0)


def hits(values, first_row=0):
    """Ranks that are hits or misses, the same in both directions."""
    missed = ~np.asarray(values, dtype=bool)
    return Ranked(np.arange(len(missed)) + first_row, np.stack([3.0 * missed, 3.0 * missed]))


def recall(runs):
    return Draws(runs).scores(runs)


def test_the_first_replicate_is_the_recall_at_one_of_both_directions():
    rng = np.random.default_rng(0)
    ranks = rng.integers(8, size=(3, 2, 50)) / 2
    runs = [seed_of({"a-b": OLD}, {(0, "a-b"): Ranked(np.arange(50), r)}, stages=1) for r in ranks]
    expected = np.mean([recall_at(one, 1) for seed in ranks for one in seed])
    assert recall(runs)[0, 0, 0] == pytest.approx(expected)


def test_a_proportion_has_the_interval_of_a_binomial():
    found = np.arange(400) < 120
    estimate = Estimate.of(recall([seed_of({"a-b": OLD}, {(1, "a-b"): hits(found)})])[:, 1, 0])
    assert estimate is not None
    error = 1.96 * math.sqrt(0.3 * 0.7 / 400)
    assert estimate.mean == 0.3
    assert estimate.low == pytest.approx(0.3 - error, abs=0.006)
    assert estimate.high == pytest.approx(0.3 + error, abs=0.006)


def test_seeds_that_disagree_widen_the_interval():
    seeds = [np.arange(400) < count for count in (80, 100, 120, 140, 160)]
    runs = [seed_of({"a-b": OLD}, {(1, "a-b"): hits(one)}) for one in seeds]
    spread = recall(runs)[1:, 1, 0].std()
    # The queries' part: each occurs n times with variance 1, and has a mean hit over the seeds.
    queries = np.mean(seeds, axis=0).std() / math.sqrt(400)
    between = np.std([one.mean() for one in seeds]) / math.sqrt(5)
    assert spread == pytest.approx(math.hypot(queries, between), rel=0.1)


def test_the_items_of_two_pairs_are_drawn_together_where_they_are_the_same():
    # What one pair finds the other misses: over the same items the sum is 1 in every replicate.
    found = np.arange(200) < 100
    pairs = {"a-b": OLD, "b-c": NEW}
    ranked = {(0, "a-b"): hits(found), (1, "a-b"): hits(found), (1, "b-c"): hits(~found)}
    together = recall([seed_of(pairs, ranked)])[:, 1]
    np.testing.assert_allclose(together.sum(axis=1), 1.0)
    ranked[1, "b-c"] = hits(~found, first_row=5000)
    apart = recall([seed_of(pairs, ranked)])[:, 1]
    assert apart.sum(axis=1).std() == pytest.approx(math.sqrt(2 * 0.25 / 200), rel=0.1)


def test_items_that_a_pair_lacks_are_neither_hits_nor_misses():
    few = Ranked(np.array([1, 7]), np.array([[0.0, 4.0], [0.0, 0.0]]))
    ranked = {(0, "a-b"): hits(np.ones(8)), (1, "a-b"): hits(np.ones(8)), (1, "b-c"): few}
    table = recall([seed_of({"a-b": OLD, "b-c": NEW}, ranked)])
    np.testing.assert_array_equal(table[0], [[1.0, math.nan], [1.0, 0.75]])
    lucky = np.isnan(table[1:, 1, 1]).mean()
    assert lucky == pytest.approx((6 / 8) ** 8, abs=0.03)
    estimate = Estimate.of(measures(table, {"a-b": OLD, "b-c": NEW})["new_pairs"])
    assert estimate == Estimate(0.75, 0.5, 1.0)


@pytest.mark.parametrize(("name", "worth"), [("recall@10", 0.75), ("mean_reciprocal_rank", 0.4)])
def test_a_metric_is_the_mean_of_what_ranks_are_worth_in_both_directions(name, worth):
    ranks = np.array([[0.0, 9.0], [1.0, 10.0]])
    ranks[1, 1] = {"recall@10": 10.0, "mean_reciprocal_rank": math.inf}[name]
    run = seed_of({"a-b": OLD}, {(0, "a-b"): Ranked(np.arange(2), ranks)}, stages=1)
    assert Draws([run]).scores([run], METRICS[name])[0, 0, 0] == pytest.approx(worth)


@pytest.mark.parametrize(("found", "learned"), [(17, False), (19, True), (400, True), (0, False)])
def test_a_pair_is_learned_where_its_first_score_is_clearly_above_chance(found, learned):
    # Of 400 items chance finds 1. Four standard errors below 17 are 17 - 4 sqrt(17 (1 - 17/400)),
    # which is 0.9 items, and 1.97 below 19.
    pairs = {"a-b": PairFacts(0, "old", 1 / 400), "b-c": PairFacts(1, "new", 1 / 400)}
    first = hits(np.arange(400) < found)
    run = seed_of(pairs, {(0, "a-b"): first, (1, "a-b"): first, (1, "b-c"): hits(np.ones(400))})
    begun = start([run])
    assert begun.learned.tolist() == [learned, True]
    kept = measures(recall([run]), pairs, begun)["retention"]
    assert Estimate.of(kept) == (Estimate(1.0, 1.0, 1.0) if learned else None)


def test_chance_is_that_of_the_metric():
    pairs = {"a-b": PairFacts(0, "old", 2 / 40), "a-c": PairFacts(0, "old", 1 / 40)}
    run = seed_of(pairs, {(0, name): hits(np.ones(40)) for name in pairs}, stages=1)
    # Ten of 40 answers, two of which are right: 1 - 38/40 * 37/39 * ... * 29/31.
    of_two = 1 - (30 * 29) / (40 * 39)
    assert start([run], METRICS["recall@10"]).chance == pytest.approx([of_two, 0.25])
    assert old_chance(start([run]), pairs) == pytest.approx(1.5 / 40)


def test_measures_are_taken_of_the_mean_over_seeds():
    pairs = {"a-b": OLD, "b-c": NEW}
    always, never = np.ones(4), np.zeros(4)
    runs = [
        seed_of(pairs, {(0, "a-b"): hits(always), (1, "a-b"): hits(old), (1, "b-c"): hits(new)})
        for old, new in ((always, never), (never, always))
    ]
    found = {name: values[0] for name, values in measures(recall(runs), pairs).items()}
    # Seed by seed each harmonic mean would be 0; of the means of 1/2 it is 1/2.
    assert found["harmonic_mean"] == 0.5
    assert found["forgetting"] == 0.5
    assert found["retention"] == 0.5
    assert math.isnan(found["emergent_pairs"])


def test_pairs_weigh_the_same_whatever_their_number_of_items():
    pairs = {"a-b": OLD, "a-c": OLD, "b-c": NEW}
    ranked = {(s, "a-b"): hits(np.ones(30)) for s in (0, 1)}
    ranked |= {(s, "a-c"): hits(np.zeros(3)) for s in (0, 1)} | {(1, "b-c"): hits(np.ones(30))}
    found = measures(recall([seed_of(pairs, ranked)]), pairs)
    assert found["old_pairs"][0] == 0.5


def test_intransigence_is_what_new_pairs_lack_after_the_last_stage():
    # The new pair was born at the first stage and first trained in the last one.
    pairs = {"a-b": PairFacts(0, "new", 0.0), "b-c": PairFacts(1, "new", 0.0)}
    ranked = {
        (0, "a-b"): hits(np.zeros(4)),
        (1, "a-b"): hits([True, True, False, False]),
        (1, "b-c"): hits([True, False, False, False]),
    }
    joint = {(1, name): hits([True, True, True, False]) for name in pairs}
    own, bound = seed_of(pairs, ranked), seed_of(pairs, joint)
    draws = Draws([own, bound])
    held = intransigence(draws.scores([own]), draws.scores([bound]), pairs)
    assert held[0] == pytest.approx((0.25 + 0.5) / 2)


def test_a_difference_has_the_interval_that_redrawing_items_and_seeds_by_hand_gives():
    rng = np.random.default_rng(1)
    pairs = {"a-b": OLD, "b-c": NEW}
    found = rng.random((2, 3, 2, 60)) < np.array([0.3, 0.5])[:, None, None, None]
    found[:, 0] &= rng.random((1, 2, 60)) < 0.7
    strategies = [
        [
            seed_of(pairs, {(0, "a-b"): hits(old), (1, "a-b"): hits(old), (1, "b-c"): hits(new)})
            for old, new in strategy
        ]
        for strategy in found
    ]
    draws = Draws([run for runs in strategies for run in runs])
    first, second = (measures(draws.scores(runs), pairs)["harmonic_mean"] for runs in strategies)
    estimate = Estimate.of(second - first)
    by_hand = []
    for _ in range(4000):
        items, seeds = rng.integers(60, size=60), rng.integers(3, size=3)
        drawn = found[:, seeds][..., items].mean(axis=(1, 3))
        harmonic = 2 * drawn.prod(axis=1) / drawn.sum(axis=1)
        by_hand.append(harmonic[1] - harmonic[0])
    low, high = np.quantile(by_hand, [0.025, 0.975])
    assert estimate is not None
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.015)
    assert high - low > 0.1


def captioned(found_to_text, found_to_sound, *, per=5):
    """Sounds with some captions each; whether sounds find a caption, and captions their sound."""
    sounds = len(found_to_text)
    rows, recordings = np.arange(sounds * per), np.repeat(np.arange(sounds) * per, per)
    to_text = np.full(sounds * per, np.nan)
    to_text[::per] = np.where(found_to_text, 0.0, 7.0)
    to_sound = np.where(np.asarray(found_to_sound).reshape(-1), 0.0, 7.0)
    return Ranked(rows, np.stack([to_text, to_sound]), recordings)


SHARED = PairFacts(0, "old", 1 / 30, (150, 30))


def test_directions_count_alike_however_many_queries_they_have():
    found = captioned([True] * 15 + [False] * 15, np.arange(150) < 30)
    run = seed_of({"a-b": SHARED}, {(0, "a-b"): found}, stages=1)
    assert recall([run])[0, 0, 0] == pytest.approx((0.5 + 0.2) / 2)


def test_captions_of_a_recording_are_drawn_together():
    """As many recordings as there are, not as captions, say how far a score could be off."""
    luck = np.random.default_rng(0).random(200) < 0.5
    together = captioned(luck, np.repeat(luck, 5))
    alone = Ranked(np.arange(1000), np.stack([np.where(np.repeat(luck, 5), 0.0, 7.0)] * 2))
    widths = []
    for ranked in (together, alone):
        run = seed_of({"a-b": SHARED}, {(0, "a-b"): ranked}, stages=1)
        estimate = Estimate.of(recall([run])[:, 0, 0])
        widths.append(estimate.high - estimate.low)
    assert widths[0] == pytest.approx(2 * 1.96 * math.sqrt(0.25 / 200), rel=0.1)
    assert widths[0] / widths[1] == pytest.approx(math.sqrt(5), rel=0.1)


@pytest.mark.parametrize(("metric", "k"), [("recall@1", 1), ("recall@10", 10)])
def test_chance_is_that_of_each_directions_gallery(metric, k):
    run = seed_of({"a-b": SHARED}, {(0, "a-b"): captioned([True] * 30, [True] * 150)}, stages=1)
    begun = start([run], METRICS[metric])
    none_of_five = math.prod((145 - place) / (150 - place) for place in range(k))
    assert begun.chance[0] == pytest.approx(((1 - none_of_five) + k / 30) / 2)
    assert begun.learned.tolist() == [True]


def test_runs_that_counted_copies_as_wrong_do_not_go_with_others():
    found = captioned([True] * 30, [True] * 150)
    older = Ranked(found.rows, np.zeros((2, 150)))
    runs = [seed_of({"a-b": SHARED}, {(0, "a-b"): each}, stages=1) for each in (found, older)]
    with pytest.raises(InputError, match="copies of a recording"):
        Draws(runs)
