"""What a person who decides looks for first: by class, and by row."""

import re
from typing import Any

import numpy as np
import pytest
from reporting.builders import run
from reporting.test_html import page

from contraverse.evaluation.breakdown import Confusion
from contraverse.reporting import FIGURES, ReportData, render_report
from contraverse.reporting.html import Figure
from contraverse.reporting.sections import Section, draw


def breakdown(classes: int = 3, **rows: Any) -> dict[str, Any]:
    """10 rows of class 0, of which one is taken for class 1 clean and seven at 0.3; 5 of class 1."""
    labels = np.array([0] * 10 + [1] * 5)
    confusions = [
        Confusion.of(labels, np.array([0] * (10 - wrong) + [1] * wrong + [1] * 5), classes, epsilon).to_dict()
        for epsilon, wrong in ((None, 1), (0.1, 3), (0.3, 7), (1.0, 10))
    ]
    names = [f"c{i}" for i in range(classes)]
    return {"names": names, "confusions": confusions, "mistakes": [], "fragile": [], **rows}


def data(found: dict[str, Any], **more: Any) -> ReportData:
    scal = run("scal", {"accuracy": 93.3, 0.1: 80.0, 0.3: 53.3, 1.0: 33.3}, "apgd")
    return ReportData("t", [scal], breakdowns={"scal": found}, **more)


def test_each_class_has_its_accuracy_clean_and_at_every_radius() -> None:
    text = page(data(breakdown())).text
    assert "Class Rows Clean ε=0.1 ε=0.3 ε=1 c0 10 90.0 70.0 30.0 0.0 c1 5 100.0 100.0 100.0 100.0 c2 0 -" in text
    assert "Accuracy in percent, clean and under APGD." in text


def test_the_confusion_matrix_is_clean_and_at_the_middle_radius() -> None:
    text = page(data(breakdown())).text
    assert "Clean c0 c1 c2 c0 9 1 0 c1 0 5 0 c2 0 0 0" in text
    assert "APGD at ε=0.3 c0 c1 c2 c0 3 7 0 c1 0 5 0" in text


def test_many_classes_are_listed_by_the_worst_and_by_confused_pairs() -> None:
    text = page(data(breakdown(25))).text
    assert "Confusion matrix" not in text
    assert "Confused most often Class Predicted Clean ε=0.3 c0 c1 1 7 Number of rows." in text
    assert "the 20 worst of 25 classes" in text


def test_several_runs_have_the_middle_radius_side_by_side() -> None:
    runs = [run(name, {"accuracy": 93.3, 0.3: 53.3}) for name in ("ce", "scal")]
    text = page(ReportData("t", runs, breakdowns={"ce": breakdown(), "scal": breakdown()})).text
    assert "Class Rows ce, clean ce, ε=0.3 scal, clean scal, ε=0.3 c0 10 90.0 30.0 90.0 30.0" in text
    assert "Confusion matrix" not in text


ROW = {"row": 3, "label": "c0", "predicted": "c1", "confidence": 0.9876}


def test_confident_mistakes_and_fragile_rows_are_shown_with_their_text() -> None:
    broken = {**ROW, "predicted": "c0", "epsilon": 8 / 255, "attacked": "c2", "texts": ["a b"]}
    text = page(data(breakdown(mistakes=[{**ROW, "texts": ["so sure", "and wrong"]}], fragile=[broken]))).text
    assert "Wrong with the highest confidence" in text
    assert "so sure and wrong Label: c0 Predicted: c1 ✗ 98.8 %" in text
    assert "Broken at the smallest size" in text
    assert "a b Label: c0 Predicted: c0 98.8 % → c2 ✗ ε=8/255" in text


def test_images_are_shown_and_allowed_by_the_policy() -> None:
    found = page(data(breakdown(mistakes=[{**ROW, "image": "data:image/png;base64,AAAA"}])))
    assert [image["src"] for image in found.named("img")] == ["data:image/png;base64,AAAA"]
    (policy,) = [a["content"] for a in found.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "img-src data:" in str(policy)


@pytest.mark.parametrize("hostile", ["\u202egnp.exe", "pay\u200bpal", "\u2066<script>alert(1)</script>"])
def test_hidden_characters_of_a_text_or_label_are_seen_and_isolated(hostile: str) -> None:
    row = {**ROW, "label": hostile, "predicted": hostile, "texts": [hostile]}
    html = render_report(data(breakdown(mistakes=[row], names=[hostile, "b", "c"]), notes=[hostile], command=hostile))
    assert hostile[0] not in html or hostile[0].isascii()
    assert not set("\u202e\u200b\u2066") & set(html)
    assert "<script" not in html
    assert re.search(r"<blockquote><p><bdi>[^<]*\\u", html)


def test_a_new_figure_is_a_function_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_words(data: ReportData) -> Section:
        return Section("First words", draw("grid", header=("Title",), rows=[(data.title,)], note="One row."))

    monkeypatch.setattr("contraverse.reporting.html.FIGURES", (*FIGURES, Figure("words", first_words)))
    found = page(data(breakdown()))
    assert "First words Title t One row." in found.text
    assert {"class": "words"} in found.named("section")


def test_without_a_breakdown_nothing_of_it_is_shown() -> None:
    text = page(ReportData("t", [run("scal", {"accuracy": 90.0, 0.3: 40.0})])).text
    for words in ("Confusion", "by class", "confidence", "smallest"):
        assert words not in text
