"""The README.md beside a saved model: its origin, its measured figures, and how to load it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from contraverse.attacks import attack_label
from contraverse.evaluation.keys import MetricKey
from contraverse.evaluation.sts_sets import STS_SETS
from contraverse.reporting.names import amount, describe_attack, heading, plain
from contraverse.reporting.templates import template
from contraverse.units import shown
from contraverse.writing import write_text

BUNDLED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}


@dataclass(frozen=True)
class ModelCard:
    """Contents of a model card: measured figures only.

    ``kind``: a classifier loads in ``transformers``, an encoder in ``SentenceTransformer``; those whose ``modality`` is
    images load in ``contraverse``, or as an ordinary module once exported. ``method`` with its
    ``summary``, ``paper`` and ``settings``: as in `contraverse.methods`. ``base_model``: the start of training, a
    Hub name or a folder; only a Hub name goes into the metadata. ``dataset``: its name for a reader;
    ``dataset_id`` and ``dataset_config``: on the Hub, None for local files. ``metrics``: as
    `contraverse.evaluation.evaluate` returns them, over ``test_rows`` rows of ``split`` of ``dataset``, or of
    ``measured_on`` where that is another (STS); None and NaN are left out. ``columns``: texts a row has.
    ``image_size``: height and width. ``attack``: settings of the attack. ``license``: left out of the metadata unless
    known.
    """

    name: str
    kind: Literal["classifier", "encoder"]
    method: str
    summary: str
    paper: str
    dataset: str
    metrics: Mapping[str, float | None]
    attacked: Mapping[MetricKey, float | None] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    base_model: str | None = None
    dataset_id: str | None = None
    dataset_config: str | None = None
    measured_on: str | None = None
    split: str = "test"
    test_rows: int | None = None
    train_rows: int | None = None
    labels: Sequence[str] = ()
    columns: int = 1
    image_size: tuple[int, int] | None = None
    attack: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    license: str | None = None
    modality: Literal["text", "images"] = "text"
    environment: Mapping[str, Any] = field(default_factory=dict)
    digits: int = 1


def write_model_card(folder: str | Path, card: ModelCard) -> Path:
    """Write ``card`` as ``README.md`` into a model's folder, and give back its path."""
    path = Path(folder) / "README.md"
    write_text(path, render_model_card(card), errors="replace")
    return path


def render_model_card(card: ModelCard) -> str:
    """The card: Hugging Face's YAML metadata, then Markdown in which every name is inert."""
    metrics: dict[MetricKey, float | None] = {MetricKey(name): value for name, value in card.metrics.items()}
    metrics |= card.attacked
    measured = {key: value for key, value in metrics.items() if value is not None and isfinite(value)}
    attacks = dict.fromkeys(key.under for key in measured if key.under is not None)
    page = template("model_card.md.j2", escape=False, filters={"text": _text, "code": _code, "fence": _fence})
    return page.render(
        card=card,
        metadata=_metadata(card, measured).to_yaml(),
        start=_start(card.base_model),
        figures=[(_figure(key), amount(value, key.metric, card.digits)) for key, value in measured.items()],
        attacks=[describe_attack(attack, card.attack) for attack in attacks],
    )


def _metadata(card: ModelCard, measured: Mapping[MetricKey, float]) -> ModelCardData:
    classifier = card.kind == "classifier"
    tasks = {
        "text": ("text-classification", "sentence-similarity"),
        "images": ("image-classification", "image-feature-extraction"),
    }
    libraries = {"text": ("transformers", "sentence-transformers"), "images": ("contraverse", "contraverse")}
    task = tasks[card.modality][not classifier]
    dataset = plain(card.measured_on or card.dataset)
    hub_id = None if card.measured_on else card.dataset_id
    results = [
        EvalResult(
            task_type=task,
            dataset_type=hub_id or re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "local",
            dataset_name=dataset,
            dataset_config=card.dataset_config if hub_id else None,
            dataset_split=card.split,
            metric_type="spearman" if key.metric in STS_SETS else key.metric,
            metric_name=_figure(key),
            metric_value=round(value, 4),
        )
        for key, value in measured.items()
    ]
    return ModelCardData(
        license=card.license,
        base_model=_start(card.base_model) if _on_hub(card.base_model) else None,
        library_name=libraries[card.modality][not classifier],
        pipeline_tag=task,
        tags=["contraverse", "adversarial-training", "contrastive-learning", plain(card.method)],
        datasets=[card.dataset_id] if card.dataset_id else None,
        model_name=plain(card.name),
        eval_results=results or None,
    )


def _on_hub(base_model: str | None) -> bool:
    if base_model is None or base_model in BUNDLED:
        return base_model is not None
    try:
        validate_repo_id(base_model)
    except HFValidationError:
        return False
    return not Path(base_model).exists()


def _start(base_model: str | None) -> str | None:
    """Name of the start of training: a folder by its last part, since a path names its owner's machine."""
    if base_model is None or _on_hub(base_model):
        return BUNDLED.get(base_model or "", base_model)
    return Path(base_model).name


def _figure(key: MetricKey) -> str:
    if key.under is None or key.epsilon is None:
        return heading(key)
    return f"{heading(key.metric)} under {attack_label(key.under)}, ε={shown(key.epsilon)}"


def _text(value: object) -> str:
    """Escape ``value`` for Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#&~])", r"\\\1", plain(value))


def _code(value: object) -> str:
    """``value`` as a code span, whatever backticks it holds."""
    text = plain(value)
    ticks = "`" * (_longest_ticks(text) + 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}" if text else "-"


def _fence(text: str, language: str) -> str:
    """``text`` as a code block, whatever backticks it holds."""
    ticks = "`" * max(3, _longest_ticks(text) + 1)
    return f"{ticks}{language}\n{text.strip()}\n{ticks}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
