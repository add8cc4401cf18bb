"""`transformers.TrainingArguments` that a run decides itself, that mean nothing here, or that lack a package."""

from collections.abc import Mapping
from typing import Any, cast

from contraverse.errors import UserError

OURS = {
    "output_dir": "the run's folder is --output",
    "resume_from_checkpoint": "to go on with a run, use --resume",
    "do_train": "training is what a run is",
    "do_eval": "set train.eval_strategy",
    "do_predict": "the test rows are measured when the run ends",
    "remove_unused_columns": "the collator decides what a batch holds",
    **dict.fromkeys(
        ("fsdp", "fsdp_config", "deepspeed"),
        "weights that are split over processes are neither saved nor measured here; start whole ones with torchrun",
    ),
}
"""Names that a run decides itself, and what to use in their place."""

_HUB = "upload the model of a finished run: hf upload NAME RUN/model"
_EVALUATING = "the run's own evaluators measure; their batch is evaluation.batch_size"
_WITHOUT_MEANING = {
    **dict.fromkeys(
        ("push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_always_push", "hub_revision"), _HUB
    ),
    **dict.fromkeys(
        (
            "bf16_full_eval",
            "fp16_full_eval",
            "prediction_loss_only",
            "eval_accumulation_steps",
            "eval_use_gather_object",
            "include_for_metrics",
            "batch_eval_metrics",
        ),
        _EVALUATING,
    ),
    "label_smoothing_factor": "a method computes its own loss from the labels as they are",
    "neftune_noise_alpha": "perturbing the embeddings is what the methods do: contraverse list methods",
    "use_liger_kernel": "its kernels replace layers of whole models of transformers",
    "liger_kernel_config": "its kernels replace layers of whole models of transformers",
    "label_names": "the collator decides what a batch holds",
    "save_only_model": "checkpoints are for going on; a finished run keeps its model alone",
}
"""Names that would change nothing, or stop a run late; the values that change nothing may be set."""


def check_arguments(arguments: Mapping[str, Any], *, own_optimizer: bool) -> None:
    """Refuse what has no meaning here, and what needs a package that is not installed.

    Args:
        arguments: of `transformers.TrainingArguments`, by name, as they were set.
        own_optimizer: whether ``train.optimizer`` takes the place of ``optim``.

    Raises:
        UserError: the first of them.
    """
    for name, hint in _WITHOUT_MEANING.items():
        if arguments.get(name) not in (None, False, 0, [], {}):
            raise UserError("has no meaning here", where=f"train.{name}", hint=hint)
    if arguments.get("report_to") not in (None, "none", [], ["none"]):
        _check_reports(arguments["report_to"])
    if "optim" in arguments and not own_optimizer:
        _check_optimizer(arguments)


def _check_reports(names: str | list[str]) -> None:
    from transformers import TrainingArguments
    from transformers.integrations import get_reporting_integration_callbacks

    listed = TrainingArguments(output_dir="", report_to=names, use_cpu=True).report_to
    try:
        for build in get_reporting_integration_callbacks(listed):
            build()
    except (RuntimeError, ImportError, ValueError) as error:
        hint = 'install it, or report to something else: train.report_to=none, "tensorboard"'
        raise UserError(str(error), where="train.report_to", hint=hint) from error


def _check_optimizer(arguments: Mapping[str, Any]) -> None:
    from torch import nn
    from transformers import Trainer, TrainingArguments

    settings = {name: arguments[name] for name in ("optim", "optim_args") if name in arguments}
    try:
        # Imports the package of an optimizer that is not torch's.
        Trainer.get_optimizer_cls_and_kwargs(
            TrainingArguments(output_dir="", use_cpu=True, **settings), cast(Any, nn.Linear(1, 1))
        )
    except (ImportError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(first, where="train.optim", hint="install it, or choose another") from error
