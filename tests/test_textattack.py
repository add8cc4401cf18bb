"""What benchmarks/textattack_attack.py does without TextAttack: arguments, rows, sums, and its refusals."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from contraverse.models import TextModel

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "textattack_attack.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("textattack_attack", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def classifier(tiny_model: Callable[..., TextModel], tmp_path: Path) -> Path:
    return tiny_model(labels=("no", "yes")).save(tmp_path / "run" / "model")


def result(kind: str, before: str, after: str, queries: int) -> Any:
    """As TextAttack gives it: its class says what became of the row."""

    class Text:
        def __init__(self, text: str) -> None:
            self.words = text.split()

        def all_words_diff(self, other: "Text") -> set[int]:
            return {i for i, (a, b) in enumerate(zip(self.words, other.words, strict=True)) if a != b}

    texts = (SimpleNamespace(attacked_text=Text(text)) for text in (before, after))
    made = type(f"{kind}AttackResult", (), {})()
    made.original_result, made.perturbed_result = texts
    made.num_queries = queries
    return made


def test_the_figures_are_sums_over_the_rows_they_say(script: ModuleType) -> None:
    results = [
        result("Skipped", "a b", "a b", 1),
        result("Failed", "a b c d", "a b c x", 30),
        result("Successful", "a b c d", "a x c d", 10),
        result("Successful", "a b", "x y", 20),
    ]
    assert script.summary([script.outcome(one) for one in results]) == {
        "rows": 4,
        "accuracy": 75.0,
        "accuracy_under_attack": 25.0,
        "success_rate": pytest.approx(200 / 3),
        "words_changed": pytest.approx(62.5),
        "queries": 20.0,
    }


def test_nothing_to_attack_has_no_rates(script: ModuleType) -> None:
    found = script.summary([script.outcome(result("Skipped", "a", "a", 1))])
    assert (found["success_rate"], found["words_changed"], found["queries"]) == (None, None, None)
    assert "-" in script.table(found)
    json.dumps(found, allow_nan=False)


def test_a_draw_is_of_different_rows_in_order_and_nested(script: ModuleType) -> None:
    drawn = script.draw(range(100), 30, 7)
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 30
    assert set(script.draw(range(100), 10, 7)) < set(drawn)
    assert script.draw(range(100), 30, 8) != drawn
    assert script.draw(range(5), 30, 7) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("labels", [["yes", "no"], [1, 0]])
def test_rows_are_read_by_class_name_or_number(
    script: ModuleType, tmp_path: Path, suffix: str, labels: list[Any]
) -> None:
    frame = pd.DataFrame({"sentence": ["good", "bad"], "label": labels})
    file = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(file)
    elif suffix == ".jsonl":
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, sep="\t" if suffix == ".tsv" else ",", index=False)
    assert script.read_rows(file, None, "label", ["no", "yes"]) == [("good", 1), ("bad", 0)]


def test_mistakes_end_with_2_and_one_message(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\na,maybe\n")
    for call, what in [
        (lambda: script.model_folder(str(tmp_path / "none")), "no model here"),
        (lambda: script.read_rows(tmp_path / "none.csv", None, "label", ["no"]), "no such file"),
        (lambda: script.read_rows(file, "words", "label", ["no"]), "--text"),
        (lambda: script.read_rows(file, None, "label", ["no"]), "maybe"),
        (lambda: script.parse(["m", "d", "--rows", "0"]), "--rows"),
    ]:
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 2
        assert what in capsys.readouterr().err


def test_a_sentence_encoder_is_no_classifier(
    script: ModuleType, tiny_model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.model_folder(str(tiny_model(labels=None).save(tmp_path / "encoder")))
    assert "not a classifier" in capsys.readouterr().err


def test_a_run_or_a_model_is_the_same(script: ModuleType, classifier: Path) -> None:
    assert script.model_folder(str(classifier)) == script.model_folder(str(classifier.parent)) == classifier


def test_without_textattack_it_says_which_environment_it_needs(
    script: ModuleType, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TextAttack pins transformers below 5, so that it is never beside contraverse."""
    (tmp_path / "rows.csv").write_text("text,label\na,yes\nb,no\n")
    with pytest.raises(SystemExit) as ended:
        script.main([str(classifier), str(tmp_path / "rows.csv"), "--output", str(tmp_path / "found.jsonl")])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "python -m venv" in message
    assert "docs/tutorials/textattack.md" in message
    assert not (tmp_path / "found.jsonl").exists()


def test_the_tutorials_commands_are_those_that_the_script_names(script: ModuleType) -> None:
    page = (SCRIPT.parents[1] / "docs" / "tutorials" / "textattack.md").read_text(encoding="utf-8")
    source = SCRIPT.read_text(encoding="utf-8")
    pins = '"textattack==0.3.11" "transformers<5" "huggingface_hub<1"'
    assert pins in page
    assert pins in source
    assert all(f"`{name}`" in page for name in script.OFFLINE)
