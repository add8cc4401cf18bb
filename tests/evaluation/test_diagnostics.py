"""Each check on a model built to trip it, and on models that trip none."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from reference.bag_of_words import BagOfWords, mostly_right, relabel
from torch import Tensor

from contraverse.data import TextData
from contraverse.evaluation import RobustReport, predict, robust_accuracy
from contraverse.evaluation.attack_loop import AttackSettings
from contraverse.evaluation.diagnostics import _Checks
from contraverse.models import TextModel
from contraverse.types import Batch, Outputs

MakeModel = Callable[..., TextModel]
MakeData = Callable[..., TextData]
RADII = (0.5, 1.5)


class Bent(BagOfWords):
    """Logits (1 + bend, 0) of the label 0; ``bend`` is a function of delta . (1, ..., 1) / sqrt(n) of each row."""

    bend: Callable[[Tensor], Tensor]

    def forward(
        self, batch: Batch, *, delta: Tensor | None = None, want: Sequence[Any] = ("logits",), bn_branch: Any = "clean"
    ) -> Outputs:
        out = super().forward(batch, delta=delta, want=want, bn_branch=bn_branch)
        if "logits" not in out.requested:
            return out
        along = torch.zeros(len(out.logits))
        if delta is not None:
            real = batch["attention_mask"].unsqueeze(-1).expand_as(delta)
            along = (delta * real).sum((1, 2)) / real.sum((1, 2)) ** 0.5
        return Outputs(logits=torch.stack([1 + self.bend(along), torch.zeros_like(along)], dim=1))


@pytest.fixture
def bent(tiny_model: MakeModel) -> Callable[..., Bent]:
    def make(bend: Callable[[Tensor], Tensor]) -> Bent:
        model = Bent(tiny_model().tokenizer, 2)
        model.bend = bend
        return model

    return make


def diagnosed(model: TextModel, data: TextData, epsilons: Sequence[float] = RADII, **settings: Any) -> RobustReport:
    return robust_accuracy(model, data, epsilons, diagnostics=True, **settings)


def zeros(data: TextData) -> TextData:
    return relabel(data, [0] * len(data), 2)


def ditch(at: float, width: float) -> Callable[[Tensor], Tensor]:
    """A model that is wrong only where a row has moved by ``at``; its gradient points there from everywhere before."""
    return lambda along: -4 * torch.exp(-(((along.detach() - at) / width) ** 2)) - 0.01 * along


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_honest_model_trips_nothing(
    bag: Callable[[int], BagOfWords], tiny_model: MakeModel, labelled: MakeData, attack: Any, norm: Any
) -> None:
    radii = (0.2, 1.0) if norm == "l2" else (0.05, 0.3)
    for model in (bag(3), tiny_model()):
        report = diagnosed(model, mostly_right(model, labelled(50)), radii, attack=attack, norm=norm)
        assert report.warnings == []
        assert report.diagnosis is not None
        assert report.diagnosis.rows == 32
        assert report.diagnosis.large == 0


@pytest.mark.parametrize("scale", [1e4, 1e6])
def test_a_saturated_model_blinds_pgd_and_not_apgd(tiny_model: MakeModel, labelled: MakeData, scale: float) -> None:
    model = tiny_model()
    data = mostly_right(model, labelled(40))
    with torch.no_grad():
        model.encoder.classifier.weight.mul_(scale)
        model.encoder.classifier.bias.mul_(scale)
    blind, large, *_ = diagnosed(model, data, [0.05, 0.1]).warnings
    assert "gradients were zero or not finite" in blind
    assert "5 times as large as the embeddings" in large
    assert diagnosed(model, data, [0.05, 0.1], attack="apgd").warnings == []


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_rounding_masks_gradients(bag: Callable[[int], BagOfWords], labelled: MakeData, attack: Any) -> None:
    """Features that are rounded have no gradient, though a random perturbation moves them."""
    model = bag(3)
    data = mostly_right(model, labelled(40))
    plain = model.forward
    model.forward = lambda *a, **k: (  # type: ignore[method-assign]
        out
        if "logits" not in (out := plain(*a, **k)).requested
        else out._replace(logits=(out.logits * 50).round() / 50 + 0.0)
    )
    warnings = diagnosed(model, data, attack=attack).warnings
    assert any("zero or not finite" in line for line in warnings)
    assert any("times as large as the embeddings" in line for line in warnings)


def test_gradients_that_point_the_wrong_way_do_less_than_chance(
    bag: Callable[[int], BagOfWords], labelled: MakeData
) -> None:
    model = bag(3)
    data = mostly_right(model, labelled(40))
    plain = model.forward

    def reversed_(*args: Any, **settings: Any) -> Outputs:
        out = plain(*args, **settings)
        return out if "logits" not in out.requested else out._replace(logits=2 * out.logits.detach() - out.logits)

    model.forward = reversed_  # type: ignore[method-assign]
    warnings = diagnosed(model, data, (5.0,)).warnings
    assert any("chance does as much harm as the attack" in line for line in warnings)


@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_a_constant_model_is_told_by_the_large_attack(
    bag: Callable[[int], BagOfWords], labelled: MakeData, attack: Any
) -> None:
    """Its gradient is tiny and alive, so that nothing but the size of the attack tells."""
    model = bag(2)
    with torch.no_grad():
        model.encoder["out"].weight.mul_(1e-6)
        model.encoder["out"].bias.copy_(torch.tensor([1.0, 0.0]))
    (warning,) = diagnosed(model, zeros(labelled(40)), attack=attack).warnings
    assert warning.startswith("32 of 32 rows hold though the perturbation is 5 times as large")


def test_a_larger_attack_that_breaks_less_is_told(bent: Callable[..., Bent], labelled: MakeData) -> None:
    """One step of PGD ends on the sphere: in the ditch at .5, beyond it at 1.5. What the report carries over from
    one radius to the next hides it."""
    report = diagnosed(bent(ditch(0.5, 0.1)), zeros(labelled(40)), steps=1)
    assert (report.at[0.5].accuracy, report.at[1.5].accuracy) == (0, 0)
    assert report.diagnosis is not None
    assert report.diagnosis.fresh == {0.5: 0, 1.5: 100}
    assert any(line.startswith("a larger attack broke fewer rows: 32 of 32") for line in report.warnings)


def test_too_few_steps_are_told(bent: Callable[..., Bent], labelled: MakeData) -> None:
    """Steps of .1 that have to go .8 far."""
    report = diagnosed(bent(lambda s: -s / 0.8), zeros(labelled(40)), [1.0], steps=5, step_size=0.1)
    assert report.at[1.0].accuracy == 100
    assert any(line.startswith("twice the steps (10) broke more rows") and "raise --steps" in line
               for line in report.warnings)  # fmt: skip


def test_too_few_restarts_are_told(bent: Callable[..., Bent], labelled: MakeData) -> None:
    """Flat at the start, and half of the random starts are downhill."""
    report = diagnosed(bent(lambda s: -100 * s.relu().square()), zeros(labelled(40)), [1.0])
    assert any(line.startswith("2 random restarts in place of 1 broke more rows") and "raise --restarts" in line
               for line in report.warnings)  # fmt: skip


def test_luck_is_told(bent: Callable[..., Bent], labelled: MakeData) -> None:
    """From zero one step leads into a narrow ditch, from anywhere else beside it."""
    report = diagnosed(bent(ditch(0.5, 0.002)), zeros(labelled(40)), [2.0], steps=1, step_size=0.5)
    assert any(line.startswith("2 random restarts in place of 1 broke fewer rows") for line in report.warnings)


def test_more_steps_that_break_less_are_told() -> None:
    """On fixed counts: on a straight way, twice as many points hold all of the former ones."""
    checks = _Checks(32, {1.0: 10}, {1.0: 30}, 1.0, more_steps=12, more_restarts=10, large=0, large_epsilon=5.0)
    (warning,) = checks.diagnosis(90.0, AttackSettings(steps=5)).warnings
    assert warning.startswith("twice the steps (10) broke fewer rows: 12 of 32 rows hold at epsilon 1")
    checks = _Checks(32, {1.0: 10}, {1.0: 30}, 1.0, more_steps=11, more_restarts=9, large=1, large_epsilon=5.0)
    assert checks.diagnosis(90.0, AttackSettings(steps=5)).warnings == []


def test_the_cost_is_as_stated(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    """90 forward-units a row at most for three radii and five steps of PGD: reached where nothing breaks early."""
    model = bag(2)
    data = mostly_right(model, labelled(60))
    epsilons = [1e-5, 2e-5, 3e-5]
    model.rows_seen = 0
    robust_accuracy(model, data, epsilons)
    without, model.rows_seen = model.rows_seen, 0
    report = diagnosed(model, data, epsilons)
    assert report.diagnosis is not None
    passes = 6 * 4 + 11 + 12 + 3  # forward ones; each that has a gradient is two units
    assert model.rows_seen - without == 32 * passes
    assert report.diagnosis.forward_units == pytest.approx(4 * 11 + 21 + 22 + 3)


def test_fewer_rows_on_request_and_all_of_them_right(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(3)
    data = mostly_right(model, labelled(30))
    for asked, rows in ((5, 5), (100, 24), (True, 24)):
        diagnosis = robust_accuracy(model, data, RADII, diagnostics=asked).diagnosis
        assert diagnosis is not None
        assert diagnosis.rows == rows
    assert robust_accuracy(model, data, RADII, diagnostics=0).diagnosis is None
    assert robust_accuracy(model, data, [0], diagnostics=True).diagnosis is None


def test_the_figures_are_the_same_with_and_without(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(3)
    data = mostly_right(model, labelled(30))
    settings: dict[str, Any] = {"restarts": 2, "random_start": True}
    assert diagnosed(model, data, **settings).metrics == robust_accuracy(model, data, RADII, **settings).metrics


def test_relative_radii_have_a_large_one_beyond_them(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(3)
    report = diagnosed(model, mostly_right(model, labelled(20)), [0.1, 4.0], relative=True)
    assert report.diagnosis is not None
    assert report.diagnosis.large_epsilon == 8


def test_where_nothing_is_right_there_is_nothing_to_doubt(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model, data = bag(2), labelled(10)
    wrong = relabel(data, 1 - predict(model, data).argmax(1), 2)
    report = diagnosed(model, wrong)
    assert report.warnings == []
    assert report.diagnosis is not None
    assert (report.diagnosis.rows, report.diagnosis.forward_units) == (0, 0)


def test_it_is_json(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(3)
    found = json.loads(json.dumps(diagnosed(model, mostly_right(model, labelled(20))).to_dict()))
    diagnostics = found["diagnostics"]
    assert [at["epsilon"] for at in diagnostics["at"]] == list(RADII)
    assert all(at["random"] >= at["accuracy"] for at in diagnostics["at"])
    assert diagnostics["large"] == 0
    assert found["warnings"] == []
