"""Runs on texts: their rows, the encoder that they start from, and how it is measured."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from contraverse.data import Task, TextData, TextSplits, any_task, get_task, load_splits
from contraverse.data.encoding import in_order_of
from contraverse.data.files import is_local
from contraverse.data.mixture import find_parts
from contraverse.errors import UserError
from contraverse.evaluation import STS_ON_HUB, StsbDev, StsSources, find_sts
from contraverse.evaluation.sts_sets import HUB
from contraverse.models import TextModel
from contraverse.models.adapters import describe
from contraverse.models.backbones import is_backbone
from contraverse.models.folders import SETTINGS
from contraverse.models.loading import Origin, classes_of, commit_of, load_config
from contraverse.models.normalizing import harden, harden_tokenizer, is_hardened
from contraverse.models.opening import listed, open_model
from contraverse.models.st_folder import MARKS, Modules, read_modules
from contraverse.noise import NoiseMixture
from contraverse.pipeline.evasion import evasion_progress_total, evasion_rows, measure_evasion
from contraverse.pipeline.measure import measure_shift, measure_sts, progress_total
from contraverse.pipeline.noise import measure_noise, measure_noise_sts, noise_progress_total, noise_settings
from contraverse.pipeline.result import Counting, Say
from contraverse.pipeline.steps import Steps
from contraverse.recipes import ModelConfig, RunConfig
from contraverse.types import HeadSpec

_TOKENIZED = 20_000
"""Rows that are tokenized for `token_notes`."""


class TextSteps(Steps[TextSplits, TextModel]):
    """Steps of a run on texts."""

    def rows_on_hub(self) -> list[str]:
        source, task = self.config.data.source, any_task(self.config.task)
        parts = None if source is None or isinstance(source, str) else find_parts(source)
        if parts is None:
            if isinstance(source, str):
                return [] if is_local(source) else [source]
            return hub_names(task) if source is None else []
        names = list[str]()
        for part in (part for listed_parts in parts.values() for part in listed_parts):
            if part.source is None:
                names += hub_names(any_task(part.task) if part.task else task)
            elif not is_local(str(part.source)):
                names.append(str(part.source))
        return list(dict.fromkeys(names))

    def model_on_hub(self) -> bool:
        name = self.config.model.name
        return name != "minilm" and not is_local(name) and not is_backbone(name)

    @property
    def _measures_sts(self) -> bool:
        return not self.supervised and self.config.evaluation.sts is not None

    @property
    def sts_on_hub(self) -> list[str]:
        on_hub = self._measures_sts and self.config.evaluation.sts == HUB and not Path(HUB).exists()
        return list(STS_ON_HUB.values()) if on_hub else []

    @cached_property
    def sts(self) -> StsSources | None:
        if not self._measures_sts:
            return None
        try:
            return find_sts(str(self.config.evaluation.sts))
        except UserError as error:
            raise UserError(error.what, where=f"evaluation.sts: {error.where}", hint=error.hint) from error

    def load(self) -> TextSplits:
        splits = load_splits(get_task(self.config.task), **self.config.data.where())
        if self.noise is not None:
            splits.notes.append(self.noise.describe(self.method.text_views))
        return splits

    @property
    def noise(self) -> NoiseMixture | None:
        return self.config.data.mixture(self.config.train.arguments.get("seed", 42))

    def check_rows(self, splits: TextSplits) -> None:
        recipe, train = self.config.recipe, splits.need("train")
        if self.supervised and train.labels is None:
            hint = "name the column with --label, or train without labels: simcse, uscal"
            raise UserError(f"{recipe} needs labels, and the training rows have none", hint=hint)
        if self.method.requires == "pairs" and len(train.columns) < 2:
            hint = "give a file with a column of anchors and one of positives, as the task nli"
            raise UserError(f"{recipe} needs pairs of sentences", hint=hint)

    def drop_labels(self, splits: TextSplits) -> None:
        if splits.need("train").labels is None:
            return
        splits.train = replace(splits.need("train"), labels=None, label_names=None)
        splits.task = _without_labels(splits.task)
        splits.notes.append(f"{self.config.method.name} does not use the labels of {self.config.task}")

    def row_bytes(self, data: TextData) -> Iterator[bytes]:
        for row in data.texts:
            for text in row:
                encoded = text.encode("utf-8", "surrogatepass")
                yield len(encoded).to_bytes(8, "little")
                yield encoded
        if data.repeats is not None:
            yield np.asarray(data.repeats, dtype=np.int64).tobytes()

    def init_model(self, splits: TextSplits) -> tuple[TextModel, list[str]]:
        labels, settings = self.class_names(splits), self.config.model
        model, notes = init_text_model(settings, labels, self.method.heads)
        if self.needs_own_teacher():
            classes = classes_of(load_config(origin_of(settings))) if settings.name != "minilm" else None
            if classes != labels:
                raise self.no_teacher(listed(labels or ()))
        # Without weights of its own, and refused by a model that has no pooler: better now than when a run has begun.
        model.add_heads({name: spec for name, spec in self.method.heads.items() if spec.kind == "pooler"})
        notes += describe(model)
        for split, rows in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
            if rows is not None:
                notes += token_notes(model, rows, name=split)
        return model, notes

    def check_model(self) -> None:
        init_text_model(self.config.model, None, {})

    def pin(self) -> RunConfig:
        return pinned(self.config)

    def source_columns(self, splits: TextSplits) -> dict[str, Any]:
        read_from = splits.read_from._asdict() if splits.read_from else None
        return {"columns": len(splits.need("train").columns), "read_from": read_from}

    def measure(
        self, splits: TextSplits, model: TextModel, *, say: Say, counting: Counting, test: bool
    ) -> dict[str, Any]:
        if model.labels is not None:
            measured = self.measure_classifier(splits, model, say=say, counting=counting)
            rows = splits.need(measured["split"])
            measured |= self._measure_noise(splits, model, rows, say=say, counting=counting)
            measured |= self._measure_evasion(model, rows, measured.get("right"), say=say, counting=counting)
            return measured | self._measure_hardened(splits, model, rows, say=say, counting=counting)
        return self._measure_encoder(splits, model, say=say, counting=counting, test=test)

    def _measure_noise(
        self, splits: TextSplits, model: TextModel, rows: TextData, *, say: Say, counting: Counting
    ) -> dict[str, Any]:
        """Measure a classifier under the noise that the configuration names; nothing without any."""
        settings, seed = self.config.evaluation, self.config.data.seed
        if not settings.noise:
            return {}
        say(f"Measuring under noise: {', '.join(settings.noise)}")
        with counting("Noise", noise_progress_total(len(rows), settings, seed)) as progress:
            return measure_noise(model, rows, splits.task, settings, seed=seed, train=splits.train, progress=progress)

    def _measure_evasion(
        self, model: TextModel, rows: TextData, right: Mapping[str, str] | None, *, say: Say, counting: Counting
    ) -> dict[str, Any]:
        """Attack a classifier's texts as texts where the configuration names attacks; nothing where it names none.

        ``right``: rows that were right in what was measured before, to which those of the attacks are added.
        """
        settings, seed = self.config.evaluation, self.config.data.seed
        if not settings.evasion or len(model.labels or ()) < 2:
            return {}
        count = evasion_rows(len(rows), settings)
        say(f"Attacking {count:,} texts as texts: {', '.join(settings.evasion)}")
        with counting("Attacking", evasion_progress_total(len(rows), settings)) as progress:
            reports = measure_evasion(model, rows, settings, seed=seed, progress=progress)
        held = {name: packed for report in reports.values() for name, packed in report.right.items()}
        return {
            "evasion": {name: report.to_dict() for name, report in reports.items()},
            "right": {**(right or {}), **held},
        }

    def _measure_hardened(
        self, splits: TextSplits, model: TextModel, rows: TextData, *, say: Say, counting: Counting
    ) -> dict[str, Any]:
        """Measure noise and the attack ``unicode`` again after `harden`, which nothing else can change.

        ``model`` is left as it was; one that is hardened already is not measured twice.
        """
        settings, plain = self.config.evaluation, model.tokenizer
        if not settings.hardened or is_hardened(plain):
            return {}
        say("Measuring once more with a tokenizer that undoes look-alikes")
        unicode = [name for name in settings.evasion if name == "unicode"]
        steps = type(self)(
            self.config.model_copy(update={"evaluation": settings.model_copy(update={"evasion": unicode})})
        )
        model.tokenizer = harden_tokenizer(plain, model.encoder.config)
        try:
            measured = steps._measure_noise(splits, model, rows, say=say, counting=counting)
            measured |= steps._measure_evasion(model, rows, None, say=say, counting=counting)
        finally:
            model.tokenizer = plain
        return {"hardened": measured}

    def _measure_encoder(
        self, splits: TextSplits, model: TextModel, *, say: Say, counting: Counting, test: bool
    ) -> dict[str, Any]:
        """Measure on the STS sets and, on request, how far an attack moves sentences of the run's own rows."""
        settings, sts = self.config.evaluation, self.sts
        measured: dict[str, Any] = {"split": "none", "metrics": {}}
        if sts is not None and sts.test and test:
            say(f"Measuring on the STS sets {', '.join(sts.test)}")
            measured = {"split": "test", **measure_sts(model, sts)}
            if settings.noise:
                say(f"Measuring under noise: {', '.join(settings.noise)}")
                seed, pairs = self.config.data.seed, sum(len(part.pairs) for part in sts.test.values())
                with counting("Noise", noise_settings(settings, seed).progress_total(pairs)) as progress:
                    measured |= measure_noise_sts(model, sts, settings, seed=seed, progress=progress)
        elif sts is not None and sts.dev is not None:
            measured = {"split": "validation", "metrics": StsbDev(sts.dev)(model)}
        rows = splits.test or splits.validation or splits.train
        if settings.shift and settings.epsilons and rows is not None:
            sentences = TextData.from_rows([texts[0] for texts in rows.texts])
            say(f"Measuring how far an attack moves {min(settings.rows or len(rows), len(rows)):,} sentences")
            with counting("Measuring", progress_total(model, len(sentences), settings)) as progress:
                moved = measure_shift(model, sentences, settings, seed=self.config.data.seed, progress=progress)
            measured["shift"] = moved["shift"]
        return measured


