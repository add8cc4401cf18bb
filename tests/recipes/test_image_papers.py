"""The papers' settings on images: section 4 of ACL, and the scripts that the docstrings name."""

from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.methods import METHODS
from contraverse.recipes import RECIPES, ImageRunConfig, configure, split_stages
from contraverse.types import HeadSpec

PRETRAINED = ("simclr", "acl-a2a", "acl-a2s", "acl-ds", "dynacl")
FINE_TUNED = ("ce", "at", "scal", "freelb", "carl", "pgd-at", "trades")


def on_images(name: str, **settings: Any) -> ImageRunConfig:
    config = configure(name, task="cifar10", settings=settings)
    assert isinstance(config, ImageRunConfig)
    return config


def said(section: Any) -> dict[str, Any]:
    return dict(section.model_dump(exclude_none=True))


@pytest.mark.parametrize("name", PRETRAINED)
def test_pre_training_is_acls(name: str) -> None:
    config = on_images(name)
    train = config.train.arguments
    assert (train["num_train_epochs"], config.train.global_batch_size) == (1000, 512)
    assert (train["learning_rate"], train["weight_decay"]) == (5.0, 1e-6)
    assert said(config.train.optimizer) == {"name": "lars", "momentum": 0.9}
    assert config.train.sync_batch_norm
    every = {"every": "epoch"} if name == "dynacl" else {}
    assert said(config.train.schedule) == {"name": "cosine", "warmup_epochs": 10, "floor": 1e-6 / 5, **every}
    assert config.data.views.kind == "simclr"
    assert config.model.dual is (name in ("acl-a2s", "acl-ds", "dynacl"))
    settings = config.method.settings
    assert settings["temperature"] == 0.5
    if name != "simclr":
        assert (settings["epsilon"], settings["step_size"], settings["steps"]) == (8 / 255, 2 / 255, 5)


@pytest.mark.parametrize("name", FINE_TUNED)
def test_fine_tuning_is_acls(name: str) -> None:
    config = on_images(name)
    train = config.train.arguments
    assert (train["num_train_epochs"], config.train.global_batch_size) == (25, 128)
    assert (train["learning_rate"], train["weight_decay"]) == (0.1, 2e-4)
    assert said(config.train.optimizer) == {"name": "sgd", "momentum": 0.9}
    assert said(config.train.schedule) == {"name": "milestones", "epochs": [15, 20], "factor": 0.1}
    assert (config.data.views.kind, config.data.views.padding) == ("crop-flip", 4)
    evaluation = config.evaluation
    assert (evaluation.attack, evaluation.norm, evaluation.steps) == ("pgd", "linf", 20)
    assert evaluation.epsilons == [8 / 255]
    # The checkpoint is chosen by validation accuracy under attack.
    assert evaluation.robust_validation is (name != "ce")
    assert train.get("metric_for_best_model") == ("robust_accuracy" if name != "ce" else None)


@pytest.mark.parametrize("name", [*PRETRAINED, "deacl", "selfie"])
def test_pre_training_sees_all_images(name: str) -> None:
    """50,000 of CIFAR-10; fine-tuning sets its tenth aside by the same seed as ever."""
    config = on_images(name)
    assert config.data.validation_fraction == 0
    assert config.data.seed == on_images("trades").data.seed
    assert on_images(name, **{"data.validation_fraction": 0.1}).data.validation_fraction == 0.1


def test_stages_see_all_images_where_they_pre_train() -> None:
    for name, expected in (("acl-semi", [0, 0.1, 0.1]), ("uat++", [0.1, 0.1]), ("dynacl++", [0, 0, 0])):
        configs = [stage.config for stage in split_stages(on_images(name))]
        assert [config.data.validation_fraction for config in configs] == expected
        assert len({config.data.seed for config in configs}) == 1


@pytest.mark.parametrize("name", ["uat", "uat++", "acl-semi"])
@pytest.mark.parametrize(
    ("labels", "batch"),
    [("10%", 250), ("1%", 200), ("0.5 %", 200), (0.01, 200), (0.1, 250), (450, 200), (4500, 250), ("all", 250)],
)
def test_the_batch_follows_the_labels(name: str, labels: Any, batch: int) -> None:
    """25 + 225 images with and without a label at 10 %, 2 + 198 at 1 %, as the authors' script."""
    config = on_images(name, **{"data.labels": labels})
    assert config.train.global_batch_size == batch
    assert on_images(name).train.global_batch_size == 250


