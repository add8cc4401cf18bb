"""A configuration with stages: what each stage is, how its settings are reached, what is refused."""

from pathlib import Path
from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.recipes import RunConfig, configure, load, split_stages

THREE = """
recipe: scal
task: trec
method: {epsilon: .2}
train: {num_train_epochs: 3}
stages:
  pre:
    method: {name: mlm}
    train: {num_train_epochs: 2, learning_rate: 5e-5}
    model: {max_length: 64}
  warm:
    method: {name: ce}
    data: {train_rows: 100}
    init_from: pre
init_from: %s
"""


def three(folder: Path, init_from: str = "null", **settings: Any) -> RunConfig:
    file = folder / "c.yaml"
    file.write_text(THREE % init_from, encoding="utf-8")
    return configure(file=file, settings=settings)


def test_a_run_without_stages_is_its_own_only_one() -> None:
    config = configure("scal", settings={"model.reinit_layers": 2})
    assert [(stage.folder, stage.config, stage.init_from) for stage in split_stages(config)] == [
        ("1-scal", config, None)
    ]
    assert "stages" not in config.to_yaml()
    assert "init_from" not in config.to_yaml()


def test_a_stage_is_the_whole_with_what_it_says_laid_over(tmp_path: Path) -> None:
    pre, warm, last = (stage.config for stage in split_stages(three(tmp_path)))
    plain = configure("scal", task="trec", settings={"method.epsilon": 0.2, "train.num_train_epochs": 3})
    assert last == plain
    assert (pre.recipe, pre.method.name, pre.model.max_length) == ("mlm", "mlm", 64)
    assert pre.train.arguments == plain.train.arguments | {"num_train_epochs": 2, "learning_rate": 5e-5}
    assert pre.data == plain.data
    assert (warm.recipe, warm.method.name, warm.data.train_rows) == ("ce", "ce", 100)
    assert warm.train == plain.train
    assert not any(config.stages for config in (pre, warm, last))


def test_folders_are_numbered_and_each_starts_from_another(tmp_path: Path) -> None:
    def chain(init_from: str) -> list[tuple[str, str | None]]:
        return [(stage.folder, stage.init_from) for stage in split_stages(three(tmp_path, init_from))]

    assert chain("null") == [("1-pre", None), ("2-warm", "1-pre"), ("3-scal", "2-warm")]
    assert chain("pre") == [("1-pre", None), ("2-warm", "1-pre"), ("3-scal", "1-pre")]


def test_layers_are_dropped_and_drawn_anew_once(tmp_path: Path) -> None:
    """Again at the next stage, and what the first one taught them would be gone."""
    config = three(tmp_path, **{"model.keep_layers": 3, "model.reinit_layers": 1})
    found = [(s.config.model.keep_layers, s.config.model.reinit_layers) for s in split_stages(config)]
    assert found == [(3, 1), (None, 0), (None, 0)]


def test_settings_reach_the_stage_that_they_name_and_others_that_say_nothing(tmp_path: Path) -> None:
    settings = {"stages.pre.train.learning_rate": "1e-3", "train.learning_rate": 1e-5, "train.seed": 7}
    pre, warm, last = (s.config.train.arguments for s in split_stages(three(tmp_path, **settings)))
    assert [a["learning_rate"] for a in (pre, warm, last)] == [1e-3, 1e-5, 1e-5]
    assert [a["seed"] for a in (pre, warm, last)] == [7, 7, 7]
    changed = three(tmp_path, **{"stages.warm.method.name": "scal", "stages.warm.method.alpha": 0.5})
    assert split_stages(changed)[1].config.method.settings["alpha"] == 0.5


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stages_own_file_gives_it_alone(tmp_path: Path, number: int) -> None:
    stage = split_stages(three(tmp_path))[number].config
    (tmp_path / "stage.yaml").write_text(stage.to_yaml(), encoding="utf-8")
    assert configure(file=tmp_path / "stage.yaml") == stage


def test_the_wholes_file_gives_the_whole(tmp_path: Path) -> None:
    config = three(tmp_path)
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert configure(file=tmp_path / "config.yaml") == load(tmp_path / "config.yaml") == config
    assert configure(file=tmp_path / "config.yaml").to_yaml() == config.to_yaml()
    again = configure(file=tmp_path / "config.yaml", settings={"train.seed": 9})
    assert [s.config.train.arguments["seed"] for s in split_stages(again)] == [9, 9, 9]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("stages.itp.train.seed", 1, ["stages.itp: no such stage", '"itpt"']),
        ("stages.itpt.train.lerning_rate", 1, ["stages.itpt.train.lerning_rate", '"learning_rate"']),
        ("stages.itpt.train.learning_rate", -1, ["stages.itpt.train.learning_rate: -1", "greater than 0"]),
        ("stages.itpt.method.mlm_probability", 2, ["stages.itpt.method.mlm_probability: 2", "less than or equal to 1"]),
        ("stages.itpt.method.name", "mml", ["stages.itpt.method.name", '"mlm"']),
        ("stages.itpt.model.pooling", "best", ["stages.itpt.model.pooling", "'cls', 'last'"]),
        ("stages.itpt.data.soorce", "x", ["stages.itpt.data.soorce", '"source"']),
        ("stages.itpt.modl", {}, ["stages.itpt.modl: no such setting", '"model"']),
        ("stages.itpt.task", "nli", ["stages.itpt.task", "mlm needs sentences"]),
        ("stages.itpt", 3, ["stages.itpt: is a section of settings"]),
        ("stages", 3, ["stages: 3 is not possible"]),
        ("stages.a/b.method.name", "ce", ["stages.a/b", "not possible"]),
        ("stages.itpt.init_from", "other", ["stages.itpt.init_from", "starts from model.name"]),
        ("init_from", "itp", ["init_from: there is no stage", '"itpt"']),
    ],
)
def test_a_mistake_names_the_stage(setting: str, value: Any, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        configure("itpt", settings={setting: value})
    assert all(part in str(caught.value) for part in says), str(caught.value)


def test_a_stage_has_one_batch(tmp_path: Path) -> None:
    """A stage's own takes the place of the whole's, in whichever way either is said."""
    semi = configure("acl-semi", settings={"train.per_device_train_batch_size": 8})
    batches = [
        (config.train.global_batch_size, config.train.arguments.get("per_device_train_batch_size"))
        for config in (stage.config for stage in split_stages(semi))
    ]
    assert batches == [(512, None), (128, None), (None, 8)]
    semi = configure("acl-semi", settings={"stages.acl.train.per_device_train_batch_size": 8})
    first = split_stages(semi)[0].config.train
    assert (first.global_batch_size, first.arguments.get("per_device_train_batch_size")) == (None, 8)
