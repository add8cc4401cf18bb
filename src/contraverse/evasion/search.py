"""The search: all rows advance together, one change deeper at a time, by a beam."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from contraverse.errors import UserError
from contraverse.evasion.asking import Asker, Attacked
from contraverse.evasion.changes import Change, Span, moved, shifted
from contraverse.evasion.targets import ModelTarget

TRIALS = 3
"""Number of a row's texts that are classified once more, alone, after a wrong answer in a batch."""


class Node(NamedTuple):
    """A text on the way.

    ``margin``: of the text. ``label``: class of its row. ``locked``: spans that may not be changed again. ``end``:
    where the part of the original that the classifier reads ends in this text.
    """

    text: str
    margin: float
    label: int
    locked: tuple[Span, ...] = ()
    end: int = 0


class TextAttack(Protocol):
    """Changes that an attack may make, one at a time."""

    name: str
    unit: str
    """Unit of the budget, in the plural."""
    ranked: bool
    """Tells if places differ in what they are worth, so that ranking them pays."""

    def places(self, node: Node, seen: int) -> list[Span]:
        """List the parts of the text's first ``seen`` code points where something may change."""
        ...

    def changes(self, node: Node, place: Span) -> list[Change]:
        """List every change at a place."""
        ...

    def locks(self, node: Node, change: Change) -> tuple[Span, ...]:
        """List the spans of the changed text that are done."""
        ...

    def admits(self, row: int, texts: Sequence[str]) -> list[bool]:
        """Tell which texts are close enough to the original of a row to count."""
        ...


class FreeAttack:
    """An attack whose texts need no judgement besides the budget."""

    def admits(self, row: int, texts: Sequence[str]) -> list[bool]:
        """Admit all."""
        del row
        return [True] * len(texts)


