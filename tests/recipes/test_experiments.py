"""``--paper``: for each recipe and task of the papers, the settings that the page prints, typed here from the page."""

from pathlib import Path
from typing import Any

import pytest

from contraverse.data import TASKS
from contraverse.errors import UserError
from contraverse.recipes import (
    NLI_SENTENCES,
    RECIPES,
    RunConfig,
    change,
    configure,
    differences,
    experiment_of,
    load,
    ours,
    parse_range,
    space_of,
    split_stages,
)
from contraverse.recipes.schema import dotted

BERT, ROBERTA, ALBERT = "google-bert/bert-base-uncased", "FacebookAI/roberta-base", "albert/albert-base-v2"
LARGE = ("FacebookAI/roberta-large", "google-bert/bert-large-uncased")
GLUE = ("mrpc", "cola", "rte", "sst2", "qnli", "qqp", "mnli", "mnli-mm")


def has(config: RunConfig, expected: dict[str, Any]) -> None:
    values = dict(dotted(config.model_dump()))
    assert {name: values.get(name, "absent") for name in expected} == expected


# CARL/RAR, Table 1: gamma, alpha, n (epsilon 0 of the table is no limit); 4.3: batch; Table 3 in epochs; 4.3: m.
CARL_RAR = {
    "sst2": (0.6, 0.1, 2, 32, 3.0, 16000),
    "yahoo_answers": (0.0, 0.01, 3, 32, 3.84, 16000),
    "yelp_polarity": (0.5, 0.05, 3, 32, 3.0, 20000),
    "ag_news": (0.0, 0.01, 3, 16, 2.07, 16000),
}


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("task", CARL_RAR)
@pytest.mark.parametrize("name", ["freelb", "carl", "rar"])
def test_what_table_1_has_for_a_data_set_holds_with_the_paper_and_without(name: str, task: str, paper: bool) -> None:
    gamma, alpha, n, batch, start, m = CARL_RAR[task]
    expected = {"gamma": gamma, "step_size": alpha, "steps": n, "epsilon": None, "count": "passes"}
    if name == "carl":
        expected |= {"start": start, "negatives": m, "temperature": 0.07, "momentum": 0.5}
    config = configure(name, task=task, paper=paper)
    has(config, {f"method.{key}": value for key, value in expected.items()})
    has(config, {"train.global_batch_size": batch})


def test_the_start_of_carl_is_table_3_in_epochs() -> None:
    """Steps, rows and batch of each data set; Table 9 and 4.3."""
    for task, steps, rows in (
        ("sst2", 6315, 67349),
        ("yahoo_answers", 7200, 60000),
        ("yelp_polarity", 5625, 60000),
        ("ag_news", 7750, 60000),
    ):
        config = configure("carl", task=task)
        batch = config.train.global_batch_size
        assert config.method.settings["start"] == pytest.approx(steps * batch / rows, abs=0.005)


@pytest.mark.parametrize("task", CARL_RAR)
@pytest.mark.parametrize("name", ["ce", "freelb", "carl", "rar"])
def test_carl_and_rar_are_trained_and_measured_as_section_4_says(name: str, task: str) -> None:
    """4.3: albert-base-v2, Adam (AdamW without decay), 1e-5; 4.1: its rows; Tables 4 and 5: k-PGD at these radii."""
    config = configure(name, task=task, paper=True, settings={"model.name": ALBERT})
    expected = {
        "paper": True,
        "model.name": ALBERT,
        "data.rows": "paper",
        "train.optim": "adamw_torch_fused",
        "train.weight_decay": 0.0,
        "train.learning_rate": 1e-5,
        "train.lr_scheduler_type": "constant",
        "train.warmup_steps": 0,
        "train.global_batch_size": 16 if task == "ag_news" else 32,
        "train.load_best_model_at_end": True,
        "evaluation.epsilons": [0.02, 0.075, 0.1],
        "evaluation.attack": "pgd",
        "evaluation.shift": True,
        # 4.3: "For SST-2, we use a development set to do the evaluation."
        "evaluation.split": "validation" if task == "sst2" else "test",
    }
    has(config, expected)
    assert TASKS[task].paper_rows is not None
    if name == "carl":  # eqs. (2), (3), (6): positives of this step, L_D unweighted, L_C climbed
        has(config, {"method.weight": 1.0, "method.positive": "current", "method.climb": "ce"})
    if name == "rar":  # eq. (7)
        has(config, {"method.weight": 0.1, "method.climb": "ce"})


