"""Words, letters, and spans that stay as they are."""

import pytest

from contraverse.noise import KINDS, noise
from contraverse.noise.text import Text


def protected(text: str) -> list[str]:
    parts = Text(text)
    return [parts[span] for span in parts.protected]


def words(text: str) -> list[str]:
    parts = Text(text)
    return [parts[span] for span in parts.words]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("see http://x.org/a?b=c&d, or HTTPS://EXAMPLE.com/Path.", ["http://x.org/a?b=c&d", "HTTPS://EXAMPLE.com/Path"]),
        ("看http://x.cn/路。你好", ["http://x.cn/"]),
        ("at www.example.de/x and docs.python.org.", ["www.example.de/x", "docs.python.org"]),
        ("mail bob.o-x+1@mail.example.org now", ["bob.o-x+1@mail.example.org"]),
        ("@anna and (@bob_2)", ["@anna", "@bob_2"]),
        ("12.50 -3 1,000,000 10%", ["12.50", "3", "1,000,000", "10%"]),
        ("$5 €9.99 3rd A4 B2B-7 12:30 1/2", "$5 €9.99 3rd A4 B2B-7 12:30 1/2".split()),
        ("我有3个苹果", ["3"]),
        ("{name} {{ user.id }} ${x} <b> </b> <unk> [MASK] %s %(n)d $HOME `a b`",
         ["{name}", "{{ user.id }}", "${x}", "<b>", "</b>", "<unk>", "[MASK]", "%s", "%(n)d", "$HOME", "`a b`"]),
        ("good :) or :-( or ;P =D <3", [":)", ":-(", ";P", "=D", "<3"]),
        ("keycap 1\ufe0f\u20e3 here", ["1\ufe0f\u20e3"]),
        ("٣ and ३", ["٣", "३"]),
        ("plain words: no (marks) here; a.b", []),
        ("a@ b # c [not] 50", ["50"]),
    ],
)  # fmt: skip
def test_what_is_protected(text: str, spans: list[str]) -> None:
    assert protected(text) == spans
    everything = [noise(text, kind, 5) for kind in KINDS]
    for changed in everything:
        position = 0
        for span in spans:
            position = changed.index(span, position) + len(span)


def test_a_stranger_s_address_is_open_where_protection_is_off() -> None:
    text = "see example.com or a1"
    assert noise(text, "upper", 5) == "SEE example.com OR a1"
    assert noise(text, "upper", 5, protect=False) == "SEE EXAMPLE.COM OR A1"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Don't stop, it’s 'quoted' well-known", ["Don't", "stop", "it’s", "quoted", "well", "known"]),
        ("你好世界吗", ["你好", "世界", "吗"]),
        ("ไทยดี", ["ไท", "ยดี"]),
        ("한국어 है क्षि", ["한국어", "है", "क्षि"]),
        ("e\u0301te\u0301 a\u200db", ["e\u0301te\u0301", "a\u200db"]),
        ("iPhone手机", ["iPhone", "手机"]),
        ("👩\u200d👧 🇪🇺 !", []),
        ("\u0301abc", ["abc"]),
    ],
)
def test_words_of_any_script(text: str, parts: list[str]) -> None:
    assert words(text) == parts


def test_ascii_is_cut_as_any_text_is() -> None:
    """The quick way for ASCII gives the words and spaces of the general one."""
    text = "It's 'all' one--two  don't'x a' (b) C3\t;\n'' x"
    quick, general = Text(text, protect=False), Text(text + " é", protect=False)
    assert quick.words == general.words[:-1]
    assert quick.spaces == general.spaces[:-1]
    assert quick.latin == general.latin
    assert quick.punctuation == general.punctuation


@pytest.mark.parametrize("kind", ["keyboard", "swap", "drop", "repeat", "ocr"])
def test_slips_leave_negations_and_short_words(kind: str) -> None:
    text = "No, I am not; it isn’t and she wouldn't, never or nowhere, so be it"
    for seed in range(20):
        changed = noise(text, kind, 5, seed)
        for word in ("No,", "I am not;", "isn’t", "wouldn't", "never", "nowhere", "so be it"):
            assert word in changed


@pytest.mark.parametrize("kind", ["keyboard", "swap", "drop", "repeat"])
def test_slips_leave_first_letters(kind: str) -> None:
    text = "alpha bravo charlie delta echo foxtrot golf hotel"
    for seed in range(20):
        assert [word[0] for word in noise(text, kind, 5, seed).split()] == list("abcdefgh")
