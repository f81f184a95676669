"""`continual-mm data filter`, as it is typed."""

import signal
from importlib import import_module

import numpy as np
import pytest

from continual_mm.data.pack import read_pack, write_pack


@pytest.fixture
def pack(tmp_path):
    rng = np.random.default_rng(0)
    latent, split = rng.standard_normal((60, 4)), np.repeat([0, 1, 2], [40, 10, 10])
    arrays = {name: latent @ rng.standard_normal((4, 6)) for name in ("image", "text", "audio")}
    write_pack(tmp_path / "all.npz", {"ids": np.arange(60).astype(str), "split": split, **arrays})
    return tmp_path / "all.npz"


def test_a_pack_is_filtered_and_the_lines_say_what_became_of_it(pack, typed):
    target = pack.with_name("kept.npz")
    said = typed(
        "data", "filter", pack, "--pair", "image-text", "--keep", 0.3, "--steps", 5, "--to", target
    )
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        f"{target}: 12 of 40 training pairs, by hype",
        "20 validation and test items are as they were",
        f"terms of each pair: {pack.with_name('kept.filter.npz')}",
    ]
    assert read_pack(target).card.items == (12, 10, 10)
    again = pack.with_name("fewer.npz")
    said = typed(
        "data", "filter", pack, "--pair", "text-image", "--by", "cascade", "--keep", 0.1,
        "--terms", pack.with_name("kept.filter.npz"), "--to", again,
    )  # fmt: skip
    assert said.code == 0, said.err
    assert read_pack(again).card.items == (4, 10, 10)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--pair", "image", "--keep", 0.3), "--pair: 'image' is not two different modalities"),
        (("--pair", "audio-image", "--keep", 0.3), "--generic audio, or --generic image"),
        (("--pair", "image-text"), "it is not clear what to keep"),
        (("--pair", "image-text", "--keep", 0.3, "--device", "abacus"), "device 'abacus'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(pack, typed, words, problem):
    said = typed("data", "filter", pack, *words, "--to", pack.with_name("kept.npz"))
    assert said.code == 2
    (line,) = said.err.splitlines()
    assert problem in line
    assert [path.name for path in pack.parent.iterdir()] == ["all.npz"]


def test_ctrl_c_leaves_nothing_and_says_so(pack, typed):
    import_module("continual_mm.preparation.filtering.filter")  # which takes seconds

    def interrupt(*_):
        raise KeyboardInterrupt

    target, before = pack.with_name("kept.npz"), signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        said = typed(
            "data", "filter", pack, "--pair", "image-text", "--keep", 0.3, "--steps", 10**6,
            "--to", target,
        )  # fmt: skip
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert said.code == 130
    assert said.err == f"continual-mm: stopped; {target} is not there\n"
    assert [path.name for path in pack.parent.iterdir()] == ["all.npz"]


def test_the_ways_to_filter_are_those_of_the_program():
    from typing import get_args

    from continual_mm.cli.filter import BY
    from continual_mm.preparation.filtering.selection import By

    assert get_args(By) == BY
