"""The papers' settings: section 4.1 of SCAL/USCAL, checked against the page and not the code."""

import pytest

from contraverse.data import any_task
from contraverse.methods import CARL, METHODS
from contraverse.recipes import RECIPES, ImageRunConfig, configure, split_stages

LABELLED = ("ce", "at", "cl", "scal")
SENTENCES = ("simcse", "uscal")


TEXTS = [name for name in RECIPES if not isinstance(configure(name), ImageRunConfig)]

STAGED = {"itpt": "ce", "uat++": "uat", "acl-semi": "uat", "dynacl++": "trades"}
"""Recipes that are no method's own, and the method of their last stage."""
LONGER = {"trades-100": "trades"}
"""Recipes of a method that has one already, on another schedule."""


def test_every_recipe_is_a_method_or_several_and_vat_takes_the_baselines() -> None:
    assert set(METHODS) | set(STAGED) | set(LONGER) == set(RECIPES) | {"vat"}
    assert configure("vat").method.name == "vat"
    assert {name for name in RECIPES if configure(name).stages} == set(STAGED)
    assert all(recipe.name == name and recipe.summary and recipe.paper for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_configuration_on_its_own_task(name: str) -> None:
    config = configure(name)
    assert config.recipe == name
    assert config.method.name == (STAGED | LONGER).get(name, name)
    assert config.task == RECIPES[name].task == any_task(config.task).name
    METHODS[config.method.name](**config.method.settings)


@pytest.mark.parametrize("name", TEXTS)
def test_the_optimiser_is_the_papers(name: str) -> None:
    train = configure(name).train.arguments
    assert train["optim"] == "adamw_torch_fused"
    assert train["weight_decay"] == 0.01
    assert train["warmup_steps"] == 0.1
    assert train["lr_scheduler_type"] == "linear"
    assert train.get("load_best_model_at_end", False) is (name != "mlm")  # which has nothing to validate on
    rates = {"simcse-sup": 5e-5, "mlm": 5e-5, "consert": 5e-7, "isbert": 2e-5}
    assert train["learning_rate"] == rates.get(name, 3e-5)


@pytest.mark.parametrize("name", LABELLED)
def test_fine_tuning_is_15_epochs_of_batch_32_and_128_tokens_with_early_stopping(name: str) -> None:
    config = configure(name)
    assert config.model.max_length == 128
    assert config.train.global_batch_size == 32
    assert config.train.arguments["num_train_epochs"] == 15
    assert config.train.early_stopping_patience is not None


@pytest.mark.parametrize("name", SENTENCES)
def test_sentence_embeddings_are_batch_64_and_32_tokens_looked_at_every_250_steps(name: str) -> None:
    config = configure(name)
    assert config.model.max_length == 32
    assert config.train.global_batch_size == 64
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
    assert {name for name in TEXTS if configure(name).model.embedding == "z"} == {"simcse-sup"}


def test_consert_is_the_authors_script() -> None:
    """unsup-consert-base.sh: feature cut-off of .2 against shuffling, temperature .1, without dropout."""
    config = configure("consert")
    settings, train = config.method.settings, config.train.arguments
    assert (settings["first"], settings["second"], settings["feature_rate"]) == ("feature-cutoff", "shuffle", 0.2)
    assert (settings["temperature"], settings["encoder_dropout"]) == (0.1, False)
    assert (config.model.pooling, config.model.max_length) == ("last-two", 64)
    assert (config.train.global_batch_size, train["num_train_epochs"]) == (96, 10)
    assert (train["eval_steps"], config.train.early_stopping_patience) == (200, 10)


def test_isbert_tests_the_mean_of_its_n_grams() -> None:
    config = configure("isbert")
    assert config.model.embedding == "ngrams"
    assert (config.train.global_batch_size, config.train.arguments["num_train_epochs"]) == (
        32,
        1,
    )


def test_itpt_is_the_baseline_after_masked_language_modelling_on_the_same_rows() -> None:
    itpt, ce = configure("itpt"), configure("ce")
    first, last = (stage.config for stage in split_stages(itpt))
    assert last == ce
    assert first.method.name == "mlm"
    assert first.method.settings == {"mlm_probability": 0.15}
    assert (first.data, first.model, first.task) == (ce.data, ce.model, ce.task)
    train = first.train.arguments
    assert (train["learning_rate"], first.train.global_batch_size) == (5e-5, 32)
    assert first.train.early_stopping_patience is None


@pytest.mark.parametrize("task", ["sst2", "cifar10"])
def test_carls_weight_is_the_one_that_was_trained(task: str) -> None:
    """.03 on three seeds and three tasks (docs/log.md); the recipe had 1, which nobody ever trained."""
    assert configure("carl", settings={"task": task}).method.settings["weight"] == 0.03
    assert CARL().weight == 0.03
