"""Classifiers under attack: a model of ours or a stranger's, or any function from texts to scores or labels."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contraverse.attacks import Objective
from contraverse.attacks.objective import input_gradient
from contraverse.data import EncodedText, TextData
from contraverse.errors import UserError
from contraverse.evaluation.adversaries.rewriting import check_fast
from contraverse.evaluation.attack_loop import frozen
from contraverse.evaluation.predict import logits_of, map_batches
from contraverse.evasion.changes import Change, Span, chunk_around
from contraverse.functional import all_parts, my_share
from contraverse.models import TextModel, evaluating
from contraverse.types import Batch

FUSION = 20
"""Constant of reciprocal rank fusion: the larger, the less the first ranks count for."""

Access = Literal["gradients", "scores", "labels"]
Texts = tuple[str, ...]
"""The texts of one row: one, or two of a pair."""
Predict = Callable[[list[Any]], Any]
"""From texts (strings, or tuples of a pair's) to scores (N, C), or to class ids (N,) where labels alone are known."""


class Gradients(NamedTuple):
    """First-order effect of the tokens of one text on the margin.

    ``spans``: (T, 2) int64, where in the attacked text each token stands; (0, 0) of others. ``gradient``: (T, D) of
    the margin with respect to the word embeddings. ``ids``: (T,) int64.
    """

    spans: np.ndarray
    gradient: Tensor
    ids: Tensor


class Target(Protocol):
    """A classifier that can be asked for scores; with gradients where it gives them."""

    labels: list[str]
    access: Access

    def scores(self, rows: Sequence[Texts]) -> np.ndarray:
        """Give logits or log-probabilities (N, C), float32, in order."""
        ...

    def seen(self, row: Texts, column: int) -> int:
        """Give how many code points of one of the row's texts the classifier reads before it cuts."""
        ...


class ModelTarget:
    """A `TextModel` with classes, in eval mode, without parameters' gradients.

    Texts whose tokens are equal, as letters of another case are to an uncased tokenizer, share one forward pass.

    Args:
        model: the classifier.
        access: what the attack may use of it.
        batch_size: texts a batch, >= 1.

    Raises:
        UserError: the model is a regression or a sentence encoder, or its tokenizer cannot tell places.
    """

    def __init__(self, model: TextModel, access: Access = "gradients", batch_size: int = 64) -> None:
        if model.labels is None or len(model.labels) < 2:
            kind = "a sentence encoder" if model.labels is None else "a regression"
            raise UserError(f"evasion is of classifiers, and this model is {kind}", hint="take a model with classes")
        check_fast(model.tokenizer)
        self.model, self.access, self.batch_size = model, access, batch_size
        self.labels = list(model.labels)
        self._pieces: dict[str, list[int]] = {}

    def scores(self, rows: Sequence[Texts]) -> np.ndarray:
        """Give logits (N, C); see `Target`. In the form of labels alone where that is the access."""
        data = TextData.from_rows(list(rows))
        encoded = EncodedText(data, self.model.tokenizer, self.model.max_length)
        firsts: dict[tuple[int, ...], int] = {}
        place = []
        for i in range(len(encoded)):
            item = encoded[i]
            place.append(firsts.setdefault((*item["input_ids"], -1, *item.get("token_type_ids", ())), i))
        asked = np.array(sorted(firsts.values()))
        logits = np.zeros((len(encoded), len(self.labels)), dtype=np.float32)

        def answer(rows: np.ndarray, batch: Batch) -> np.ndarray:
            return logits_of(self.model, batch).cpu().numpy()

        with evaluating(self.model), torch.no_grad():
            for chosen, scores in map_batches(self.model, encoded, asked, self.batch_size, answer):
                logits[chosen] = scores
        logits = logits[place]
        return _one_hot(logits.argmax(1), len(self.labels)) if self.access == "labels" else logits

    def seen(self, row: Texts, column: int) -> int:
        """Give the end of the last token of that text before the cut."""
        encoded = self.model.tokenizer(
            *row, truncation=True, max_length=self.model.max_length, return_offsets_mapping=True, verbose=False
        )
        owners = encoded.sequence_ids(0)
        spans = zip(encoded["offset_mapping"], owners, strict=True)
        end = max((end for (_, end), owner in spans if owner == column), default=0)
        cut = len(encoded["input_ids"]) >= self.model.max_length
        return end if cut else len(row[column])

    def gradients(self, rows: Sequence[Texts], column: int, margins: Callable[[Tensor, Tensor], Tensor],
                  labels: np.ndarray) -> list[Gradients]:  # fmt: skip
        """Give for each row the gradient of its margin at the tokens of one of its texts.

        Args:
            rows: texts.
            column: which of a row's texts is attacked.
            margins: from logits (B, C) and labels (B,) to margins (B,).
            labels: (N,) class ids.
        """
        model, results = self.model, dict[int, Gradients]()
        order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
        shares = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        with evaluating(model), frozen(model):
            for chosen in my_share(shares):
                columns = [[rows[i][c] for i in chosen] for c in range(len(rows[0]))]
                encoded = model.tokenizer(
                    *columns, truncation=True, max_length=model.max_length, padding=True,
                    return_offsets_mapping=True, return_tensors="pt", verbose=False,
                )  # fmt: skip
                offsets = encoded.pop("offset_mapping").numpy()
                batch = {name: value.to(model.device) for name, value in encoded.items()}
                gold = torch.from_numpy(labels[chosen]).to(model.device)
                grad = self._gradient(batch, gold, margins).cpu()
                ids = batch["input_ids"].cpu()
                for k, i in enumerate(chosen):
                    mine = np.array([owner == column for owner in encoded.sequence_ids(k)])
                    results[i] = Gradients(offsets[k] * mine[:, None], grad[k], ids[k])
        whole = dict(all_parts(list(results.items())))
        return [whole[i] for i in range(len(rows))]

    def _gradient(self, batch: dict[str, Tensor], gold: Tensor, margins: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            inputs = self.model(batch, want=("inputs",)).inputs
        assert inputs is not None
        delta = torch.zeros_like(inputs.values, requires_grad=True)
        logits = logits_of(self.model, batch, delta)
        return input_gradient(Objective(margins(logits, gold), logits), delta).float()

    def saliency(self, at: Gradients) -> np.ndarray:
        """Give the first-order effect (T,) of leaving out each token, without its sign."""
        table = self.model.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        words = table[at.ids.to(table.device)].detach().float().cpu()
        return np.asarray((at.gradient * words).sum(1).abs().numpy())

    def estimates(self, text: str, changes: Sequence[Change], at: Gradients) -> np.ndarray:
        """Give the first-order change of the margin (N,) by each change: HotFlip's, of the chunk that it lies in.

        A change of a letter changes all tokens of its word and often their number. So the gradient is averaged over the
        chunk's tokens, and multiplied by the mean of the new chunk's embeddings less that of the old one's.
        """
        return self._effects(text, changes, at)[0]

    def promise(self, text: str, changes: Sequence[Change], at: Gradients) -> np.ndarray:
        """Give a number (N,) for each change, the smaller the more it promises.

        First-order estimates are poor guides where a word falls into other pieces. Three rankings are fused by their
        reciprocal ranks (Cormack et al., 2009): by `estimates`, by the same of the chunk's first token alone, which
        tokenizers make as long as they can, and by the number of tokens, of which a word that they know has few.
        """
        mean, first, counts = self._effects(text, changes, at)
        orders = (np.lexsort((mean, key)) for key in (mean, first, counts))
        ranks = np.stack([order.argsort() for order in orders])  # (3, N)
        return np.asarray(-(1 / (FUSION + ranks)).sum(0))

    def _effects(
        self, text: str, changes: Sequence[Change], at: Gradients
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Effects of the mean and of the first token of each changed chunk, and its number of tokens, (N,) each."""
        chunks = [chunk_around(text, change) for change in changes]
        news = [_within(text, change, chunk) for change, chunk in zip(changes, chunks, strict=True)]
        self._tokenise(dict.fromkeys(news))
        table = self.model.encoder.get_input_embeddings().weight
        assert isinstance(table, Tensor)
        old: dict[Span, tuple[Tensor, float]] = {}
        for chunk in dict.fromkeys(chunks):
            inside = torch.from_numpy((at.spans[:, 0] < chunk.end) & (at.spans[:, 1] > chunk.start))
            gradient = at.gradient[inside]
            if not len(gradient):  # white space alone, or beyond the cut
                inside = torch.from_numpy(np.abs(at.spans[:, 1] - chunk.start) <= 1) & torch.from_numpy(at.spans.any(1))
                old[chunk] = at.gradient[inside].sum(0) / max(1, int(inside.sum())), 0.0
                continue
            before = table[at.ids[inside].to(table.device)].detach().float().cpu()
            old[chunk] = gradient.mean(0), float(gradient.mean(0) @ before.mean(0))
        means, firsts = self._embeddings(news, table)
        gradients = torch.stack([old[chunk][0] for chunk in chunks])  # (N, D)
        constant = np.array([old[chunk][1] for chunk in chunks])
        counts = np.array([len(self._pieces[new]) for new in news])
        effects = [(gradients * rows).sum(1).numpy() - constant for rows in (means, firsts)]
        return effects[0], effects[1], counts

    def _tokenise(self, texts: dict[str, None]) -> None:
        unknown = [text for text in texts if text not in self._pieces]
        if len(self._pieces) + len(unknown) > 500_000:
            self._pieces.clear()
            unknown = list(texts)
        if unknown:
            ids = self.model.tokenizer(unknown, add_special_tokens=False, return_attention_mask=False, verbose=False)
            self._pieces.update(zip(unknown, ids["input_ids"], strict=True))

    def _embeddings(self, texts: Sequence[str], table: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, D) of the word embeddings of each text's tokens, and that of its first token; 0 of no tokens."""
        pieces = [self._pieces[text] for text in texts]
        parts = []
        for chosen in (pieces, [ids[:1] for ids in pieces]):
            flat = torch.tensor([token for ids in chosen for token in ids], dtype=torch.long, device=table.device)
            if not len(flat):
                parts.append(torch.zeros(len(texts), table.shape[1]))
                continue
            starts = np.concatenate([[0], np.cumsum([len(ids) for ids in chosen])[:-1]])
            offsets = torch.from_numpy(starts.astype(np.int64)).to(table.device)
            parts.append(F.embedding_bag(flat, table.detach().float(), offsets, mode="mean").cpu())
        return parts[0], parts[1]


class FunctionTarget:
    """Any function from texts to scores or to labels: no gradients, no tokenizer.

    Args:
        predict: called with a list of strings, or of tuples for pairs; gives scores (N, C), or class ids (N,) or
            names where ``access`` is labels. Scores that are probabilities (rows of numbers of at least 0 that add up
            to 1) are taken as their logarithms. The same text must get the same answer.
        labels: names of the classes, in the order of the scores.
        access: ``"scores"`` or ``"labels"``.

    Raises:
        UserError: fewer than two classes, or gradients are asked for.
    """

    def __init__(self, predict: Predict, labels: Sequence[str], access: Access = "scores") -> None:
        if access == "gradients":
            raise UserError("a function gives no gradients", hint="attack by scores or labels")
        if len(labels) < 2:
            raise UserError("evasion is of classifiers, and a classifier has two classes or more")
        self.predict, self.labels = predict, list(labels)
        self.access: Access = access
        self._probabilities: bool | None = None

    def scores(self, rows: Sequence[Texts]) -> np.ndarray:
        """Give scores (N, C) of each row's texts; see `Target`.

        Raises:
            UserError: the function gives another shape, or values that are not finite.
        """
        answer = self.predict([row[0] if len(row) == 1 else row for row in rows])
        try:
            answer = np.asarray(answer if self.access == "labels" else np.asarray(answer, dtype=np.float32))
        except (ValueError, TypeError, RuntimeError) as error:
            raise UserError(f"predict gives nothing that is an array of numbers: {error}") from error
        if self.access == "labels":
            if answer.dtype.kind in "USO":
                names = [str(name) for name in answer]
                if unknown := next((name for name in names if name not in self.labels), None):
                    raise UserError(f"predict gives {unknown!r}, which is no class of {', '.join(self.labels)}")
                answer = np.array([self.labels.index(name) for name in names])
            if answer.shape == (len(rows), len(self.labels)):
                answer = answer.argmax(1)
            if answer.shape != (len(rows),) or not np.isin(answer, range(len(self.labels))).all():
                raise UserError(f"predict gives {answer.shape}, not a class of {len(self.labels)} for each text")
            return _one_hot(answer.astype(int), len(self.labels))
        if answer.shape != (len(rows), len(self.labels)) or not np.isfinite(answer).all():
            wanted = (len(rows), len(self.labels))
            raise UserError(f"predict gives {answer.shape}, not finite scores of the shape {wanted}")
        if self._probabilities is None:  # decided once: of one text by itself, scores could look like it by chance
            self._probabilities = bool((answer >= 0).all() and np.allclose(answer.sum(1), 1, atol=1e-3))
        if self._probabilities:
            return np.log(np.maximum(answer, np.finfo(np.float32).tiny))
        return answer

    def seen(self, row: Texts, column: int) -> int:
        """Give all of the text: where a function cuts is unknown."""
        return len(row[column])


def _within(text: str, change: Change, chunk: Span) -> str:
    """The chunk after the change; after a space where one stood before, for tokenizers to which that matters."""
    new = text[chunk.start : change.start] + change.new + text[change.end : chunk.end]
    return f" {new}" if chunk.start and text[chunk.start - 1].isspace() else new


def _one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes]
