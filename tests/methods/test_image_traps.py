"""The traps that others' code for images fell into, and the test that catches each here.

T1  an attack moves the statistics of batch norm (AdvCL, Selfie)
    tests/methods/test_attacked_images.py::test_an_attack_leaves_no_trace
    tests/methods/test_acl.py::test_an_attack_leaves_the_model_and_the_generator_alone
    tests/attacks/test_pixels.py::test_an_attack_leaves_the_model_and_the_generators_bit_equal
T2  a pass by one bn_branch moves the other's statistics
    tests/models/test_dual_bn.py::test_a_pass_updates_its_own_route_alone_and_once
    tests/methods/test_acl.py::test_each_set_learns_from_its_own_stream
T3  a plain network is given the wrong one of the two sets
    tests/models/test_dual_bn.py::test_a_plain_network_of_one_set_gives_the_logits_of_its_route
    tests/models/test_image_model.py::test_a_branch_takes_one_set_or_both_and_the_classifier_of_the_same_classes
T4  weights that do not fit are left out without a word (AdvCL)
    tests/models/test_checkpoints.py::test_a_file_that_is_not_whole_is_refused
    tests/models/test_checkpoints.py::test_acls_checkpoint_gives_its_features_and_its_projection
T5  an evaluation sets the seed, so that every epoch is the same
    tests/methods/test_image_traps.py::test_an_evaluation_draws_apart
    tests/methods/test_image_traps.py::test_epochs_differ_and_a_seed_repeats_them_whatever_an_evaluator_does
T6  an evaluation puts other weights into the model that is trained
    tests/methods/test_image_traps.py::test_a_run_that_is_measured_is_one_that_is_not
T7  the checkpoint is chosen on the test images
    tests/methods/test_image_traps.py::test_the_test_labels_choose_no_checkpoint
T8  the loader normalises, so that epsilon is no distance of pixels (lightly)
    tests/models/test_image_model.py::test_the_normalisation_is_inside_and_delta_is_added_before_it
    tests/attacks/test_pixels.py::test_every_attacked_input_is_in_the_box_as_the_network_sees_it
    tests/attacks/test_pixels.py::test_an_epsilon_of_zero_is_the_clean_input
T9  the random start leaves [0, 1] (ACL)
    tests/methods/test_attacked_images.py::test_every_attacked_image_is_an_image_within_epsilon
    tests/methods/test_acl.py::test_attacked_images_are_images_within_the_ball
T10 TRADES starts at the image itself, where its divergence has no gradient (DynACL)
    tests/methods/test_trades.py::test_the_start_differs_from_the_image
T11 TRADES sends the clean images through batch norm twice
    tests/methods/test_attacked_images.py::test_each_route_sees_one_batch_a_step
T12 a frozen backbone in training mode, whose statistics move
    tests/methods/test_probe.py::test_the_encoder_is_left_as_it_is
    tests/methods/test_image_traps.py::test_an_epoch_of_probing_leaves_the_encoder
T13 NT-Xent through exponentials, which overflow
    tests/functional/test_nt_xent.py::test_it_is_the_printed_equation
    tests/methods/test_image_traps.py::test_nt_xent_is_finite_and_right_at_any_temperature_and_precision
T14 the value is right, and the gradient is another's (RoCL detaches, SupCon scales)
    tests/functional/test_nt_xent.py::test_gradients_agree_with_differences_of_the_loop
    tests/methods/test_image_traps.py::test_nt_xent_has_the_gradient_of_the_loop
    tests/methods/test_acl.py::test_losses_and_gradients_are_the_papers
T15 the rate decays an epoch too early or too late
    tests/training/test_schedules.py::test_the_rate_decays_at_the_start_of_a_milestone
    tests/methods/test_image_traps.py::test_every_step_of_a_run_has_the_rate_of_the_list
T16 epsilon is .031, .0314, 8/255 or 8
    tests/methods/test_pgd_at.py::test_the_defaults_are_pixels_of_the_field
    tests/recipes/test_image_papers.py::test_pre_training_is_acls
    tests/recipes/test_image_papers.py::test_fine_tuning_is_acls
T17 an attack is weak, or gradients are masked, and accuracy looks robust
    tests/evaluation/test_images.py::test_accuracy_under_attack_is_exact_on_a_linear_model
    tests/evaluation/test_diagnostics.py::test_rounding_masks_gradients
    tests/evaluation/test_diagnostics.py::test_a_constant_model_is_told_by_the_large_attack
    tests/evaluation/test_diagnostics.py::test_more_steps_that_break_less_are_told
    tests/attacks/test_pgd.py::test_more_restarts_never_lower_the_worst_loss
    tests/evaluation/images/test_autoattack.py::test_what_autoattack_warns_of_is_in_the_report_once
T18 an attack puts the whole model into training mode afterwards (torchattacks)
    tests/evaluation/images/test_autoattack.py::test_modes_flags_buffers_gradients_and_random_state_stay_as_they_were
    tests/attacks/test_pixels.py::test_an_attack_leaves_the_model_and_the_generators_bit_equal
T19 a run that is resumed is another run
    tests/methods/test_image_traps.py::test_pre_training_that_was_cut_short_ends_as_one_that_was_not
    tests/evaluation/images/test_autoattack.py::test_a_run_that_was_interrupted_ends_with_the_same_report
T20 softmax before a criterion that has its own (Selfie)
    tests/methods/test_selfie.py::test_the_criterion_reads_scores_and_not_probabilities
T21 pseudo-labels from the adversarial batch norm, or attacks on soft labels
    tests/methods/test_image_traps.py::test_a_teacher_predicts_through_its_clean_batch_norm
    tests/recipes/test_image_papers.py::test_three_steps_each_from_its_own_batch_norm
    tests/methods/test_uat.py::test_labelled_rows_are_attacked_with_their_truth_and_others_with_the_teachers_say
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.images import tiny
from reference.sentence_reference import nt_xent as loop
from reference.traps import assert_it_says_something, names, table
from torch import Tensor, nn
from transformers import TrainerCallback

from contraverse.data import ImageData
from contraverse.data.images import IMAGE_TASKS, ImageSplits, OneView, SimCLRAugment, TwoViews
from contraverse.evaluation import TaskEvaluator, evaluate, representation_shift, robust_accuracy
from contraverse.functional import nt_xent
from contraverse.methods import METHODS, UAT, CrossEntropy, LinearProbe
from contraverse.models import ImageModel
from contraverse.pipeline import run
from contraverse.pipeline.images import ImageSteps
from contraverse.recipes import ImageRunConfig, configure
from contraverse.training import Trainer, read_metrics
from contraverse.types import Batch, Loss

LABELS = ("dark", "light")
Build = Callable[..., Trainer]


def test_every_trap_has_a_test() -> None:
    found = table(__doc__)
    assert list(found) == [f"T{i}" for i in range(1, 22)]
    assert all(found.values())


@pytest.mark.parametrize("named", names(__doc__))
def test_the_tests_that_are_named_exist(named: str) -> None:
    assert_it_says_something(named)


@pytest.fixture
def images() -> ImageData:
    """Twelve images of two classes that differ a little in brightness."""
    random, labels = np.random.default_rng(0), np.arange(12) % 2
    pixels = random.integers(0, 200, (12, 3, 8, 8)) + 40 * labels[:, None, None, None]
    return ImageData.from_arrays(pixels, labels, LABELS)


@pytest.fixture
def build(images: ImageData, tmp_path: Path) -> Build:
    """``build(method, "run", dual=True, labels=None, seed=7, ...)``: a silent trainer, four images a batch."""

    def make(method: Any, name: str = "run", *, labels: Any = LABELS, dual: bool = False, **args: Any) -> Trainer:
        torch.manual_seed(0)
        model = ImageModel.from_pretrained("resnet8", labels=labels, dual=dual)
        defaults = {
            "per_device_train_batch_size": 4, "num_train_epochs": 3, "learning_rate": 1e-2, "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True, "seed": 7,
        }  # fmt: skip
        return Trainer(model, method, images, output_dir=tmp_path / name, **{**defaults, **args})

    return make


def differing(first: nn.Module, second: nn.Module) -> list[str]:
    found, other = first.state_dict(), second.state_dict()
    assert found.keys() == other.keys()
    return [name for name in found if not torch.equal(found[name], other[name])]


# T5


def test_an_evaluation_draws_apart(images: ImageData) -> None:
    model = tiny(LABELS, dual=True)
    state, others = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    evaluate(model, images, epsilons=[8 / 255], norm="linf", steps=2, random_start=True, restarts=2)
    robust_accuracy(model, images, [8 / 255], attack="apgd", norm="linf", steps=2, random_start=True, diagnostics=4)
    representation_shift(model, images, [8 / 255], norm="linf")
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == others).all()  # type: ignore[index]


class Noted(CrossEntropy):
    """Cross-entropy that keeps the numbers and the pixels that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []
        self.pixels: list[Tensor] = []

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        self.rows += batch["index"].tolist()
        self.pixels.append(batch["pixel_values"].clone())
        return super().losses(model, batch)


