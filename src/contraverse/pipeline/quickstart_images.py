"""The first run on images: what adversarial contrastive pre-training is worth where few labels are."""

import shlex
from pathlib import Path
from typing import Any

from contraverse.data import load_images
from contraverse.evaluation import AttackSettings
from contraverse.models import ImageModel
from contraverse.pipeline.folder import new_folder
from contraverse.pipeline.pictures import attacked_pictures
from contraverse.pipeline.quickstart import QuickstartResult
from contraverse.pipeline.report import write_comparison
from contraverse.pipeline.result import Counting, RunResult, Say, read_json, silent, uncounted
from contraverse.pipeline.run import run
from contraverse.recipes import configure

STARTS = {"random": "random start", "simclr": "SimCLR", "acl-ds": "ACL-DS"}
TASK, LABELS, EPSILONS = "digits", "10%", [8 / 255, 16 / 255, 32 / 255]
PRETRAINING: dict[str, Any] = {
    "train.num_train_epochs": 30,
    "train.per_device_train_batch_size": 128,
    "train.optimizer.name": "sgd",
    "train.learning_rate": 0.3,
    "train.weight_decay": 1e-4,
    "train.schedule.warmup_epochs": 2,
}
FINE_TUNING: dict[str, Any] = {
    "train.num_train_epochs": 60,
    "train.per_device_train_batch_size": 32,
    "train.learning_rate": 0.1,
    "train.schedule": {"name": "cosine"},
    "method.epsilon": 16 / 255,
    "method.step_size": 4 / 255,
    "evaluation.epsilons": EPSILONS,
    "evaluation.step_size": None,
    "evaluation.random_start": False,
    "evaluation.robust_validation": False,
    "train.metric_for_best_model": None,
    "train.load_best_model_at_end": False,
    "train.eval_strategy": "no",
}


def quickstart_images(
    output: str | Path = "runs/quickstart-images", *, say: Say = silent, counting: Counting = uncounted
) -> QuickstartResult:
    """Pre-train on scikit-learn's digits in two ways, learn adversarially from few labels, and compare under attack.

    ``output`` holds a run for each pre-training and one for each classifier.

    Raises:
        UserError: ``output`` is not empty.
    """
    output = Path(output)
    with new_folder(output, say):
        return _quickstart(output, say, counting)


def _quickstart(output: Path, say: Say, counting: Counting) -> QuickstartResult:
    runs: dict[str, RunResult] = {}
    before: dict[str, float] = {}
    notes = ["Settings were chosen on validation images."]
    for start, name in STARTS.items():
        settings = {**_common("resnet8"), **FINE_TUNING, "data.labels": LABELS}
        if start != "random":
            say(f"[{start}]")
            first = configure(start, task=TASK, settings={**_common("resnet8"), **PRETRAINING})
            settings["model.name"] = str(run(first, output / start, say=say, counting=counting).paths["model"])
            training = read_json(output / start / "evaluation.json")["training"]
            before[name] = training["seconds"]
            cost = f"{training['forward_units']} a step and {before[name]:.0f} s"
            notes.append(f"Before, {name} trained on all images without labels: {cost}, which are counted in its time.")
        say(f"[{start}-trades]")
        runs[name] = run(
            configure("trades", task=TASK, settings=settings), output / f"{start}-trades", say=say, counting=counting
        )
    models = {name: ImageModel.load(result.paths["model"]) for name, result in runs.items()}
    attack = AttackSettings(attack="pgd", norm="linf", steps=20)
    pictures = attacked_pictures(models, load_images(TASK).need("test"), EPSILONS[1], attack)
    report = write_comparison(
        output / "report.html",
        {name: result.folder for name, result in runs.items()},
        title=f"Three starts of adversarial training on {LABELS} of the digits' labels",
        command=f"contraverse quickstart --images --output {shlex.quote(str(output))}",
        notes=notes,
        before=before,
        pictures=pictures,
        pictures_under="PGD, 20 steps, ε=16/255",
    )
    return QuickstartResult(runs, report)


def _common(model: str) -> dict[str, Any]:
    return {"model.name": model, "train.save_strategy": "no", "train.report_to": "none"}
