"""docs/noise.md: its tables and examples are what the code does."""

from pathlib import Path

from contraverse.noise import KINDS, noise
from contraverse.visible import visible

PAGE = Path(__file__).resolve().parents[2] / "docs" / "noise.md"
SENTENCE = "The 3 burning windows weren't modern, said Anna"


def table() -> str:
    lines = ["| kind | an edit | share, at strengths 1 to 5 | of | strength 3 |", "|---|---|---|---|---|"]
    for kind in KINDS.values():
        shares = " ".join(f"{100 * share:g}" for share in kind.shares)
        example = visible(noise(SENTENCE, kind.name, 3, seed=23))
        places = f"Latin {kind.places}" if kind.latin else kind.places
        lines.append(f"| `{kind.name}` | {kind.summary} | {shares} % | {places} | {example} |")
    return "\n".join(lines)


def test_the_page_has_the_kinds_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert SENTENCE in page
    assert table() in page, f"put this in the place of the table in docs/noise.md:\n{table()}"