def reseeding(model: Any) -> dict[str, float]:
    """An evaluator that does what it ought not to."""
    torch.manual_seed(0)
    torch.rand(3)
    return {"nothing": 0.0}


def test_epochs_differ_and_a_seed_repeats_them_whatever_an_evaluator_does(build: Build) -> None:
    def seen(name: str, seed: int = 7, **more: Any) -> tuple[list[list[int]], Tensor]:
        method = Noted()
        build(method, name, views=OneView(SimCLRAugment()), seed=seed, **more).train()
        return [method.rows[i : i + 12] for i in (0, 12, 24)], torch.cat(method.pixels)

    rows, pixels = seen("one", evaluators={"a": reseeding}, eval_strategy="epoch")
    assert all(sorted(epoch) == list(range(12)) for epoch in rows)
    assert len({tuple(epoch) for epoch in rows}) == 3
    views = [pixels[12 * epoch + rows[epoch].index(0)] for epoch in range(3)]
    assert all(not torch.equal(views[i], views[i - 1]) for i in range(3))
    again = seen("two")
    assert again[0] == rows
    assert torch.equal(again[1], pixels)
    assert seen("three", seed=8)[0] != rows


# T6


def test_a_run_that_is_measured_is_one_that_is_not(build: Build, images: ImageData) -> None:
    def attacked(model: Any) -> dict[str, float]:
        return robust_accuracy(model, images, [8 / 255], norm="linf", steps=2, random_start=True).metrics

    method = METHODS["pgd-at"]
    evaluators = {"clean": TaskEvaluator(images, ("accuracy",)), "attacked": attacked, "reseeding": reseeding}
    settings: dict[str, Any] = {"dual": True, "views": OneView(SimCLRAugment())}
    plain = build(method(steps=2), "plain", **settings)
    plain.train()
    settings |= {"evaluators": evaluators, "eval_strategy": "steps", "eval_steps": 1}
    measured = build(method(steps=2), "measured", **settings)
    measured.train()
    assert differing(plain.model, measured.model) == []
    logs = [read_metrics(Path(str(one.args.output_dir)) / "metrics.jsonl") for one in (plain, measured)]
    assert sum("eval_accuracy" in row for row in logs[1]) == 9
    assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1] if "loss" in row]


