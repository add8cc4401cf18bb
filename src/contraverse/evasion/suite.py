"""Attacks by name, one or all of them, with the checks of each."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data import TextData
from contraverse.errors import UserError, unknown
from contraverse.evaluation.adversaries import Closeness
from contraverse.evaluation.adversaries.judging import Comparer
from contraverse.evaluation.predict import Progress
from contraverse.evasion.append import Append, Where, pool_of_file, pools_of_classes
from contraverse.evasion.asking import Asker
from contraverse.evasion.checks import EXACT_ROWS, ROWS, believe
from contraverse.evasion.edits import Edits
from contraverse.evasion.goals import Goal
from contraverse.evasion.invisible import Unicode
from contraverse.evasion.keeping import Keeping
from contraverse.evasion.outcomes import EvasionReport
from contraverse.evasion.run import digest_of_rows, evade, rows_of, worst
from contraverse.evasion.search import Node, SearchSettings, TextAttack
from contraverse.evasion.state import State
from contraverse.evasion.swaps import FromEmbeddings, FromMaskedLM, Source, Swaps
from contraverse.evasion.targets import ModelTarget, Target
from contraverse.models import TextModel
from contraverse.models.storage import digest_of_model
from contraverse.noise.additions import HARMLESS

BUDGETS = {"edits": (1, 2, 4), "append": (1, 2, 4), "swap-words": (1, 2, 3), "unicode": (1, 2, 4)}
"""Attacks by name, and the budgets of each where none are given."""
STANDARD = "standard"
"""All attacks, the worst of them for each row."""
OTHER_CLASS = "other-class"


def parse_attacks(written: str | Sequence[str]) -> list[str]:
    """Names of attacks, as a list or separated by commas, each once.

    Raises:
        UserError: there is no such attack, or ``standard`` is not alone.
    """
    names = [name.strip() for name in written.split(",")] if isinstance(written, str) else [str(n) for n in written]
    for name in names:
        if name not in BUDGETS and name != STANDARD:
            raise unknown("attack on texts", name, [*BUDGETS, STANDARD])
    if STANDARD in names and len(names) > 1:
        raise UserError(f"{STANDARD} is all attacks on texts", hint=f"write {STANDARD} alone, or leave it out")
    return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Suite:
    """Settings of the attacks of `evade_suite`.

    Attributes:
        attack: a name of `BUDGETS`, or ``"standard"`` for all of them.
        budgets: numbers of changes; None for each attack's own.
        goal: any other class, or one class's score below a threshold.
        search: how hard is searched.
        column: which text of a pair is attacked.
        rules: of edits.
        phrase: added in the place of words, or None.
        pool: a file of words to append, ``"other-class"`` for the rows' own words of other classes, or None for
            harmless ones.
        where: words are appended ``"before"``, ``"after"`` or at ``"both"`` ends.
        swap_from: folder of a masked language model that gives substitutes, or None for word embeddings.
        closeness: what a text with substituted words has to keep.
        keep: words and phrases that no attack changes.
        diagnostics: whether each attack is checked (`believe`).
    """

    attack: str = STANDARD
    budgets: tuple[int, ...] | None = None
    goal: Goal = field(default_factory=Goal)
    search: SearchSettings = field(default_factory=SearchSettings)
    column: int = -1
    rules: str = "any"
    phrase: str | None = None
    pool: str | None = None
    where: Where = "both"
    swap_from: str | None = None
    closeness: Closeness = field(default_factory=Closeness)
    keep: tuple[str, ...] = ()
    diagnostics: bool = True

    def __post_init__(self) -> None:
        if self.attack != STANDARD and self.attack not in BUDGETS:
            raise unknown("attack on texts", self.attack, [*BUDGETS, STANDARD])
        if self.phrase is not None and self.pool is not None:
            raise UserError("a phrase or a pool of words is appended, not both")

    @property
    def names(self) -> tuple[str, ...]:
        """Attacks that are run."""
        return tuple(BUDGETS) if self.attack == STANDARD else (self.attack,)

    def budgets_of(self, name: str) -> tuple[int, ...]:
        """Budgets of one attack. A phrase is added once."""
        if name == "append" and self.phrase is not None and self.budgets is None:
            return (1,)
        return self.budgets or BUDGETS[name]

    def total(self, rows: int) -> int:
        """Sum of the counts that `evade_suite` reports to ``progress``."""
        return len(self.names) * (rows + (ROWS + EXACT_ROWS if self.diagnostics else 0))


def evade_suite(
    target: Target,
    data: TextData,
    suite: Suite,
    *,
    encoder: TextModel | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, EvasionReport]:
    """Run the attacks of ``suite``; of several the worst for each row is there as ``"standard"``.

    Args:
        target: the classifier.
        data: labelled rows.
        suite: which attacks, and how.
        encoder: judges how close texts with substituted words are, and gives substitutes where the classifier has no
            word embeddings; None for ``minilm``.
        state: JSON lines of the rows that are settled; an earlier call's are not attacked again.
        progress: told of rows that are settled; they add up to ``suite.total(len(data))``.

    Raises:
        UserError: see `evade`; the file of words or the masked language model cannot be read; ``state`` is of another
            call.
    """
    data = rows_of(data, target)
    stored = State.begin(state, _call(target, data, suite)) if state else None
    reports: dict[str, EvasionReport] = {}
    for name in suite.names:
        attack = build(name, target, data, suite, encoder)
        reports[name] = report = evade(
            target, data, attack, budgets=suite.budgets_of(name), goal=suite.goal, settings=suite.search,
            column=suite.column, state=stored, progress=progress,
        )  # fmt: skip
        checked = 0
        if suite.diagnostics:

            def count(rows: int) -> None:
                nonlocal checked
                checked += rows
                if progress:
                    progress(rows)

            asker = Asker(target, suite.goal)
            report.checks = believe(asker, data, attack, report, suite.search, column=suite.column, progress=count)
            report.warnings.extend(report.checks.warnings)
            if progress:
                progress(ROWS + EXACT_ROWS - checked)
        if any(row.attacked for row in report.rows) and not any(_can_change(attack, report, row.row, suite)
                                                                for row in report.rows if row.attacked):  # fmt: skip
            report.notes.append(f"{name}: no row has anything that this attack may change")
    if len(reports) > 1:
        reports[STANDARD] = worst(list(reports.values()))
    return reports


def _can_change(attack: TextAttack, report: EvasionReport, row: int, suite: Suite) -> bool:
    text = report.texts[row][suite.column]
    return bool(attack.places(Node(text, 0.0, report.rows[row].label), len(text)))


def build(name: str, target: Target, data: TextData, suite: Suite, encoder: TextModel | None = None) -> TextAttack:
    """Give the attack of that name; see `evade_suite`."""
    attack = _build(name, target, data, suite, encoder)
    return Keeping(attack, suite.keep) if suite.keep else attack


def _build(name: str, target: Target, data: TextData, suite: Suite, encoder: TextModel | None) -> TextAttack:
    if name == "edits":
        return Edits(suite.rules)
    if name == "unicode":
        return Unicode()
    if name == "append":
        if suite.phrase is not None:
            return Append([suite.phrase], suite.where)
        if suite.pool == OTHER_CLASS:
            return Append(pools_of_classes(data, suite.column), suite.where)
        return Append(pool_of_file(Path(suite.pool)) if suite.pool else HARMLESS, suite.where)
    model = target.model if isinstance(target, ModelTarget) else None
    if encoder is None:
        encoder = TextModel.from_pretrained("minilm", pooling="mean")
        encoder = encoder.to(model.device) if model is not None else encoder
    closeness = replace(suite.closeness, max_edits=max(suite.closeness.max_edits, max(suite.budgets_of(name))))
    column: list[tuple[str, ...]] = [(texts[suite.column],) for texts in data.texts]
    alone = replace(data, texts=column, columns=("text",))
    comparer = Comparer(alone, np.asarray(data.labels), encoder, closeness, 64)
    source: Source
    if suite.swap_from is not None:
        source = masked_lm(suite.swap_from)
    else:
        source = FromEmbeddings(model if model is not None and target.access == "gradients" else encoder)
    return Swaps(source, comparer)


def masked_lm(folder: str) -> FromMaskedLM:
    """Load a masked language model and its tokenizer from a folder of transformers; none of its code is run.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    try:
        model, loading = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no masked language model can be loaded: {reason}", where=folder) from error
    if loading["missing_keys"]:
        raise UserError("the model has no weights of a masked language model", where=folder)
    return FromMaskedLM(model, tokenizer)


def _call(target: Target, data: TextData, suite: Suite) -> dict[str, Any]:
    """Inputs that decide the results, for `State`. The code of a function is not part of them."""
    weights = digest_of_model(target.model)[:16] if isinstance(target, ModelTarget) else "a function"
    own = {name: repr(value) for name, value in vars(suite).items() if name not in ("attack", "diagnostics")}
    return {"rows": digest_of_rows(data), "weights": weights, "access": target.access, **own}
