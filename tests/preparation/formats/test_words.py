"""Words of captions, as the published tokeniser splits them."""

from continual_mm.preparation.formats.word_vectors import known_rows, tokens

VOCABULARY = {"add": 0, "Salt": 1, "stir": 2, "don't": 3}


def test_words_are_runs_of_letters_digits_underscores_and_apostrophes() -> None:
    text = "don't stop, it's 20°C—OK_ay"
    assert tokens(text) == ["don't", "stop", "it's", "20", "C", "OK_ay"]
    assert tokens("") == tokens("... -- !") == []
    assert tokens("naïve Öl") == ["naïve", "Öl"]


def test_reference_knows_words_only_as_they_are_written() -> None:
    text = "Add Salt, don't STIR the salt"
    assert known_rows(text, VOCABULARY, max_words=20, mode="reference") == [1, 3]


def test_robust_tries_the_lower_case_of_unknown_words() -> None:
    text = "Add Salt, don't STIR the salt"
    assert known_rows(text, VOCABULARY, max_words=20, mode="robust") == [0, 1, 3, 2]


def test_only_known_words_count_towards_the_limit() -> None:
    text = "the " * 30 + "add " * 25
    assert known_rows(text, VOCABULARY, max_words=20, mode="reference") == [0] * 20


def test_a_long_text_is_read_no_further_than_its_first_known_words() -> None:
    looked_up: list[str] = []

    class Vocabulary(dict[str, int]):
        def get(self, word: str, default: object = None) -> object:  # type: ignore[override]
            looked_up.append(word)
            return super().get(word, default)

    text = "salt and " * 10_000
    found = known_rows(text, Vocabulary(salt=3), max_words=2, mode="reference")
    assert (found, looked_up) == ([3, 3], ["salt", "and", "salt"])
