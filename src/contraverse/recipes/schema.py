"""Configuration of a run: typed, frozen sections, and how settings are laid over settings."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from contraverse.attacks.table import AttackConfig
from contraverse.errors import UserError
from contraverse.noise import NoiseMixture, parse_kinds
from contraverse.noise.keep import parse_phrases
from contraverse.recipes import notation
from contraverse.units import Number


class Section(BaseModel):
    """A part of a configuration: frozen, and without names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class MethodConfig(Section):
    """A training method by its name in `contraverse.methods.METHODS`, and its settings beside the name.

    The settings are those of the method's constructor: `contraverse.recipes.schemaure` checks them and fills in
    the ones left out.
    """

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the method's constructor."""
        return dict(self.model_extra or {})


class ModelConfig(Section):
    """The encoder that training starts from.

    ``name``: ``minilm`` (bundled), a folder, or a name on the Hugging Face Hub. ``pooling``: see
    `contraverse.models.encoding.pool`; ``cls`` of a decoder is its last token. ``embedding``: whether a sentence
    encoder gives the pooled features ``h``, the projected ``z``, or the mean of IS-BERT's ``ngrams``. ``keep_layers``:
    use only the lower k layers; ``reinit_layers``: draw the last n of these anew. Both make a start from which there
    is more to learn. ``peft``: train adapters in place of the encoder's weights, ``lora`` or ``{type: lora, r: 8}``
    (`contraverse.models.adapters`). ``dtype``: of the weights; ``attn_implementation``: transformers' name of an
    attention. ``revision``: branch, tag or commit on the Hub; a run writes the commit that it found. ``token``: for a
    private repository; it is written nowhere, so that a resumed run is given it again (or finds it in ``HF_TOKEN``).
    ``trust_remote_code``: run the Python files that come with the model. ``normalize``: ``unicode`` undoes look-alikes,
    invisible characters and full-width letters in the tokenizer, which is saved so; None leaves the tokenizer as it is.
    """

    name: str = "minilm"
    pooling: Literal["cls", "last", "mean", "max", "mean-sqrt-len", "weighted-mean", "first-last", "last-two"] = "cls"
    embedding: Literal["h", "z", "ngrams"] = "h"
    max_length: int = Field(default=128, ge=3, description="tokens a text is cut to, special ones included")
    keep_layers: int | None = Field(default=None, ge=1)
    reinit_layers: int = Field(default=0, ge=0)
    peft: str | dict[str, Any] | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    revision: str | None = None
    token: str | None = Field(default=None, exclude=True, repr=False)
    trust_remote_code: bool = False
    normalize: Literal["unicode"] | None = None


class NoiseConfig(Section):
    """Noise on training texts: see `contraverse.noise.NoiseMixture`.

    ``kinds``: names of kinds, or ``all``; each row gets one of them, at one of ``strengths`` (1 to 5). ``share``:
    probability that a row gets noise in an epoch, None for a half where the noisy text takes the place of the clean
    one, and 1 where it is a second view. ``data.noise=all`` or ``data.noise=[keyboard,swap]`` is short for the kinds.
    """

    kinds: list[str]
    strengths: list[Annotated[int, Field(ge=1, le=5)]] = Field(default=[1, 2, 3], min_length=1)
    share: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _check_short_form(cls, written: Any) -> Any:
        return {"kinds": written} if isinstance(written, str | list) else written

    @field_validator("kinds", mode="before")
    @classmethod
    def _check_kinds(cls, written: Any) -> Any:
        return parse_kinds(written) if isinstance(written, str | list) else written