# T7


def test_the_test_labels_choose_no_checkpoint(tmp_path: Path) -> None:
    """With all test labels turned round, the log and the saved model are the same; the figures are not."""
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6), ("test", 5)):
        for label, name in enumerate(LABELS):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 150, (8, 8, 3)) + 105 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / split / name / f"{i}.png")
    settings = {
        "model.name": "resnet8", "train.num_train_epochs": 4, "train.per_device_train_batch_size": 8,
        "train.logging_steps": 1, "train.disable_tqdm": True, "train.report_to": "none", "train.learning_rate": 0.3,
        "evaluation.steps": 2, "evaluation.epsilons": [2 / 255], "method.steps": 2,
    }  # fmt: skip
    config = configure("pgd-at", task="images", source=str(tmp_path / "data"), settings=settings)
    results = [run(config, tmp_path / "one")]
    test = tmp_path / "data" / "test"
    (test / "dark").rename(test / "other")
    (test / "light").rename(test / "dark")
    (test / "other").rename(test / "light")
    results.append(run(config, tmp_path / "other"))
    accuracies = [result.metrics["accuracy"] for result in results]
    assert [result.split for result in results] == ["test", "test"]
    assert accuracies[1] == pytest.approx(100 - accuracies[0])
    assert accuracies[0] != 50
    models = [ImageModel.load(result.folder / "model") for result in results]
    assert differing(*models) == []
    logs = [read_metrics(result.folder / "metrics.jsonl") for result in results]
    assert len({row["eval_robust_accuracy"] for row in logs[0] if "eval_robust_accuracy" in row}) > 1
    kept = [[(row["step"], row.get("loss"), row.get("eval_robust_accuracy")) for row in log] for log in logs]
    assert kept[0] == kept[1]
    trained = [json.loads((result.folder / "evaluation.json").read_text())["training"] for result in results]
    assert {**trained[0], "seconds": 0} == {**trained[1], "seconds": 0}


# T12


@pytest.mark.parametrize("settings", [{}, {"attack": "pgd", "steps": 2}], ids=["clean", "pgd"])
def test_an_epoch_of_probing_leaves_the_encoder(settings: dict[str, Any], build: Build) -> None:
    trainer = build(LinearProbe(**settings), dual=True, views=OneView(SimCLRAugment()))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


