"""Properties of every kind over Unicode: nothing crashes, budgets are kept, draws are decided, clusters stay whole."""

import math
import random
import unicodedata

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contraverse.noise import KINDS, Edit, noise, noisy
from contraverse.noise.text import Text

PIECES = """word Don't It’s rn VV é ñ ß İ ı ſ ŉ ﬁ ⅷ ά Σίσυφος Привет Ωc שלום مرحبا لا क्षि हिन्दी ൎക ไทย ກິນ မြန်မာ བོད
한국어 ᄒ ᅡ ᆫ 你好 カタカナー 🇪🇺 👋🏽 ☕ http://x.org a@c.org @bob 12.5% {name} [MASK] :) A4 . , ! — ' ’ … 、""".split()
PIECES += ["👩\u200d👩\u200d👧", "1\ufe0f\u20e3", "🏳\ufe0f\u200d🌈"]
PIECES += ["e\u0301", "\u0301", "\u0903", "\u0600", "\U000e0061", "\u200b", "\u200d", "\u200c", "\u202e", "\ufeff"]
PIECES += [" ", " ", "  ", "\n", "\r\n", "\t", "\xa0", "\u3000", "\x00", "\x7f", "\ufffe"]
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
STRENGTH = st.integers(1, 5)
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@given(TEXTS, STRENGTH, st.integers(0, 2**63 - 1))
@settings(max_examples=50)
@example("", 5, 0)
@example("a", 5, 0)
@example("好", 5, 0)
@example("\u0301", 5, 0)
@example("👩\u200d👩\u200d👧", 5, 0)
@example("\u094dक", 1, 1)
@example("\ud800 half \udfff", 5, 0)
def test_any_text(kind: str, text: str, strength: int, row: int) -> None:
    (changed,) = noisy([text], kind, strength, seed=7, rows=[row])
    assert noise(text, kind, strength, 7, row) == changed.text

    additions = kind in ("append", "prepend")
    count = sum(len(edit.new.split()) for edit in changed.edits) if additions else len(changed.edits)
    assert count <= math.ceil(KINDS[kind].shares[strength - 1] * changed.eligible - 1e-9)

    assert rebuilt(text, changed.edits) == changed.text
    assert all(text[start:end] != new for start, end, new in changed.edits)
    assert all(one.end <= other.start for one, other in zip(changed.edits, changed.edits[1:], strict=False))

    parts, position = Text(text), 0
    for span in parts.protected:
        assert all(end <= span[0] or start >= span[1] for start, end, _ in changed.edits)
        position = changed.text.index(parts[span], position) + len(parts[span])

    borders = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    assert all(start in borders and end in borders for start, end, _ in changed.edits)
    assert orphans(changed.text) <= orphans(text)
    if KINDS[kind].latin and not any(c.isascii() and c.isalpha() for c in text):
        assert changed.text == text
        assert changed.eligible == 0
    assert changed.text.strip() or not text.strip()


def rebuilt(text: str, edits: tuple[Edit, ...]) -> str:
    """``text`` with the edits, from its end to its beginning."""
    for start, end, new in reversed(edits):
        text = text[:start] + new + text[end:]
    return text


def orphans(text: str) -> int:
    """Marks that stand behind no character that could carry them: at the beginning, or behind a space or a control."""
    return sum(
        unicodedata.category(c) in ("Mn", "Me")
        and (i == 0 or unicodedata.category(text[i - 1]) in ("Zs", "Zl", "Zp", "Cc"))
        for i, c in enumerate(text)
    )


@each_kind
def test_seed_and_row_alone_decide(kind: str) -> None:
    """The same text whatever the batch and its order, and whatever else has been drawn from global generators."""
    texts = [f"The quick Brown fox, number {i}, jumps over a lazy dog" for i in range(30)]
    together = {row: result.text for row, result in enumerate(noisy(texts, kind, 3, seed=5))}
    order = random.Random(1).sample(range(30), 30)
    random.seed(0)
    shuffled = noisy([texts[i] for i in order], kind, 3, seed=5, rows=order)
    assert {row: result.text for row, result in zip(order, shuffled, strict=True)} == together
    assert {row: noise(text, kind, 3, 5, row) for row, text in enumerate(texts)} == together
    assert random.random() == random.Random(0).random()


@each_kind
def test_other_seeds_rows_and_kinds_draw_otherwise(kind: str) -> None:
    text = "Something wonderful, happened yesterday. Evening in the Restaurant; brown Foxes jump over lazy dogs. " * 3
    drawn = {noise(text, kind, 2, seed, row) for seed in (0, 1, (0, 1), (1, 0), ("x", 0)) for row in range(4)}
    assert len(drawn) == 20


def test_a_seed_of_numpy_is_that_number() -> None:
    import numpy as np

    assert noise("something wonderful", "swap", 5, (np.int64(3), 1)) == noise("something wonderful", "swap", 5, (3, 1))  # type: ignore[arg-type]


def test_a_drawn_text_is_the_same_for_ever() -> None:
    """Values that no later version may change without saying so: results of others depend on them."""
    text = "Something wonderful happened yesterday, in the evening."
    assert noise("modern windows", "keyboard", 5, 1, 2) == "mldern windows"
    assert (
        noise(text, "homoglyph", 2, 1, 2)
        == "\u13daomething wo\u057cderful hap\u0440ene\u0501 yest\uab32r\u13e7ay, in th\uab32 ev\u0435nin\u0261."
    )
    assert noise(text, "append", 3, 1, 2) == f"{text} today school morning"


@each_kind
def test_a_long_text_takes_no_longer_than_its_words(kind: str) -> None:
    import time

    text = "Something wonderful, happened " * 1700 + "x" * 5000 + "1" * 5000 + "@" * 2000 + "a." * 3000 + "好" * 5000
    start = time.process_time()
    (changed,) = noisy([text], kind, 1)
    assert time.process_time() - start < 5
    assert changed.eligible > 500
