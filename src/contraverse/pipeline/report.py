"""Report of a run and card of its model, from measured figures."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contraverse.data import ImageTask, Task
from contraverse.evaluation.keys import attacked_accuracy, clean_metrics
from contraverse.methods import METHODS
from contraverse.models.image_storage import saved_size
from contraverse.recipes import RunConfig
from contraverse.reporting import (
    Measured,
    ModelCard,
    Picture,
    ReportData,
    Run,
    read_run,
    write_model_card,
    write_report,
)
from contraverse.training.callbacks import read_metrics


def write_reports(
    folder: Path, config: RunConfig, evaluation: dict[str, Any], task: Task | ImageTask, made_with: dict[str, Any]
) -> dict[str, Path]:
    """Write ``report.html`` and the model card from figures that were measured; return their paths by name."""
    method = METHODS[config.method.name]
    command = shlex.join(["contraverse", "train", "--config", f"{folder}/config.yaml", "--output", f"{folder}-again"])
    attack = evaluation.get("robustness", {}).get("attack", {})
    supervised, of_images = method.requires == "labels", task.kind == "images"
    write_model_card(
        folder / "model",
        ModelCard(
            name=folder.name,
            kind="classifier" if supervised else "encoder",
            modality="images" if of_images else "text",
            method=config.method.name,
            summary=method.summary,
            paper=method.paper,
            dataset=task.name,
            metrics=clean_metrics(evaluation),
            attacked=attacked_accuracy(evaluation),
            settings=config.method.settings,
            base_model=config.model.name,
            dataset_id=task.hub[0] if task.hub and config.data.source is None else None,
            dataset_config=task.hub[1] if task.hub and config.data.source is None else None,
            measured_on=None if supervised or of_images else "STS",
            split=evaluation["split"],
            test_rows=evaluation["rows"].get(evaluation["split"]) if supervised else None,
            train_rows=evaluation["rows"]["train"],
            labels=evaluation.get("labels") or (),
            columns=evaluation["columns"],
            image_size=saved_size(folder / "model") if of_images else None,
            attack=_shown(attack),
            command=command,
            environment=made_with,
        ),
    )
    write_report(
        folder / "report.html",
        ReportData(
            title=f"{config.recipe} on {task.name}",
            runs=[_measured(config.method.name, evaluation)],
            metric=_deciding(evaluation, task),
            attack=_shown(attack),
            test_rows=evaluation["rows"].get(evaluation["split"]),
            facts=_facts(evaluation, config.model.name),
            settings=config.model_dump(mode="json"),
            environment=made_with,
            command=command,
            notes=evaluation["notes"],
            warnings=_warnings(evaluation),
            shifts=_parts({config.method.name: evaluation}, "shift"),
            breakdowns=_parts({config.method.name: evaluation}, "breakdown"),
            noises=_parts({config.method.name: evaluation}, "noise"),
            detections=_parts({config.method.name: evaluation}, "detection"),
            evasion=_parts({config.method.name: evaluation}, "evasion"),
            log=read_metrics(folder / "metrics.jsonl"),
        ),
    )
    return paths_of(folder)


def write_evaluation(
    path: Path, model: str, evaluation: dict[str, Any], *, command: str, made_with: dict[str, Any]
) -> Path:
    """Write the report of an evaluation of a saved model as one page.

    Args:
        path: of the page.
        model: name or folder of the model.
        evaluation: as `measure_task` gives it, with ``task``, ``split``, ``rows`` and ``notes`` where they are known.
        command: makes the page again.
        made_with: packages and machine.
    """
    name, rows = Path(model).name or model, evaluation.get("rows")
    attack = evaluation.get("robustness", {}).get("attack", {})
    facts = [str(evaluation[key]) for key in ("task", "source") if evaluation.get(key)]
    facts += [f"{rows:,} {evaluation['split']} rows"] if rows else []
    measured = evaluation if evaluation.get("metrics") else {**evaluation, "metrics": _clean_accuracy(evaluation)}
    return write_report(
        path,
        ReportData(
            title=f"{name}, evaluated",
            runs=[Measured.of(name, measured)],
            metric=next(iter(measured["metrics"]), "accuracy"),
            attack=_shown(attack),
            test_rows=rows,
            facts=facts,
            environment=made_with,
            command=command,
            notes=evaluation.get("notes", ()),
            warnings=_warnings(evaluation),
            shifts=_parts({name: evaluation}, "shift"),
            breakdowns=_parts({name: evaluation}, "breakdown"),
            noises=_parts({name: evaluation}, "noise"),
            evasion=_parts({name: evaluation}, "evasion"),
        ),
    )


def _clean_accuracy(evaluation: dict[str, Any]) -> dict[str, float]:
    """Accuracy without an attack, of an evaluation that holds attacks on texts alone."""
    for report in evaluation.get("evasion", {}).values():
        if (accuracy := report["clean"]["accuracy"]["percent"]) is not None:
            return {"accuracy": accuracy}
    return {}


def paths_of(folder: Path) -> dict[str, Path]:
    """Paths in the folder of a finished run, by name."""
    names = ("config.yaml", "environment.json", "metrics.jsonl", "evaluation.json")
    return {"model": folder / "model", "report": folder / "report.html"} | {name: folder / name for name in names}


def write_comparison(
    path: Path,
    folders: dict[str, Path],
    *,
    title: str,
    command: str,
    notes: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    pictures_under: str = "",
    before: Mapping[str, float] | None = None,
) -> Path:
    """Write one page that compares finished runs of one task with the first of them.

    ``pictures`` are shown in full, ``pictures_under`` says under what attack. ``before``: seconds of training, by the
    run's name, that the model it started from took; they are counted as its own.
    """
    runs = {name: read_run(folder) for name, folder in folders.items()}
    base = next(iter(runs.values()))
    first = _evaluation(base)
    evaluations = {name: _evaluation(run) for name, run in runs.items()}
    return write_report(
        path,
        ReportData(
            title=title,
            runs=[_measured(name, figures, (before or {}).get(name, 0.0)) for name, figures in evaluations.items()],
            attack=_shown(first["robustness"]["attack"]),
            test_rows=first["robustness"]["n"],
            facts=_facts(first, base.config["model"]["name"]),
            settings={name: run.config for name, run in runs.items()},
            environment=base.environment,
            command=command,
            warnings=[f"{name}: {line}" for name, figures in evaluations.items() for line in _warnings(figures)],
            shifts=_parts(evaluations, "shift"),
            breakdowns=_parts(evaluations, "breakdown"),
            noises=_parts(evaluations, "noise"),
            detections=_parts(evaluations, "detection"),
            evasion=_parts(evaluations, "evasion"),
            notes=notes,
            pictures=pictures,
            examples_under=pictures_under,
        ),
    )


def _evaluation(run: Run) -> dict[str, Any]:
    assert run.evaluation is not None
    return run.evaluation


def _measured(name: str, evaluation: dict[str, Any], before: float = 0.0) -> Measured:
    training = evaluation["training"]
    seconds, cost = before + training["seconds"], training["forward_units"]
    return Measured.of(name, evaluation, seconds=seconds, cost=cost)


def _deciding(evaluation: dict[str, Any], task: Task | ImageTask) -> str:
    return next((name for name in ("average", "probe") if name in evaluation["metrics"]), task.metric)


def _facts(evaluation: dict[str, Any], model: str) -> list[str]:
    rows = evaluation["rows"]
    return [model, f"{rows['train']:,} training rows", f"{rows.get('test', 0):,} test rows"]


def _warnings(evaluation: dict[str, Any]) -> list[str]:
    """Warnings of the attack's diagnostics."""
    return list(evaluation.get("robustness", {}).get("warnings", ()))


def _parts(evaluations: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """The part ``name`` of each evaluation that has it, by run."""
    return {run: evaluation[name] for run, evaluation in evaluations.items() if name in evaluation}


def _shown(attack: dict[str, Any]) -> dict[str, Any]:
    """The attack's settings without its name, which stands before them."""
    return {key: value for key, value in attack.items() if key not in ("name", "seed")}