@pytest.mark.parametrize(("model", "batch"), [(BERT, 32), (ROBERTA, 16)])
@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("ce", (*GLUE, "ag_news", "trec")),  # Tables 3 and 5
        ("scal", (*GLUE, "ag_news", "trec")),
        ("at", ("mrpc", "cola", "rte", "ag_news", "trec")),  # Tables 4 and 5
        ("cl", ("mrpc", "cola", "rte", "ag_news", "trec")),
    ],
)
def test_scal_and_its_baselines_are_section_4_1(name: str, tasks: tuple[str, ...], model: str, batch: int) -> None:
    for task in tasks:
        config = configure(name, task=task, paper=True, settings={"model.name": model})
        expected = {
            "model.name": model,
            "model.max_length": 128,
            "model.pooling": "cls",
            "train.global_batch_size": batch,
            "train.learning_rate": 3e-5,
            "train.weight_decay": 0.01,
            "train.num_train_epochs": 15,
            "data.rows": "all",
            "evaluation.epsilons": [],
            # 4.4: "Table 3 gives the result in development sets."
            "evaluation.split": "validation" if task in GLUE else "test",
        }
        has(config, expected)
        assert config.train.early_stopping_patience is not None
        if name == "scal":
            assert config.method.settings["temperature"] == 0.05
            assert config.method.settings["epsilon"] in (0.1, 0.2, 0.3, 0.4, 0.5)


def test_without_a_model_the_papers_first_is_taken_and_of_another_one_of_its_family() -> None:
    assert configure("scal", task="mrpc", paper=True).model.name == BERT
    large = configure("scal", task="mrpc", paper=True, settings={"model.name": "FacebookAI/roberta-large"})
    assert large.train.global_batch_size == 16
    # The row ALBERT of CARL's Table 2, and the row BERT of SCAL's Table 3.
    assert configure("ce", task="sst2", paper=True).train.arguments["learning_rate"] == 3e-5
    albert = configure("ce", task="sst2", paper=True, settings={"model.name": ALBERT})
    assert albert.train.arguments["learning_rate"] == 1e-5


def test_a_folder_is_of_the_family_that_its_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"model_type": "roberta"}')
    config = configure("scal", task="mrpc", paper=True, settings={"model.name": str(tmp_path / "mine")})
    assert config.train.global_batch_size == 16
    assert config.model.name == str(tmp_path / "mine")


@pytest.mark.parametrize("model", LARGE)
@pytest.mark.parametrize("name", ["ce", "scal", "freelb", "infobert", "smart", "alum"])
def test_anli_is_trained_as_infobert_without_up_sampling(name: str, model: str) -> None:
    """SCAL 4.6: SNLI, MNLI, ANLI, FEVER, batch 32; InfoBERT's code: 2e-5, 128 tokens, warm-up of 1,000, no weights."""
    config = configure(name, task="anli", paper=True, settings={"model.name": model})
    expected = {
        "model.name": model,
        "model.max_length": 128,
        "train.global_batch_size": 32,
        "train.learning_rate": 2e-5,
        "train.warmup_steps": 1000,
        "evaluation.epsilons": [],
    }
    has(config, expected)
    assert isinstance(config.data.source, dict)
    assert config.data.source["train"] == [
        {"task": task} for task in ("snli", "mnli", "fever-nli", "anli_a1", "anli_a2", "anli_a3")
    ]
    if name in ("freelb", "infobert"):  # InfoBERT's setup.sh
        has(config, {"method.steps": 3, "method.step_size": 0.04, "method.gamma": 0.08, "method.epsilon": None})
    if name == "infobert":
        has(config, {"method.alpha": 5e-3, "method.beta": 5e-3})
    if name in ("smart", "alum"):  # their papers, 1e-5 with the masks of their code, which alone has an effect
        has(config, {"method.epsilon": 1e-5, "method.step_size": 1e-3, "method.sigma": 1e-5})
        has(config, {"method.share_dropout": False, "method.weight": 1.0, "method.norm": "linf", "method.steps": 1})


# SimCSE, the table of its README: batch and rate.
@pytest.mark.parametrize(
    ("name", "task", "model", "batch", "rate", "epochs"),
    [
        ("simcse", "sentences", BERT, 64, 3e-5, 1),
        ("simcse", "sentences", ROBERTA, 512, 1e-5, 1),
        ("simcse-sup", "nli", BERT, 512, 5e-5, 3),
        ("simcse-sup", "nli", ROBERTA, 512, 5e-5, 3),
    ],
)
def test_simcse_is_the_authors(name: str, task: str, model: str, batch: int, rate: float, epochs: int) -> None:
    config = configure(name, task=task, paper=True, settings={"model.name": model})
    expected = {
        "model.max_length": 32,
        "model.embedding": "h" if name == "simcse" else "z",
        "train.global_batch_size": batch,
        "train.learning_rate": rate,
        "train.num_train_epochs": epochs,
        "train.eval_steps": 125,
        "train.weight_decay": 0.0,
        "train.warmup_steps": 0,
        "evaluation.sts": "hub",
    }
    has(config, expected)


@pytest.mark.parametrize("model", [BERT, ROBERTA])
def test_uscal_is_chosen_every_250_steps_on_stsb(model: str) -> None:
    """SCAL 4.1: batch 64, 32 tokens, STS-B's dev set every 250 steps, the best checkpoint."""
    config = configure("uscal", task="sentences", paper=True, settings={"model.name": model})
    expected = {
        "model.max_length": 32,
        "train.global_batch_size": 64,
        "train.eval_steps": 250,
        "train.load_best_model_at_end": True,
        "evaluation.sts": "hub",
    }
    has(config, expected)


