import importlib
import subprocess
import sys

import pytest

from continual_mm.system.imports import in_parts

PACKAGE = {
    "__init__.py": """
        from .one import *
        from .two import Two, unused
        from .heavy import *
        __version__ = "1.2"
    """,
    "one.py": "class One: pass",
    "two.py": "from boxes import One\nclass Two(One): pass\nunused = 0",
    "heavy.py": "class Heavy: pass",
}


@pytest.fixture
def boxes(tmp_path, monkeypatch):
    """A package of which nothing is imported yet; forgotten afterwards."""
    (tmp_path / "boxes").mkdir()
    for name, text in PACKAGE.items():
        lines = [line.strip() for line in text.strip().splitlines()]
        (tmp_path / "boxes" / name).write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "boxes"]:
        del sys.modules[name]


def given(command):
    names = {}
    exec(command, names)
    return names


@pytest.mark.parametrize(
    ("command", "imported"),
    [
        ("from boxes import Two", {"boxes", "boxes.one", "boxes.two"}),
        ("import boxes.one", {"boxes", "boxes.one"}),
        ("from boxes import *", {"boxes", "boxes.one", "boxes.two", "boxes.heavy"}),
    ],
)
def test_of_a_package_only_what_is_asked_for_is_imported(boxes, command, imported):
    with in_parts("boxes"):
        given(command)
    assert {name for name in sys.modules if name.partition(".")[0] == "boxes"} == imported


def test_the_rest_of_a_package_is_there_when_it_is_asked_for(boxes):
    with in_parts("boxes"):
        two = given("from boxes import Two")["Two"]
    names = given("from boxes import Heavy, One, Two, __version__")
    assert names["__version__"] == "1.2"
    assert names["Two"] is two
    assert issubclass(two, names["One"])
    with pytest.raises(ImportError, match="Three"):
        given("from boxes import Three")


def test_a_run_waits_for_no_package_that_it_does_not_use():
    unused = "jax qpsolvers wandb torchmetrics transformers peft sklearn pandas librosa gensim"
    script = f"""if True:
        import sys
        from continual_mm.cli.app import main
        try:
            main(["--version"])
        except SystemExit:
            import continual_mm.runs.worker
            print(set({unused.split()}) & sys.modules.keys())
    """
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.endswith("\nset()\n"), found.stdout + found.stderr
