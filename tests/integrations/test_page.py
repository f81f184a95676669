"""The page in docs/ about sentence-transformers works as it is written."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "sentence_transformers",
    reason="sentence-transformers is not installed: pip install 'continual-mm[st]'",
)
from sentence_transformers import SentenceTransformer

PAGE = (Path(__file__).parents[2] / "docs" / "sentence-transformers.md").read_text(encoding="utf-8")
BLOCKS = {
    match["mark"]: match["text"]
    for match in re.finditer(r"<!-- (?P<mark>[^>]*) -->\n```\w+\n(?P<text>.*?)```", PAGE, re.DOTALL)
}

SHORT = {"run": ("--set", "training.steps=2"), "extract": ("--workers", 0)}


@pytest.fixture
def run_block(tmp_path, monkeypatch, typed):
    """(mark) -> types the commands of a block in a folder of the test's, where runs are short."""
    monkeypatch.chdir(tmp_path)

    def run(mark):
        for line in BLOCKS[mark].splitlines():
            program, *words = shlex.split(line)
            assert program == "continual-mm"
            ended = typed(*words, *SHORT.get(words[words[0] == "data"], ()))
            assert not ended.code, ended.err

    return run


def test_a_run_becomes_a_model_that_encodes_clips_and_sentences(run_block):
    run_block("commands: export")
    printed = []
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((steps, 54)) for steps in (6, 12)]
    exec(BLOCKS["python: use"], {"print": printed.append, "clips": clips})
    assert printed == [(2, 2)]
    names = {"log_mel": lambda wave: np.resize(wave, (31, 40))}
    exec(BLOCKS["python: encoder"], names)
    sounds = [{"array": rng.standard_normal(9), "sampling_rate": 16_000} for _ in range(3)]
    found = names["encoder"].encode([{"audio": sounds[:2]}, {"audio": sounds[2:]}])
    assert found.shape == (3, names["encoder"].model.get_embedding_dimension())


def test_a_model_becomes_the_text_of_a_space_and_encodes_it_as_before(
    run_block, encoder, colours, media_file, tmp_path
):
    shutil.copytree(encoder, "minilm")
    rng = np.random.default_rng(0)
    lines = ["path,text"]
    for number in range(36):
        wave = rng.standard_normal((1, 4000)).astype(np.float32) / 10
        media_file(tmp_path / f"{number}.wav", audio=wave, sample_rate=16_000)
        lines.append(f"{number}.wav,{colours[number % 6]} {colours[number // 6]}")
    Path("clips.csv").write_text("\n".join(lines))
    run_block("commands: describe")
    Path("add_audio.toml").write_text(BLOCKS["scenario: described"].replace("dim = 384", "dim = 6"))
    run_block("commands: back")
    one, other = (
        SentenceTransformer(name, trust_remote_code=True, device="cpu").encode("red gold")
        for name in ("minilm", "with_sound")
    )
    assert np.allclose(other[:6], one / np.linalg.norm(one), atol=1e-6)
