"""The words for modalities, pairs and cards."""

import pytest

from continual_mm.definitions.modality import Kind, Modality, Pair, all_pairs, pair


def test_the_order_within_a_pair_does_not_matter():
    ways = [
        pair("video", "audio"),
        pair("audio", "video"),
        Pair.parse("video-audio"),
        Pair.parse("audio-video"),
    ]
    assert len(set(ways)) == 1
    assert [str(way) for way in ways] == ["audio-video"] * 4


@pytest.mark.parametrize(
    "text", ["", "-", "video", "video-", "-video", "video-video", "video--text", "video-audio-text"]
)
def test_what_is_not_two_different_names_is_no_pair(text):
    with pytest.raises(ValueError, match="two different modalities") as caught:
        Pair.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "count"), [("", 0), ("a", 0), ("ab", 1), ("abc", 3), ("dcba", 6)]
)
def test_n_modalities_make_n_choose_two_pairs_in_sorted_order(names, count):
    pairs = all_pairs(tuple(names))
    assert len(set(pairs)) == count
    assert list(map(str, pairs)) == sorted(map(str, pairs))


@pytest.mark.parametrize(
    ("kind", "shape", "features"),
    [
        (Kind.VECTOR, (512,), 512),
        (Kind.TOKENS, (13, 32), 32),
        (Kind.SPECTROGRAM, (61, 40), 40),
        (Kind.FRAMES, (12, 3, 8, 6), 3 * 8 * 6),
    ],
)
def test_features_are_the_values_of_one_time_step(kind, shape, features):
    assert Modality("m", kind, shape).features == features
