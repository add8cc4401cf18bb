"""Known traps of noise on texts, each with the test that catches it."""

import os
import subprocess
import sys
import unicodedata

import pytest
import regex

from contraverse.noise import KINDS, noise, noisy
from contraverse.noise.additions import EMOJI
from contraverse.noise.characters import LEET, homoglyphs

SENTENCE = "Something wonderful happened yesterday, in the Evening; brown Foxes weren't lazy"
CLUSTERS = regex.compile(r"\X")


def displayed(text: str) -> str:
    """A left-to-right text as a reader sees it: overrides turned round, other controls of direction gone."""
    turned = regex.sub(r"\u202e(.*?)\u202c", lambda match: "".join(reversed(CLUSTERS.findall(match[1]))), text)
    return regex.sub(r"[\u200e\u202a\u202c\u2066\u2067\u2069]", "", turned)


def unaccented(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def looks_like(text: str) -> str:
    table = {other: letter for letter, others in homoglyphs().items() for other in others}
    return "".join(table.get(c, c) for c in text)


def unleeted(text: str) -> str:
    table = {sign: letter for letter, signs in LEET.items() for sign in signs}
    return "".join(table.get(c, c) for c in text.lower()).replace("l", "i")


SAME_CONTENT = {
    "lower": str.casefold,
    "upper": str.casefold,
    "random-case": str.casefold,
    "drop-space": lambda text: text.replace(" ", ""),
    "add-space": lambda text: text.replace(" ", ""),
    "space-out": lambda text: text.replace(" ", ""),
    "drop-punctuation": lambda text: regex.sub(r"\p{P}", "", text),
    "add-punctuation": lambda text: regex.sub(r"\p{P}", "", text),
    "leet": unleeted,
    "diacritics": unaccented,
    "full-width": lambda text: unicodedata.normalize("NFKC", text),
    "homoglyph": lambda text: looks_like(text).casefold(),
    "zero-width": lambda text: regex.sub(r"\p{Default_Ignorable_Code_Point}", "", text),
    "bidi": displayed,
    "emoji": lambda text: regex.sub("|".join(rf" {regex.escape(e)}" for e in sorted(EMOJI, key=len)[::-1]), "", text),
    "append": lambda text: text[: len(SENTENCE)],
    "prepend": lambda text: text[-len(SENTENCE) :],
}


@pytest.mark.parametrize("kind", SAME_CONTENT)
def test_the_content_comes_back(kind: str) -> None:
    """A reader who undoes the noise, or does not see it, has the text as it was."""
    undo = SAME_CONTENT[kind]
    for row in range(10):
        changed = noise(SENTENCE, kind, 5, 0, row)
        assert changed != SENTENCE
        assert undo(changed) == undo(SENTENCE)


@pytest.mark.parametrize("kind", ["keyboard", "swap", "drop", "repeat", "ocr"])
@pytest.mark.parametrize("text", ["not no never", "can’t won’t ISN'T", "12.50 A4 3rd", ":) :-( <3", "I am so in it"])
def test_what_carries_the_label_alone_is_not_touched(kind: str, text: str) -> None:
    (row,) = noisy([text], kind, 5)
    assert (row.text, row.eligible) == (text, 0)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "!?…", "🇪🇺👩\u200d👧", "\u0301"])
def test_rows_that_cannot_be_touched_are_counted(text: str) -> None:
    for kind in set(KINDS) - {"append", "prepend"}:
        (row,) = noisy([text], kind, 5)
        assert (row.text, row.edits, row.eligible) == (text, (), 0), kind


@pytest.mark.parametrize("kind", ["append", "prepend"])
def test_words_are_added_to_a_text_without_words_but_not_to_nothing(kind: str) -> None:
    assert noise("🇪🇺", kind, 5).split() != ["🇪🇺"]
    assert noise("!!", kind, 5, pool=["x"]).split() in (["!!", "x"], ["x", "!!"])
    assert noise("", kind, 5) == ""
    assert noise(" \n", kind, 5) == " \n"


