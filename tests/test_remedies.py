"""Every option, command, key, name and file that a message names is there, and helps."""

import ast
import re
import tomllib
from inspect import Parameter, getmembers, isclass, signature
from pathlib import Path
from pkgutil import resolve_name

import click
import numpy as np
import pytest
import torch

import continual_mm as cm
from continual_mm.cli.app import app
from continual_mm.data import registry
from continual_mm.data.recognise import recognised
from continual_mm.definitions import scenario as tables
from continual_mm.plugins.registry import BUILT_IN
from continual_mm.preparation.extraction.rows import read_rows
from continual_mm.preparation.formats.word_vectors import open_vectors
from continual_mm.space.space import JointSpace
from continual_mm.system.errors import InputError

ROOT = Path(__file__).parents[1]
SAYING = {"at", "Problem", "refusal", "FaultError", "about", "about_source", "about_rows", "refuse"}
SAID = {"remedy", "problem", "message", "_REMEDY", "_REMEDIES", "REMEDY", "HOW"}
ELSEWHERE = {"--help", "--repo-type", "--local-dir", "--logdir"}
"""Options of every command, of Hugging Face's ``hf download``, and of TensorBoard."""


def walked():
    """(file, node, docstrings that are no messages) of the package."""
    for path in sorted((ROOT / "continual_mm").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docs = {
            id(each.value)
            for each in ast.walk(tree)
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        }
        yield path.relative_to(ROOT), tree, docs


def texts(node, docs=frozenset()):
    """The strings in a node; of f-strings whole ones, with {} for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        yield "".join(map(str, parts))
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                yield from texts(value.value, docs)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str) and id(node) not in docs:
            yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child, docs)


def named(node):
    """Whether a node says something to a user: a call that refuses, or a text kept for one."""
    if isinstance(node, ast.Call):
        function = node.func
        return getattr(function, "attr", getattr(function, "id", "")) in SAYING
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    is_set = isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr)
    return is_set and any(getattr(target, "id", "") in SAID for target in targets)


EVERY = [(path, text) for path, tree, docs in walked() for text in texts(tree, docs)]
MESSAGES = list(
    dict.fromkeys(
        (path, text)
        for path, tree, docs in walked()
        for node in ast.walk(tree)
        if named(node)
        for text in texts(node, docs)
    )
)


def commands(group, *words):
    """(words of a command) -> the command, of all there are."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *words, name)


COMMANDS = dict(commands(app))
OPTIONS = {
    option: set()
    for command in COMMANDS.values()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
}


def unknown(pattern, known, where=EVERY):
    """(file, what is named) of everything that is not known."""
    return {
        (str(path), found)
        for path, text in where
        for found in re.findall(pattern, text)
        if found not in known
    }


def test_there_are_as_many_messages_as_a_reader_would_count():
    assert len(MESSAGES) > 800
    assert any("add [memory] with items = 128" in text for _, text in MESSAGES)


def test_every_option_that_is_named_is_one_of_a_command():
    assert not unknown(r"(?<![\w-])--[a-z][a-z0-9-]*", {*OPTIONS, *ELSEWHERE})


def test_every_command_that_is_named_is_there_with_the_options_named_beside_it():
    for path, text in EVERY:
        for line in re.findall(r"continual-mm ([a-z].*)", text):
            words = line.split()
            longest = max((n for n in range(1, 4) if tuple(words[:n]) in COMMANDS), default=0)
            assert longest, (str(path), line)
            command = COMMANDS[tuple(words[:longest])]
            own = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | ELSEWHERE
            beside = re.split(r"[;:,)]| and | with ", line)[0]
            if not isinstance(command, click.Group):
                assert set(re.findall(r"--[a-z][a-z0-9-]*", beside)) <= own, (str(path), line)


def test_every_extra_that_is_named_can_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not unknown(r"continual-mm\[([a-z]+)\]", set(project["optional-dependencies"]))


def keys():
    """Every key of a definition, and every argument of a public function or class."""
    models = [each for _, each in getmembers(tables, isclass) if issubclass(each, tables.Table)]
    found = {key for model in models for key in model.model_fields} | {"tower", "stage", "protocol"}
    found |= {key for known in BUILT_IN.values() for key in known.rule.parameters}
    public = [getattr(cm, name) for name in cm.__all__ if name != "__version__"] + [JointSpace]
    methods = [m for each in public if isclass(each) for _, m in getmembers(each, callable)]
    for each in (*public, *methods):
        try:
            parameters = signature(each).parameters.values()
        except (TypeError, ValueError):
            continue
        named_ones = (p for p in parameters if p.kind is not Parameter.VAR_KEYWORD)
        found |= {parameter.name for parameter in named_ones}
    return found


FURTHER = {
    *("text", "column", "path", "name", "key", "table", "ids", "split", "group", "label"),
    *("fname", "trust_remote_code", "cache_folder", "binary"),
}
"""Columns of files, stand-ins for what a user writes, and arguments of other libraries."""


def test_every_key_that_a_message_writes_out_is_one_of_a_definition_or_an_argument():
    known = keys() | FURTHER
    assignments = unknown(
        r"(?<![\w.<-])([a-z_]+) ?= ?(?=[\"'\[\d]|true|false|True)", known, MESSAGES
    )
    assert not assignments
    dotted = unknown(r"\b(?:training|space|memory)\.([a-z_]+)\b(?!\()", known, MESSAGES)
    assert not dotted
    in_brackets = unknown(
        r"\[\[?([a-z_]+)(?:\.[a-z{}]+)?\]\]?(?! for)", known | {*BUILT_IN, "st"}, MESSAGES
    )
    assert not {each for each in in_brackets if each[1] not in OPTIONAL_PACKAGES}


OPTIONAL_PACKAGES = {"lora", "clip", "clap", "data", "tune", "st", "dev"}


def test_every_public_name_that_a_message_writes_out_can_be_imported():
    for path, text in MESSAGES:
        for name in re.findall(r"\bcontinual_mm\.([A-Za-z_]+(?:\.[A-Za-z_]+)*)\b(?!:)", text):
            try:
                resolve_name(f"continual_mm.{name}")
            except (AttributeError, ImportError) as error:
                raise AssertionError(f"{path}: {text}") from error


def test_every_file_and_variable_that_a_message_names_is_one_of_ours():
    constants = {text for _, text in EVERY}
    assert not unknown(r"\bCONTINUAL_MM_[A-Z_]+\b", constants)
    assert not unknown(r"(?<![\w{}./-])([a-z_]+\.json)\b", constants | {"file.json"}, MESSAGES)
    pages = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.md")}
    assert not unknown(r"\b([a-z]+/[\w-]+\.md)\b", pages, MESSAGES)


def parsed(line):
    """Words of a command as click takes them; a usage error fails."""
    words = re.split(r"\s+", line.strip())
    longest = max(n for n in range(1, 4) if tuple(words[:n]) in COMMANDS)
    command = COMMANDS[tuple(words[:longest])]
    if "--help" not in words:
        command.make_context("it", [word.strip("'") for word in words[longest:]])


@pytest.mark.parametrize(
    "name",
    [
        *("youcook_val_audio.pkl", "msrvtt_train.pkl", "lsmdc.pkl", "ucf101.pkl", "hmdb.pkl"),
        *("caption.pickle", "other.pkl", "film.mp4", "sound.wma", "clips.csv", "some.parquet"),
    ],
)
def test_a_command_for_what_is_no_dataset_is_one_that_can_be_typed(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    remedy = recognised(tmp_path / name).remedy
    for line in re.findall(r"continual-mm ([^;]+)", remedy):
        parsed(line.replace("names the published files that can be converted", ""))


def test_a_folder_of_sound_is_taken_as_what_it_is(tmp_path):
    for name in ("a.wma", "b.au"):
        (tmp_path / name).write_bytes(b"x")
    assert "data extract" in recognised(tmp_path).remedy


def test_following_what_validate_says_leads_to_a_scenario_that_is_fine(tmp_path, typed, written):
    pack = written(tmp_path / "mine.npz")
    path = tmp_path / "mine.toml"
    wrong = f'dataset = "{pack}"\n[traning]\nsteps = 3\n[[stage]]\nadd = ["vidio", "audio"]\n'
    path.write_text(wrong)
    said = typed("validate", path).err
    fixed = wrong
    for word, meant in re.findall(r"'?\[?(\w+)\]?'?[^\n]*did you mean '\[?(\w+)\]?'", said):
        fixed = fixed.replace(word, meant)
    meant = dict(re.findall(r"modality '(\w+)'[^\n]*did you mean '(\w+)'", said))
    for word, instead in meant.items():
        fixed = fixed.replace(word, instead)
    fixed = fixed.replace("traning", "training")
    path.write_text(fixed)
    assert not typed("validate", path).code
    strategy = tmp_path / "mine_replay.toml"
    strategy.write_text("[replay]\nweight = 1.0\n")
    said = typed("validate", strategy).err
    (key,) = re.findall(r"add \[memory\] with (\w+ = \d+) below it", said)
    strategy.write_text(f"[memory]\n{key}\n[replay]\nweight = 1.0\n")
    assert not typed("validate", strategy).code


def test_values_beyond_float16_are_stored_where_the_remedy_says_or_by_themselves(
    tmp_path, typed, monkeypatch
):
    for n in range(6):
        (tmp_path / "in" / "video").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "in" / "video" / f"{n}.npy", np.full(3, 1e5 + n, np.float32))
    words = ("data", "convert", "arrays", tmp_path / "in", "--modality", "video", "--to")
    said = typed(*words, tmp_path / "out")
    assert "beyond float16" in said.err
    (option,) = re.findall(r"(--dtype \w+)", said.err.splitlines()[0])
    assert not typed(*words, tmp_path / "out", *option.split()).code
    monkeypatch.setenv("CONTINUAL_MM_CACHE", str(tmp_path / "cache"))
    pd = pytest.importorskip("pandas")
    rows = {"id": [*"abcdefghij"], "video": [[1e5 + n, 2.0] for n in range(10)]}
    (tmp_path / "table").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "table" / "train.parquet")
    loaded = registry.load(str(tmp_path / "table"), standardise=False)
    assert float(loaded.columns["video"].take(torch.tensor([3]))[0][0, 0]) > 99_999


