"""Recipe, file and settings come together in that order, and every mistake is told before any work."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contraverse.errors import UserError
from contraverse.recipes import RunConfig, change, configure, load, parse


def mistake(*assignments: str, recipe: str | None = "scal", file: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        configure(recipe, file=file, settings=parse(assignments))
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_later_layers_win(tmp_path: Path) -> None:
    file = written(tmp_path, "method: {epsilon: .5, alpha: .7}\ntrain:\n  learning_rate: 1e-4\nmodel:\n")
    config = configure("scal", file=file, settings={"method.alpha": 0.2, "train.num_train_epochs": 1})
    assert config.method.settings["temperature"] == 0.05  # the recipe's
    assert config.method.settings["epsilon"] == 0.5  # the file's
    assert config.method.settings["alpha"] == 0.2  # the caller's
    assert config.train.arguments["learning_rate"] == 1e-4
    assert config.train.arguments["num_train_epochs"] == 1
    assert config.train.arguments["weight_decay"] == 0.01
    assert config.model.max_length == 128  # an empty section changes nothing


def test_task_and_source_have_short_names() -> None:
    config = configure("ce", task="trec", source="questions.csv")
    assert (config.task, config.data.source) == ("trec", "questions.csv")


@pytest.mark.parametrize("recipe", ["scal", "simcse-sup"])
def test_a_runs_own_file_gives_the_run_again(tmp_path: Path, recipe: str) -> None:
    settings = {
        "data.text": "no",  # a column whose name YAML 1.1 takes for false
        "data.source": "über/3e-5",
        "train.learning_rate": 1 / 3e4,
        "evaluation.epsilons": [0.1, 1e-7],
        "method.temperature": 0.07,
    }
    config = configure(recipe, settings=settings)
    file = written(tmp_path, config.to_yaml())
    assert configure(file=file) == load(file) == config
    assert configure(file=file).to_yaml() == config.to_yaml()


def test_the_whole_configuration_is_written_down() -> None:
    settings = configure("scal").method.settings
    assert settings == {
        "epsilon": 0.3,
        "alpha": 0.1,
        "temperature": 0.05,
        "attack": "fgm",
        "contrast": "infonce",
        "scope": "sequence",
        "same_class": "negatives",
        "projection": "new",
        "views_of": "draw",
        "view_draws": 3,
    }


def test_order_of_settings_does_not_show(tmp_path: Path) -> None:
    one = configure("scal", settings={"train.max_steps": 5, "train.fp16": False})
    other = configure("scal", settings={"train.fp16": False, "train.max_steps": 5})
    assert one.to_yaml() == other.to_yaml()


def test_text_is_converted_to_the_type_of_the_setting() -> None:
    settings = {"method.epsilon": ".5", "train.learning_rate": "1e-4", "train.eval_steps": "20", "data.seed": "7"}
    config = configure("scal", settings=settings)
    assert config.method.settings["epsilon"] == 0.5
    assert config.train.arguments["learning_rate"] == 1e-4
    assert config.data.seed == 7
    assert repr(config.train.arguments["eval_steps"]) == "20"


def test_words_that_yaml_once_took_for_booleans_stay_words() -> None:
    settings = parse(["train.eval_strategy=no", "train.load_best_model_at_end=false", "train.report_to=none"])
    train = configure("ce", settings=settings).train.arguments
    assert (train["eval_strategy"], train["load_best_model_at_end"], train["report_to"]) == ("no", False, "none")


@pytest.mark.parametrize("order", [1, -1])
def test_another_method_does_not_inherit_the_recipes_settings(order: int) -> None:
    config = configure("scal", settings=parse(["method.name=at", "method.epsilon=.5"][::order]))
    assert config.method.settings == {"epsilon": 0.5, "attack": "fgm", "scope": "sequence"}


def test_a_configuration_cannot_be_changed_afterwards() -> None:
    config = configure("ce")
    with pytest.raises(ValidationError):
        config.task = "trec"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("dta.source=x", ["dta: no such setting", '"data"']),
        ("data.soorce=x", ["data.soorce: no such setting", '"source"']),
        ("method.epsilom=.3", ["method.epsilom: no such setting", '"epsilon"', "alpha"]),
        ("train.lerning_rate=1", ["train.lerning_rate", '"learning_rate"']),
        ("train.early_stoping_patience=1", ['"early_stopping_patience"']),
        ("train.warmup_ratio=.1", ['"warmup_steps"']),
        ("method.epsilon=-1", ["method.epsilon: -1 is not possible", "greater than 0"]),
        ("method.epsilon=abc", ["'abc'", "valid number"]),
        ("method.attack=fgmm", ["'fgm' or 'fgsm'"]),
        ("method.name=scla", ["method.name", '"scal"']),
        ("model.pooling=best", ["'cls', 'last'"]),
        ("data.validation_fraction=1.5", ["less than 1"]),
        ("data.train_rows=none", ["valid integer", "write null for none"]),
        ("evaluation.epsilons=[.1,-.3]", ["evaluation.epsilons[1]", "-0.3", "greater than 0"]),
        ("evaluation.epsilons=.1", ["valid list"]),
        ("evaluation.rows=1.5", ["valid integer"]),
        ("train.learning_rate=-1", ["train.learning_rate: -1", "greater than 0"]),
        ("train.learning_rate=1e30", ["train.learning_rate: 1e+30", "less than or equal to 1000"]),
        ("train.weight_decay=1e30", ["train.weight_decay: 1e+30", "less than or equal to 1000"]),
        ("train.learning_rate=fast", ["'fast'", "valid number"]),
        ("train.lr_scheduler_type=linearr", ["'linear', 'cosine'"]),
        ("train.per_device_train_batch_size=0", ["greater than or equal to 1"]),
        ("train.early_stopping_patience=0", ["greater than or equal to 1"]),
        ("train.save_strategy=steps", ["train: ", "save and eval strategy to match"]),
        ("train.output_dir=x", ["cannot be set", "--output"]),
        ("train.resume_from_checkpoint=x", ["--resume"]),
        ("train.fsdp=offload", ["train.fsdp: 'offload' is no way", "true"]),
        ("train.deepspeed=zero.json", ["train.deepspeed: cannot be set", "torchrun"]),
        ("train.global_batch_size=0", ["greater than or equal to 1"]),
        ("train=3", ["train: is a section of settings"]),
        ("method=at", ["method: is a section of settings"]),
        ("task=trecc", ["trecc", "trec"]),
        ("recipe=ce", ["name the recipe itself"]),
    ],
)
def test_a_mistake_is_named_with_what_is_possible(assignment: str, says: list[str]) -> None:
    message = mistake(assignment)
    assert all(part in message for part in says), message


def test_several_mistakes_are_told_at_once() -> None:
    message = mistake("model.pooling=best", "evaluation.norm=l3")
    assert "2 settings are wrong" in message
    assert "model.pooling" in message
    assert "'l2' or 'linf'" in message


def test_a_batch_is_said_in_one_way(tmp_path: Path) -> None:
    """The recipe's is of all processes; what is set above it, in either way, takes its place."""

    def batch(**settings: Any) -> tuple[Any, Any]:
        config = configure("scal", settings=settings)
        file = tmp_path / "config.yaml"
        file.write_text(config.to_yaml(), encoding="utf-8")
        assert configure(file=file) == config
        return config.train.global_batch_size, config.train.arguments.get("per_device_train_batch_size")

    assert batch() == (32, None)
    assert batch(**{"train.global_batch_size": 64}) == (64, None)
    assert batch(**{"train.per_device_train_batch_size": 8}) == (None, 8)
    assert batch(**{"train.per_device_train_batch_size": 8, "train.global_batch_size": None}) == (None, 8)
    # Over a file that says it the other way.
    (tmp_path / "mine.yaml").write_text("recipe: scal\ntrain: {per_device_train_batch_size: 8}\n", encoding="utf-8")
    again = configure(file=tmp_path / "mine.yaml", settings={"train.global_batch_size": 16})
    assert (again.train.global_batch_size, again.train.arguments.get("per_device_train_batch_size")) == (16, None)
    both = mistake("train.global_batch_size=64", "train.per_device_train_batch_size=8")
    assert "set one of them" in both