def test_what_a_user_sets_stays(tmp_path: Any) -> None:
    """On the command line, in a file, and in a file that a run wrote."""
    batch = "train.per_device_train_batch_size"
    config = on_images("acl-semi", **{"data.labels": "1%", batch: 64})
    assert config.train.arguments["per_device_train_batch_size"] == 64
    (tmp_path / "own.yaml").write_text(
        "data: {labels: 1%}\ntrain: {per_device_train_batch_size: 32}\n", encoding="utf-8"
    )
    config = configure("acl-semi", file=tmp_path / "own.yaml")
    assert config.train.arguments["per_device_train_batch_size"] == 32
    whole = on_images("acl-semi", **{"data.labels": "1%"})
    (tmp_path / "config.yaml").write_text(whole.to_yaml(), encoding="utf-8")
    assert configure(file=tmp_path / "config.yaml") == whole
    again = configure(file=tmp_path / "config.yaml", settings={"data.labels": "10%"})
    assert again.train.global_batch_size == 200  # the file says so


def test_a_probe_under_attack_is_chosen_under_attack() -> None:
    """ACL 3: the models are selected by validation RA."""
    clean, attacked = on_images("probe"), on_images("probe", **{"method.attack": "pgd"})
    assert (clean.evaluation.robust_validation, clean.train.arguments.get("metric_for_best_model")) == (False, None)
    assert attacked.evaluation.robust_validation
    assert attacked.train.arguments["metric_for_best_model"] == "robust_accuracy"
    assert attacked.train.arguments["greater_is_better"]
    assert attacked.train.arguments["learning_rate"] == clean.train.arguments["learning_rate"] == 0.01
    own = on_images("probe", **{"method.attack": "pgd", "train.metric_for_best_model": "accuracy"})
    assert own.train.arguments["metric_for_best_model"] == "accuracy"
    assert not configure("probe", task="trec", settings={"method.attack": "pgd"}).evaluation.robust_validation


def test_the_authors_fine_tuning_is_longer_and_else_the_papers() -> None:
    paper, code = on_images("trades"), on_images("trades-100")
    assert code.method == paper.method
    assert (code.data, code.evaluation, code.model) == (paper.data, paper.evaluation, paper.model)
    assert code.train.arguments == {**paper.train.arguments, "num_train_epochs": 100}
    assert said(code.train.schedule) == {"name": "milestones", "epochs": [40, 60], "factor": 0.1}


def test_simclrs_own_crops_and_head() -> None:
    settings = {"data.views.smallest_crop": 0.08, "method.head_layers": 2, "method.head_dim": 128}
    config = on_images("simclr", **settings)
    assert config.data.views.smallest_crop == 0.08
    assert METHODS["simclr"](**config.method.settings).heads["z"] == HeadSpec(kind="mlp", layers=2, dim=128)
    for name in PRETRAINED:
        config = on_images(name)
        assert config.data.views.smallest_crop == 0.1
        assert METHODS[name](**config.method.settings).heads == {"z": HeadSpec(kind="mlp")}
        own = METHODS[name](head_layers=1, head_dim=7)
        assert own.heads == {"z": HeadSpec(kind="mlp", layers=1, dim=7)}


def test_trades_is_ten_steps_with_beta_6() -> None:
    settings = on_images("trades").method.settings
    assert {k: settings[k] for k in ("beta", "steps", "epsilon", "step_size")} == {
        "beta": 6, "steps": 10, "epsilon": 8 / 255, "step_size": 2 / 255,
    }  # fmt: skip