def test_a_space_before_a_quote_is_what_is_said_to_be_wrong(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text('path,text\n"a.flac", "a dog, barks"\n"b.flac","y"\n')
    with pytest.raises(InputError, match="remove the space before the quote"):
        read_rows(path)
    path.write_text(path.read_text().replace(', "', ',"'))
    rows, _ = read_rows(path)
    assert rows[0].values["text"] == "a dog, barks"
    path.write_text("path,text\na.flac,a dog, barks\n")
    with pytest.raises(InputError, match="in double quotes"):
        read_rows(path)
    path.write_text('path,text\na.flac,"a dog, barks"\n')
    assert read_rows(path)[0][0].values["text"] == "a dog, barks"


def test_vectors_of_other_programs_are_read_once_they_are_written_as_is_said(tmp_path):
    from gensim.models import KeyedVectors

    table = KeyedVectors(3)
    table.add_vectors(["salt", "rice"], np.eye(2, 3, dtype=np.float32))
    table.save(str(tmp_path / "own.kv"))
    with pytest.raises(InputError, match=r"is a pickle.*KeyedVectors\.load.*save_word2vec_format"):
        open_vectors(tmp_path / "own.kv")
    KeyedVectors.load(str(tmp_path / "own.kv")).save_word2vec_format(
        str(tmp_path / "words.bin"), binary=True
    )
    assert set(open_vectors(tmp_path / "words.bin").rows) == {"salt", "rice"}
    (tmp_path / "cc.bin").write_bytes(b"\xba\x16O/\x0c\x00\x00\x00" + bytes(90))
    with pytest.raises(InputError, match=r"is a model of fastText.*take the \.vec"):
        open_vectors(tmp_path / "cc.bin")


def test_numbers_beyond_the_format_name_the_format_until_it_is_another(tmp_path, features):
    arrays = features()
    dataset = cm.Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 30))
    arrays["video"][:] *= 1e6
    wide = cm.Dataset.from_arrays(arrays, split=np.repeat([0, 1, 2], 30), standardise=False)

    def scenario(precision):
        return cm.Scenario(
            name="one",
            space=cm.SpaceSettings(dim=8, clusters=0),
            training=cm.Training(steps=2, batch_size=8, precision=precision),
            stages=(cm.Stage(add=("video", "audio")),),
        )

    with pytest.raises(FloatingPointError) as caught:
        cm.train(scenario("float16"), wide, device="cpu")
    assert 'training.precision = "bfloat16" or "float32"' in str(caught.value)
    assert "standardise = true" in str(caught.value)
    cm.train(scenario("float32"), dataset, device="cpu")  # both were followed
