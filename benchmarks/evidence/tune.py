"""Tune every strategy in strategies/ on validation items; resumes where it stopped.

Each gets the same number of trials, judged by the mean over the plan's scenarios for tuning. With
``--write`` the best values go into the strategies' files when all are done.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from plan import HERE, Plan

from continual_mm.definitions import catalog
from continual_mm.plugins.registry import BUILT_IN
from continual_mm.runs.opening import open_strategy
from continual_mm.runs.tuning.plan import Plan as Search
from continual_mm.runs.tuning.plan import searched
from continual_mm.runs.tuning.result import Tuned, write_strategy
from continual_mm.runs.tuning.search import tune
from continual_mm.system.errors import InputError, Problem

OPTIONS = {"board": False, "checkpoint_every": 0, "device": "cpu"}


def tuned(name: str, out: Path, data: Path | None) -> Tuned | None:
    """Tune one strategy, in this process; None if there is no number to search in it."""
    plan, entry = Plan(), catalog.find("strategies", name)
    strategy = open_strategy(entry)
    if not any(BUILT_IN[plugin].search for plugin in strategy.plugins):
        return None
    search = Search(
        plan.for_tuning(data),
        strategy,
        searched(strategy),
        out=out,
        trials=plan.trials,
        metric="mean_reciprocal_rank",
        pruning=False,
        options=OPTIONS,
    )
    found, failed = tune(search, threads=1)
    if failed:
        raise InputError(Problem(str(one.folder), one.error, "try again") for one in failed)
    return found


def write(found: Tuned) -> None:
    """Write the best values into the strategy's own file."""
    path = catalog.find("strategies", found.plan.strategy.name).path
    write_strategy(found, path, force=True, text=path.read_text(encoding="utf-8"))


def summary(name: str, found: Tuned | None) -> str:
    """What was found, in a line."""
    if found is None or found.best is None:
        return f"{name}: no number to search"
    values = "  ".join(f"{path} = {value:.4g}" for path, value in found.best.values.items())
    return f"{name}: {found.trials[0].value:.4f} -> {found.best.value:.4f} with {values}"


def main() -> int:
    """Tune; the exit code is 0, or 2 if the input cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("strategies", nargs="*", help="Their names; all, if left out.")
    parser.add_argument("--jobs", type=int, default=2, help="Strategies at the same time.")
    parser.add_argument("--data", type=Path, default=os.environ.get("CONTINUAL_MM_TEST_DATA"))
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "tuning" / "evidence")
    parser.add_argument(
        "--write", action="store_true", help="Write the best values into the files."
    )
    given = parser.parse_args()
    names = given.strategies or Plan().strategies
    data = Path(given.data) if given.data else None
    work = partial(tuned, out=given.out, data=data)
    searches = []
    try:
        with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
            for name, found in zip(names, pool.map(work, names), strict=True):
                print(summary(name, found), flush=True)
                searches.append(found)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for found in searches if given.write else ():  # a search begins with the values of the file
        if found is not None:
            write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
