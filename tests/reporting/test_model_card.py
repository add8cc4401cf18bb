import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard
from hypothesis import given, settings
from hypothesis import strategies as st

from contraverse.evaluation.keys import MetricKey
from contraverse.models import TextModel
from contraverse.reporting import ModelCard, render_model_card, write_model_card

CARD = ModelCard(
    "trec-scal",
    "classifier",
    method="scal",
    summary="views that are adversarial",
    paper="SCAL/USCAL, (5)-(8)",
    dataset="TREC",
    metrics={"accuracy": 96.4},
    attacked={MetricKey("accuracy", "pgd", 0.3): 76.00000000001},
    settings={"epsilon": 0.3, "attack": "fgm"},
    base_model="minilm",
    dataset_id="CogComp/trec",
    test_rows=500,
    train_rows=5452,
    labels=("LOC", "NUM"),
    attack={"steps": 5, "norm": "l2"},
    command="contraverse train scal --task trec",
    environment={"torch": "2.13.0"},
)
NASTY = [
    "a: b",
    'it\'s "x"',
    "- y",
    "#z",
    "null",
    "1.0",
    "Größe 日本 👀",
    "a\n---\nb",
    "```",
    "|",
    "{x: [",
    "&a *b !c",
    "%",
]


def loaded(card: ModelCard, folder: Path) -> HubCard:
    return HubCard.load(write_model_card(folder, card))


def code(card: ModelCard) -> str:
    return re.search(r"```python\n(.*?)```", render_model_card(card), re.DOTALL)[1]  # type: ignore[index]


def test_the_hub_reads_the_metadata(tmp_path: Path) -> None:
    data = loaded(CARD, tmp_path).data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.datasets == ["CogComp/trec"]
    assert {"contraverse", "adversarial-training", "scal"} <= set(data.tags)
    assert data.license is None
    assert data.model_name == "trec-scal"
    assert [
        (r.metric_type, r.metric_name, r.metric_value, r.dataset_type, r.dataset_split) for r in data.eval_results
    ] == [
        ("accuracy", "Accuracy", 96.4, "CogComp/trec", "test"),
        ("accuracy", "Accuracy under PGD, ε=0.3", 76.0, "CogComp/trec", "test"),
    ]


def test_a_configuration_of_a_hub_data_set_stands_beside_its_name(tmp_path: Path) -> None:
    data = loaded(replace(CARD, dataset_id="nyu-mll/glue", dataset_config="mrpc"), tmp_path).data
    assert data.datasets == ["nyu-mll/glue"]
    assert (data.eval_results[0].dataset_type, data.eval_results[0].dataset_config) == ("nyu-mll/glue", "mrpc")


def test_the_body_holds_figures_attack_method_and_command() -> None:
    body = render_model_card(CARD).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "# trec-scal\n", "| Accuracy | 96.4 % |", "| Accuracy under PGD, ε=0.3 | 76.0 % |",
        "On the test split of TREC, 500 rows. Attack: PGD, 5 steps, L2 norm, on the word embeddings.",
        "- Rows: 5452 of TREC", "- `epsilon`: `0.3`", "```sh\ncontraverse train scal --task trec\n```", "`LOC`, `NUM`",
    ):  # fmt: skip
        assert words in body, words


def test_a_licence_only_where_it_is_known(tmp_path: Path) -> None:
    assert "license" not in render_model_card(CARD)
    assert loaded(replace(CARD, license="apache-2.0"), tmp_path).data.license == "apache-2.0"


def test_only_what_was_measured(tmp_path: Path) -> None:
    metrics = {"accuracy": 96.4, "f1": None, "mcc": float("nan")}
    card = replace(CARD, metrics=metrics, attacked={MetricKey("accuracy", "pgd", 0.3): float("inf")})
    assert [r.metric_type for r in loaded(card, tmp_path).data.eval_results] == ["accuracy"]
    body = render_model_card(card)
    assert len(re.findall(r"^\| (?!Figure|---)", body, re.MULTILINE)) == 1
    assert "PGD" not in body
    empty = replace(CARD, metrics={}, attacked={})
    assert loaded(empty, tmp_path).data.eval_results is None
    assert "Nothing was measured." in render_model_card(empty)


