"""The command line, as a user meets it; training has tests of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from continual_mm.cli import train as cli_training
from continual_mm.cli.app import app
from continual_mm.cli.options import Target
from continual_mm.data.store.writer import write_store
from continual_mm.definitions import catalog
from continual_mm.definitions.modality import Kind, Modality
from continual_mm.runs import parallel

ROOT = Path(__file__).parents[2]
SHIPPED = [str(entry.path) for kind in catalog.DEFINITION_KINDS for entry in catalog.shipped(kind)]


def refused(answer, *expected):
    """One line per problem on standard error, each with what is expected of it, and code 2."""
    lines = answer.err.splitlines()
    assert answer.code == 2
    assert len(lines) == len(expected), answer.err
    for line, part in zip(lines, expected, strict=True):
        assert line.startswith("continual-mm: ")
        assert part in line


KINDS = {
    "scenarios": "joint_avt",
    "strategies": "replay_ewc_transport",
    "plugins": "transport",
    "towers": "linear",
    "datasets": "narrated_shapes (2000, 200, 400) video, audio, text",
}


def test_list_shows_every_kind_of_thing_or_one(said):
    answers = {kind: said("list", kind) for kind in KINDS}
    for kind, name in KINDS.items():
        assert (answers[kind].code, answers[kind].err) == (0, "")
        lines = [" ".join(line.split()) for line in answers[kind].out.splitlines()]
        assert any(line.startswith(name) for line in lines)
    everything = said("list")
    assert (everything.code, everything.err) == (0, "")
    assert everything.out == "\n".join(answer.out for answer in answers.values())


def test_show_prints_the_file_and_what_follows_from_it(said):
    answer = said("show", "av_vt")
    entry = catalog.find("scenarios", "av_vt")
    assert answer.code == 0
    assert answer.out.startswith(f"# {entry.path}\n{entry.path.read_text()}")
    assert answer.out.splitlines()[-1].split() == ["2", "text", "text-video", "300"]
    assert "[memory]\nitems = 128" in said("show", "replay").out
    Path("mine.toml").write_text("[freeze]  # [bold] :key:\n")
    assert "[freeze]  # [bold] :key:\n" in said("show", "mine.toml").out


def test_all_that_is_shipped_is_valid(said):
    answer = said("validate", *SHIPPED)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    lacking = [line for line in lines if line.startswith("  before it can run: dataset ")]
    fine = [line for line in lines if ": fine, a " in line]
    assert len(fine) == len(SHIPPED)
    # Of what is here, a table says how many items each pair has; one pair is never scored.
    (note,) = [line for line in lines if line.startswith("  note:")]
    assert note.startswith("  note: audio-text: no stage trains it and no test item has both")
    assert lines.count("pair   trained in stage  training items     validation  test") == 1
    assert len(lacking) == 13


@pytest.mark.parametrize(
    ("further", "tower", "noted"),
    [
        ({}, "", True),
        ({}, '[tower.image]\nkind = "flat"\n', False),
        ({"image_kind": np.array("tokens")}, "", False),
        ({"image_length": np.repeat([3, 4], 45)}, "", False),
    ],
)
def test_validate_notes_an_image_that_would_be_read_as_a_bag_of_rows(
    said, written, further, tower, noted
):
    written(Path("mine.npz"), ("text",), image=np.ones((90, 4, 5)), **further)
    Path("mine.toml").write_text(
        f'dataset = "mine.npz"\n{tower}[[stage]]\nadd = ["text", "image"]\n'
    )
    answer = said("validate", "mine.toml")
    note = (
        "  note: every item of image has 4 rows, which are read without their order (kind tokens)"
    )
    assert (answer.code, note in answer.out) == (0, noted), answer.err


def test_validate_reports_everything_about_every_file_and_goes_on(said):
    Path("first.toml").write_text(
        'dataset = "narrated_shapes"\n[training]\nstpes = 5\n[[stage]]\nadd = ["video", "smell"]\n'
    )
    Path("second.toml").write_text("[transport]\nepsilon = 0\n")
    Path("third.toml").write_text("[[stage]]\nadd = [\n")
    answer = said("validate", "first.toml", "naive", "second.toml", "third.toml", "fourth.toml")
    refused(
        answer,
        "first.toml, [training], stpes: unknown key with value 5; did you mean 'steps'?",
        "first.toml, [[stage]] 1, add: no modality 'smell' in dataset 'narrated_shapes'; it has",
        "second.toml, [transport], epsilon: 0 cannot be used; give more than 0",
        "second.toml, [memory]: the table is missing",
        "third.toml: not valid TOML: Invalid value (at line 2, the end of the file)",
        "fourth.toml: no such file",
    )
    assert answer.out.endswith("naive.toml: fine, a strategy\n")


@pytest.mark.parametrize(
    ("to", "file"),
    [
        ((), "av_vt.toml"),
        (("new/folder",), "new/folder/av_vt.toml"),
        (("new/a.toml",), "new/a.toml"),
    ],
)
def test_a_copy_is_the_same_file_and_overwrites_nothing(said, to, file):
    answer = said("copy", "av_vt", *to)
    assert answer.code == 0
    assert f"continual-mm run {file}" in answer.out
    assert Path(file).read_bytes() == catalog.find("scenarios", "av_vt").path.read_bytes()
    assert said("validate", file).code == 0
    Path(file).write_text("mine")
    refused(said("copy", "av_vt", *to), f"{file}: is there already; name another file")
    assert Path(file).read_text() == "mine"
    assert "--strategy replay.toml" in said("copy", "replay").out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["show", "av_tv"], "'av_tv': no such definition; did you mean 'av_"),
        (["copy", "repaly"], "did you mean 'replay'?"),
        (["validate", "nothing"], "'nothing': no such definition"),
        (["run", "av_tv"], "scenario 'av_tv': no such definition; did you mean 'av_"),
        (["run", "av_vt", "--strategy", "repaly"], "strategy 'repaly': no such definition"),
        (["run", "replay"], "scenario 'replay': no such definition"),
        (["run", "av_vt", "--set", "training.steps"], "--set training.steps: no key and value"),
        (["run", "av_vt", "--set", "training.steps=0"], "[training], steps: 0 cannot be used"),
        (
            ["run", "av_vt", *2 * ["--strategy", "ewc"], "--name", "e"],
            "--name e: names one strategy",
        ),
        (["run", "av_vt", "--name", "../e"], "--name: '../e' cannot be the name of a folder"),
        (["run", "av_vt", "--set", "stage.9.steps=1"], "--set stage.9.steps: there is no number"),
        (["run", "av_vt", "--set", "trainig.steps=1"], "--set trainig.steps: there is no"),
        (["run", "av_vt", "--set", "transport.weight=1"], "there is no 'transport' in"),
        (["run", "av_vt", "--set", "dataset=no.npz"], "no file"),
        (["demo", "--set", "space.dim=1"], "[space], dim: 1 cannot be used; give at least 2"),
        (["board", "nowhere"], "nowhere: no such folder"),
        (
            ["compare", "runs", "--metric", "recall@10", "--indexes"],
            "--indexes: does not go with --metric",
        ),
        (["compare", "runs", "--metric", "map"], "metric: 'map' is unknown; there are r@1, r@5"),
        (["compare", "runs", "--by", "pair", "--protocol", "x"], "does not go with --by"),
        (["compare", "runs", "--picture", "a.jpg"], "a.jpg: '.jpg' is no format here"),
        (["run", "av_vt", "--picture", "a"], "a: 'no ending' is no format here; end it with .png"),
    ],
)
def test_wrong_input_is_refused_in_one_line(said, arguments, problem):
    refused(said(*arguments), problem)


USAGE = ("no-such-command", "list planets", "validate", "run", "run av_vt --no-such-option")
NUMBERS = (
    "run av_vt --seeds 0",
    "run av_vt --seeds many",
    "compare runs --format yaml",
    "compare runs --by year",
)


@pytest.mark.parametrize("command", [*USAGE, *NUMBERS])
def test_wrong_usage_ends_with_code_two_and_an_explanation(said, command):
    answer = said(*command.split())
    assert answer.code == 2
    assert "Error: " in answer.err
    assert "Traceback" not in answer.err


COMMANDS = ("list", "show", "validate", "copy", "run", "compare", "export", "tune", "board", "demo")


def test_every_command_explains_itself(said):
    listed = said("--help").out
    for group in ((), ("data",), ("data", "convert")):
        assert "..." not in said(*group, "--help").out.partition("Commands:")[2]
    for command in (*COMMANDS, "status", "consolidate", "data"):
        assert command in listed
        answer = said(command, "--help")
        assert answer.code == 0
        assert "Usage: continual-mm " in answer.out


def test_the_demo_leaves_out_what_needs_a_package_that_is_not_there(monkeypatch, capsys):
    names = (*cli_training.DEMO_STRATEGIES, "pair_lora")
    _, chosen = cli_training.definitions([], names, [])
    assert list(cli_training.ready(chosen)) == list(chosen)
    monkeypatch.setitem(sys.modules, "peft", None)
    left = {strategy.name for strategy in cli_training.ready(chosen)}
    assert left == {*cli_training.DEMO_STRATEGIES}
    assert "'pair_lora', [pair_lora]: peft is not installed; pip" in capsys.readouterr().err


def test_the_demo_compares_and_draws_what_else_its_folder_has(said, monkeypatch):
    monkeypatch.setattr(cli_training, "DEMO_STRATEGIES", ("naive", "freeze"))
    tiny = ("--set", "training.batch_size=8", "--set", "space.dim=8", "--no-board")
    other = ("--set", "training.steps=2", "--name", "longer")
    assert not said("run", "av_vt", *other, *tiny, "--strategy", "naive").code
    answer = said("demo", "--seeds", "1", "--set", "training.steps=1", *tiny)
    assert answer.code == 0
    pictures = re.findall(r"picture: (.+)", answer.out)
    assert len(pictures) == 2
    assert all(Path(picture).stat().st_size > 1000 for picture in pictures)
    again = said("demo", "--seeds", "1", "--set", "training.steps=3", *tiny)
    assert "steps was 1, is 3; choose another --out, or" in again.err


def test_an_error_of_the_file_system_is_one_line_without_traceback(said, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error", "file")

    monkeypatch.setattr(shutil, "copyfile", broken)
    answer = said("copy", "replay")
    assert answer.code == 1
    assert answer.err == "continual-mm: [Errno 5] Input/output error: 'file'\n"


def test_ctrl_c_says_what_is_kept_where_something_was_made(said, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    monkeypatch.setattr(parallel, "run_many", interrupted)
    looked, trained = said("copy", "replay"), said("run", "av_vt")
    assert (looked.code, trained.code) == (130, 130)
    assert looked.err.strip() == "continual-mm: stopped"
    kept = "finished stages are kept, the same command goes on from there"
    assert trained.err.strip() == f"continual-mm: stopped; {kept}"


def test_an_error_that_nobody_thought_of_is_one_line_and_its_traceback_a_file(
    said, monkeypatch, tmp_path
):
    def mistaken(*_):
        raise KeyError("no such thing\n\x1b[31m")

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(shutil, "copyfile", mistaken)
    answer = said("copy", "replay")
    assert answer.code == 1
    (line,) = answer.err.splitlines()
    assert line.startswith("continual-mm: copy replay: unexpected KeyError: 'no such thing")
    assert "\x1b" not in line
    (log,) = (tmp_path / "state").rglob("*.log")
    assert str(log) in line
    assert "in mistaken" in log.read_text()


def test_a_file_with_another_ending_is_told_so_and_one_beside_is_found_by_its_stem(said):
    Path("README.md").write_text("# Mine\n")
    refused(said("validate", "README.md"), "README.md: is no definition, which is a file that ends")
    refused(said("validate", "nowhere/mine"), "nowhere/mine: no such file")
    refused(said("validate", "mine"), "'mine': no such definition")
    Path("mine.toml").write_text("[freeze]\n")
    assert said("validate", "mine").out == "mine.toml: fine, a strategy\n"


OUTPUTS = [
    ("run", "av_vt", "--out", "{}"),
    ("demo", "--out", "{}"),
    ("tune", "av_vt", "--strategy", "replay", "--trials", "1", "--out", "{}"),
    ("tune", "av_vt", "--strategy", "replay", "--trials", "1", "--write", "{}/best.toml"),
    ("copy", "av_vt", "{}/mine.toml"),
    ("export", "runs", "--to", "{}"),
    ("export", "runs", "--to", "sentence-transformers", "--out", "{}"),
    ("consolidate", "runs", "--dim", "4", "--to", "{}"),
    ("data", "inspect", "digits", "--picture", "{}/a.png"),
    ("data", "extract", "clips", "--to", "{}"),
    ("data", "vectors", "digits", "--to", "{}/a.bin"),
    ("data", "filter", "digits", "--to", "{}/a.npz", "--pair", "a-b"),
    ("data", "convert", "clips", "clips", "--to", "{}/a.npz"),
    ("data", "convert", "ucf101", "a.pkl", "--vectors", "w", "--to", "{}/a.npz"),
]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=lambda each: "_".join(each[:3]))
def test_an_output_that_cannot_be_written_is_refused_before_any_work(said, arguments):
    Path("file.npz").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    for place, problem in {
        "file.npz": "file.npz: is no folder, which is needed there",
        "dangling/x": "dangling: cannot be written: its link leads nowhere",
        "x" * 300: "cannot be written: File name too long",
    }.items():
        refused(said(*(each.format(place) for each in arguments)), problem)
    assert Path("file.npz").read_text() == "mine"
    assert sorted(path.name for path in Path().iterdir()) == ["dangling", "file.npz"]


def test_every_option_for_an_output_is_checked():
    """What is written is named by an option of these names, or the argument of copy."""

    def commands(group, words=()):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from commands(command, (*words, name))
            else:
                yield (*words, name), command

    found = {
        (words, option.name)
        for words, command in commands(app)
        for option in command.params
        if {"--to", "--out", "--write", "--picture"} & {*option.opts} or option.name == "to"
    }
    assert len(found) > 15
    for words, command in commands(app):
        for option in command.params:
            if (words, option.name) in found:
                assert isinstance(option.type, Target), (words, option.name)


@pytest.fixture
def pack_arrays():
    rng = np.random.default_rng(0)
    return {
        "video": rng.normal(size=(30, 4)),
        "text": rng.normal(size=(30, 3, 5)),
        "text_length": np.full(30, 2),
        "ids": np.array([f"clip {number}" for number in range(30)]),
        "split": np.repeat([0, 1, 2], 10),
    }


SCENARIO = 'dataset = "mine.npz"\n[[stage]]\nadd = ["video", "text"]\n'


def test_validate_reads_the_items_and_tells_all_that_is_wrong_at_once(said, pack_arrays):
    Path("mine.toml").write_text(SCENARIO)
    np.savez("mine.npz", **pack_arrays)
    assert said("validate", "mine.toml").code == 0
    pack_arrays["video"][3] = np.nan
    pack_arrays["ids"][5] = "clip 4"
    pack_arrays["text_length"][0] = 4
    np.savez("mine.npz", **pack_arrays)
    faults = (
        "mine.npz, column 'ids': 1 id occurs more than once: 'clip 4' (rows 4, 5)",
        "mine.npz, column 'text_length': not within 1..3 in 1 row: 0 ('clip 0')",
        "mine.npz, column 'video': not finite in float32 in 1 row: 3 ('clip 3')",
    )
    refused(said("validate", "mine.toml"), *faults)
    assert said("validate", "--quick", "mine.toml").code == 0
    Path("mine.toml").write_text(f"{SCENARIO}[space]\ndmi = 4\n")
    refused(said("validate", "mine.toml"), "mine.toml, [space], dmi: unknown key", *faults)


def test_validate_reads_a_store_to_the_last_byte(said, pack_arrays):
    layout = (Modality("video", Kind.VECTOR, (4,)), Modality("text", Kind.TOKENS, (0, 5)))
    names = ("video", "text", "ids", "split")
    rows = zip(*(pack_arrays[name] for name in names), strict=True)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    write_store([{**one, "ids": str(one["ids"])} for one in records], "mine", layout=layout)
    Path("mine.toml").write_text(SCENARIO.replace("mine.npz", "mine"))
    assert said("validate", "mine.toml").code == 0
    values = np.float16(pack_arrays["video"][3]).tobytes()
    shards = [*Path("mine/items").iterdir()]
    (shard,) = (one for one in shards if values in one.read_bytes())
    content = bytearray(shard.read_bytes())
    content[content.index(values)] ^= 1
    shard.write_bytes(content)
    assert said("validate", "--quick", "mine.toml").code == 0
    refused(said("validate", "mine.toml"), "mine: holds other values than those of the fingerprint")


def test_validate_opens_protocols_as_a_run_does(said, pack_arrays):
    protocol = '[[protocol]]\nname = "p"\nkind = "video_retrieval"\n'
    Path("mine.toml").write_text(f'{SCENARIO}{protocol}query = ["text"]\ngallery = ["video"]\n')
    np.savez("mine.npz", **pack_arrays)
    refused(said("validate", "mine.toml"), "scenario 'mine', protocol 'p': ")


def test_a_million_mistakes_are_few_lines(said):
    keys = "\n".join(f"key_{number} = 1" for number in range(20_000))
    Path("mine.toml").write_text(f"[space]\n{keys}\n")
    answer = said("validate", "mine.toml")
    assert answer.code == 2
    assert len(answer.err.splitlines()) < 60
    assert "19,980 more unknown keys" in answer.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_terminal_can_be_written_to(encoding, tmp_path):
    (tmp_path / "caf\u00e9 \u2603.toml").write_text("[freeze]\n# \u2603 \u00b1\n", encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "continual_mm", "show", "caf\u00e9 \u2603.toml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    shown = ended.stdout.decode(encoding)
    assert ("\u2603 \u00b1" if encoding == "utf-8" else "\\u2603") in shown
    assert ("+-" in shown) == (encoding == "ascii")


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["list"], ["torch", "numpy", "avalanche", "pydantic", "rich.progress", "optuna"]),
        (["show", "av_vt"], ["torch", "numpy", "avalanche", "rich.progress"]),
        (["validate", *SHIPPED], ["torch", "numpy", "avalanche", "rich.progress"]),
        (["run", "av_vt", "--strategy", "repaly"], ["torch", "numpy", "avalanche"]),
        (["validate", "mine.toml"], ["torch", "avalanche", "pyarrow", "rich.progress"]),
    ],
)
def test_what_trains_nothing_does_not_wait_for_torch(arguments, heavy, tmp_path, pack_arrays):
    np.savez(tmp_path / "mine.npz", **pack_arrays)
    (tmp_path / "mine.toml").write_text(SCENARIO)
    code = f"""
import sys
from continual_mm.cli.app import main
try:
    main({arguments!r})
except SystemExit:
    loaded = sorted(set({heavy!r}) & sys.modules.keys())
    sys.exit(f"loaded {{loaded}}" if loaded else 0)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True)


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "continual_mm", "list", "plugins"]
    found = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    assert "transport" in found.stdout
    assert found.stderr == ""
