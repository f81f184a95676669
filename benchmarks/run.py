"""Speed, as ratios to a named baseline in the same process: ``make bench``.

Absolute times depend on the machine; the ratios much less. Medians over repeated rounds, the
candidates taken in turn so that a busy moment hits them all.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from continual_mm.data.dataset import Dataset
from continual_mm.data.store.sources import largest
from continual_mm.definitions import catalog
from continual_mm.definitions.scenario import Scenario, Stage, Strategy, Training
from continual_mm.losses.clustering import spherical_kmeans
from continual_mm.losses.transport import (
    log_transport_plan,
    plan_distillation,
    plan_distillation_from,
)
from continual_mm.metrics.retrieval import ranks
from continual_mm.plugins.registry import build
from continual_mm.runs.opening import open_strategy
from continual_mm.runs.session import Session, open_session
from continual_mm.runs.specification import Specification, opened

STEPS = 60
TIMED = (
    *("naive", "recommended", "pair_lora_match", "pair_lora", "partners", "partners_match", "ewc"),
    *("replay", "transport", "replay_transport"),
)


def compare(title: str, candidates: dict[str, Callable[[], object]], *, rounds: int = 7) -> None:
    """Print each candidate's median time as a multiple of the first one's."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, work in candidates.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    baseline, *_ = medians
    print(f"\n{title} (baseline: {baseline}, {1e3 * medians[baseline]:.2f} ms)")
    for name, median in medians.items():
        print(f"  {name:<28} x {median / medians[baseline]:.2f}")


def clips(items: int = 1200) -> Dataset:
    """Random features in the shapes of narrated_shapes."""
    rng = np.random.default_rng(0)
    arrays = {
        "video": rng.standard_normal((items, 12, 54)),
        "audio": rng.standard_normal((items, 31, 40)),
        "text": rng.standard_normal((items, 12, 32)),
    }
    kinds = {"video": "frames", "audio": "spectrogram", "text": "tokens"}
    return Dataset.from_arrays(arrays, kinds=kinds)


def second_stage(dataset: Dataset, strategy: Strategy) -> Session:
    """A session whose first stage is over."""
    stages = (
        Stage(add=("video", "audio"), steps=5),
        Stage(add=("text",), pairs=("video-text",)),
    )
    training = Training(steps=STEPS, batch_size=128)
    scenario = Scenario(name="bench", stages=stages, training=training)
    specification = Specification(opened(scenario, dataset.card), strategy)
    session = open_session(specification, dataset, build(strategy))
    session.learn(0)
    return session


def steps_of_strategies() -> None:
    """Training steps of the second stage, evaluation at its end included."""
    dataset = clips()
    strategies = [open_strategy(catalog.find("strategies", name)) for name in TIMED]
    times: dict[str, list[float]] = {name: [] for name in TIMED}
    for _ in range(3):
        for strategy in strategies:
            session = second_stage(dataset, strategy)
            start = time.perf_counter()
            session.learn(1)
            times[strategy.name].append((time.perf_counter() - start) / STEPS)
    best = {name: min(found) for name, found in times.items()}
    print(f"\na training step (baseline: naive, {1e3 * best['naive']:.1f} ms)")
    for name, seconds in best.items():
        print(f"  {name:<28} x {seconds / best['naive']:.2f}")


def plans() -> None:
    """A distillation step from scratch, and from the potentials of the step before."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.nn.functional.normalize(torch.randn(128, 256, generator=rng)) for _ in "ab")
    b = torch.nn.functional.normalize(a + 0.7 * b)
    teacher = 1 - a @ b.T
    cost = (teacher + 0.01 * torch.randn(128, 128, generator=rng)).requires_grad_()
    known, guess = log_transport_plan(teacher, epsilon=0.07)
    compare(
        "plan distillation, 128 items",
        {
            "cold, teacher solved anew": lambda: plan_distillation(
                teacher, cost, epsilon=0.07
            ).backward(),
            "warm, teacher known": lambda: plan_distillation_from(
                known, cost, epsilon=0.07, potentials=guess, tolerance=1e-4, iterations=100
            )[0].backward(),
        },
    )


def ranking() -> None:
    """Ranks by counting and by sorting."""
    similarity = torch.randn(4000, 4000, generator=torch.Generator().manual_seed(0))

    def by_sorting() -> torch.Tensor:
        order = similarity.argsort(dim=1, descending=True)
        return (order == torch.arange(4000)[:, None]).nonzero()[:, 1]

    compare("ranks of 4,000 queries", {"argsort": by_sorting, "ranks": lambda: ranks(similarity)})


def kmeans() -> None:
    """A k-means round as one-hot matrices would do it, and as it is done."""
    points = torch.randn(8192, 256, generator=torch.Generator().manual_seed(0))
    centroids = points[:256].clone()

    def one_hot() -> torch.Tensor:
        labels = (points @ torch.nn.functional.normalize(centroids).T).argmax(1)
        members = torch.nn.functional.one_hot(labels, 256).float()
        return members.T @ points

    compare(
        "a k-means round, 8,192 points, 256 clusters",
        {
            "one-hot matrix": one_hot,
            "spherical_kmeans": lambda: spherical_kmeans(points, centroids, iterations=1),
        },
    )


def windows() -> None:
    """Largest values of 300 windows of a recording, as NumPy and as the store takes them."""
    rng = np.random.default_rng(0)
    count = rng.integers(8, 18, 300)
    steps = rng.random((int(count.sum()), 2048), dtype=np.float32).astype(np.float16)
    starts, counts = np.cumsum(count) - count, torch.from_numpy(count)
    compare(
        "largest values of 300 windows",
        {
            "maximum.reduceat": lambda: np.maximum.reduceat(steps.astype(np.float32), starts),
            "largest": lambda: largest(torch.from_numpy(steps).float(), counts),
        },
    )


if __name__ == "__main__":
    steps_of_strategies()
    plans()
    ranking()
    kmeans()
    windows()
