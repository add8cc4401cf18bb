"""What a run is: one typed, frozen value, with a section for each thing that can be set."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contraverse.recipes import notation


class Section(BaseModel):
    """A part of a configuration: frozen, and without names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class MethodConfig(Section):
    """A training method by its name in `contraverse.methods.METHODS`, and its settings beside the name.

    The settings are those of the method's constructor: `contraverse.recipes.configure` checks them and fills in
    the ones left out.
    """

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """What the method's constructor is called with."""
        return dict(self.model_extra or {})


class ModelConfig(Section):
    """The encoder that training starts from.

    ``name``: ``minilm`` (bundled), a folder, or a name on the Hugging Face Hub. ``embedding``: whether a sentence
    encoder gives the pooled features ``h`` or the projected ``z``. ``keep_layers``: use only the lower k layers;
    ``reinit_layers``: draw the last n of these anew. Both make a start from which there is more to learn.
    """

    name: str = "minilm"
    pooling: Literal["cls", "mean"] = "cls"
    embedding: Literal["h", "z"] = "h"
    max_length: int = Field(default=128, ge=3, description="tokens a text is cut to, special ones included")
    keep_layers: int | None = Field(default=None, ge=1)
    reinit_layers: int = Field(default=0, ge=0)


class DataConfig(Section):
    """Where the rows come from.

    ``source``: a file or folder, files by split (train, validation, test), None for the task's own set on the Hub.
    ``text`` and ``label``: columns, None to take the task's or find them. ``seed`` draws the validation rows
    (``validation_fraction`` of the training rows, where the source has none) and the ``train_rows``: it is not the
    seed of training, so that runs with different seeds see the same rows.
    """

    source: str | dict[str, str] | None = None
    text: str | list[str] | None = None
    label: str | None = None
    seed: int = Field(default=42, ge=0)
    validation_fraction: float = Field(default=0.1, gt=0, lt=1)
    train_rows: int | None = Field(default=None, ge=1)
    on_bad_row: Literal["error", "skip"] = "error"


class EvaluationConfig(Section):
    """What the trained model is measured on.

    ``epsilons``: radii of the PGD attack on a classifier's word embeddings, none for no attack; ``norm``, ``steps``
    and ``restarts`` are the attack's; ``rows``: attack at most so many test rows, drawn by ``data.seed``. ``sts``:
    a folder of STS sets for a sentence encoder.
    """

    epsilons: list[Annotated[float, Field(gt=0)]] = [0.1, 0.3, 1.0]
    norm: Literal["l2", "linf"] = "l2"
    steps: int = Field(default=5, ge=1)
    restarts: int = Field(default=1, ge=1)
    rows: int | None = Field(default=None, ge=1)
    sts: str | None = None
    batch_size: int = Field(default=64, ge=1)


class TrainConfig(Section):
    """Settings of `transformers.TrainingArguments` under their own names, and when to stop early.

    ``early_stopping_patience``: stop after so many evaluations without a better one; None: train to the end.
    """

    model_config = ConfigDict(extra="allow")

    early_stopping_patience: int | None = Field(default=None, ge=1)

    @property
    def arguments(self) -> dict[str, Any]:
        """What `transformers.TrainingArguments` is called with, beside ``output_dir``."""
        return dict(self.model_extra or {})


class RunConfig(Section):
    """All that decides a run, beside the folder that it is written to.

    Made by `contraverse.recipes.configure` or a recipe; `to_yaml` is what a run keeps as ``config.yaml``, and what
    ``contraverse train --config`` reads back to the same value.
    """

    recipe: str
    task: str
    method: MethodConfig
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    train: TrainConfig = TrainConfig()

    def to_yaml(self) -> str:
        """The whole configuration as YAML, defaults included."""
        return notation.write(self.model_dump(mode="json"))