# T13, T14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.01, 0.05, 0.1, 0.5])
def test_nt_xent_is_finite_and_right_at_any_temperature_and_precision(dtype: torch.dtype, temperature: float) -> None:
    first, second = (torch.randn(6, 8).to(dtype) for _ in range(2))
    found = nt_xent(first, second, temperature)
    expected = loop(first.double().numpy(), second.double().numpy(), temperature)
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_nt_xent_has_the_gradient_of_the_loop() -> None:
    """Of both views, in every entry: neither is detached, and neither is scaled."""
    random = torch.Generator().manual_seed(3)
    both = torch.randn(2, 3, 4, generator=random)
    leaves = [view.clone().requires_grad_() for view in both]
    nt_xent(leaves[0], leaves[1], 0.5).backward()
    expected = np.zeros((2, 3, 4))
    for place in np.ndindex(2, 3, 4):
        ends = []
        for sign in (1, -1):
            moved = both.double().numpy().copy()
            moved[place] += sign * 1e-6
            ends.append(loop(moved[0], moved[1], 0.5))
        expected[place] = (ends[0] - ends[1]) / 2e-6
    found = np.stack([leaf.grad.numpy() for leaf in leaves if leaf.grad is not None])
    assert np.abs(found).max(axis=(1, 2)).min() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# T15


class Rates(TrainerCallback):
    """The rate that the optimizer has when it steps."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.found.append(kwargs["optimizer"].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Three steps an epoch, five epochs: ACL's milestones 15 and 20 are 3 and 5 here.
        ({"name": "milestones", "epochs": [3, 5]}, [0.1] * 6 + [0.01] * 6 + [0.001] * 3),
        (
            {"name": "cosine", "warmup_epochs": 2, "floor": 0.01},
            [0.1 * n / 6 for n in (1, 2, 3, 4, 5, 6)]
            + [0.001 + 0.099 * (1 + math.cos(math.pi * n / 9)) / 2 for n in (1, 2, 3, 4, 5, 6, 7, 8, 9)],
        ),
    ],
    ids=["milestones", "cosine"],
)
def test_every_step_of_a_run_has_the_rate_of_the_list(schedule: Any, expected: list[float], build: Build) -> None:
    """As the log has it and as the optimizer has it."""
    rates = Rates()
    trainer = build(
        CrossEntropy(), schedule=schedule, optimizer={"name": "sgd", "momentum": 0.9}, learning_rate=0.1,
        num_train_epochs=5, callbacks=[rates],
    )  # fmt: skip
    trainer.train()
    logged = read_metrics(Path(str(trainer.args.output_dir)) / "metrics.jsonl")
    assert [row["learning_rate"] for row in logged] == pytest.approx(expected, rel=1e-9)
    assert rates.found == pytest.approx(expected, rel=1e-9)


# T19


@pytest.mark.parametrize("name", ["acl-ds", "dynacl"])
def test_pre_training_that_was_cut_short_ends_as_one_that_was_not(name: str, build: Build) -> None:
    """Both sets of batch norm, LARS's momentum, the rate, the views, the starts and what the method keeps."""

    class Crash(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 4:
                raise RuntimeError("power failure")

    def trainer(folder: str, **more: Any) -> Trainer:
        return build(
            METHODS[name](steps=2), folder, labels=None, dual=True, views=TwoViews(SimCLRAugment()),
            optimizer={"name": "lars", "momentum": 0.9}, schedule={"name": "cosine", "warmup_epochs": 1},
            learning_rate=0.5, save_strategy="steps", save_steps=1, **more,
        )  # fmt: skip

    whole = trainer("whole")
    whole.train()
    with pytest.raises(RuntimeError, match="power"):
        trainer("broken", callbacks=[Crash()]).train()
    torch.manual_seed(99)
    resumed = trainer("broken")
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 9
    assert differing(whole.model, resumed.model) == []
    assert differing(whole.method, resumed.method) == []
    logs = [read_metrics(Path(str(one.args.output_dir)) / "metrics.jsonl") for one in (whole, resumed)]
    assert logs[0] == logs[1]


# T21


def test_a_teacher_predicts_through_its_clean_batch_norm(images: ImageData, tmp_path: Path) -> None:
    teacher = tiny(LABELS, dual=True)
    teacher.save(tmp_path / "teacher")
    few = ImageData(images.pixels, images.labels.clone(), LABELS)  # type: ignore[union-attr]
    assert few.labels is not None
    few.labels[2:] = -100
    splits = ImageSplits(train=few, validation=None, test=None, task=IMAGE_TASKS["images"])
    config = configure("uat", task="images", source="x", settings={"data.pseudo_labels": str(tmp_path / "teacher")})
    assert isinstance(config, ImageRunConfig)
    steps = ImageSteps(config)
    steps.assign_pseudo_labels(splits)
    method = steps.method
    assert isinstance(method, UAT)
    with torch.no_grad():
        clean, adversarial = (teacher.plain(bn_branch)(images.pixels / 255) for bn_branch in ("clean", "adversarial"))
    assert method.targets is not None
    torch.testing.assert_close(method.targets, clean, rtol=0, atol=1e-5)
    assert (clean - adversarial).abs().max() > 1e-2
    assert method.labelled is not None
    assert method.labelled.tolist() == [True, True] + [False] * 10
