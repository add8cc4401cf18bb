"""Runs from one another's models, in one folder: what lies where, what goes on after an interruption."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.ranks import run_ranks
from safetensors.torch import load_file

from contraverse.errors import UserError
from contraverse.models import TextModel
from contraverse.pipeline import Interrupted, run
from contraverse.recipes import configure
from contraverse.training import read_metrics

Configured = Callable[..., Any]
FAST = {"evaluation.epsilons": [], "stages.itpt.train.num_train_epochs": 1}


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def bare(found: dict[str, Any]) -> dict[str, Any]:
    """Without times."""
    return {name: value for name, value in found.items() if name not in ("training", "stages", "notes")}


def test_each_stage_is_a_run_and_the_whole_is_one_too(configured: Configured, rows: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = configured("itpt", rows, **{**FAST, "evaluation.epsilons": [0.1]})
    result = run(config, tmp_path / "run", say=said.append)
    names = ["config.yaml", "environment.json", "evaluation.json", "metrics.jsonl", "model", "report.html"]
    for folder in (tmp_path / "run", tmp_path / "run" / "1-itpt", tmp_path / "run" / "2-ce"):
        assert all((folder / name).exists() for name in names), folder
        assert not (folder / "checkpoints").exists()
    assert all(path.exists() for path in result.paths.values())
    first, last = evaluation(tmp_path / "run" / "1-itpt"), evaluation(tmp_path / "run" / "2-ce")
    whole = evaluation(tmp_path / "run")
    assert whole["metrics"] == last["metrics"] == result.metrics
    assert set(whole["stages"]) == {"1-itpt", "2-ce"}
    assert whole["training"]["seconds"] == pytest.approx(sum(e["training"]["seconds"] for e in (first, last)))
    assert whole["training"]["steps"] == last["training"]["steps"]
    assert [line for line in said if line.startswith("[")] == ["[1-itpt] 1 of 2", "[2-ce] 2 of 2"]
    assert (tmp_path / "run" / "config.yaml").read_text().endswith("\n" + config.to_yaml())
    # The first stage sees the texts that the last one trains on, without the labels, and none of the others.
    assert first["rows"]["train"] == last["rows"]["train"] == 48
    assert any("labels" in note for note in first["notes"])
    assert "mlm" in read_metrics(tmp_path / "run" / "1-itpt" / "metrics.jsonl")[0]
    assert first["labels"] is None
    assert TextModel.load(tmp_path / "run" / "model").labels == ["no", "yes"]


def test_the_last_stage_starts_from_the_first_ones_model(
    configured: Configured, rows: Path, tmp_path: Path, tiny_folder: Callable[..., Path]
) -> None:
    still = {"train.learning_rate": 1e-12, "train.weight_decay": 0.0}
    run(configured("itpt", rows, **FAST, **still), tmp_path / "run")
    first, last = weights(tmp_path / "run" / "1-itpt"), weights(tmp_path / "run" / "2-ce")
    start = load_file(tiny_folder() / "model.safetensors")
    table = "embeddings.word_embeddings.weight"
    assert not torch.allclose(first[table], start[table], atol=1e-5)
    torch.testing.assert_close(last[f"bert.{table}"], first[table], rtol=0, atol=1e-7)
    assert all(torch.equal(value, last[name]) for name, value in weights(tmp_path / "run").items())


def test_heads_are_handed_on_where_the_next_stage_has_them(configured: Configured, rows: Path, tmp_path: Path) -> None:
    settings = {**FAST, "method.name": "rar", "method.weight": 0.1, "train.learning_rate": 1e-12}
    run(configured("itpt", rows, **settings, **{"train.num_train_epochs": 1}), tmp_path / "run")
    heads = [load_file(tmp_path / "run" / name / "model" / "heads.safetensors") for name in ("1-itpt", "2-rar")]
    for name, value in heads[0].items():
        torch.testing.assert_close(heads[1][name], value, rtol=0, atol=1e-7)


def test_the_whole_and_each_stage_are_repeated_by_their_configurations(
    configured: Configured, rows: Path, tmp_path: Path
) -> None:
    run(configured("itpt", rows, **FAST), tmp_path / "first")
    run(configure(file=tmp_path / "first" / "config.yaml"), tmp_path / "second")
    assert bare(evaluation(tmp_path / "first")) == bare(evaluation(tmp_path / "second"))
    one, other = (weights(tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    for stage in ("1-itpt", "2-ce"):
        run(configure(file=tmp_path / "first" / stage / "config.yaml"), tmp_path / stage)
        found = weights(tmp_path / stage)
        assert all(torch.equal(value, found[name]) for name, value in weights(tmp_path / "first" / stage).items())


@pytest.mark.parametrize("during", [1, 2])
def test_an_interrupted_stage_goes_on_and_finished_ones_are_not_done_again(
    during: int, configured: Configured, rows: Path, tmp_path: Path, ctrl_c: Any
) -> None:
    config = configured("itpt", rows, **{**FAST, "stages.itpt.train.num_train_epochs": 2})
    run(config, tmp_path / "whole")
    ctrl_c(during)
    with pytest.raises(Interrupted) as stopped:
        run(config, tmp_path / "cut")
    folder = ("1-itpt", "2-ce")[during - 1]
    assert stopped.value.checkpoint.parent == tmp_path / "cut" / folder / "checkpoints"
    with pytest.raises(UserError, match="unfinished"):
        run(config, tmp_path / "cut")
    # Under another name of the same folder, too.
    (tmp_path / "cut").rename(tmp_path / "moved")
    said: list[str] = []
    run(config, tmp_path / "moved", resume=True, say=said.append)
    assert ("[1-itpt] is finished" in said) == (during == 2)
    assert bare(evaluation(tmp_path / "whole")) == bare(evaluation(tmp_path / "moved"))
    found = weights(tmp_path / "moved")
    assert all(torch.equal(value, found[name]) for name, value in weights(tmp_path / "whole").items())
    (tmp_path / "moved" / "1-itpt" / "report.html").unlink()
    run(config, tmp_path / "moved", resume=True)
    assert (tmp_path / "moved" / "1-itpt" / "report.html").is_file()


def _stages_on_a_rank(number: int, folder: Path, config: Path) -> None:
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    run(configure(file=config), folder / "run")


@pytest.mark.ddp
@pytest.mark.slow
def test_stages_on_two_ranks_follow_one_another(configured: Configured, rows: Path, tmp_path: Path) -> None:
    config = configured("itpt", rows, **{**FAST, "stages.itpt.train.num_train_epochs": 3, "train.use_cpu": True})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    run_ranks(_stages_on_a_rank, tmp_path, tmp_path / "config.yaml")
    whole = evaluation(tmp_path / "run")
    assert whole["metrics"] == evaluation(tmp_path / "run" / "2-ce")["metrics"]
    # 48 rows on two ranks: three epochs in batches of 32, as the recipe has them, and two in batches of 8.
    assert [whole["stages"][name]["steps"] for name in ("1-itpt", "2-ce")] == [3, 6]
    table = "embeddings.word_embeddings.weight"
    start, first = (load_file(Path(config.model.name) / "model.safetensors"), weights(tmp_path / "run" / "1-itpt"))
    assert not torch.equal(start[table], first[table])


def test_what_is_validated_on_later_is_not_seen_earlier(configured: Configured, rows: Path, tmp_path: Path) -> None:
    result = run(configured("itpt", rows / "train.csv", **FAST), tmp_path / "run")
    sizes = [evaluation(tmp_path / "run" / name)["rows"] for name in ("1-itpt", "2-ce")]
    assert sizes[0] == sizes[1] == {"train": 43, "validation": 5}
    assert result.split == "validation"


def test_a_sentence_method_on_labelled_rows_leaves_the_labels(
    configured: Configured, rows: Path, sts: Path, tmp_path: Path
) -> None:
    settings = {"evaluation.sts": str(sts), "train.eval_steps": 4, "train.save_steps": 4}
    result = run(configured("simcse", rows, task="text", **settings), tmp_path / "run")
    assert "average" in result.metrics
    assert any("does not use the labels" in note for note in result.notes)