class DataConfig(Section):
    """Source of the rows.

    ``source``: a file or folder, files by split (train, validation, test), None for the task's own set on the Hub; a
    list of sources with tasks and weights of their own is mixed, as `contraverse.data.mixture` says.
    ``text`` and ``label``: columns, None to take the task's or find them. ``seed`` draws the validation rows
    (``validation_fraction`` of the training rows, where the source has none) and all that is drawn below: it is not
    the seed of training, so that runs with different seeds see the same rows.

    ``rows``: ``paper`` draws as many rows of each class as the task's paper does. ``train_rows``, ``validation_rows``
    and ``test_rows`` keep so many rows of a split, each class in its share. ``adversaries``: a file of ``contraverse
    adversaries``, added to the training rows alone. ``delimiter``, ``encoding``, ``cache``: see `load_splits`.

    ``noise``: of training texts, drawn anew each epoch by the seed of training; None for none. ``noise_except``: kinds
    that are left out of it, so that a model can be measured under noise that it was not trained on.
    """

    source: str | list[Any] | dict[str, Any] | None = None
    text: str | list[str] | None = None
    label: str | None = None
    seed: int = Field(default=42, ge=0)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    rows: Literal["all", "paper"] = "all"
    train_rows: int | None = Field(default=None, ge=1)
    validation_rows: int | None = Field(default=None, ge=1)
    test_rows: int | None = Field(default=None, ge=1)
    adversaries: str | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    delimiter: str | None = None
    encoding: str | None = None
    cache: str = "auto"
    noise: NoiseConfig | None = None
    noise_except: list[str] = []

    def where(self) -> dict[str, Any]:
        """Arguments of `contraverse.data.load_splits`: the source and its rows, without the noise of training."""
        return self.model_dump(exclude={"noise", "noise_except"})

    @field_validator("noise_except", mode="before")
    @classmethod
    def _check_noise_except(cls, written: Any) -> Any:
        return parse_kinds(written) if written and isinstance(written, str | list) else written

    @model_validator(mode="after")
    def _check_noise(self) -> "DataConfig":
        if self.noise_except and self.noise is None:
            message, hint = "holds kinds out of the training noise, and there is none", "set data.noise=all as well"
            raise UserError(message, where="data.noise_except", hint=hint)
        if self.noise is not None and not set(self.noise.kinds) - set(self.noise_except):
            raise UserError("holds every kind of data.noise out", where="data.noise_except")
        return self

    def mixture(self, seed: int) -> NoiseMixture | None:
        """Noise of training with seed ``seed``, without the kinds that are held out; None without noise."""
        if self.noise is None:
            return None
        kinds = [kind for kind in self.noise.kinds if kind not in self.noise_except]
        return NoiseMixture(kinds, self.noise.strengths, self.noise.share, seed)

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, source: Any) -> Any:
        if source is not None and not isinstance(source, str):
            from contraverse.data.mixture import find_parts  # loads torch, which a plain source does without

            find_parts(source)
        return source