def test_three_steps_each_from_its_own_batch_norm() -> None:
    stages = split_stages(configure("acl-semi", settings={"data.labels": "1%"}))
    assert [stage.folder for stage in stages] == ["1-acl", "2-teacher", "3-uat"]
    assert [stage.init_from for stage in stages] == [None, "1-acl", "1-acl"]
    assert [stage.teacher for stage in stages] == [None, None, "2-teacher"]
    first, teacher, last = (stage.config for stage in stages)
    assert isinstance(first, ImageRunConfig)
    assert isinstance(teacher, ImageRunConfig)
    assert isinstance(last, ImageRunConfig)
    assert (first.model.dual, teacher.model.dual, last.model.dual) == (True, False, False)
    assert (teacher.model.bn_branch, last.model.bn_branch) == ("clean", "adversarial")
    assert {first.data.labels, teacher.data.labels, last.data.labels} == {"1%"}
    assert first.train == on_images("acl-ds").train.model_copy(update=dict(first.train.model_extra or {}))
    assert said(teacher.train.schedule) == {"name": "milestones", "epochs": [40, 60], "factor": 0.1}
    assert teacher.train.arguments["num_train_epochs"] == 100
    assert teacher.train.arguments["metric_for_best_model"] == "accuracy"
    assert said(last.train.schedule) == {"name": "milestones", "epochs": [5, 10], "factor": 0.1}
    assert (last.train.arguments["num_train_epochs"], last.train.arguments["weight_decay"]) == (15, 5e-4)
    assert {k: last.method.settings[k] for k in ("alpha", "temperature", "beta")} == {
        "alpha": 0.5, "temperature": 1.0, "beta": 6.0,
    }  # fmt: skip


def test_uat_starts_at_random() -> None:
    stages = split_stages(configure("uat++"))
    assert [(stage.folder, stage.init_from, stage.teacher) for stage in stages] == [
        ("1-teacher", None, None),
        ("2-uat", None, "1-teacher"),
    ]


def test_a_stage_alone_is_a_run(tmp_path: Any) -> None:
    for stage in split_stages(configure("acl-semi")):
        (tmp_path / "config.yaml").write_text(stage.config.to_yaml(), encoding="utf-8")
        again = configure(file=tmp_path / "config.yaml")
        assert again.to_yaml() == stage.config.to_yaml()
        assert not again.stages


@pytest.mark.parametrize("name", ["simclr", "acl-ds", "pgd-at", "trades", "probe"])
def test_the_same_recipe_trains_on_texts(name: str) -> None:
    config = configure(name, task="trec")
    assert not isinstance(config, ImageRunConfig)
    assert config.model.name == "minilm"
    assert config.train.optimizer is None


def test_a_recipe_of_one_kind_says_so() -> None:
    for name, task in (("uscal", "cifar10"), ("rar", "digits"), ("selfie", "trec"), ("acl-semi", "sst2")):
        with pytest.raises(UserError, match=f"{name} trains on (texts|images), and {task} is a task of (images|texts)"):
            configure(name, task=task)
    assert {name for name, recipe in RECIPES.items() if recipe.images is None} >= {"uscal", "rar", "mlm", "cl"}


def test_dynacl_plus_is_the_authors_post_processing() -> None:
    dynacl, probe, trades = (stage.config for stage in split_stages(on_images("dynacl++")))
    alone = on_images("dynacl")
    assert isinstance(dynacl, ImageRunConfig)
    assert said(dynacl.train.optimizer) == said(alone.train.optimizer)
    assert said(dynacl.train.schedule) == said(alone.train.schedule)
    assert dynacl.train.arguments["num_train_epochs"] == 1000
    assert (dynacl.data.views, dynacl.model.dual) == (alone.data.views, True)
    assert (dynacl.data.clusters, dynacl.data.pseudo_labels) == (None, None)
    for config, epochs, rate, milestones in ((probe, 10, 0.01, []), (trades, 25, 0.1, [11, 21])):
        assert isinstance(config, ImageRunConfig)
        train = config.train.arguments
        assert (train["num_train_epochs"], train["learning_rate"]) == (epochs, rate)
        assert (config.train.global_batch_size, train["weight_decay"]) == (512, 1e-4)
        assert said(config.train.schedule)["epochs"] == milestones
        assert (config.data.clusters, config.data.views.kind) == (10, "crop-flip")
        assert (config.model.dual, config.model.bn_branch) == (False, "adversarial")
    assert [stage.init_from for stage in split_stages(on_images("dynacl++"))] == [None, "1-dynacl", "2-probe"]
    assert [stage.teacher for stage in split_stages(on_images("dynacl++"))] == [None, "1-dynacl", "1-dynacl"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"data": {"clusters": 10}}, "no encoder"),
        ({"data": {"clusters": 1, "pseudo_labels": "runs/acl"}}, "data.clusters"),
        ({"data": {"clusters": 10, "pseudo_labels": "runs/acl", "labels": "10%"}}, "without labels"),
    ],
)
def test_clusters_need_an_encoder_and_no_labels(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        on_images("trades", **settings)
