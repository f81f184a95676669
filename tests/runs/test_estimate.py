"""What a run needs, said before it begins."""

import os
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from continual_mm.cli.app import main
from continual_mm.definitions import catalog
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.definitions.scenario import SpaceSettings
from continual_mm.runs import estimate as estimates
from continual_mm.runs.estimate import LIBRARIES, estimate, excesses
from continual_mm.runs.opening import open_scenario, open_strategy
from continual_mm.space.kinds import new_space
from continual_mm.space.registry import build
from continual_mm.space.sizes import tower_size, transformer_size
from continual_mm.space.space import JointSpace
from continual_mm.space.towers import Tower

ROOT = Path(__file__).parents[2]
SHAPES = {
    "vector": (12,), "tokens": (9, 20), "spectrogram": (50, 40), "frames": (7, 3, 8),
    "flat": (7, 3, 8), "identity": (64,), "linear": (33,),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("mode", "depth"), [("robust", 1), ("robust", 3), ("reference", 4)])
def test_a_tower_has_as_many_weights_as_was_said_without_building_it(kind, mode, depth):
    settings = SpaceSettings(mode=mode, dim=64, width=16, depth=depth, reconstruction_width=24)
    usual = kind in list(Kind)
    of = Kind(kind) if usual else Kind.VECTOR if len(SHAPES[kind]) == 1 else Kind.FRAMES
    modality = Modality("x", of, SHAPES[kind])
    space = JointSpace(settings, towers={} if usual else {"x": Tower(kind, build(kind))})
    space.add_modality(modality)
    parts = (space.encoders, space.reconstructions)
    built = sum(weight.numel() for part in parts for weight in part.parameters())
    # Biases and norms of convolutions are not counted.
    assert tower_size("" if usual else kind, modality, settings).weights == pytest.approx(
        built, rel=0.05
    )


@pytest.mark.parametrize("kind", SHAPES)
def test_a_tokeniser_and_the_transformer_have_as_many_weights_as_was_said(kind):
    settings = SpaceSettings(kind="fusion", dim=64, token_width=128, width=16, blocks=2)
    usual = kind in list(Kind)
    of = Kind(kind) if usual else Kind.VECTOR if len(SHAPES[kind]) == 1 else Kind.FRAMES
    modality = Modality("x", of, SHAPES[kind])
    space = new_space(settings, towers={} if usual else {"x": Tower(kind, build(kind))})
    space.add_modality(modality)
    built = sum(weight.numel() for weight in space.encoders.parameters())
    said = tower_size("" if usual else kind, modality, settings).weights
    assert said == pytest.approx(built, rel=0.05)
    shared = sum(weight.numel() for weight in space.transformer.parameters())
    assert transformer_size(settings).weights == shared


def scenario(**settings):
    entry = catalog.find("scenarios", "av_vt")
    return open_scenario(entry, [(key, str(value)) for key, value in settings.items()])


def strategy(name):
    return open_strategy(catalog.find("strategies", name))


def test_memory_and_steps_grow_as_the_numbers_do():
    small, wide = estimate(scenario()), estimate(scenario(**{"space.dim": 2048}))
    more = estimate(scenario(**{"training.batch_size": 2560}))
    long = estimate(scenario(**{"training.steps": 1000, "stage.2.steps": 1000}))
    assert (small.steps, long.steps) == (600, 2000)
    assert wide.space > 20 * small.space
    assert more.batch > 20 * small.batch
    assert small.data == wide.data == more.data


def test_the_values_of_a_pack_are_in_memory_and_those_of_a_store_are_not():
    opened = scenario()
    values = sum(prod(modality.shape) for modality in opened.card.modalities)
    assert estimate(opened).data == 4 * sum(opened.card.items) * values
    stored = replace(opened, card=replace(opened.card, on_disk=True))
    assert estimate(stored).data == 0


def test_remembered_rows_are_in_every_batch():
    opened = scenario()
    many = open_strategy(catalog.find("strategies", "replay"), [("replay.rows", "100")])
    assert estimate(opened, many).batch > 1.3 * estimate(opened, strategy("naive")).batch


def test_what_fits_is_not_refused_and_what_does_not_is_once_for_each_run(monkeypatch):
    tasks = [(scenario(), strategy(name)) for name in ("naive", "replay")]
    assert excesses(tasks) == []
    monkeypatch.setattr(estimates, "machine_memory", lambda: LIBRARIES + 100_000_000)
    assert excesses(tasks) == []
    assert len(excesses(tasks, jobs=2)) == 2
    large = [(scenario(**{"space.dim": 65536}), strategy("naive"))]
    (problem,) = excesses(large)
    assert problem.place == "scenario 'av_vt', strategy 'naive'"
    assert "GB of memory; there are 0.6 GB" in problem.message
    assert "--yes" in problem.remedy
    assert excesses(large, accelerator=1 << 50) == []
    assert len(excesses(large, accelerator=1 << 30)) == 1


def test_steps_of_all_runs_together_are_counted():
    tasks = [(scenario(**{"stage.1.steps": 100_000}), strategy("naive"))]
    assert excesses(tasks, seeds=99) == []
    (problem,) = excesses(tasks, seeds=100)
    assert problem.message.startswith("10,030,000 optimiser steps in all")


def test_too_much_is_refused_before_torch_is_imported_and_trained_with_yes(tmp_path, monkeypatch):
    program = (
        "import sys\nfrom continual_mm.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    sys.exit(99 if 'torch' in sys.modules and '--device' in sys.argv else 2)"
    )
    command = ["run", "av_vt", "--set", "space.dim=65536", "--set", "training.batch_size=1000000"]
    ended = subprocess.run(
        [sys.executable, "-c", program, *command, "--device", "cpu"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "of memory; there are" in ended.stderr
    assert not [*tmp_path.iterdir()]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimates, "machine_memory", lambda: 1000)
    few = ["--set", "training.steps=1", "--set", "training.batch_size=8", "--no-board"]
    codes = []
    for extra in ((), ("--yes",)):
        with pytest.raises(SystemExit) as caught:
            main(["run", "av_vt", *few, *extra])
        codes.append(caught.value.code)
    assert codes == [2, 0]


def test_validate_says_what_a_run_takes(capsys):
    with pytest.raises(SystemExit):
        main(["validate", "av_vt"])
    assert "a run takes 600 steps, at least 0.5" in capsys.readouterr().out
