"""The search: budgets hold, nothing depends on the company, only texts classified anew count."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from reference.letters import by_letters
from reference.text_edits import characters, damerau_levenshtein, single_edits

from contraverse.data import TextData
from contraverse.errors import UserError
from contraverse.evasion import (
    Append,
    Edits,
    EvasionReport,
    FunctionTarget,
    Goal,
    Keeping,
    SearchSettings,
    State,
    TextAttack,
    Unicode,
    evade,
    worst,
)
from contraverse.evasion.changes import Change, Span, moved
from contraverse.evasion.edits import _alphabet
from contraverse.evasion.run import digest_of_rows
from contraverse.evasion.search import FreeAttack, Node
from contraverse.noise.keep import Keep

Predict = Callable[[list[Any]], np.ndarray]
ATTACKS: dict[str, Callable[[], TextAttack]] = {
    "edits": Edits,
    "pruthi": lambda: Edits("pruthi"),
    "unicode": Unicode,
    "append": lambda: Append(["tea", "rain and sun"]),
}
QUICK = SearchSettings(beam=2, width=12, rounds=2)


class Nothing(FreeAttack):
    """Changes nothing: every text it offers is the original."""

    name, unit, ranked = "nothing", "changes", False

    def places(self, node: Node, seen: int) -> list[Span]:
        return [Span(0, len(node.text))]

    def changes(self, node: Node, place: Span) -> list[Change]:
        return [Change(0, len(node.text), node.text)]

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        return ()


def results(report: EvasionReport) -> list[tuple[Any, ...]]:
    """What each row got, by its text."""
    return sorted((report.texts[row.row], row.changes, row.rewritten, row.queries) for row in report.rows)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("access", ["scores", "labels"])
def test_budgets_hold_and_texts_are_as_reported(
    predict: Predict, right_rows: TextData, attack: str, access: Any
) -> None:
    target = FunctionTarget(predict, ["no", "yes"], access)
    report = evade(target, right_rows, ATTACKS[attack](), budgets=[1, 3], settings=QUICK)
    assert report.accuracy().percent == 100
    assert report.accuracy(3).hits <= report.accuracy(1).hits
    for row in report.broken:
        (before,), (after,) = right_rows.texts[row.row], row.rewritten or ("",)
        assert predict([after]).argmax(1)[0] != row.label
        assert row.prediction_rewritten == 1 - row.label
        assert row.changes is not None
        if attack == "append":
            assert before in after
            added = after.replace(before, "").replace("rain and sun", "tea").split()
            assert 1 <= len(added) <= row.changes
        elif attack == "unicode":
            assert damerau_levenshtein(before, after) <= row.changes <= 3
        else:
            assert damerau_levenshtein(characters(before), characters(after)) <= row.changes <= 3
    if attack in ("edits", "append"):
        assert report.broken


@settings(max_examples=25)
@given(texts=st.lists(st.text(min_size=1, max_size=15).filter(str.strip), min_size=1, max_size=3),
       attack=st.sampled_from(sorted(ATTACKS)), access=st.sampled_from(["scores", "labels"]))  # fmt: skip
def test_any_text_is_attacked_within_its_budget(texts: list[str], attack: str, access: Any) -> None:
    data = TextData.from_rows(texts, by_letters(texts).argmax(1).tolist(), ["no", "yes"])
    target = FunctionTarget(by_letters, ["no", "yes"], access)
    reports = [evade(target, data, ATTACKS[attack](), budgets=[2], settings=QUICK) for _ in range(2)]
    assert results(reports[0]) == results(reports[1])
    for row in reports[0].broken:
        (before,), (after,) = data.texts[row.row], row.rewritten or ("",)
        if attack != "append":
            units = list if attack == "unicode" else characters
            assert damerau_levenshtein(units(before), units(after)) <= 2
        else:
            assert before in after


def test_a_wide_search_finds_every_row_that_one_edit_breaks(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    wide = SearchSettings(width=4000, rounds=2, places=100)
    report = evade(target, right_rows, Edits(), budgets=[1], settings=wide)
    for row in report.rows:
        (text,) = right_rows.texts[row.row]
        others = sorted(single_edits(text, _alphabet(text) + " "))
        breakable = bool((predict(others).argmax(1) != row.label).any()) if others else False
        assert (row.changes == 1) is breakable


def test_a_larger_budget_is_never_weaker(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    runs = [evade(target, right_rows, Edits(), budgets=[budget], settings=QUICK) for budget in (1, 2, 4)]
    together = evade(target, right_rows, Edits(), budgets=[4, 2, 1, 2], settings=QUICK)
    assert together.budgets == (1, 2, 4)
    for run, budget in zip(runs, (1, 2, 4), strict=True):
        assert run.accuracy(budget) == together.accuracy(budget)
    assert runs[0].accuracy(1).hits >= runs[1].accuracy(2).hits >= runs[2].accuracy(4).hits


def test_an_attack_that_changes_nothing_succeeds_never(predict: Predict, right_rows: TextData) -> None:
    report = evade(FunctionTarget(predict, ["no", "yes"]), right_rows, Nothing(), budgets=[1, 5])
    assert report.flip_rate().hits == 0
    assert report.successes == []


def test_rows_that_are_wrong_are_counted_apart(predict: Predict, right_rows: TextData) -> None:
    labels = list(right_rows.labels or [])
    labels[0], labels[3] = 1 - int(labels[0]), 1 - int(labels[3])
    data = TextData.from_rows([text for (text,) in right_rows.texts], labels, ["no", "yes"])
    report = evade(FunctionTarget(predict, ["no", "yes"]), data, Edits(), budgets=[1], settings=QUICK)
    assert [row.row for row in report.rows if not row.attacked] == [0, 3]
    assert report.to_dict()["wrong_clean"] == 2
    assert report.accuracy().hits == 8
    assert report.flip_rate().n == 8
    assert all(row.queries == 0 for row in report.rows if not row.attacked)


def test_neither_order_nor_company_matters(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    whole = evade(target, right_rows, Edits(), budgets=[2], settings=QUICK)
    order = np.random.default_rng(1).permutation(len(right_rows)).tolist()
    shuffled = evade(target, right_rows.select(order), Edits(), budgets=[2], settings=QUICK)
    alone = [
        evade(target, right_rows.select([i]), Edits(), budgets=[2], settings=QUICK) for i in range(len(right_rows))
    ]
    assert results(whole) == results(shuffled)
    assert results(whole) == sorted(result for report in alone for result in results(report))


def test_repeated_rows_and_texts_are_asked_once(right_rows: TextData, predict: Predict) -> None:
    asked: list[Any] = []

    def noting(texts: list[Any]) -> np.ndarray:
        asked.extend(texts)
        return predict(texts)

    data = right_rows.select([0, 0, 1, 0])
    report = evade(FunctionTarget(noting, ["no", "yes"]), data, Edits(), budgets=[1], settings=QUICK)
    confirmations = len({row.rewritten for row in report.broken}) + sum(row.doubtful for row in report.rows)
    assert len(asked) - len(set(asked)) <= 3 * max(1, confirmations)
    assert report.forwards == len(set(asked))
    assert len({(row.changes, row.rewritten) for row in report.rows if row.row != 2}) == 1


def test_evading_one_class_attacks_its_rows_alone(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    plain = evade(target, right_rows, Edits(), budgets=[1], goal=Goal(1), settings=QUICK)
    assert {row.label for row in plain.rows if row.attacked} == {1}
    assert plain.recall(1).n == sum(label == 1 for label in right_rows.labels or [])
    at_half = evade(target, right_rows, Edits(), budgets=[1], goal=Goal(1, 0.5), settings=QUICK)
    assert [row.changes for row in at_half.rows] == [row.changes for row in plain.rows]  # of two classes the same
    strict = evade(target, right_rows, Edits(), budgets=[1], goal=Goal(1, 0.999999), settings=QUICK)
    assert strict.recall(1).hits == 0
    assert strict.flip_rate(1).percent is None  # nothing was detected to begin with
    assert strict.to_dict()["at"][0]["flip_rate"]["percent"] is None


def test_a_texts_score_has_to_fall_below_the_threshold(predict: Predict, right_rows: TextData) -> None:
    goal = Goal(1, 0.45)
    report = evade(FunctionTarget(predict, ["no", "yes"]), right_rows, Edits(), budgets=[4], goal=goal)
    for row in report.broken:
        logits = predict([row.rewritten[0]] if row.rewritten else [])[0].astype(float)
        assert 1 / (1 + np.exp(logits[0] - logits[1])) < 0.45
    assert report.broken


def test_of_a_pair_one_text_changes(predict: Predict) -> None:
    pairs = [("a man sleeps", "a person rests here"), ("rain falls", "it is a dry day")]
    data = TextData.from_rows(pairs, predict(pairs).argmax(1).tolist(), ["no", "yes"])
    target = FunctionTarget(predict, ["no", "yes"])
    for column in (0, 1):
        report = evade(target, data, Edits(), budgets=[4], settings=QUICK, column=column)
        assert report.broken
        for row in report.broken:
            assert row.rewritten is not None
            assert row.rewritten[1 - column] == pairs[row.row][1 - column]
            assert row.rewritten[column] != pairs[row.row][column]
        assert isinstance(report.successes[0].rewritten, list)


def test_the_worst_of_several_attacks(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    reports = [evade(target, right_rows, make(), budgets=[1], settings=QUICK) for make in ATTACKS.values()]
    combined = worst(reports)
    broken = {row.row for report in reports for row in report.broken}
    assert {row.row for row in combined.broken} == broken
    assert combined.accuracy(None).hits == len(right_rows) - len(broken)
    assert {success.attack for success in combined.successes} <= {"edits", "unicode", "append"}


@pytest.mark.parametrize("torn", [b"", b'{"row": 1, "lab'])
def test_an_attack_goes_on_from_its_file(predict: Predict, right_rows: TextData, tmp_path: Path, torn: bytes) -> None:
    file, call = tmp_path / "state.jsonl", {"seed": 0}
    target = FunctionTarget(predict, ["no", "yes"])
    whole = evade(target, right_rows, Edits(), budgets=[2], settings=QUICK, state=State.begin(file, call))
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(right_rows)
    file.write_bytes(b"".join(lines[:5]) + torn)

    asked: list[Any] = []

    def noting(texts: list[Any]) -> np.ndarray:
        asked.extend(texts)
        return predict(texts)

    again = evade(
        FunctionTarget(noting, ["no", "yes"]), right_rows, Edits(), budgets=[2], settings=QUICK,
        state=State.begin(file, call),
    )  # fmt: skip
    assert results(again) == results(whole)
    assert again.forwards < whole.forwards
    assert len(file.read_bytes().splitlines()) == 1 + len(right_rows)


def test_the_digest_of_rows_reads_all_of_them() -> None:
    """It read the first three alone: a file of results went on with other rows after them."""
    texts = [f"text {i}" for i in range(6)]
    first, other = (TextData.from_rows(rows, [0, 1] * 3, ("no", "yes")) for rows in (texts, [*texts[:5], "another"]))
    assert digest_of_rows(first) == digest_of_rows(TextData.from_rows(texts, [0, 1] * 3, ("no", "yes")))
    assert digest_of_rows(first) != digest_of_rows(other)


def test_a_file_of_another_call_is_refused(tmp_path: Path) -> None:
    State.begin(tmp_path / "a.jsonl", {"seed": 0, "rows": "x"})
    with pytest.raises(UserError, match="another rows, seed"):
        State.begin(tmp_path / "a.jsonl", {"seed": 1, "rows": "y"})
    (tmp_path / "b.jsonl").write_text("hello\n")
    with pytest.raises(UserError, match="no JSON"):
        State.begin(tmp_path / "b.jsonl", {})
    (tmp_path / "c.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match="the line is no JSON object"):
        State.begin(tmp_path / "c.jsonl", {})
    with pytest.raises(UserError, match="folder does not exist"):
        State.begin(tmp_path / "none" / "d.jsonl", {})


@pytest.mark.parametrize("budgets", [[], [0], [1, -2]])
def test_impossible_budgets_are_refused(predict: Predict, right_rows: TextData, budgets: list[int]) -> None:
    with pytest.raises(UserError, match="a budget is"):
        evade(FunctionTarget(predict, ["no", "yes"]), right_rows, Edits(), budgets=budgets)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="beam is at least 1"):
        SearchSettings(beam=0)
    with pytest.raises(UserError, match="belongs to a class"):
        Goal(threshold=0.5)
    with pytest.raises(UserError, match="between 0 and 1"):
        Goal(0, 1.5)


@settings(max_examples=40)
@given(
    text=st.lists(
        st.sampled_from(["not", "good", "退款", " ", "Film", "n", "é", "\u0301", "👍🏽"]), min_size=1, max_size=8
    )
    .map("".join)
    .filter(str.strip),
    name=st.sampled_from(sorted(ATTACKS)),
)
def test_phrases_to_keep_stay_in_every_text_that_is_tried(text: str, name: str) -> None:
    phrases = ("not", "film", "退款", "tea")
    attack, written = Keeping(ATTACKS[name](), phrases), Keep(phrases).written
    node = Node(text, 0.0, 0)
    results = [change.apply(text) for place in attack.places(node, len(text)) for change in attack.changes(node, place)]
    assert all(written(result) == written(text) for result in results)
    free = ATTACKS[name]()
    every = {c.apply(text) for place in free.places(node, len(text)) for c in free.changes(node, place)}
    left_out = every - set(results)
    assert all(written(result) != written(text) for result in left_out)


def test_an_attack_keeps_phrases_through_all_its_changes(predict: Predict, right_rows: TextData) -> None:
    target = FunctionTarget(predict, ["no", "yes"])
    report = evade(target, right_rows, Keeping(Edits(), ["good", "a"]), budgets=[4], settings=QUICK)
    assert report.broken
    for row in report.broken:
        (before,), (after,) = right_rows.texts[row.row], row.rewritten or ("",)
        assert Keep(["good", "a"]).written(before) == Keep(["good", "a"]).written(after)


class Window(FunctionTarget):
    """Reads the first 16 characters of a text, and tells if "bad" is among them, or "good"."""

    def __init__(self) -> None:
        def scores(texts: list[Any]) -> list[list[float]]:
            return [[1.0 + 2 * ("good" in text[:16]), 2.0 * ("bad" in text[:16])] for text in texts]

        super().__init__(scores, ["fine", "harmful"])

    def seen(self, row: Any, column: int) -> int:
        return min(16, len(row[column]))


@pytest.mark.parametrize(
    ("attack", "text", "pushed"),
    [
        (Append(["good"], "before"), "it is bad", False),  # the word itself wins
        (Append(["tea and cake"], "before"), "it is bad", True),  # "bad" is beyond the window
        (Append(["tea", "good"], "before"), "it is bad as so", False),  # what is cut off has no part in it
        (Append(["good"], "both"), "it is bad and this is beyond the window", False),
        (Append(["good"], "both"), "it is so so bad, and this is beyond the window", True),
        (Edits("any"), "it is bad", False),
        (Edits("any"), "0123456789ab bad, the rest is not read", False),  # deleted, swapped or substituted in "bad"
    ],
)
def test_what_wins_by_pushing_text_out_of_the_window_is_told_apart(attack: TextAttack, text: str, pushed: bool) -> None:
    data = TextData.from_rows([text], ["harmful"], ["fine", "harmful"])
    report = evade(Window(), data, attack, budgets=[1, 2], settings=QUICK)
    (row,) = report.rows
    assert row.changes == 1
    assert row.pushed_out is pushed
    assert report.pushed_out(1) == (int(pushed), 1)
    assert report.successes[0].to_dict()["pushed_out"] is pushed
    assert report.to_dict()["at"][0]["pushed_out"]["hits"] == int(pushed)
    assert any("longest input" in note for note in report.notes) is pushed


def test_an_end_that_is_not_read_gets_no_words() -> None:
    data = TextData.from_rows(["it is bad, and goes on and on"], ["harmful"], ["fine", "harmful"])
    report = evade(Window(), data, Append(["good"], "after"), budgets=[1])
    assert report.rows[0].queries == 1
    assert report.broken == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.text("xy", max_size=4)), max_size=5))
def test_the_end_of_what_is_read_follows_every_change(changes: list[tuple[int, int, str]]) -> None:
    """Characters of the part that is read are "r", those after it "-", those that are put in others."""
    text, end = "r" * 12 + "-" * 12, 12
    for start, length, new in changes:
        start = min(start, len(text))
        change = Change(start, min(len(text), start + length), new)
        text, end = change.apply(text), moved(end, change)
        assert "-" not in text[:end]
        assert "r" not in text[end:]