@pytest.mark.parametrize("word", ["e\u0301te\u0301s", "шиї\u0301в", "שָׁלוֹם", "हिन्दी", "e\u0323\u0302ab"])
def test_an_edit_is_of_a_whole_grapheme_cluster(word: str) -> None:
    clusters = CLUSTERS.findall(word)
    for row in range(20):
        dropped, swapped, repeated = (noise(word, kind, 5, 3, row) for kind in ("drop", "swap", "repeat"))
        assert sorted(CLUSTERS.findall(swapped)) == sorted(clusters)
        assert len(CLUSTERS.findall(dropped)) in (len(clusters), len(clusters) - 1)
        assert set(CLUSTERS.findall(dropped)) <= set(clusters)
        assert set(CLUSTERS.findall(repeated)) == set(clusters)


@pytest.mark.parametrize("text", ["你好世界我有苹果", "カタカナ と ひらがな", "ภาษาไทยดีมาก", "我爱北京"])
@pytest.mark.parametrize("kind", ["swap", "drop", "repeat", "add-space", "space-out", "add-punctuation", "zero-width"])
def test_scripts_without_spaces_have_words(kind: str, text: str) -> None:
    (row,) = noisy([text], kind, 5)
    assert row.eligible > 1
    assert any(noise(text, kind, 5, 0, i) != text for i in range(5))


@pytest.mark.parametrize("text", ["Привет мир", "γειά σου Κόσμε", "שלום עולם", "你好世界", "नमस्ते दुनिया", "🎉 🎊"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].latin])
def test_kinds_for_latin_letters_leave_other_scripts(kind: str, text: str) -> None:
    (row,) = noisy([text], kind, 5)
    assert (row.text, row.eligible) == (text, 0)
    (mixed,) = noisy([f"{text} something clearly"], kind, 5)
    assert mixed.text.startswith(text)
    assert mixed.eligible > 0


@pytest.mark.parametrize("text", ["שלום 123 עולם", "\u200fמחיר 45\u200e", "مرحبا ١٢٣ بالعالم"])
def test_digits_and_legal_marks_in_right_to_left_text_stay_where_they_are(text: str) -> None:
    for row in range(10):
        changed = noise(text, "bidi", 5, 0, row)
        assert regex.sub(r"[\u2067\u2069]", "", changed) == text
        assert changed.count("\u2067") == changed.count("\u2069") > 0


def test_joiners_are_not_put_where_they_are_orthography() -> None:
    for text in ("می‌خواهم کتاب", "क्षत्रिय कहानी", "සිංහල භාෂාව"):
        kept = [c for c in text if c in "\u200c\u200d"]
        for row in range(10):
            assert [c for c in noise(text, "zero-width", 5, 0, row) if c in "\u200c\u200d"] == kept


@pytest.mark.parametrize("emoji", EMOJI)
def test_an_emoji_is_one_cluster(emoji: str) -> None:
    assert CLUSTERS.findall(f"a {emoji} b") == ["a", " ", emoji, " ", "b"]


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_another_process_draws_the_same(hash_seed: str) -> None:
    loop = f"for kind in KINDS: print(ascii(noise({SENTENCE!r}, kind, 3, (1, 'a'), 4)))"
    code = f"from contraverse.noise import KINDS, noise\n{loop}"
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert process.stdout.splitlines() == [ascii(noise(SENTENCE, kind, 3, (1, "a"), 4)) for kind in KINDS]


@pytest.mark.parametrize("kind", ["append", "prepend"])
def test_words_are_of_the_row_s_own_pool(kind: str) -> None:
    rows = noisy(["a b c"] * 3, kind, 5, pools=[("red",), ("blue",), ()])
    added = [set(row.text.split()) - {"a", "b", "c"} for row in rows]
    assert added[:2] == [{"red"}, {"blue"}]
    assert added[2]
    assert added[2].isdisjoint({"red", "blue"})