@pytest.mark.parametrize("name", NASTY)
def test_valid_whatever_names_hold(name: str, tmp_path: Path) -> None:
    card = replace(
        CARD, name=name, method=name, summary=name, paper=name, dataset=name, dataset_id=None, labels=(name, "b"),
        settings={name: name}, command=name, environment={name: name}, split=name, metrics={name: 1.0},
        attacked={MetricKey("f1", "pgd", 1.0): 2.0},
    )  # fmt: skip
    read = loaded(card, tmp_path)
    flat = " ".join(name.split())
    assert read.data.model_name == flat
    assert read.data.eval_results[0].dataset_name == flat
    assert flat in read.data.tags
    assert read.data.eval_results[0].metric_type == name
    prose = re.sub(r"^(```+)(python|sh)\n.*?^\1$", "", read.text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ .*$", prose, re.MULTILINE)
    assert headings[1:] == ["## Measured", "## Load it", "## Training"]
    assert len(re.findall(r"^\|", prose, re.MULTILINE)) == 4


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_any_text_can_be_a_name(name: str) -> None:
    read = HubCard(render_model_card(replace(CARD, name=name, dataset=name, dataset_id=None)))
    assert read.data.library_name == "transformers"
    assert read.text.count("\n## ") == 3


def test_markup_in_a_name_is_shown_not_obeyed() -> None:
    body = render_model_card(replace(CARD, dataset="<script>x</script>")).split("---", 2)[2]
    assert "<script>" not in body.replace("\\<", "")


def test_a_start_on_disk_is_named_without_its_path_and_not_in_the_metadata(tmp_path: Path) -> None:
    start = tmp_path / "somebody" / "my-encoder"
    start.mkdir(parents=True)
    text = render_model_card(replace(CARD, base_model=str(start)))
    assert "base_model" not in text
    assert "`my-encoder`" in text
    assert "somebody" not in text


def test_a_folder_that_looks_like_a_hub_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card = replace(CARD, base_model="runs/mlm")
    assert "base_model: runs/mlm" in render_model_card(card)
    (tmp_path / "runs" / "mlm").mkdir(parents=True)
    assert "base_model" not in render_model_card(card)


def test_figures_over_another_set_than_the_training_one(tmp_path: Path) -> None:
    card = replace(
        CARD,
        kind="encoder",
        dataset="wiki_sentences",
        dataset_id=None,
        measured_on="STS",
        metrics={"sts12": 70.61, "average": 77.29},
        attacked={},
        test_rows=None,
        digits=2,
    )
    read = loaded(card, tmp_path)
    assert (read.data.library_name, read.data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    assert [(r.dataset_name, r.metric_type) for r in read.data.eval_results] == [
        ("STS", "spearman"),
        ("STS", "average"),
    ]
    assert "On the test split of STS." in read.text
    assert "| STS12 | 70.61 |" in read.text


@pytest.mark.parametrize("columns", [1, 2])
def test_the_classifier_s_snippet_runs(tiny_model: Callable[..., TextModel], tmp_path: Path, columns: int) -> None:
    model = tiny_model(labels=("LOC", "NUM"))
    model.save(tmp_path / "model")
    scope: dict[str, Any] = {}
    exec(code(replace(CARD, columns=columns)).replace("path/to/this/folder", str(tmp_path / "model")), scope)
    assert scope["label"] in ("LOC", "NUM")


def test_the_regressor_s_snippet_runs(tiny_model: Callable[..., TextModel], tmp_path: Path) -> None:
    tiny_model(labels=("score",)).save(tmp_path / "model")
    scope: dict[str, Any] = {}
    exec(code(replace(CARD, labels=("score",))).replace("path/to/this/folder", str(tmp_path / "model")), scope)
    assert isinstance(scope["score"], float)


def test_the_encoder_s_snippet_runs(tiny_model: Callable[..., TextModel], tmp_path: Path) -> None:
    tiny_model(labels=None).save(tmp_path / "model")
    scope: dict[str, Any] = {}
    exec(code(replace(CARD, kind="encoder")).replace("path/to/this/folder", str(tmp_path / "model")), scope)
    assert scope["similarity"].shape == (2, 2)
