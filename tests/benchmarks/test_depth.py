"""The page on depth: its tables are the figures that were measured, its commands and files work."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from continual_mm.data.solids.generate import cloud
from continual_mm.data.store.pack_writer import write_pack_from
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.preparation.extraction.job import extract
from continual_mm.preparation.extraction.manifest import open_manifest
from continual_mm.preparation.extraction.towers import Recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "depth.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables(modules_of):
    with modules_of("depth", ("tables",)) as modules:
        yield modules.tables


@pytest.fixture(scope="module")
def values(tables):
    return tables.read(ROOT / "benchmarks" / "depth" / "results.csv")


def mean(values, *key):
    return 100 * float(np.mean(values[key]))


def test_the_tables_of_the_page_are_those_of_the_figures(tables, values):
    assert tables.paths(values) in PAGE
    assert tables.strategies(values) in PAGE


def test_what_the_page_concludes_is_in_the_figures(tables, values):
    for dataset in tables.DATASETS:
        for strategy in tables.LOSSES:
            assert len(values[dataset, strategy, "depth_classes"]) == 3
            new, equal, chosen = (
                mean(values, dataset, strategy, f"depth_{each}")
                for each in ("classes", "equal_paths", "chosen_paths")
            )
            assert new - equal > 5
            assert abs(chosen - new) < 2
            assert values[dataset, strategy, "same_hash"] == [1.0] * 3
            before = values[dataset, strategy, "image_classes_before"]
            assert before == values[dataset, strategy, "image_classes"]
        agree = [mean(values, dataset, each, "views_agree") for each in tables.LOSSES]
        assert agree[1] > agree[0]
        both = mean(values, dataset, "freeze_cross_intra", "depth_classes")
        assert mean(values, dataset, "naive", "depth_classes") < both - 10


def test_the_lists_and_commands_of_the_page_make_what_its_scenario_trains(typed, tmp_path):
    """With a small network in the place of CLIP's, and vectors in that of its texts."""
    listed = re.search(r"```csv\n(.*?)```", PAGE, re.DOTALL)[1]
    for number in range(2):
        np.save(tmp_path / f"{number}.npy", cloud(number))
    lines = listed.replace("chair1.jpg,chair1.ply", ",0.npy").replace(
        "table1.jpg,table1.ply", ",1.npy"
    )
    (tmp_path / "clouds.csv").write_text(lines)
    commands = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[1].replace("\\\n", " ").splitlines()
    words = shlex.split(commands[0])
    recipes = [Recipe.parse(word) for word in words if "=" in word]
    assert [each.modality for each in recipes] == ["depth", "image", "text", "seen"]
    (depth,) = (each for each in recipes if each.modality == "depth")
    assert [tower.tower for each in recipes for tower in each.towers] == [
        "depth", "open_clip_image", "open_clip_text", "open_clip_image",
    ]  # fmt: skip
    outcome = extract(open_manifest(tmp_path / "clouds.csv"), [depth], tmp_path / "out", workers=0)
    assert outcome.finished == 2
    (tmp_path / "scenario.toml").write_text(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    write_pack_from(records(), tmp_path / "clouds.npz", layout=LAYOUT, dtype="float32")
    said = typed("validate", tmp_path / "scenario.toml")
    assert said.code == 0, said.err


LAYOUT = (
    Modality("image", Kind.VECTOR, (512,)),
    Modality("text", Kind.VECTOR, (512,)),
    Modality("seen", Kind.VECTOR, (512,)),
    Modality("depth", Kind.FRAMES, (6, 16, 16)),
)


def records():
    rng = np.random.default_rng(0)
    for number in range(60):
        item = {"ids": f"{number}", "split": number % 3, "label": number % 2}
        yield item | {m.name: rng.random(m.shape).astype(np.float32) for m in LAYOUT}
    for label in range(2):
        text = rng.random(512).astype(np.float32)
        yield {"ids": f"class {label}", "split": 2, "label": label, "text": text}