def hub_names(task: Any) -> list[str]:
    """Names of the task's data set on the Hub; empty where it has none, as one that comes with a package."""
    return [":".join(filter(None, task.hub))] if task.hub else []


def _without_labels(task: Task) -> Task:
    """``task`` as one of plain sentences."""
    like = get_task("sentences")
    return replace(
        task,
        kind=like.kind,
        label=None,
        labels=None,
        metrics=like.metrics,
        metric=like.metric,
    )


def init_text_model(
    settings: ModelConfig, labels: Sequence[str] | None, heads: Mapping[str, HeadSpec]
) -> tuple[TextModel, list[str]]:
    """Build the model that training starts from, and notes for the user.

    From a model that was trained before come the encoder; the classifier, in its own order of classes, if they are
    ``labels`` (the trainer matches them with the rows'); and those of its heads that are among ``heads``, of the same
    kind and size. Everything else is drawn at random.

    Raises:
        UserError: no such model, or a number of layers that it does not have.
    """
    folder = Path(settings.name)
    if not folder.exists() and is_backbone(settings.name):
        raise UserError(f"{settings.name} reads images, and this is a task of texts", where="model.name")
    trained_here, notes = (folder / SETTINGS).is_file(), list[str]()
    modules = None
    if not trained_here and any((folder / mark).is_file() for mark in MARKS):
        try:
            modules = read_modules(folder)
        except UserError as error:
            notes.append(f"{error.where} {error.what}: training starts from the network alone")
    origin = origin_of(settings) if modules is None else replace(origin_of(settings), name=str(modules.encoder))
    model = open_model(
        TextModel,
        origin,
        labels if labels is None else in_order_of(labels, classes_of(load_config(origin))),
        # A recipe's cls is the token that stands for the text: in a decoder, the last.
        pooling=None if settings.pooling == "cls" else settings.pooling,
        embedding=settings.embedding,
        max_length=settings.max_length,
        keep_layers=settings.keep_layers,
        reinit_layers=settings.reinit_layers,
        peft=settings.peft,
    )
    notes += model.notes
    if settings.normalize is not None:
        harden(model)
    if model.pooling != settings.pooling:
        notes.append(f"{settings.name} reads from left to right: pooling {model.pooling}, not {settings.pooling}")
    if trained_here:
        trained = TextModel.load(folder, trust_remote_code=settings.trust_remote_code)
        if trained.pooling != model.pooling:
            notes.append(
                f"{settings.name} was trained with pooling {trained.pooling}, and goes on with {model.pooling}"
            )
        _take_heads(model, trained, heads)
    if modules is not None:
        notes += _unused_modules(modules, settings.name, model.pooling)
    return model, notes


