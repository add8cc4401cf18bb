"""The registry of tasks: what a data set's columns, labels and metrics are called, and where its Hub copy is.

A row in `TASKS` is all that a new task takes. Column names that many data sets share (``sentence``, ``premise``
and ``hypothesis``, ...) are known to every task (`contraverse.data.columns`); a row adds only what is its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from contraverse.errors import unknown

if TYPE_CHECKING:
    from contraverse.data.images.tasks import ImageTask

Kind = Literal["classification", "similarity", "sentences", "triplets"]


@dataclass(frozen=True)
class Layout:
    """A copy of a data set, told by columns of its own: a table that has all of ``marks`` is read by it.

    ``texts``: for each text of a row the columns that make it; several are joined by spaces, empty ones passed over.
    """

    marks: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Task:
    """One task.

    ``kind``: "classification" has class labels, "similarity" a float score, "sentences" and "triplets" no label.
    ``columns``: the text columns, one to three. ``label``: the label's column; ``labels``: the classes in the order
    of their ids, None where they are read from the training rows. ``metrics``: what is measured, ``metric`` the one
    that chooses the best checkpoint. ``hub``: (data set id, configuration) on the Hugging Face Hub; ``splits``: our
    split names to the Hub's, several joined by ``+``. ``max_length``: tokens of a row (of each sentence, for
    triplets), special tokens included. ``other_columns`` and ``other_labels``: the names that copies of this data set
    use for ``columns`` and ``label``; ``layouts``: copies whose columns need more than another name. ``headerless``:
    the columns of a table of this data set that comes without a header line.

    ``aliases``: what copies call a class, to the name of it in ``labels``. ``left_out``: labels whose rows are left out
    and counted, as those without a gold label. All of these match regardless of case. ``numbered``: a bare number is
    the class of that id. ``paper_rows``: how many rows of each class a paper draws from each split; a split that it
    does not name is used whole, and None is no paper's draw.
    """

    name: str
    summary: str
    kind: Kind
    columns: tuple[str, ...]
    label: str | None
    labels: tuple[str, ...] | None
    metrics: tuple[str, ...]
    metric: str
    hub: tuple[str, str | None] | None = None
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation", "test": "test"}
    )
    max_length: int = 128
    other_columns: tuple[tuple[str, ...], ...] = ()
    other_labels: tuple[str, ...] = ()
    layouts: tuple[Layout, ...] = ()
    headerless: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    numbered: bool = True
    paper_rows: Mapping[str, int] | None = None

    @property
    def labelled(self) -> bool:
        """True where every row must have a label."""
        return self.label is not None


_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "neutral", "contradiction")
_NLI_NAMES = {
    "e": "entailment",
    "n": "neutral",
    "c": "contradiction",
    "SUPPORTS": "entailment",
    "NOT ENOUGH INFO": "neutral",
    "REFUTES": "contradiction",
}
"""Names of the three classes in the original files of ANLI and FEVER."""
_NO_GOLD = ("-1", "-", "hidden", "not available")
"""SNLI's and MultiNLI's rows on which the annotators did not agree, and test labels that are kept back."""
_YAHOO = (
    "Society & Culture",
    "Science & Mathematics",
    "Health",
    "Education & Reference",
    "Computers & Internet",
    "Sports",
    "Business & Finance",
    "Entertainment & Music",
    "Family & Relationships",
    "Politics & Government",
)
"""The data set's own order. CARL/RAR uses five classes and names the first four of it, so the fifth is the next."""
_YAHOO_TEXTS = ("question_title", "question_content", "best_answer")
_GLUE = "nyu-mll/glue"


