"""A run that is made shorter than its recipe shortens its warm-up and its milestones, unless they are set."""

from typing import Any

import pytest

from contraverse.recipes import change, configure, split_stages


def train(recipe: str, **settings: Any) -> tuple[Any, Any]:
    """Warm-up and milestones, in epochs."""
    task = None if recipe in ("itpt", "ce") else "digits"
    schedule = configure(recipe, task=task, settings=settings).train.schedule
    assert schedule is not None
    return schedule.warmup_epochs, schedule.epochs


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (30, 0), (100, 1), (500, 5), (1000, 10), (2000, 10)])
def test_a_warm_up_keeps_its_share(epochs: int, warmup: int) -> None:
    """Of ACL's 1,000 epochs ten are warm-up; one epoch was refused."""
    assert train("acl-ds", **{"train.num_train_epochs": epochs}) == (warmup, None)


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(25, [15, 20]), (10, [7, 9]), (5, [4, 5]), (2, [2, 3]), (1, [2]), (50, [15, 20])]
)
def test_milestones_keep_their_share(epochs: int, milestones: list[int]) -> None:
    """Counted from 1: before the 15th of 25 epochs 14 are whole, of ten 6. A run that is longer keeps them."""
    assert train("trades", **{"train.num_train_epochs": epochs}) == (None, milestones)


def test_what_is_set_stays() -> None:
    one = {"train.num_train_epochs": 5}
    assert train("acl-ds", **one, **{"train.schedule.warmup_epochs": 2}) == (2, None)
    assert train("trades", **one, **{"train.schedule.epochs": [2, 3]}) == (None, [2, 3])
    assert train("trades", **one, **{"train.schedule": {"name": "cosine"}}) == (None, None)
    assert configure("trades", task="digits", settings={**one, "train.schedule": None}).train.schedule is None


def test_a_runs_own_file_is_not_shortened_twice(tmp_path: Any) -> None:
    config = configure("acl-ds", task="digits", settings={"train.num_train_epochs": 100})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert configure(file=tmp_path / "config.yaml") == config
    assert configure(file=tmp_path / "config.yaml", settings={"train.num_train_epochs": 50}).train.schedule is not None


def test_a_configuration_that_is_changed_is_shortened_too() -> None:
    config = configure("trades", task="digits")
    settings = {"train.num_train_epochs": 10}
    assert change(config, settings) == configure("trades", task="digits", settings=settings)


def test_a_stage_is_shortened_by_its_own_length() -> None:
    settings = {"stages.acl.train.num_train_epochs": 100, "train.num_train_epochs": 3}
    acl, teacher, uat = (stage.config.train for stage in split_stages(configure("acl-semi", settings=settings)))
    assert acl.schedule is not None
    assert acl.schedule.warmup_epochs == 1
    assert teacher.schedule is not None
    assert teacher.schedule.epochs == [40, 60]
    assert uat.schedule is not None
    assert uat.schedule.epochs == [2, 3]  # 5 and 10 of 15


def test_a_number_of_steps_is_shortened_and_a_share_of_them_is_one_already() -> None:
    """ITPT's paper: 10,000 of 100,000 steps; InfoBERT's ANLI: 1,000 steps, validated from step 27,000 on."""
    itpt = configure("itpt", task="trec", paper=True, settings={"stages.itpt.train.max_steps": 500})
    assert itpt.stages["itpt"].train["warmup_steps"] == 50
    assert itpt.train.arguments["warmup_steps"] == 0.1
    anli = configure("scal", task="anli", paper=True, settings={"train.num_train_epochs": 1})
    assert (anli.train.arguments["warmup_steps"], anli.train.arguments["eval_delay"]) == (500, 13_500)
    assert configure("ce", settings={"train.num_train_epochs": 1}).train.arguments["warmup_steps"] == 0.1