def origin_of(settings: ModelConfig) -> Origin:
    """Name and conditions under which the configured model is loaded."""
    return Origin(**{name: getattr(settings, name) for name in Origin.__dataclass_fields__})


def pinned(config: RunConfig) -> RunConfig:
    """Return ``config`` with the commit of the Hub model that was just loaded; unchanged for any other model."""
    commit = commit_of(origin_of(config.model))
    if commit is None:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"revision": commit})})


def _unused_modules(modules: Modules, name: str, pooling: str) -> list[str]:
    """Note the parts of a sentence-transformers folder that training does not go on with."""
    notes = []
    if modules.pooling != pooling:
        notes.append(f"{name} was trained with pooling {modules.pooling}, and goes on with {pooling}")
    left: list[str] = [spec.kind for spec in modules.specs if spec.kind != "normalize"]
    left += [f"the prompt {modules.default_prompt!r}"] if modules.default_prompt else []
    if left:
        notes.append(f"{name}: training goes on without {' and '.join(left)}")
    return notes


def _take_heads(model: TextModel, trained: TextModel, heads: Mapping[str, HeadSpec]) -> None:
    fitting = {
        name: spec
        for name, spec in heads.items()
        if trained.head_specs.get(name) == spec
        and (trained.width, trained.embedding_shape) == (model.width, model.embedding_shape)
    }
    model.add_heads(fitting)
    for name in fitting:
        model.heads[name].load_state_dict(trained.heads[name].state_dict())


def token_notes(model: TextModel, data: TextData, *, name: str = "", max_length: int | None = None) -> list[str]:
    """Note how many rows are cut, and how many words the tokenizer does not know; none where all is well.

    Of more than 20,000 rows as many are tokenized, evenly spread.

    Args:
        model: reads the rows.
        data: the rows.
        name: of the split, put before each note.
        max_length: tokens at which a row is cut; None for the model's own.
    """
    texts = data.texts
    if len(texts) > _TOKENIZED:
        texts = [texts[i] for i in np.linspace(0, len(texts) - 1, _TOKENIZED).astype(int)]
        name = f"{name or 'texts'}, a sample of {len(data):,}"
    return [f"{name}: {note}" if name else note for note in model.token_report(texts, max_length).notes]