def _nli(name: str, summary: str, hub: tuple[str, str | None], splits: tuple[str, str, str], **more: Any) -> Task:
    """A task of three-way inference; the files of all of them name their classes in one of the ways above."""
    return Task(
        name=name,
        summary=summary,
        kind="classification",
        columns=("premise", "hypothesis"),
        label="label",
        labels=_NLI,
        metrics=("accuracy",),
        metric="accuracy",
        hub=hub,
        splits=dict(zip(("train", "validation", "test"), splits, strict=True)),
        other_columns=(("context", "hypothesis"), ("context", "query")),
        other_labels=("gold_label",),
        aliases=_NLI_NAMES,
        left_out=_NO_GOLD,
        **more,
    )


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
    _nli(
        "mnli",
        "Natural language inference, matched genres (GLUE)",
        (_GLUE, "mnli"),
        ("train", "validation_matched", "test_matched"),
    ),
    _nli(
        "mnli-mm",
        "Natural language inference, mismatched genres (GLUE)",
        (_GLUE, "mnli"),
        ("train", "validation_mismatched", "test_mismatched"),
    ),
    _nli(
        "snli",
        "Natural language inference on captions of images",
        ("stanfordnlp/snli", None),
        ("train", "validation", "test"),
    ),
    _nli(
        "fever-nli",
        "Does the evidence support the claim? (FEVER as inference)",
        ("pietrolesci/nli_fever", None),
        ("train", "dev", "test"),
        # The Hub's copy calls the claim the premise; in ANLI's own training code it is the hypothesis.
        layouts=(Layout(("fever_gold_label", "premise", "hypothesis"), (("hypothesis",), ("premise",))),),
    ),
    *(
        _nli(
            f"anli_a{i}",
            f"Adversarial natural language inference, round {i}",
            ("facebook/anli", None),
            (f"train_r{i}", f"dev_r{i}", f"test_r{i}"),
        )
        for i in (1, 2, 3)
    ),
    _nli(
        "anli",
        "Adversarial natural language inference, the three rounds together",
        ("facebook/anli", None),
        ("train_r1+train_r2+train_r3", "dev_r1+dev_r2+dev_r3", "test_r1+test_r2+test_r3"),
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
        paper_rows={},
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
        paper_rows={"train": 15_000, "validation": 500, "test": 500},
    ),
    Task(
        name="yelp_polarity",
        summary="Is a review on Yelp negative or positive?",
        kind="classification",
        columns=("text",),
        label="label",
        # The Hub's copy names its classes 1 and 2, which says nothing: its ids are these.
        labels=("negative", "positive"),
        metrics=("accuracy",),
        metric="accuracy",
        hub=("fancyzhx/yelp_polarity", None),
        paper_rows={"train": 30_000, "validation": 1_000, "test": 1_000},
    ),
    Task(
        name="yahoo_answers",
        summary="Topic of a question with its best answer, five of the ten classes",
        kind="classification",
        columns=("text",),
        label="topic",
        labels=_YAHOO[:5],
        metrics=("accuracy",),
        metric="accuracy",
        hub=("community-datasets/yahoo_answers_topics", None),
        layouts=(Layout(_YAHOO_TEXTS, (_YAHOO_TEXTS,)),),
        headerless=("topic", *_YAHOO_TEXTS),
        left_out=_YAHOO[5:],
        # Ids count all ten classes in some copies and from one in others.
        numbered=False,
        paper_rows={"train": 12_000, "validation": 400, "test": 400},
    ),
    Task(
        name="trec",
        summary="Kind of answer that a question asks for, six coarse classes",
        kind="classification",
        columns=("text",),
        # The Hub's copy calls the fifty fine classes "label": the names of the coarse ones come before it.
        label="label_coarse_original",
        labels=("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"),
        metrics=("error_rate", "accuracy"),
        metric="error_rate",
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
        raise unknown("task", name, TASKS)
    return TASKS[name]


def any_task(name: str) -> "Task | ImageTask":
    """The task of texts or of images of that name; a `UserError` with the nearest names where there is none."""
    from contraverse.data.images.tasks import IMAGE_TASKS

    known: dict[str, Task | ImageTask] = {**TASKS, **IMAGE_TASKS}
    if name not in known:
        raise unknown("task", name, known)
    return known[name]