def test_isbert_learns_from_sentences_of_nli() -> None:
    config = configure("isbert", paper=True)
    assert config.data.source == NLI_SENTENCES
    assert [(part["source"], part["text"]) for part in NLI_SENTENCES] == [
        ("stanfordnlp/snli", "premise"),
        ("stanfordnlp/snli", "hypothesis"),
        ("nyu-mll/glue:mnli", "premise"),
        ("nyu-mll/glue:mnli", "hypothesis"),
    ]
    assert configure("isbert", paper=True, source="mine.txt").data.source == "mine.txt"


def test_itpt_is_100_000_steps_and_then_fine_tuning() -> None:
    """Sun et al. (2019), 5.1: 100,000 steps of 32 at 5e-5, warm-up 10,000; then 24 at 2e-5, four epochs."""
    first, last = (stage.config for stage in split_stages(configure("itpt", task="trec", paper=True)))
    has(first, {"train.max_steps": 100_000, "train.warmup_steps": 10_000, "train.global_batch_size": 32})
    has(first, {"train.learning_rate": 5e-5, "model.name": BERT, "paper": False, "recipe": "mlm"})
    has(last, {"train.global_batch_size": 24, "train.learning_rate": 2e-5, "train.num_train_epochs": 4})
    has(last, {"train.warmup_steps": 0.1, "paper": False, "recipe": "ce"})
    assert "max_steps" not in last.train.arguments


@pytest.mark.parametrize("name", ["acl-ds", "acl-semi", "trades"])
def test_of_images_the_recipe_is_the_papers_experiment(name: str) -> None:
    """ACL 4: CIFAR-10 and -100 on ResNet-18; all else the recipe has already."""
    for task in ("cifar10", "cifar100"):
        paper, plain = configure(name, task=task, paper=True), configure(name, task=task)
        assert paper.model.name == "resnet18"
        assert paper == plain.model_copy(update={"paper": True})
        assert differences(plain) == []
        small = configure(name, task=task, settings={"model.name": "resnet8"})
        assert [difference.setting for difference in differences(small)] == ["model.name"]
    with pytest.raises(UserError, match="there is one on cifar10, cifar100"):
        configure(name, task="images", paper=True)


EXPERIMENTS = [
    (name, experiment.tasks[-1], experiment.model)
    for name, recipe in RECIPES.items()
    for experiment in recipe.experiments
]


@pytest.mark.parametrize(("name", "task", "model"), EXPERIMENTS)
def test_an_experiment_is_repeated_by_the_file_that_it_writes(name: str, task: str, model: str, tmp_path: Path) -> None:
    config = configure(name, task=task, paper=True, settings={"model.name": model})
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    assert configure(file=file) == load(file) == config
    assert differences(config) == []
    # What is ours is a setting that there is.
    known = {*dict(dotted(config.model_dump())), "data"}
    assert {own.setting for own, _ in ours(config)} <= known
    assert all(own.why for own, _ in ours(config))
    experiment = experiment_of(config)
    assert experiment is not None
    assert experiment.run.startswith("paper scale: ")


def test_a_run_on_the_bundled_encoder_names_each_setting_in_which_it_differs() -> None:
    found = {name: (value, paper) for name, value, paper in differences(configure("carl", task="ag_news"))}
    assert found["model.name"] == ("minilm", ALBERT)
    assert found["train.learning_rate"] == (3e-5, 1e-5)
    assert found["data.rows"] == ("all", "paper")
    assert not {"method.gamma", "method.step_size", "method.start", "train.seed"} & found.keys()


def test_a_users_rows_and_seed_are_no_difference_and_a_users_setting_is() -> None:
    config = configure("carl", task="sst2", paper=True, source="mine", settings={"train.seed": 3, "method.gamma": 0.1})
    assert differences(config) == [("method.gamma", 0.1, 0.6)]
    assert differences(change(configure("scal", task="trec", paper=True), {"method.epsilon": 0.1})) == [
        ("method.epsilon", 0.1, 0.3)
    ]


def test_of_a_task_that_no_paper_ran_there_is_no_experiment() -> None:
    assert differences(configure("carl", task="trec")) == []
    with pytest.raises(UserError, match="no paper's experiment of carl on trec") as caught:
        configure("carl", task="trec", paper=True)
    assert "sst2, yahoo_answers, yelp_polarity, ag_news" in str(caught.value)
    with pytest.raises(UserError, match="recipes that have one: ce, at"):
        configure("mlm", paper=True)


def test_the_papers_grid_of_epsilon_is_searched() -> None:
    assert space_of("scal", paper=True) == {"method.epsilon": [0.1, 0.2, 0.3, 0.4, 0.5]}
    assert "train.learning_rate" not in space_of("freelb", paper=True)
    assert parse_range("x", space_of("freelb", paper=True)["method.gamma"]).ends == [0, 0.8]