@dataclass(frozen=True)
class SearchSettings:
    """Size of the search for the worst text of each budget.

    Args:
        beam: texts that are kept from one change to the next, >= 1.
        width: texts that are tried of each row in a round, >= 1.
        rounds: rounds a change, >= 1: the first tries many places, each after it those where most was won.
        places: parts of a text that are looked at, those of the largest effect, >= 1.
        seed: of what is drawn.

    Raises:
        UserError: a setting is impossible.
    """

    beam: int = 3
    width: int = 32
    rounds: int = 6
    places: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("beam", "width", "rounds", "places"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is at least 1, not {getattr(self, name)}")


@dataclass
class Broken:
    """A text that evades the classifier.

    ``changes``: how many it has. ``prediction``: class that it gets. ``pushed_out``: True where it has more tokens than
    the classifier reads, and the original without the part that is read no more evades as well.
    """

    text: str
    changes: int
    prediction: int
    pushed_out: bool = False


@dataclass
class _Frontier:
    """Changes of one row at one depth: those tried, and those that may be."""

    row: Attacked
    nodes: list[Node]
    options: list[tuple[int, int, Change]] = field(default_factory=list)  # node, place, change
    promise: list[float] = field(default_factory=list)  # the smaller the better
    tried: dict[str, tuple[float, int, Change]] = field(default_factory=dict)  # margin, node, change
    best: dict[tuple[int, int], float] = field(default_factory=dict)  # of each node's place


def search(
    asker: Asker,
    rows: Sequence[Attacked],
    attack: TextAttack,
    budget: int,
    settings: SearchSettings,
    settled: Callable[[Attacked, Broken | None, int], None],
) -> None:
    """Look for the least number of changes, up to ``budget``, that breaks each row.

    At each depth the changes of every live row are ranked (`_expand`) and tried in rounds, each of which is one batch
    over all rows, and the best ``beam`` texts go one change deeper. A row that breaks drops out. What one row gets
    depends on no other.

    Args:
        asker: the classifier.
        rows: rows that are classified rightly.
        attack: what may be changed.
        budget: most changes of a row, >= 1.
        settings: how hard.
        settled: called once for each row, as soon as it is known, with what broke it, or None, and the number of its
            texts that were wrong in a batch and right alone.
    """
    doubtful = dict.fromkeys((id(row) for row in rows), 0)
    starts = asker.margins([(row, [row.text]) for row in rows])
    live = [
        (row, [Node(row.text, float(margins[0]), row.label, end=_end(row))])
        for row, (margins, _) in zip(rows, starts, strict=True)
    ]
    for depth in range(1, budget + 1):
        frontiers = _expand(asker, live, attack, settings)
        broken: dict[int, Broken] = {}
        for number in range(settings.rounds):
            open_ones = [frontier for frontier in frontiers if id(frontier.row) not in broken]
            chosen = [_choose(frontier, settings.width, first=number == 0) for frontier in open_ones]
            answers = asker.margins(
                [
                    (frontier.row, [text for text, *_ in texts])
                    for frontier, texts in zip(open_ones, chosen, strict=True)
                ]
            )
            for frontier, texts, (margins, holds) in zip(open_ones, chosen, answers, strict=True):
                for (text, node, place, change), margin in zip(texts, margins.tolist(), strict=True):
                    frontier.tried[text] = (margin, node, change)
                    frontier.best[node, place] = min(margin, frontier.best.get((node, place), np.inf))
                wrong = [text for (text, *_), held in zip(texts, holds, strict=True) if not held]
                won, doubts = _confirm(asker, frontier, wrong, attack, depth)
                doubtful[id(frontier.row)] += doubts
                if won is not None:
                    broken[id(frontier.row)] = won
        deeper = []
        for frontier in frontiers:
            won = broken.get(id(frontier.row))
            nodes = [] if won or depth == budget else _survivors(frontier, attack, settings.beam)
            if nodes:
                deeper.append((frontier.row, nodes))
            else:
                settled(frontier.row, won, doubtful[id(frontier.row)])
        live = deeper


def _expand(
    asker: Asker, live: Sequence[tuple[Attacked, list[Node]]], attack: TextAttack, settings: SearchSettings
) -> list[_Frontier]:
    """List the changes of every live row, the most promising first."""
    frontiers = [_Frontier(row, nodes) for row, nodes in live]
    places = [[attack.places(node, _seen(row, node)) for node in nodes] for row, nodes in live]
    target = asker.target
    if attack.ranked and isinstance(target, ModelTarget) and target.access == "gradients":
        flat = [(row, node.text) for row, nodes in live for node in nodes]
        gradients = iter(asker.gradients_at(flat))
        for frontier, spots in zip(frontiers, places, strict=True):
            for number, node in enumerate(frontier.nodes):
                at = next(gradients)
                order = _strongest(at.spans, target.saliency(at), spots[number], settings.places)
                listed = [(place, change) for place in order for change in attack.changes(node, spots[number][place])]
                changes = [change for _, change in listed]
                promise = target.promise(node.text, changes, at) if changes else np.zeros(0)
                _offer(frontier, number, listed, promise, settings)
        return frontiers
    effects = _ablate(asker, frontiers, places, settings) if attack.ranked else {}
    for frontier, spots in zip(frontiers, places, strict=True):
        for number, node in enumerate(frontier.nodes):
            effect = effects.get((id(frontier), number), dict.fromkeys(range(len(spots[number])), node.margin))
            order = sorted(effect, key=lambda place: effect[place])[: settings.places]
            listed = [(place, change) for place in order for change in attack.changes(node, spots[number][place])]
            _offer(frontier, number, listed, np.array([effect[place] for place, _ in listed]), settings)
    return frontiers


def _seen(row: Attacked, node: Node) -> int:
    """Code points of a changed text that are read: a change before the cut moves it by little."""
    return len(node.text) if row.seen >= len(row.text) else row.seen


def _strongest(spans: np.ndarray, saliency: np.ndarray, places: Sequence[Span], count: int) -> list[int]:
    """Numbers of the places with the largest sum of saliencies, in that order."""
    if len(places) <= count:
        return list(range(len(places)))
    effect = [saliency[(spans[:, 0] < end) & (spans[:, 1] > start)].sum() for start, end in places]
    return np.argsort(-np.array(effect), kind="stable")[:count].tolist()


def _ablate(
    asker: Asker, frontiers: Sequence[_Frontier], places: Sequence[list[list[Span]]], settings: SearchSettings
) -> dict[tuple[int, int], dict[int, float]]:
    """Margins of each node's text without each of its places; where there are many, of some that are drawn."""
    asked, keys = [], []
    for frontier, spots in zip(frontiers, places, strict=True):
        texts = []
        for number, node in enumerate(frontier.nodes):
            chosen = np.arange(len(spots[number]))
            if len(chosen) > 2 * settings.places:
                chosen = np.sort(frontier.row.rng.permutation(chosen)[: 2 * settings.places])
            for place in chosen.tolist():
                start, end = spots[number][place]
                rest = node.text[:start] + node.text[end:]
                if rest.strip():
                    texts.append(rest)
                    keys.append((id(frontier), number, place))
                else:
                    texts.append(node.text)
                    keys.append((id(frontier), number, place))
        asked.append((frontier.row, texts))
    margins = np.concatenate([margins for margins, _ in asker.margins(asked)]) if asked else np.zeros(0)
    effects: dict[tuple[int, int], dict[int, float]] = {}
    for (frontier_id, number, place), margin in zip(keys, margins.tolist(), strict=True):
        effects.setdefault((frontier_id, number), {})[place] = margin
    return effects


def _offer(
    frontier: _Frontier,
    number: int,
    listed: Sequence[tuple[int, Change]],
    promise: np.ndarray,
    settings: SearchSettings,
) -> None:
    """Add the changes of one node that may be tried: the best of each place and the best of all."""
    order = np.lexsort((frontier.row.rng.random(len(listed)), promise))
    limit, mine = settings.width * settings.rounds, dict[int, int]()
    for rank, i in enumerate(order.tolist()):
        place, change = listed[i]
        mine[place] = mine.get(place, 0) + 1
        if rank < limit or mine[place] <= settings.width:
            frontier.options.append((number, place, change))
            frontier.promise.append(float(promise[i]))


def _choose(frontier: _Frontier, width: int, *, first: bool) -> list[tuple[str, int, int, Change]]:
    """Texts to try next: at first of many places, at most a quarter of one, then half of the
    places where most was won, half of those that promise most."""
    promising = np.argsort(frontier.promise, kind="stable").tolist()
    if first:
        order, most = promising, max(2, width // 8)
    else:
        ranks = {place: rank for rank, place in enumerate(sorted(frontier.best, key=lambda key: frontier.best[key]))}
        won = [ranks.get((node, place), len(ranks)) for node, place, _ in frontier.options]
        best = sorted(promising, key=lambda i: won[i])
        order = list(dict.fromkeys(i for pair in zip(best, promising, strict=True) for i in pair))
        most = max(4, width // 2)
    chosen: dict[str, tuple[str, int, int, Change]] = {}
    counts: dict[tuple[int, int], int] = {}
    spare = []
    for i in order:
        if len(chosen) >= width:
            break
        node, place, _ = frontier.options[i]
        if counts.get((node, place), 0) >= most:
            spare.append(i)
            continue
        if _take(frontier, i, chosen):
            counts[node, place] = counts.get((node, place), 0) + 1
    for i in spare:
        if len(chosen) >= width:
            break
        _take(frontier, i, chosen)
    return list(chosen.values())


def _take(frontier: _Frontier, i: int, chosen: dict[str, tuple[str, int, int, Change]]) -> bool:
    """Add option ``i`` to those chosen, unless its text is there, was tried or is the original."""
    node, place, change = frontier.options[i]
    text = change.apply(frontier.nodes[node].text)
    if text in chosen or text in frontier.tried or text == frontier.row.text or not text.strip():
        return False
    chosen[text] = (text, node, place, change)
    return True


def _confirm(
    asker: Asker, frontier: _Frontier, wrong: Sequence[str], attack: TextAttack, depth: int
) -> tuple[Broken | None, int]:
    """Give the admitted text of the least margin that is wrong alone as well, and how many were right alone.

    A text that wins by what it pushes out of the classifier's window is taken where no other of those tried wins.
    """
    if not wrong:
        return None, 0
    row, doubts = frontier.row, 0
    ordered = sorted(wrong, key=lambda text: (frontier.tried[text][0], text))
    admitted = [text for text, ok in zip(ordered, attack.admits(row.row, ordered), strict=True) if ok]
    pushing: Broken | None = None
    for text in admitted[:TRIALS]:
        holds, prediction = asker.alone(row.with_text(text), row.label)
        if holds:
            doubts += 1
        elif not _pushes_out(asker, frontier, text):
            return Broken(text, depth, prediction), doubts
        else:
            pushing = pushing or Broken(text, depth, prediction, pushed_out=True)
    return pushing, doubts


def _pushes_out(asker: Asker, frontier: _Frontier, text: str) -> bool:
    """Tell if what a change pushes out of the classifier's window breaks the row by itself.

    The original is classified without the part of it that is read no more.
    """
    row, (_, number, change) = frontier.row, frontier.tried[text]
    texts = row.with_text(text)
    seen = [asker.target.seen(texts, column) for column in range(len(texts))]
    lost = moved(frontier.nodes[number].end, change) - seen[row.column]
    rest = list(row.texts)
    if lost > 0:
        rest[row.column] = row.text[: max(0, _end(row) - lost)]
    for column, old in enumerate(row.texts):
        if column != row.column and seen[column] < asker.target.seen(row.texts, column):
            rest[column] = old[: seen[column]]
    return tuple(rest) != row.texts and not asker.alone(tuple(rest), row.label)[0]


def _end(row: Attacked) -> int:
    """End of the part of a row's text that is read, without the white space there."""
    return len(row.text[: row.seen].rstrip())


def _survivors(frontier: _Frontier, attack: TextAttack, beam: int) -> list[Node]:
    """The ``beam`` tried texts of the least margins that are admitted."""
    ordered = sorted(frontier.tried, key=lambda text: frontier.tried[text][0])
    nodes: list[Node] = []
    for first in range(0, len(ordered), beam):
        texts = ordered[first : first + beam]
        for text, ok in zip(texts, attack.admits(frontier.row.row, texts), strict=True):
            if ok and len(nodes) < beam:
                margin, number, change = frontier.tried[text]
                node = frontier.nodes[number]
                locked = shifted(node.locked, change) + attack.locks(node, change)
                nodes.append(Node(text, margin, node.label, locked, moved(node.end, change)))
        if len(nodes) == beam:
            break
    return nodes