class EvaluationConfig(AttackConfig, Section):
    """Evaluation of the trained model.

    ``epsilons``: radii of the attack on a classifier's word embeddings, none for no attack. The settings
    of the attack are those of `contraverse.attacks.AttackConfig`. ``rows``: attack at most so many test
    rows, drawn by ``data.seed``. ``robust_validation``: attack the validation rows, too, whenever they are evaluated,
    at the first of ``epsilons``: ``robust_accuracy`` is logged, and chooses the best checkpoint where
    ``train.metric_for_best_model`` names it. ``shift``: measure also how far the attack moves a text's representation.
    ``diagnostics``: try the attack itself on a few rows, and warn where it is not to be believed; a number says on how
    many. ``sts``: what a sentence encoder is measured on, a folder with STS sets or pairs of one's own, a file of
    pairs, or ``hub`` (`contraverse.evaluation.find_sts`). ``split``: the rows that are measured, where there are test
    rows with labels: papers report GLUE on validation rows. ``noise``: kinds of noise on texts that the model is
    measured under, or ``all``; none for no noise. ``noise_strengths``, ``noise_draws`` and ``noise_side``: see
    `contraverse.evaluation.NoiseSettings`. ``positive``: class that a detector is to find
    (`contraverse.evaluation.detection`), and its recall under noise. ``false_positive_rate``: percent of the other
    rows that may be detected; a run chooses the threshold for it on validation rows and saves it with the model.
    ``evasion``: attacks on a classifier's texts as texts (`contraverse.evasion.BUDGETS`), or ``standard`` for all.
    ``evasion_budgets``: numbers of changes, None for each attack's own. ``evasion_rows``: attack at most so many rows,
    None for ``rows``. ``diagnostics`` checks these attacks, too, where it is true and no number. ``hardened``: measure
    noise and the attack ``unicode`` once more with a tokenizer that undoes look-alikes (`contraverse harden`).
    ``keep``: words and phrases that neither noise nor an attack on texts changes.
    """

    epsilons: list[Annotated[Number, Field(gt=0)]] = [0.1, 0.3, 1.0]
    attack: str = "apgd"
    rows: int | None = Field(default=None, ge=1)
    robust_validation: bool = False
    shift: bool = False
    diagnostics: bool | Annotated[int, Field(ge=0)] = True
    sts: str | None = None
    split: Literal["test", "validation"] = "test"
    batch_size: int = Field(default=64, ge=1)
    noise: list[str] = []
    noise_strengths: list[Annotated[int, Field(ge=1, le=5)]] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    noise_draws: int = Field(default=1, ge=1)
    noise_side: Literal["both", "first", "second"] = "both"
    positive: str | None = None
    false_positive_rate: float = Field(default=1.0, gt=0, lt=100)
    evasion: list[str] = []
    evasion_budgets: list[Annotated[int, Field(ge=1)]] | None = Field(default=None, min_length=1)
    evasion_rows: int | None = Field(default=None, ge=1)
    hardened: bool = False
    keep: list[str] = []

    @field_validator("keep", mode="before")
    @classmethod
    def _check_keep(cls, written: Any) -> Any:
        return parse_phrases(written) if written and isinstance(written, str | list) else written

    @field_validator("noise", mode="before")
    @classmethod
    def _check_noise(cls, written: Any) -> Any:
        return parse_kinds(written) if written and isinstance(written, str | list) else written

    @field_validator("evasion", mode="before")
    @classmethod
    def _check_evasion(cls, written: Any) -> Any:
        if not written or not isinstance(written, str | list):
            return written
        from contraverse.evasion.suite import parse_attacks  # loads torch, which other settings do without

        return parse_attacks(written)


class OptimizerConfig(Section):
    """An optimizer that transformers does not have in this form; rate and weight decay are ``train``'s own.

    ``trust`` and ``exclude_vectors`` (biases and batch norms are neither scaled nor decayed) are LARS's.
    """

    name: Literal["sgd", "lars"]
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool | None = None
    trust: float | None = Field(default=None, gt=0)
    exclude_vectors: bool | None = None


class ScheduleConfig(Section):
    """A course of the learning rate: see `contraverse.training.schedules`.

    ``epochs``: the milestones, counted from 1, at which the rate is multiplied by ``factor``. ``warmup_epochs``,
    ``floor`` (a fraction of the rate) and ``every`` are the cosine's.
    """

    name: Literal["milestones", "cosine"]
    epochs: list[Annotated[int, Field(ge=1)]] | None = None
    factor: float | None = Field(default=None, gt=0, le=1)
    warmup_epochs: int | None = Field(default=None, ge=0)
    floor: float | None = Field(default=None, ge=0, le=1)
    every: Literal["step", "epoch"] | None = None


