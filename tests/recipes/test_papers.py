"""The papers' settings: section 4.1 of SCAL/USCAL, checked against the page and not the code."""

import pytest

from contraverse.data import get_task
from contraverse.methods import METHODS
from contraverse.recipes import RECIPES, configure

LABELLED = ("ce", "at", "cl", "scal")
SENTENCES = ("simcse", "uscal")


def test_there_is_a_recipe_for_every_method() -> None:
    assert set(RECIPES) == set(METHODS)
    assert all(recipe.name == name and recipe.summary and recipe.paper for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_configuration_on_its_own_task(name: str) -> None:
    config = configure(name)
    assert config.recipe == config.method.name == name
    assert config.task == RECIPES[name].task == get_task(config.task).name
    METHODS[name](**config.method.settings)


@pytest.mark.parametrize("name", RECIPES)
def test_the_optimiser_is_the_papers(name: str) -> None:
    train = configure(name).train.arguments
    assert train["optim"] == "adamw_torch_fused"
    assert train["weight_decay"] == 0.01
    assert train["warmup_steps"] == 0.1
    assert train["lr_scheduler_type"] == "linear"
    assert train["load_best_model_at_end"] is True
    assert train["learning_rate"] == (5e-5 if name == "simcse-sup" else 3e-5)


@pytest.mark.parametrize("name", LABELLED)
def test_fine_tuning_is_15_epochs_of_batch_32_and_128_tokens_with_early_stopping(name: str) -> None:
    config = configure(name)
    assert config.model.max_length == 128
    assert config.train.arguments["per_device_train_batch_size"] == 32
    assert config.train.arguments["num_train_epochs"] == 15
    assert config.train.early_stopping_patience is not None


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence_embeddings_are_batch_64_and_32_tokens_looked_at_every_250_steps(name: str) -> None:
    config = configure(name)
    assert config.model.max_length == 32
    assert config.train.arguments["per_device_train_batch_size"] == 64
    assert config.train.arguments["eval_strategy"] == config.train.arguments["save_strategy"] == "steps"
    assert config.train.arguments["eval_steps"] == config.train.arguments["save_steps"] == 250
    assert config.train.early_stopping_patience is None


@pytest.mark.parametrize("name", ["cl", "scal", "simcse", "simcse-sup", "uscal"])
def test_the_temperature_is_05(name: str) -> None:
    assert configure(name).method.settings["temperature"] == 0.05


def test_simcse_and_uscal_differ_in_the_method_alone() -> None:
    simcse, uscal = (configure(name).model_dump(exclude={"recipe", "method"}) for name in SENTENCES)
    assert simcse == uscal


def test_only_supervised_simcse_keeps_the_head_at_test() -> None:
    assert {name for name in RECIPES if configure(name).model.embedding == "z"} == {"simcse-sup"}
