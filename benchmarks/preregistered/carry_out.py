"""Runs the three tests of README.md, or goes on with them, and writes results/."""

import argparse
import os
import sys
from pathlib import Path

from grid import IncompleteError, Place, carry_out
from plans import PLANS, Plan
from tables import write

from continual_mm.system.errors import InputError

RESULTS = Path(__file__).parent / "results"
DATA = "CONTINUAL_MM_TEST_DATA"
TRIAL = (("training.steps", "4"), ("training.batch_size", "16"))


def main() -> int:
    """0 if all is done, 1 if runs are missing; run it again to go on."""
    given = arguments()
    out = given.out / "trial" if given.trial else given.out
    place = Place(
        out=out,
        data=given.data,
        seeds=(0, 1) if given.trial else (0, 1, 2, 3, 4),
        jobs=given.jobs,
        settings=TRIAL if given.trial else (),
    )
    results = out / "results" if given.trial else RESULTS
    wanted = [plan for plan in PLANS if given.only in (None, plan.test)]
    ended = [done(plan, place, results) for plan in wanted]
    return int(not all(ended))


def done(plan: Plan, place: Place, results: Path) -> bool:
    """Carry out a plan and print what it found; False if that could not be done."""
    if plan.given and place.data is None:
        print(f"{plan.name}: left out, name the folder of its data with --data", file=sys.stderr)
        return True
    try:
        print(write(carry_out(plan, place), results))
    except (IncompleteError, InputError) as error:
        print(f"{plan.name}: {error}", file=sys.stderr)
        return False
    return True


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    tests = list(dict.fromkeys(plan.test for plan in PLANS))
    named = os.environ.get(DATA)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--only", choices=tests, help="one of the tests")
    parser.add_argument(
        "--data", type=Path, default=Path(named) if named else None, help="folder of GRID's pack"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/preregistered"))
    parser.add_argument(
        "--trial", action="store_true", help="4 steps and 2 seeds, to see that everything works"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
