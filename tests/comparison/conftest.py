"""Finished runs that found what a test says."""

import json

import numpy as np
import pytest

from continual_mm.definitions.modality import Pair

STAGES = (("video", "audio"), ("text",))
PAIRS = {
    "audio-video": {"birth": 1, "role": "old"},
    "text-video": {"birth": 2, "role": "new"},
    "audio-text": {"birth": 2, "role": "emergent"},
}


@pytest.fixture(scope="session")
def finished_run():
    """(folder, strategy, seed; ranks, ...) -> the folder of a run in it, with all its files.

    ``ranks`` has those of both directions by 1-based stage and pair, ``answers`` units and values
    by 1-based stage, protocol and series; the other arguments go into the JSON files.
    """

    def write(
        out, strategy="naive", seed=0, *, ranks, rows=None, answers=None, scenario="av_vt",
        stages=STAGES, pairs=PAIRS, settings=None, protection=None, **cost,
    ):  # fmt: skip
        folder = out / scenario / strategy / f"seed-{seed}"
        (folder / "ranks").mkdir(parents=True)
        arrays = {}
        evaluations = []
        for (stage, pair), both in ranks.items():
            found = arrays.setdefault(stage, {})
            queries = len(both[0])
            found[f"test/{pair}/rows"] = np.arange(queries) if rows is None else np.array(rows)
            for direction, each in zip(Pair.parse(pair).directions, both, strict=True):
                found[f"test/{pair}/{' to '.join(direction)}"] = np.array(each, dtype=float)
                score = {"stage": stage, "pair": pair, "direction": " to ".join(direction)}
                evaluations.append({**score, "final": True, "split": "test", "chance": 1 / queries})
        for (stage, protocol, series), parts in (answers or {}).items():
            place = f"protocol/{protocol}/{series}"
            arrays[stage] |= {f"{place}/{part}": value for part, value in parts.items()}
        for stage, found in arrays.items():
            np.savez(folder / "ranks" / f"stage-{stage}.npz", **found)
        bounds = {"joint": strategy.startswith("joint"), "cumulative": strategy == "cumulative"}
        files = {
            "definition": {
                "scenario": {"name": scenario, **(settings or {})},
                "strategy": {"name": strategy, **bounds, **(protection or {})},
                "data": {"name": "mine", "fingerprint": "f"},
                "seed": seed,
            },
            "scores": {
                "stages": [{"stage": n, "added": list(a)} for n, a in enumerate(stages, start=1)],
                "pairs": pairs,
                "evaluations": evaluations,
                "protocols": [
                    {"name": name, "stage": stage}
                    for stage, name in dict.fromkeys((s, p) for s, p, _ in answers or {})
                ],
            },
            "cost": {"seconds": 1.0, "memory_bytes": 0, **cost},
        }
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="session")
def replace_array():
    """(file, name, array) -> the same .npz file with another array; without it if it is None."""

    def replace(path, name, value):
        arrays = dict(np.load(path))
        arrays.pop(name, None)
        np.savez(path, **arrays, **({} if value is None else {name: value}))

    return replace
