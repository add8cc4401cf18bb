"""A method without a recipe has the baselines' settings, and a name that is neither is answered with the nearest."""

from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.methods import METHODS, USCAL, CrossEntropy
from contraverse.recipes import RECIPES, RunConfig, configure, differences, experiment_of, find_recipe, split_stages


class Mine(CrossEntropy):
    """A method of somebody's own."""

    name = "mine"
    summary = "cross-entropy by another name"


class MineOnSentences(USCAL):
    name = "mine-on-sentences"
    summary = "uscal by another name"


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in (Mine, MineOnSentences):
        monkeypatch.setitem(METHODS, method.name, method)


def settings(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"recipe", "method"})


def test_a_method_trains_without_a_recipe_as_the_baselines_of_its_modality_do() -> None:
    assert "mine" not in RECIPES
    for task in ("text", "trec", "digits"):
        config = configure("mine", task=task)
        assert (config.recipe, config.method.name, config.task) == ("mine", "mine", task)
        if task == "digits":  # the best epoch is chosen under attack, unlike ce's
            assert settings(config) == settings(configure("trades", task=task))
        else:
            assert settings(config) == settings(configure("ce", task=task))
    assert configure("mine").task == "text"
    sentences = configure("mine-on-sentences")
    assert sentences.task == "sentences"
    assert settings(sentences) == settings(configure("uscal"))


def test_such_a_run_is_repeated_by_its_own_file_and_departs_from_no_paper(tmp_path: Any) -> None:
    config = configure("mine", task="text", settings={"train.num_train_epochs": 2})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert configure(file=tmp_path / "config.yaml") == config
    assert experiment_of(config) is None
    assert differences(config) == []
    with pytest.raises(UserError, match="no paper's experiment of mine on text"):
        configure("mine", task="text", paper=True)


def test_a_modality_that_the_method_does_not_train_on_is_refused() -> None:
    with pytest.raises(UserError, match="mine-on-sentences trains on texts, and digits is a task of images"):
        configure("mine-on-sentences", task="digits")


@pytest.mark.parametrize("name", ["acl-a2s", "deacl"])
def test_a_recipe_of_images_trains_on_texts_where_its_method_does(name: str) -> None:
    config = configure(name, task="sentences")
    assert (config.recipe, config.task, config.model.name) == (name, "sentences", "minilm")


def test_a_stage_of_such_a_method_has_it_as_its_recipe() -> None:
    first = {"stages.first": {"method": {"name": "mine"}}}
    assert [stage.config.recipe for stage in split_stages(configure("ce", settings=first))] == ["mine", "ce"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("scla", 'no recipe or method is called "scla"\ndid you mean "scal"?'), ("mien", 'did you mean "mine"?'),
     ("itp", 'did you mean "itpt"?')],
)  # fmt: skip
def test_a_name_of_neither_is_answered_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        find_recipe(name)
    assert says in str(caught.value)
