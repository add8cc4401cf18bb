"""What would stop a run late, or make it pointless, is refused or said before the model is loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from contraverse.errors import UserError
from contraverse.pipeline import run
from contraverse.pipeline.text import TextSteps
from contraverse.recipes import RunConfig, configure

Configured = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _no_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the model is loaded")

    if "trains" not in request.node.name:
        monkeypatch.setattr(TextSteps, "init_model", refused)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("f1", "known: accuracy, macro_f1"),
        ("eval_acuracy", 'did you mean "accuracy"?'),
        ("loss", "known: accuracy, macro_f1"),
        ("robust_accuracy", "the attack of validation is set by evaluation.epsilons"),
    ],
)
def test_an_unknown_best_metric(name: str, hint: str, configured: Configured, rows: Path, tmp_path: Path) -> None:
    settings = {"train.metric_for_best_model": name, "evaluation.epsilons": []}
    with pytest.raises(UserError, match=f'no metric of validation is called "{name}"') as caught:
        run(configured("ce", rows, task="text", **settings), tmp_path / "run")
    assert hint in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["macro_f1", "eval_macro_f1", "robust_accuracy"])
def test_a_known_one_trains(name: str, configured: Configured, rows: Path, tmp_path: Path) -> None:
    settings = {"train.metric_for_best_model": name, "evaluation.epsilons": [0.1], "evaluation.robust_validation": True}
    run(configured("ce", rows, task="text", **settings, **{"train.num_train_epochs": 1}), tmp_path / "run")


def test_without_evaluation_it_trains_to_the_end(configured: Configured, rows: Path, tmp_path: Path) -> None:
    """Patience and the best checkpoint, which recipes set, have nothing to go by."""
    settings = {"train.eval_strategy": "no", "train.load_best_model_at_end": False, "train.num_train_epochs": 1}
    config = configured("ce", rows, **settings)
    assert config.train.early_stopping_patience is not None
    done = run(config, tmp_path / "run")
    assert "nothing is evaluated while training: the last weights are kept, not the best" in done.notes


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"train.report_to": "wandb"}, r"train\.report_to: .*wandb"),
        ({"train.report_to": ["tensorboard", "comet_ml"]}, r"train\.report_to: .*comet"),
        ({"train.optim": "adamw_bnb_8bit"}, r"train\.optim: .*bitsandbytes"),
        ({"train.optim": "lomo"}, r"train\.optim: .*lomo"),
        ({"train.use_liger_kernel": True}, r"train\.use_liger_kernel: has no meaning here"),
        ({"train.push_to_hub": True}, r"train\.push_to_hub: has no meaning here\nupload the model"),
        ({"train.label_smoothing_factor": 0.1}, r"train\.label_smoothing_factor: has no meaning here"),
        ({"train.neftune_noise_alpha": 5}, r"train\.neftune_noise_alpha: has no meaning here"),
        ({"train.save_only_model": True}, r"train\.save_only_model: has no meaning here"),
    ],
)
def test_packages_that_are_missing_and_arguments_without_meaning(settings: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        configure("ce", task="text", source="rows.csv", settings=settings)


def test_what_changes_nothing_may_be_set() -> None:
    settings = {"train.push_to_hub": False, "train.label_smoothing_factor": 0, "train.report_to": "tensorboard"}
    assert configure("ce", task="text", source="rows.csv", settings=settings)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_rows_that_lack_a_class_are_said(split: str, configured: Configured, tmp_path: Path) -> None:
    labels = ["red", "green", "blue"]
    for name in ("train", "validation", "test"):
        held = labels if name != split else labels[1:]
        rows = {"text": [f"good work {i}" for i in range(12)], "label": (held * 12)[:12]}
        pd.DataFrame(rows).to_csv(tmp_path / f"{name}.csv", index=False)
    config = configured("ce", tmp_path, task="text")
    notes = TextSteps(config).load_and_prepare(test=True).notes
    assert f"no {split} row is of the class red" in notes
    pd.DataFrame({"text": ["good work"] * 4, "label": ["blue"] * 4}).to_csv(tmp_path / f"{split}.csv", index=False)
    notes = TextSteps(config).load_and_prepare(test=True).notes
    assert any(note.startswith(f"all 4 {split} rows are of the class blue: ") for note in notes)