class TrainConfig(Section):
    """Settings of `transformers.TrainingArguments` under their own names, and when to stop early.

    ``early_stopping_patience``: stop after so many evaluations without a better one; None: train to the end.
    ``optimizer`` and ``schedule``: in the place of transformers' own; None: what ``optim`` and ``lr_scheduler_type``
    say. ``global_batch_size``: rows of one step of the optimizer, over all processes and accumulated batches; each
    process gets its share. A recipe's batch is this one. ``per_device_train_batch_size``, where it is set over a
    recipe, takes its place. ``sync_batch_norm``: with several processes, batch norms in training take their statistics
    over the rows of all of them, as one process with the whole batch does. ``class_weights``: weights of the classes'
    cross-entropy, ``balanced`` for n / (C n_c), or a weight for each class by name (others have 1). ``batches``:
    ``balanced`` holds every class equally often in a batch. Both are for methods that train on labels.
    ``contrast_chunk``: most rows of which a process holds the activations at once; the loss is over the whole batch,
    and each backward pass costs one forward more.
    """

    model_config = ConfigDict(extra="allow")

    early_stopping_patience: int | None = Field(default=None, ge=1)
    optimizer: OptimizerConfig | None = None
    schedule: ScheduleConfig | None = None
    global_batch_size: int | None = Field(default=None, ge=1)
    sync_batch_norm: bool = False
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    batches: Literal["shuffled", "balanced"] = "shuffled"
    contrast_chunk: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_batch(self) -> "TrainConfig":
        if self.global_batch_size is not None and self.arguments.get("per_device_train_batch_size") is not None:
            raise UserError(
                "global_batch_size and per_device_train_batch_size both say how many rows a step has",
                where="train",
                hint="set one of them",
            )
        return self

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `transformers.TrainingArguments`, beside ``output_dir``."""
        return dict(self.model_extra or {})


class StageConfig(Section):
    """A run that comes before the main one, and what it does otherwise.

    Whatever a stage leaves out is as in the whole configuration, over which `contraverse.recipes.split_stages` lays it.
    ``method`` stands by itself. ``init_from``: the earlier stage whose model this one starts from; None: the one
    before it, and for the first ``model.name``; which the word ``model.name`` itself means for any.
    """

    method: MethodConfig
    task: str | None = None
    init_from: str | None = None
    model: dict[str, Any] = {}
    data: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    train: dict[str, Any] = {}


START = "model.name"
"""In ``init_from``: from no stage, but from what ``model.name`` is."""

StageName = Annotated[str, Field(pattern=r"^[\w-]+$")]


class RunConfig(Section):
    """All that decides a run, beside the folder that it is written to.

    Made by `contraverse.recipes.schemaure` or a recipe; `to_yaml` is what a run keeps as ``config.yaml``, and what
    ``contraverse train --config`` reads back to the same value.

    ``paper``: whether the settings that are left out are those of the paper's experiment on the task.
    ``stages``: runs that come before this one, by name and in order, each from the model of another; the sections
    beside it are those of the last. ``init_from``: the stage that the last one starts from, None for the one before.
    """

    recipe: str
    task: str
    paper: bool = False
    method: MethodConfig
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    train: TrainConfig = TrainConfig()
    stages: dict[StageName, StageConfig] = {}
    init_from: str | None = None

    def to_yaml(self) -> str:
        """The whole configuration as YAML, defaults included; of stages and ``paper`` only where there are any."""
        absent = (set() if self.stages else {"stages", "init_from"}) | (set() if self.paper else {"paper"})
        return notation.write(self.model_dump(mode="json", exclude=absent))


_NAMED = ("method", "optimizer", "schedule")
_BATCH = ("global_batch_size", "per_device_train_batch_size")


def merge(below: Mapping[str, Any], above: Mapping[str, Any], *, beside: bool = False) -> dict[str, Any]:
    """``below`` with the values of ``above`` over it, section by section.

    ``beside``: the two are parts of one layer, so that neither stands above the other where they say a batch twice.
    """
    merged = dict(deepcopy(below))
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            # The settings of one method, optimizer or schedule mean nothing to another.
            names = [section["name"] for section in (merged[key], value) if key in _NAMED and "name" in section]
            other = names[1:] and names[0] != names[1]
            merged[key] = dict(value) if other else merge(merged[key], value, beside=beside)
        else:
            merged[key] = deepcopy(value)
    # Two ways to say one thing: what is set above takes the place of the other below.
    for name, other in (_BATCH, _BATCH[::-1]):
        if not beside and above.get(name) is not None and above.get(other) is None:
            merged.pop(other, None)
    return merged


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"method.epsilon": 0.3}`` as ``{"method": {"epsilon": 0.3}}``; later ones win."""
    whole: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, last = name.split(".")
        section = {last: value}
        for outer in reversed(sections):
            section = {outer: section}
        whole = merge(whole, section, beside=True)
    return whole


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values in ``settings`` by dotted name: the inverse of `nested`."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
