"""The board's numbers elsewhere: CSV files, Weights & Biases, MLflow, loggers of one's own."""

import csv
import math
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import continual_mm as cm
from continual_mm.learning.avalanche import BaseLogger
from continual_mm.runs.loggers import CSV, CsvLogger, MLflowLogger
from continual_mm.system.errors import InputError

NAIVE = cm.Strategy(name="naive")


class Kept(BaseLogger):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def log_single_metric(self, name, value, x_plot):
        self.told.append((name, x_plot, value))


def lines_of(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            (row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(stream)
        ]


@pytest.fixture(scope="module")
def logged(scenario, dataset, tmp_path_factory):
    """A run of the CSV logger and one of our own."""
    out, mine = tmp_path_factory.mktemp("runs"), Kept()
    cm.run(scenario, NAIVE, dataset, out, device="cpu", loggers=["csv", mine])
    return out / "small" / "naive" / "seed-0", mine


def test_csv_has_the_numbers_of_the_board_under_their_names(logged):
    folder, _ = logged
    board = EventAccumulator(str(folder / "events"))
    board.Reload()
    lines = lines_of(folder / CSV)
    for tag in ("loss/total", "test/recall@1/audio-video/mean", "geometry/rotation", "stage"):
        shown = {event.step: event.value for event in board.Scalars(tag)}
        found = {step: value for name, step, value in lines if name == tag}
        assert found == pytest.approx(shown, rel=1e-5), tag
    assert {name for name, *_ in lines} >= set(board.Tags()["scalars"])


def test_a_logger_of_ones_own_is_told_the_same(logged):
    folder, mine = logged
    numbers = [one for one in mine.told if isinstance(one[2], int | float)]
    assert len(numbers) == len(lines_of(folder / CSV))
    assert [one[:2] for one in numbers] == [one[:2] for one in lines_of(folder / CSV)]


def test_a_resumed_run_has_every_line_once(tmp_path):
    path = tmp_path / CSV
    first = CsvLogger(path)
    for step in (0, 10, 20):
        first.log_single_metric("loss", 1.0 / (1 + step), step)
    first.log_single_metric("test/recall", 0.5, 20)
    first.log_single_metric("loss", 9.0, 30)
    first.close()
    with path.open("a", encoding="utf-8") as stream:
        stream.write("20,torn,0.1")  # a killed process
    second = CsvLogger(path, done=20)
    second.log_single_metric("loss", 1 / 21, 20)
    second.log_single_metric("loss", 1 / 31, 30)
    second.close()
    found = lines_of(path)
    assert [one[:2] for one in found] == [
        ("loss", 0), ("loss", 10), ("loss", 20), ("test/recall", 20), ("loss", 30),
    ]  # fmt: skip
    assert found[-1][2] == pytest.approx(1 / 31)


def test_a_killed_run_ends_with_the_same_file(scenario, dataset, tmp_path, logged):
    stop = RuntimeError("killed")

    def kill(evaluation, gallery):
        if evaluation.stage == 1 and not evaluation.final:
            raise stop

    options = {"device": "cpu", "checkpoint_every": 3}
    with pytest.raises(RuntimeError, match="killed"):
        cm.run(scenario, NAIVE, dataset, tmp_path, observers=[kill], **options)
    cm.run(scenario, NAIVE, dataset, tmp_path, **options)
    resumed = tmp_path / "small" / "naive" / "seed-0" / CSV
    assert sorted(lines_of(resumed)) == sorted(lines_of(logged[0] / CSV))


def test_train_tells_loggers_losses_and_recalls(scenario, dataset):
    mine = Kept()
    history = cm.train(scenario, dataset, loggers=[mine], device="cpu")
    told = {name for name, *_ in mine.told}
    assert {"loss/total", "norm/video", "test/recall@1/audio-video/audio to video"} <= told
    assert history.recall("audio-video") == pytest.approx(
        sum(
            [v for n, _, v in mine.told if n == f"test/recall@1/audio-video/{way}"][-1]
            for way in ("audio to video", "video to audio")
        )
        / 2
    )


def test_mlflow_gets_settings_and_numbers_and_a_resumed_run_is_the_same_one(tmp_path, monkeypatch):
    # Folders begin at once; a database, which is the default, takes seconds to be made.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    for step, value in ((1, 0.5), (2, math.nan), (3, 0.75)):
        logger = MLflowLogger("a/naive/seed-0", {"seed": 0}, identity="one", uri=uri)
        logger.log_single_metric("test/recall@1/a-b/mean", value, step)
        logger.close()
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("continual-mm")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "test/recall_at_1/a-b/mean")
    assert [(one.step, one.value) for one in history] == [(1, 0.5), (3, 0.75)]
    assert run.data.params == {"seed": "0"}
    assert run.info.run_name == "a/naive/seed-0"


def test_wandb_gets_the_numbers_offline(scenario, dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    cm.run(scenario, NAIVE, dataset, tmp_path, device="cpu", loggers=["wandb"])
    folder = tmp_path / "small" / "naive" / "seed-0" / "wandb"
    (file,) = folder.glob("offline-run-*/run-*.wandb")
    contents = file.read_bytes()
    assert b"test/recall@1/audio-video/mean" in contents
    assert not (tmp_path / "small" / "naive" / "seed-0" / CSV).exists()
    shutil.rmtree(folder)


def test_a_logger_that_there_is_not_is_refused_before_the_run(scenario, dataset, tmp_path, typed):
    with pytest.raises(InputError, match="logger 'csvv': there is none of this name; did you mean"):
        cm.run(scenario, NAIVE, dataset, tmp_path, loggers=["csvv"])
    assert not list(tmp_path.iterdir())
    answer = typed("run", "av_vt", "--logger", "comet")
    assert answer.code == 2
    assert "'comet' is not one of 'csv', 'wandb', 'mlflow'" in answer.err
