"""Each kind changes the share of words or characters that its strength says, measured without its own count."""

import random
import unicodedata
from collections.abc import Callable
from itertools import pairwise

import pytest

from contraverse.noise import KINDS, STRENGTHS, NoisyText, noisy
from contraverse.noise.additions import EMOJI, HARMLESS
from contraverse.noise.characters import LEET, homoglyphs
from contraverse.noise.typos import NEIGHBOURS, OCR

VOCABULARY = """something wonderful happened yesterday evenings restaurant kitchens mornings brown foxes jump over lazy
dogs windows clearly modern burning stations""".split()
Measure = Callable[[list[str], list[str]], tuple[int, int]]


def rows(count: int = 400) -> list[str]:
    draw = random.Random(0)
    texts = []
    for _ in range(count):
        words = [draw.choice(VOCABULARY) for _ in range(draw.randrange(3, 13))]
        words = [word.capitalize() if draw.random() < 0.4 else word for word in words]
        texts.append(", ".join((" ".join(words[:4]), " ".join(words[4:]))).strip(", ") + ".")
    return texts


def pairs_of_words(clean: list[str], noisy: list[str]) -> list[tuple[str, str]]:
    return [
        pair for one, other in zip(clean, noisy, strict=True) for pair in zip(one.split(), other.split(), strict=True)
    ]


def pairs_of_letters(clean: list[str], noisy: list[str]) -> list[tuple[str, str]]:
    return [pair for one, other in zip(clean, noisy, strict=True) for pair in zip(one, other, strict=True)]


def words_changed(eligible: Callable[[str], bool]) -> Measure:
    def measure(clean: list[str], noisy: list[str]) -> tuple[int, int]:
        pairs = pairs_of_words(clean, noisy)
        assert all(a == b for a, b in pairs if not eligible(a.strip(".,")))
        return sum(a != b for a, b in pairs), sum(eligible(a.strip(".,")) for a, _ in pairs)

    return measure


def letters_changed(eligible: Callable[[str], bool]) -> Measure:
    def measure(clean: list[str], noisy: list[str]) -> tuple[int, int]:
        pairs = pairs_of_letters(clean, noisy)
        assert all(a == b for a, b in pairs if not eligible(a))
        return sum(a != b for a, b in pairs), sum(eligible(a) for a, _ in pairs)

    return measure


def characters_added(added: Callable[[str], bool], places: Callable[[str], int]) -> Measure:
    def measure(clean: list[str], noisy: list[str]) -> tuple[int, int]:
        count = sum(sum(map(added, other)) - sum(map(added, one)) for one, other in zip(clean, noisy, strict=True))
        return count, sum(map(places, clean))

    return measure


def words_added(pool: tuple[str, ...]) -> Measure:
    def measure(clean: list[str], noisy: list[str]) -> tuple[int, int]:
        words = [other.split() for other in noisy]
        return sum(word.strip(".,") in pool for row in words for word in row), sum(len(one.split()) for one in clean)

    return measure


def punctuation_added(clean: list[str], noisy: list[str]) -> tuple[int, int]:
    pairs = pairs_of_words(clean, noisy)
    assert all(b.startswith(a.strip(".,")) for a, b in pairs)
    return sum(a != b for a, b in pairs), len(pairs)


def is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn"


def is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cf"


def decomposed(measure: Measure) -> Measure:
    return lambda clean, noisy: measure(clean, [unicodedata.normalize("NFD", text) for text in noisy])


def negative(measure: Measure) -> Measure:
    def measured(clean: list[str], noisy: list[str]) -> tuple[int, int]:
        count, places = measure(clean, noisy)
        return -count, places

    return measured


def count_words(text: str) -> int:
    return len(text.split())


def count_letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def mistakable(word: str) -> bool:
    return any(word[i : i + size] in OCR for i in range(len(word)) for size in (1, 2))


MEASURES: dict[str, Measure] = {
    "keyboard": words_changed(lambda word: True),
    "swap": words_changed(lambda word: True),
    "drop": words_changed(lambda word: True),
    "repeat": words_changed(lambda word: True),
    "ocr": words_changed(mistakable),
    "lower": words_changed(lambda word: not word.islower()),
    "upper": words_changed(lambda word: True),
    "random-case": letters_changed(str.isalpha),
    "drop-space": negative(characters_added(str.isspace, lambda text: count_words(text) - 1 - text.count(", "))),
    "add-space": characters_added(str.isspace, count_words),
    "drop-punctuation": negative(characters_added(".,".__contains__, lambda text: text.count(".") + text.count(","))),
    "add-punctuation": punctuation_added,
    "space-out": characters_added(str.isspace, lambda text: count_letters(text) - count_words(text)),
    "leet": letters_changed(lambda letter: letter.lower() in LEET),
    "diacritics": decomposed(characters_added(is_mark, count_letters)),
    "full-width": words_changed(lambda word: True),
    "homoglyph": letters_changed(homoglyphs().__contains__),
    "zero-width": characters_added(is_control, lambda text: count_letters(text) - count_words(text)),
    "bidi": words_changed(lambda word: True),
    "emoji": words_added(EMOJI),
    "append": words_added(HARMLESS),
    "prepend": words_added(HARMLESS),
}  # fmt: skip


def test_every_kind_is_measured() -> None:
    assert list(MEASURES) == list(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_strength_is_the_share_of_places(kind: str) -> None:
    clean = rows()
    shares = []
    for strength in STRENGTHS:
        changed, places = MEASURES[kind](clean, [row.text for row in noisy(clean, kind, strength, seed=1)])
        shares.append(changed / places)
    assert shares == pytest.approx(KINDS[kind].shares, abs=0.015)
    assert list(KINDS[kind].shares) == sorted(set(KINDS[kind].shares))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stronger_noise_contains_a_weaker_one(kind: str) -> None:
    clean = rows(50)
    results: list[list[NoisyText]] = [noisy(clean, kind, strength, seed=2) for strength in STRENGTHS]
    for weak, strong in pairwise(results):
        for few, many in zip(weak, strong, strict=True):
            if kind in ("append", "prepend"):
                added = (few.edits or [("", "", "")])[0][2], (many.edits or [("", "", "")])[0][2]
                assert added[1].startswith(added[0]) if kind == "append" else added[1].endswith(added[0])
            else:
                assert set(few.edits) <= set(many.edits)


def test_keys_are_neighbours_on_the_keyboard() -> None:
    assert set(NEIGHBOURS["a"]) == set("qwsz")
    assert set(NEIGHBOURS["p"]) == set("ol")
    assert set(NEIGHBOURS["G"]) == set("FTYHVB")
    assert all(key in NEIGHBOURS[other] for key in NEIGHBOURS for other in NEIGHBOURS[key])


def test_look_alikes_are_of_the_package_and_no_ascii() -> None:
    table = homoglyphs()
    assert "а" in table["a"]  # Cyrillic
    assert set("аеорсух") <= {c for letters in table.values() for c in letters}
    for letter, others in table.items():
        assert others
        assert not any(other.isascii() or unicodedata.normalize("NFKC", other).isascii() for other in others), letter
