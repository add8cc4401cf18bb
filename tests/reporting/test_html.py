import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reporting.builders import CE, SCAL, measured, run

from contraverse.evaluation.keys import MetricKey
from contraverse.reporting import Example, Measured, Prediction, ReportData, render_report, write_report

HOSTILE = "<script>alert('x')</script>\"&{{ 7 * 7 }}"

FULL = ReportData(
    "cross-entropy against SCAL",
    [CE, SCAL],
    attack={"steps": 5, "norm": "l2", "scope": "sequence"},
    test_rows=500,
    facts=["TREC", "seed 42"],
    examples=[
        Example(
            ["What is a tsetse ?"],
            "ENTY",
            [Prediction("cross-entropy", "ENTY", "LOC"), Prediction("SCAL", "ENTY", "ENTY")],
        )
    ],
    examples_under="PGD at ε=0.3",
    settings={"method": {"epsilon": 0.3, "attack": None}, "evaluation": {"epsilons": [0.1, 0.3]}},
    environment={"torch": "2.13.0"},
    command="contraverse quickstart",
    notes=["Rows: all."],
)


class Page(HTMLParser):
    """A page's tags, and its visible text."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.embedding_shape: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.embedding_shape.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.embedding_shape).replace("\N{NO-BREAK SPACE}", " ").split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(data: ReportData) -> Page:
    return Page(render_report(data))


def test_a_full_report_says_everything() -> None:
    text = page(FULL).text
    for words in (
        "cross-entropy against SCAL", "TREC · seed 42",
        "SCAL keeps 76.0 % under PGD at ε=0.3, where cross-entropy keeps 42.8 %; clean, both reach 96.4 %.",
        "Accuracy, clean and under PGD", "Run Clean ε=0.1 ε=0.3 ε=1",
        "cross-entropy 96.4 88.2 42.8 0.6", "SCAL 96.4 92.4 76.0 3.6",
        "One run each. PGD, 5 steps, L2 norm per sequence.", "Rows: all.",
        "the accuracy of 96.4 % has a standard error of 0.8 points",
        "cross-entropy 3F 3 min 15 s 1.00×", "SCAL 7F 6 min 56 s 2.13×",
        "What is a tsetse ?", "Label: ENTY", "cross-entropy ENTY → LOC ✗", "SCAL ENTY → ENTY Make",
        "contraverse quickstart", "torch 2.13.0",
        "method.epsilon 0.3", "method.attack None", "evaluation.epsilons 0.1, 0.3",
    ):  # fmt: skip
        assert words in text, words


def test_tags_are_closed_and_nothing_is_fetched_or_run() -> None:
    found = page(FULL)
    assert found.open == []
    assert len(found.named("svg")) == 1
    names = {tag for tag, _ in found.tags}
    assert names.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "xlink:href"}:
                assert str(value).startswith("#"), (tag, value)
    html = render_report(FULL)
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    (policy,) = [a["content"] for a in found.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_names_and_texts_are_inert() -> None:
    hostile = replace(SCAL, name=HOSTILE, cost=HOSTILE, metrics={**SCAL.metrics, HOSTILE: 1.0})
    data = ReportData(
        HOSTILE,
        [hostile],
        attack={HOSTILE: HOSTILE},
        facts=[HOSTILE],
        outcome=HOSTILE,
        examples=[Example([HOSTILE, HOSTILE], HOSTILE, [Prediction(HOSTILE, HOSTILE, HOSTILE + "2")])],
        examples_under=HOSTILE,
        settings={HOSTILE: HOSTILE},
        environment={HOSTILE: [HOSTILE]},
        command=HOSTILE,
        notes=[HOSTILE],
    )
    found, plain = page(data), page(FULL)
    assert "script" not in {tag for tag, _ in found.tags}
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in plain.tags}
    assert found.text.count(HOSTILE) >= 14
    assert "49" not in found.text


def test_a_page_is_small_whatever_it_is_given(tmp_path: Path) -> None:
    example = Example(["word " * 5000], "a", [Prediction("SCAL", "a", "b")])
    data = replace(FULL, examples=[example] * 500, settings={f"k{i}": "v" * 10_000 for i in range(50)})
    path = write_report(tmp_path / "new" / "report.html", data)
    assert path.stat().st_size < 200_000
    assert len(page(data).named("blockquote")) == 12
    assert write_report(tmp_path / "plain.html", FULL).stat().st_size < 40_000


def test_seeds_show_mean_deviation_and_count() -> None:
    runs = [measured("ce", 96.0, 40.0), measured("ce", 97.0, 44.0), measured("scal", 96.0, 70.0)]
    text = page(ReportData("t", runs)).text
    assert "Run Seeds Clean ε=0.3 ● ce 2 96.5 ± 0.7 42.0 ± 2.8 ■ scal 1 96.0 70.0" in text
    assert "Mean ± sample standard deviation over seeds." in text


def test_a_figure_that_is_missing_is_a_dash() -> None:
    runs = [measured("ce", 96.0, 40.0), Measured("scal", {"accuracy": 96.0})]
    assert "■ scal 96.0 -" in page(ReportData("t", runs)).text


def test_other_metrics_stand_before_accuracy_clean_and_attacked() -> None:
    scal = run("scal", {"accuracy": 84.0, "mcc": 61.7, 0.3: 40.0})
    assert "Run MCC Clean ε=0.3 ● scal 61.7 84.0 40.0" in page(ReportData("t", [scal], metric="mcc")).text


def test_two_attacks_are_told_apart() -> None:
    scal = run("scal", {"accuracy": 84.0, 0.3: 40.0})
    scal = replace(scal, attacked={**scal.attacked, MetricKey("accuracy", "fgm", 0.3): 50.0})
    text = page(ReportData("t", [scal])).text
    assert "Accuracy, clean and under PGD and FGM" in text
    assert "Clean Accuracy, PGD ε=0.3 Accuracy, FGM ε=0.3 ● scal 84.0 40.0 50.0" in text


def test_sentence_encoders_have_no_attack_no_plot_and_their_metric_first() -> None:
    runs = [
        Measured("SimCSE", {"sts12": 67.53, "average": 75.54}),
        Measured("USCAL", {"sts12": 70.61, "average": 77.29}),
    ]
    found = page(ReportData("t", runs, metric="average", digits=2))
    assert found.named("svg") == []
    assert "Run Average STS12 SimCSE 75.54 67.53 USCAL 77.29 70.61" in found.text
    assert "USCAL reaches 77.29 (average), where SimCSE reaches 75.54." in found.text


def test_what_is_not_given_is_left_out() -> None:
    text = page(ReportData("t", [Measured("a", {"accuracy": 90.0})])).text
    for words in ("Cost", "Examples", "Make it again", "Settings", "Environment", "standard error"):
        assert words not in text


def test_no_figures_at_all() -> None:
    assert "Nothing was measured." in page(ReportData("t", [])).text


def test_a_right_prediction_is_not_marked() -> None:
    right = replace(FULL, examples=[Example(["x"], "a", [Prediction("SCAL", "a")])])
    found = page(right)
    assert "SCAL a Make it again" in found.text
    assert not [a for a in found.named("span") if a.get("class") == "wrong"]


def test_lone_surrogates_do_not_stop_the_report(tmp_path: Path) -> None:
    data = replace(FULL, examples=[Example(["bad \ud800 text"], "a", [Prediction("SCAL", "a")])])
    assert r"bad \ud800 text" in write_report(tmp_path / "r.html", data).read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_plot_s_colours_are_defined_for_each_scheme(scheme: str) -> None:
    html = render_report(FULL)
    dark_at = html.index("@media (prefers-color-scheme: dark)")
    style = html[:dark_at] if scheme == "light" else html[dark_at:]
    defined = set(re.findall(r"(--[a-z0-9-]+):", style[: style.index("* {")] if scheme == "dark" else style))
    assert set(re.findall(r"var\((--[a-z0-9-]+)", html)) <= defined


def test_reasons_to_doubt_the_figures_and_representations_under_attack_are_shown() -> None:
    shift = {"at": [{"epsilon": 0.1, "cosine": 0.85149, "euclidean": 8.409}]}
    page = render_report(ReportData("t", [CE], warnings=[f"{HOSTILE} hold"], shifts={"CARL": shift}))
    assert "To be doubted:" in page
    assert HOSTILE not in page
    assert "Representations under attack" in page
    assert "<td>0.1</td><td>0.851</td><td>8.409</td>" in page
    bare = render_report(ReportData("t", [CE]))
    assert "To be doubted" not in bare
    assert "Representations under attack" not in bare


def test_the_curve_and_the_heading_are_of_whatever_attack_ran() -> None:
    ce = run("CE", {"accuracy": 90.0, 0.1: 80.0, 0.3: 20.0}, "apgd")
    page = render_report(ReportData("t", [ce], attack={"norm": "l2", "steps": 5, "relative": True}))
    assert "Accuracy, clean and under APGD" in page
    assert "APGD ε" in page
    assert "APGD, L2 norm, 5 steps, ε as a fraction of each text" in page