def test_a_union_is_one_mistake_with_one_line() -> None:
    assert mistake("train.eval_steps=x").count("train.eval_steps") == 1


@pytest.mark.parametrize(
    ("recipe", "task", "says"),
    [
        ("scal", "sentences", "scal needs labels"),
        ("simcse-sup", "trec", "tasks that fit: nli"),
        ("uscal", "nli", "uscal needs sentences"),
        ("mlm", "nli", "tasks that fit: mrpc"),
    ],
)
def test_a_task_that_lacks_what_the_method_needs_is_refused(recipe: str, task: str, says: str) -> None:
    assert says in mistake(f"task={task}", recipe=recipe)


def test_a_regression_has_labels_enough() -> None:
    assert configure("scal", task="stsb").task == "stsb"


@pytest.mark.parametrize("recipe", ["uscal", "simcse", "mlm"])
def test_labelled_rows_have_sentences(recipe: str) -> None:
    assert configure(recipe, task="trec").task == "trec"


def test_a_configuration_is_changed_as_it_is_made() -> None:
    config = configure("scal", task="trec")
    settings = {"method.epsilon": ".5", "train.learning_rate": 1e-4}
    assert change(config, settings) == configure("scal", task="trec", settings=settings)
    assert config.method.settings["epsilon"] == 0.3
    with pytest.raises(UserError, match=r"method\.epsilon: -1 is not possible"):
        change(config, {"method.epsilon": -1})


