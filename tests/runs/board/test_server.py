"""TensorBoard's own server shows what a run wrote."""

import json
import socket
import subprocess
import threading
import time
from queue import Queue
from types import SimpleNamespace
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest
from tensorboard.data import server_ingester

import continual_mm as cm
from continual_mm.runs.board.server import PAGE, serve
from continual_mm.runs.run import run
from continual_mm.system.errors import InputError

RUN = "small/replay/seed-0/events"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, features, brief):
    rng = np.random.default_rng(3)
    dataset = cm.Dataset.from_arrays(
        features(items=60),
        split=np.repeat([0, 1, 2], 20),
        text=[f"caption {number}" for number in range(60)],
        picture=rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
    )
    memory = cm.MemorySettings(items=6)
    strategy = cm.Strategy(name="replay", memory=memory, plugins={"replay": {"rows": 4}})
    out = tmp_path_factory.mktemp("runs")
    run(brief("", clusters=0, steps=4, evaluate_every=2), strategy, dataset, out, device="cpu")
    return out


@pytest.fixture(scope="module", autouse=True)
def _data_servers():
    """Ends the processes that read the files for TensorBoard, which live as long as their input."""
    started = []

    def start(*arguments, **options):
        started.append(subprocess.Popen(*arguments, **options))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            server_ingester, "subprocess", SimpleNamespace(Popen=start, PIPE=subprocess.PIPE)
        )
        yield
    for process in started:
        process.stdin.close()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def ask(runs):
    lines = Queue()
    arguments = {"port": None, "browser": False, "tell": lines.put}
    threading.Thread(target=serve, args=(runs,), kwargs=arguments, daemon=True).start()
    address = lines.get(timeout=60).split()[2].removesuffix(PAGE)
    # urlopen keeps the proxies of its first call, which another test may have set.
    direct = build_opener(ProxyHandler({}))

    def get(page, **query):
        url = f"{address}data/plugin/{page}?{urlencode(query)}"
        with direct.open(url, timeout=60) as answer:
            return answer.read()

    end = time.monotonic() + 60  # the server reads the files after it has begun to answer
    while "headline/forgetting" not in json.loads(get("scalars/tags")).get(RUN, {}):
        assert time.monotonic() < end
        time.sleep(0.1)
    return get


def test_a_port_that_cannot_be_had_is_refused_by_number(tmp_path):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        for port in (other.getsockname()[1], 99999):
            with pytest.raises(InputError, match=rf"^port {port}: .*; give another --port"):
                serve(tmp_path, port=port, browser=False, tell=str)


def test_the_server_knows_the_curves(ask):
    tags = json.loads(ask("scalars/tags"))[RUN]
    assert {"loss/total", "norm/text", "test/recall@1/audio-video/mean"} <= set(tags)
    assert {"forgetting/audio-video", "stage"} <= set(tags)
    curve = json.loads(ask("scalars/scalars", run=RUN, tag="test/recall@1/audio-video/mean"))
    assert [step for _, step, _ in curve] == [2, 4, 6, 8]


def test_the_server_lays_the_charts_out_and_finds_curves_for_each(ask):
    page = json.loads(ask("custom_scalars/layout"))
    titles = [category["title"] for category in page["category"]]
    assert [title.split()[0] for title in titles[:4]] == ["Recall", "Forgetting:", "Loss", "Mean"]
    first = page["category"][0]["chart"]
    assert [chart["title"] for chart in first] == [
        "audio-video (old)", "text-video (new)", "audio-text (emergent)",
        "the stage that is trained",
    ]  # fmt: skip
    for category in page["category"]:
        for chart in category["chart"]:
            for regex in chart["multiline"]["tag"]:
                found = json.loads(ask("custom_scalars/scalars", run=RUN, tag=regex))
                assert found["regex_valid"], regex
                assert found["tag_to_events"], regex


def test_the_server_gives_the_images(ask):
    tags = json.loads(ask("images/tags"))[RUN]
    assert set(tags) == {"recall matrix/test recall@1", "transport plans/audio-video"}
    for tag in tags:
        found = json.loads(ask("images/images", run=RUN, tag=tag, sample=0))
        assert [image["step"] for image in found] == [4, 8]
        address, _, query = found[-1]["query"].partition("=")
        assert address == "blob_key"
        assert ask("images/individualImage", blob_key=query).startswith(b"\x89PNG\r\n")


def test_the_server_gives_the_texts(ask):
    assert set(json.loads(ask("text/tags"))[RUN]) == {
        "arrivals/text_summary", "definition/text_summary",
    }  # fmt: skip
    (arrivals,) = json.loads(ask("text/text", run=RUN, tag="arrivals/text_summary"))
    assert "<td>video, audio</td>" in arrivals["text"]


def test_the_server_puts_settings_beside_the_headline(ask):
    page = json.loads(ask("hparams/experiment", request=json.dumps({"experimentName": ""})))
    names = [info["name"] for info in page["hparamInfos"]]
    assert names[:4] == ["memory.items", "scenario", "seed", "strategy"]
    assert page["metricInfos"][0]["name"]["tag"] == "headline/harmonic mean"
    wanted = {"experimentName": "", "startIndex": 0, "sliceSize": 10}
    wanted["colParams"] = [{"metric": info["name"]} for info in page["metricInfos"]]
    wanted["allowedStatuses"] = ["STATUS_SUCCESS"]
    found = json.loads(ask("hparams/session_groups", request=json.dumps(wanted)))
    (group,) = found["sessionGroups"]
    assert group["hparams"]["strategy"] == "replay"
    assert group["hparams"]["replay.rows"] == 4
    measured = {value["name"]["tag"] for value in group["metricValues"]}
    assert measured == {info["name"]["tag"] for info in page["metricInfos"]}


def test_the_server_gives_the_projector_its_points_captions_and_thumbnails(ask):
    assert RUN in json.loads(ask("projector/runs"))
    info, before = json.loads(ask("projector/info", run=RUN))["embeddings"]
    assert (info["tensorName"], before["tensorName"]) == (
        "test items after stage 2",
        "test items after stage 1",
    )
    assert info["tensorShape"] == [60, 8]
    query = {"run": RUN, "name": info["tensorName"]}
    values = np.frombuffer(ask("projector/tensor", **query), dtype=np.float32).reshape(60, 8)
    assert np.linalg.norm(values, axis=1) == pytest.approx(1, abs=1e-5)
    lines = ask("projector/metadata", **query).decode().splitlines()
    assert lines[0] == "modality\titem\tcaption"
    assert lines[1] == "video\t40\tcaption 40"
    assert len(lines) == 61
    assert ask("projector/sprite_image", **query).startswith(b"\x89PNG\r\n")
