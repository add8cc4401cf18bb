"""The registry of tasks: what a data set's columns, labels and metrics are called, and where its Hub copy is.

A row in `TASKS` is all that a new task takes. Column names that many data sets share (``sentence``, ``premise``
and ``hypothesis``, ...) are known to every task (`contraverse.data.columns`); a row adds only what is its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from contraverse.data.nearest import nearest
from contraverse.errors import UserError

Kind = Literal["classification", "similarity", "sentences", "triplets"]


@dataclass(frozen=True)
class Task:
    """One task.

    ``kind``: "classification" has class labels, "similarity" a float score, "sentences" and "triplets" no label.
    ``columns``: the text columns, one to three. ``label``: the label's column; ``labels``: the classes in the order
    of their ids, None where they are read from the training rows. ``metrics``: what is measured, ``metric`` the one
    that chooses the best checkpoint. ``hub``: (data set id, configuration) on the Hugging Face Hub; ``splits``: our
    split names to the Hub's. ``max_length``: tokens of a row (of each sentence, for triplets), special tokens
    included. ``other_columns`` and ``other_labels``: the names that copies of this data set use for ``columns`` and
    ``label``. ``headerless``: the columns of a table of this data set that comes without a header line.
    """

    name: str
    summary: str
    kind: Kind
    columns: tuple[str, ...]
    label: str | None
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    metric: str
    greater_is_better: bool = True
    hub: tuple[str, str | None] | None = None
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    max_length: int = 128
    other_columns: tuple[tuple[str, ...], ...] = ()
    other_labels: tuple[str, ...] = ()
    headerless: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """True where every row must have a label."""
        return self.label is not None


_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "neutral", "contradiction")
_GLUE = "nyu-mll/glue"

_ROWS = (
    Task(
        name="mrpc",
        summary="Are two news sentences paraphrases? (GLUE)",
        kind="classification",
        columns=_PAIR,
        label="label",
        labels=("not_equivalent", "equivalent"),
        metrics=("f1", "accuracy"),
        metric="f1",
        hub=(_GLUE, "mrpc"),
        other_columns=(("#1 String", "#2 String"),),
        other_labels=("Quality",),
    ),
    Task(
        name="qqp",
        summary="Do two Quora questions ask the same? (GLUE)",
        kind="classification",
        columns=("question1", "question2"),
        label="label",
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        metric="accuracy",
        hub=(_GLUE, "qqp"),
        other_labels=("is_duplicate",),
    ),
    Task(
        name="rte",
        summary="Does the first sentence entail the second? (GLUE)",
        kind="classification",
        columns=_PAIR,
        label="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        metric="accuracy",
        hub=(_GLUE, "rte"),
    ),
    Task(
        name="qnli",
        summary="Does the sentence answer the question? (GLUE)",
        kind="classification",
        columns=("question", "sentence"),
        label="label",
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
        metric="accuracy",
        hub=(_GLUE, "qnli"),
    ),
    Task(
        name="mnli",
        summary="Natural language inference, matched genres (GLUE)",
        kind="classification",
        columns=("premise", "hypothesis"),
        label="label",
        labels=_NLI,
        metrics=("accuracy",),
        metric="accuracy",
        hub=(_GLUE, "mnli"),
        splits={"train": "train", "validation": "validation_matched", "test": "test_matched"},
        other_labels=("gold_label",),
    ),
    Task(
        name="mnli-mm",
        summary="Natural language inference, mismatched genres (GLUE)",
        kind="classification",
        columns=("premise", "hypothesis"),
        label="label",
        labels=_NLI,
        metrics=("accuracy",),
        metric="accuracy",
        hub=(_GLUE, "mnli"),
        splits={"train": "train", "validation": "validation_mismatched", "test": "test_mismatched"},
        other_labels=("gold_label",),
    ),
    Task(
        name="sst2",
        summary="Sentiment of film-review phrases (GLUE)",
        kind="classification",
        columns=("text",),
        label="label",
        labels=("negative", "positive"),
        metrics=("accuracy",),
        metric="accuracy",
        hub=(_GLUE, "sst2"),
    ),
    Task(
        name="cola",
        summary="Is the sentence acceptable English? (GLUE)",
        kind="classification",
        columns=("text",),
        label="label",
        labels=("unacceptable", "acceptable"),
        metrics=("mcc", "accuracy"),
        metric="mcc",
        hub=(_GLUE, "cola"),
        headerless=("source", "label", "mark", "text"),
    ),
    Task(
        name="ag_news",
        summary="Topic of a news article, four classes",
        kind="classification",
        columns=("text",),
        label="label",
        labels=("World", "Sports", "Business", "Sci/Tech"),
        metrics=("accuracy",),
        metric="accuracy",
        hub=("fancyzhx/ag_news", None),
    ),
    Task(
        name="trec",
        summary="What kind of answer a question asks for, six coarse classes",
        kind="classification",
        columns=("text",),
        # The Hub's copy calls the fifty fine classes "label": the names of the coarse ones come before it.
        label="label_coarse_original",
        labels=("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"),
        metrics=("error_rate", "accuracy"),
        metric="error_rate",
        greater_is_better=False,
        hub=("SetFit/TREC-QC", None),
        other_labels=("coarse_label", "label-coarse", "label"),
    ),
    Task(
        name="stsb",
        summary="Semantic similarity of two sentences, 0 to 5 (STS benchmark)",
        kind="similarity",
        columns=_PAIR,
        label="score",
        labels=None,
        metrics=("spearman", "pearson"),
        metric="spearman",
        hub=("mteb/stsbenchmark-sts", None),
    ),
    Task(
        name="nli",
        summary="Premise, entailed sentence, contradicting sentence: supervised SimCSE",
        kind="triplets",
        columns=("anchor", "positive", "negative"),
        label=None,
        labels=None,
        metrics=("spearman",),
        metric="spearman",
        hub=("sentence-transformers/all-nli", "triplet"),
        max_length=32,
    ),
    Task(
        name="sentences",
        summary="A plain corpus, one sentence a row, no label: SimCSE and USCAL",
        kind="sentences",
        columns=("text",),
        label=None,
        labels=None,
        metrics=("spearman",),
        metric="spearman",
        hub=("sentence-transformers/wiki1m-for-simcse", None),
        max_length=32,
    ),
    Task(
        name="text",
        summary="Your own data: one text and its class",
        kind="classification",
        columns=("text",),
        label="label",
        labels=None,
        metrics=("accuracy", "macro_f1"),
        metric="accuracy",
    ),
    Task(
        name="pair",
        summary="Your own data: two texts and their class",
        kind="classification",
        columns=_PAIR,
        label="label",
        labels=None,
        metrics=("accuracy", "macro_f1"),
        metric="accuracy",
    ),
)

TASKS: dict[str, Task] = {row.name: row for row in _ROWS}


def get_task(name: str) -> Task:
    """The task of that name; a `UserError` with the nearest names where there is none."""
    if name not in TASKS:
        first, *others = nearest(name, TASKS)
        raise UserError(f"no task {name!r}", hint=f"Did you mean {first!r}? The others: {', '.join(others)}.")
    return TASKS[name]
