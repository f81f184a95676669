"""The words for modalities, pairs and cards."""

from itertools import permutations

import pytest

from continual_mm.definitions.modality import DatasetCard, Kind, Modality, Pair, all_pairs, pair


def test_the_order_within_a_pair_does_not_matter() -> None:
    ways = [
        pair("video", "audio"),
        pair("audio", "video"),
        Pair.parse("video-audio"),
        Pair.parse("audio-video"),
    ]
    assert len(set(ways)) == 1
    assert [str(way) for way in ways] == ["audio-video"] * 4


@pytest.mark.parametrize(
    "text",
    ["", "-", "video", "video-", "-video", "video-video", "video--text", "video-audio-text"],
)
def test_what_is_not_two_different_names_is_no_pair(text: str) -> None:
    with pytest.raises(ValueError, match="two different modalities") as caught:
        Pair.parse(text)
    assert repr(text) in str(caught.value)


def test_a_modality_is_no_pair_with_itself() -> None:
    with pytest.raises(ValueError, match="two different modalities"):
        pair("audio", "audio")


def test_a_pair_is_searched_in_both_directions() -> None:
    assert set(pair("touch", "smell").directions) == {("touch", "smell"), ("smell", "touch")}


def test_a_pair_contains_its_two_modalities_and_nothing_else() -> None:
    both = pair("video", "text")
    assert "video" in both
    assert "text" in both
    assert "audio" not in both
    assert "video-text" not in both


@pytest.mark.parametrize(
    ("names", "count"), [("", 0), ("a", 0), ("ab", 1), ("abc", 3), ("dcba", 6)]
)
def test_n_modalities_make_n_choose_two_pairs_in_sorted_order(names: str, count: int) -> None:
    pairs = all_pairs(tuple(names))
    assert len(set(pairs)) == count
    assert list(map(str, pairs)) == sorted(map(str, pairs))


def test_all_pairs_do_not_depend_on_the_order_of_the_modalities() -> None:
    assert len({all_pairs(order) for order in permutations(("x", "y", "z", "w"))}) == 1


@pytest.mark.parametrize(
    ("kind", "shape", "features"),
    [
        (Kind.VECTOR, (512,), 512),
        (Kind.TOKENS, (13, 32), 32),
        (Kind.SPECTROGRAM, (61, 40), 40),
        (Kind.FRAMES, (12, 3, 8, 6), 3 * 8 * 6),
    ],
)
def test_features_are_the_values_of_one_time_step(
    kind: Kind, shape: tuple[int, ...], features: int
) -> None:
    assert Modality("m", kind, shape).features == features


def test_only_vectors_have_no_length() -> None:
    assert [kind for kind in Kind if not kind.has_length] == [Kind.VECTOR]


def test_a_card_gives_its_modalities_by_name_in_its_own_order() -> None:
    touch, smell = Modality("touch", Kind.VECTOR, (3,)), Modality("smell", Kind.TOKENS, (5, 2))
    card = DatasetCard("senses", (touch, smell), (8, 1, 1), "0")
    assert card.names == ("touch", "smell")
    assert card["smell"] is smell
    with pytest.raises(KeyError, match="taste"):
        card["taste"]
