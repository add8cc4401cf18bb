"""Tables of docs/methods, generated from the methods by ``python -m contraverse.methods._pages docs/methods``.

Each method's page gets its Settings table, README.md the table of all methods. A test compares both with the methods.
"""

import re
import sys
from pathlib import Path

from contraverse.errors import UserError
from contraverse.methods import METHODS, settings_of
from contraverse.types import Method

_SETTINGS = re.compile(r"(?<=^## Settings\n)(?:\n(?:None\.\n|(?:\|.*\n)+))?(?=\n|\Z)", flags=re.MULTILINE)

_README = """# Methods

A method is a way to train: it names the batches that it needs and yields losses ([design](../design.md)). Each has a
page with its source, equations, cost, settings, departures from the paper and pitfalls. This page is generated from the
methods (`make method-pages`).

- **requires**: `labels`; `inputs` alone; or `pairs` of sentences.
- **modality**: texts, images, or both.
- **cost** with the default settings, in F, the arithmetic of one forward pass. Cross-entropy is 3F: the forward pass,
  the gradient to the inputs and the gradient to the weights. A test counts it.

{table}
Trained sentence encoders can be post-processed without training: [whitening](whitening.md), [flow](flow.md).
"""


def settings_table(method: type[Method]) -> str:
    """Settings of a method as a Markdown table, with a line break at the end."""
    settings = settings_of(method)
    if not settings:
        return "None.\n"
    lines = ["| setting | default | range | meaning |", "|---|---|---|---|"]
    for name, setting in settings.items():
        cells = f"`{name}`", f"`{setting.shown_default}`", setting.values, setting.description.removesuffix(".")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def methods_table() -> str:
    """All methods as a Markdown table, with a line break at the end."""
    lines = ["| method | requires | modality | cost | summary | paper |", "|---|---|---|---|---|---|"]
    for name, method in METHODS.items():
        modality = {"both": "text, images"}.get(method.modality, method.modality)
        cells = f"[`{name}`]({name}.md)", method.requires, modality, method().cost, method.summary, method.paper
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pages(folder: Path) -> dict[Path, str]:
    """Every file of ``folder`` that has a generated table, with its text as it should be.

    Raises:
        UserError: a method has no page, or the page no Settings section to fill.
    """
    texts = {folder / "README.md": _README.format(table=methods_table())}
    for name, method in METHODS.items():
        path = folder / f"{name}.md"
        if not path.exists():
            raise UserError(
                f"{name} has no page", where=str(path), hint="docs/methods/ce.md is a short one to begin with"
            )
        table = settings_table(method).replace("\\", r"\\")
        text, count = _SETTINGS.subn("\n" + table, path.read_text(encoding="utf-8"))
        if count != 1:
            raise UserError(
                f"{count} places for the settings, and there is to be one",
                where=str(path),
                hint='a line "## Settings", with a table, "None." or nothing below it',
            )
        texts[path] = text
    return texts


def main() -> None:
    """Write the tables into the folder that the command line names."""
    try:
        texts = pages(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