def test_recipes_are_suggested_and_listed() -> None:
    assert 'did you mean "scal"?' in mistake(recipe="scla")
    assert "ce, at, cl, scal" in mistake(recipe=None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("recipe: at\n", "is a configuration of the recipe at, not scal"),
        ("recipe: scal\nmodle: {}\n", '"model"'),
        ("- 1\n", "holds no configuration"),
        ("a: [\n", "not readable as YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str, says: str) -> None:
    assert says in mistake(file=written(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    assert "No such file" in mistake(file=tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in mistake(file=tmp_path / "binary.yaml")


@pytest.mark.parametrize("assignment", ["alpha", "=3", " =3"])
def test_an_assignment_needs_a_key_and_an_equals_sign(assignment: str) -> None:
    with pytest.raises(UserError, match="key=value"):
        parse([assignment])


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse(["data.source=a=b.csv", "data.label="]) == {"data.source": "a=b.csv", "data.label": None}


def test_reading_a_run_does_not_check_what_this_computer_can_do(tmp_path: Path) -> None:
    config = configure("ce")
    made: dict[str, Any] = config.model_dump()
    made["train"]["bf16"] = True  # on another computer
    file = written(tmp_path, RunConfig.model_validate(made).to_yaml())
    assert load(file).train.arguments["bf16"] is True


@pytest.mark.parametrize(
    "text",
    ["recipe: [scal]", "recipe: {a: b}", "method: {name: [a]}", "method: {name: {a: 1}}", "task: [a]", "stages: [a]",
     "train: {schedule: {name: [a]}}", "stages: {a: {method: {name: [x]}}}", "train: {optim: [a]}"],
)  # fmt: skip
def test_names_that_are_no_text_are_refused(text: str, tmp_path: Path) -> None:
    """F17."""
    (tmp_path / "c.yaml").write_text(text if "recipe" in text else f"recipe: scal\n{text}")
    task = None if text.startswith("task") else "text"
    with pytest.raises(UserError):
        configure(file=tmp_path / "c.yaml", task=task, source="rows.csv")


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(UserError) as caught:
        configure("scal", settings={"method.epsilon": "x" * 5000})
    assert "'xxx" in str(caught.value)
    assert "x… is not possible: it must be a valid number" in str(caught.value)
    assert len(str(caught.value)) < 400
