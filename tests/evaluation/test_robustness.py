import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import robust_reference
from reference.bag_of_words import BagOfWords, mostly_right, relabel
from torch import Tensor

from contraverse.attacks import perturbation_inputs
from contraverse.data import EncodedText, TextData
from contraverse.errors import UserError
from contraverse.evaluation import AttackSettings, predict, robust_accuracy, rows_done
from contraverse.evaluation.attack_loop import ball_of
from contraverse.models import TextModel
from contraverse.types import Batch, Inputs, Outputs

MakeModel = Callable[..., TextModel]
MakeData = Callable[..., TextData]


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("relative", [False, True])
def test_two_classes_equal_the_closed_form(
    bag: Callable[[int], BagOfWords], labelled: MakeData, norm: Any, relative: bool
) -> None:
    model = bag(2)
    data = mostly_right(model, labelled(60))
    sentences, weight, bias = model.arrays(data)
    radii = np.array(
        [
            robust_reference.radius_of_two_classes(sentence, weight, bias, int(label), norm)
            for sentence, label in zip(sentences, data.labels or (), strict=True)
        ]
    )
    if relative:
        radii /= [np.abs(s).max() if norm == "linf" else np.linalg.norm(s) for s in sentences]
    epsilons = [float(e) for e in np.quantile(radii[radii > 0], [0.21, 0.51, 0.83])]
    report = robust_accuracy(model, data, epsilons, norm=norm, relative=relative, batch_size=7)
    assert report.clean_accuracy == pytest.approx(80)
    np.testing.assert_array_equal(report.clean_correct, radii > 0)
    for epsilon in epsilons:
        np.testing.assert_array_equal(report.at[epsilon].correct, radii > epsilon)
        assert report.at[epsilon].accuracy == pytest.approx(100 * np.mean(radii > epsilon))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("relative", [False, True])
def test_more_classes_equal_pgd_one_row_at_a_time(
    bag: Callable[[int], BagOfWords], labelled: MakeData, norm: Any, relative: bool
) -> None:
    model = bag(4)
    data = mostly_right(model, labelled(40))
    epsilons = [0.05, 0.15, 0.4] if relative or norm == "linf" else [0.3, 0.8, 2.0]
    expected = robust_reference.correct_under_pgd(
        *model.arrays(data), list(data.labels or ()), epsilons, steps=3, norm=norm, relative=relative
    )
    report = robust_accuracy(model, data, epsilons, norm=norm, relative=relative, steps=3, batch_size=16)
    assert {e: found.correct.tolist() for e, found in report.at.items()} == expected
    assert report.clean_accuracy > report.at[epsilons[0]].accuracy > report.at[epsilons[-1]].accuracy


def survives(model: TextModel, data: EncodedText, row: int, epsilons: Sequence[float], steps: int) -> bool:
    """L2 PGD on a single unpadded row, written out: no ball, no batch, every radius from zero."""
    item = {k: torch.tensor([v]) for k, v in data[row].items()}
    item["attention_mask"] = torch.ones_like(item["input_ids"])
    for epsilon in epsilons:
        delta = torch.zeros(*item["input_ids"].shape, model.encoder.config.hidden_size, requires_grad=True)
        for _ in range(steps + 1):
            logits = model(item, delta=delta).logits
            if logits.argmax() != item["label"]:
                return False
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, item["label"]), delta)
            moved = delta.detach() + 2.5 * epsilon / steps * gradient / gradient.norm()
            delta = (moved * min(1.0, epsilon / float(moved.norm()))).requires_grad_()
    return True


def test_an_encoder_equals_plain_pgd(tiny_model: MakeModel, labelled: MakeData) -> None:
    model = tiny_model()
    data = mostly_right(model, labelled(25))
    epsilons, steps = [0.2, 0.4], 3
    report = robust_accuracy(model, data, epsilons, steps=steps, batch_size=8)
    encoded = EncodedText(data, model.tokenizer, model.max_length)
    for i, epsilon in enumerate(epsilons):
        expected = [survives(model, encoded, row, epsilons[: i + 1], steps) for row in range(25)]
        assert report.at[epsilon].correct.tolist() == expected
    assert 0 < report.at[0.4].accuracy < report.at[0.2].accuracy < report.clean_accuracy


def test_any_wrong_iterate_counts_and_the_last_one_too(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    """One step reaches the boundary of the ball, and only the point after it can be wrong."""
    model = bag(2)
    data = mostly_right(model, labelled(40))
    sentences, weight, bias = model.arrays(data)
    radii = [
        robust_reference.radius_of_two_classes(s, weight, bias, int(y), "l2")
        for s, y in zip(sentences, data.labels or (), strict=True)
    ]
    report = robust_accuracy(model, data, [1.0], steps=1)
    assert report.at[1.0].correct.tolist() == [radius > 1.0 for radius in radii]
    assert report.at[1.0].accuracy < report.clean_accuracy


def test_a_wrong_iterate_counts_though_a_later_one_has_the_larger_loss(
    bag: Callable[[int], BagOfWords], labelled: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among three classes the perturbation of largest loss, which PGD keeps, may still be classified rightly."""
    model, data = bag(3), labelled(1)
    logits = iter([[5.0, 0.0, 0.0], [1.0, 1.1, -9.0], [0.9, 0.8, 0.8], [0.9, 0.8, 0.8]])
    data = relabel(data, [0], 3)

    def scripted(batch: Batch, *, delta: Tensor | None = None, want: Any = ("logits",), **_: Any) -> Outputs:
        values = torch.ones(1, batch["input_ids"].shape[1], 6)
        if want == ("inputs",):
            return Outputs(inputs=Inputs(values, torch.ones(1, values.shape[1], 1, dtype=torch.bool)))
        if delta is None:
            return Outputs(logits=torch.tensor([[5.0, 0.0, 0.0]]))
        return Outputs(logits=torch.tensor([next(logits)]) + delta.sum() * 0)

    monkeypatch.setattr(model, "forward", scripted)
    losses = F.cross_entropy(torch.tensor([[1.0, 1.1, -9.0], [0.9, 0.8, 0.8]]), torch.zeros(2).long(), reduction="none")
    assert losses[1] > losses[0]
    report = robust_accuracy(model, data, [1.0], steps=3)
    assert not report.at[1.0].correct.any()
    assert report.at[1.0].dead_gradients == 1  # of three: the row was broken by the second


def test_epsilon_zero_is_the_clean_accuracy_and_costs_nothing(
    bag: Callable[[int], BagOfWords], labelled: MakeData
) -> None:
    model = bag(3)
    data = mostly_right(model, labelled(20))
    report = robust_accuracy(model, data, [0])
    assert model.rows_seen == 40  # once by mostly_right, once here
    assert report.at[0].accuracy == report.clean_accuracy == pytest.approx(80)
    assert report.metrics == {"accuracy": pytest.approx(80), "accuracy@pgd-0": pytest.approx(80)}


def test_only_survivors_are_attacked(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(3)
    data = mostly_right(model, labelled(30))
    model.rows_seen = 0
    report = robust_accuracy(model, data, [1.5, 0.5, 0.5], steps=2, batch_size=4)
    assert list(report.at) == [0.5, 1.5]
    survivors = [int(report.clean_correct.sum()), int(report.at[0.5].correct.sum())]
    assert survivors[0] > survivors[1] > 0
    assert [found.attacked for found in report.at.values()] == survivors
    assert model.rows_seen == 30 + 3 * sum(survivors)


def test_restarts_begin_at_random_and_attack_what_is_left(tiny_model: MakeModel, labelled: MakeData) -> None:
    """A step too short to matter: only a start far from zero can break a row."""
    model = tiny_model()
    data = mostly_right(model, labelled(25))
    accuracies = [
        robust_accuracy(model, data, [30], steps=1, step_size=1e-3, restarts=restarts).at[30].accuracy
        for restarts in (1, 2, 6)
    ]
    assert accuracies[0] == 80
    assert accuracies[0] > accuracies[1] > accuracies[2]


@pytest.mark.parametrize("diagnostics", [False, True, 7])
@pytest.mark.parametrize(("attack", "losses"), [("pgd", 1), ("apgd", 2)])
def test_progress_adds_up(
    tiny_model: MakeModel, labelled: MakeData, attack: Any, losses: int, diagnostics: bool | int
) -> None:
    seen: list[int] = []
    model, data = tiny_model(), labelled(20)
    robust_accuracy(model, data, [0, 0.3, 3], attack=attack, restarts=2, steps=1, batch_size=6,
                    diagnostics=diagnostics, progress=seen.append)  # fmt: skip
    tried = {False: 0, True: 20, 7: 7}[diagnostics] * 5
    assert sum(seen) == 20 * (1 + 2 * 2 * losses) + tried
    settings = AttackSettings(attack=attack, steps=1, restarts=2)
    assert sum(seen) == rows_done(20, 3, [0, 0.3, 3], settings, diagnostics)


def test_the_model_is_left_as_it_was(tiny_model: MakeModel, labelled: MakeData) -> None:
    model = tiny_model().train()
    head = model.encoder.classifier.weight
    head.requires_grad_(False)
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.full_like(parameter, 7.0)
    weights = {name: parameter.clone() for name, parameter in parameters.items()}
    during: list[bool] = []
    hook = model.encoder.register_forward_hook(
        lambda *_: during.append(model.encoder.training or any(p.requires_grad for p in parameters.values()))
    )
    robust_accuracy(model, labelled(8), [0.5], steps=2, restarts=2)
    hook.remove()
    assert during[0]  # the clean pass needs no freezing: it runs without gradients
    assert not any(during[1:])
    for name, parameter in parameters.items():
        assert parameter.requires_grad == (parameter is not head)
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is not None
        assert (parameter.grad == 7).all()
    assert model.training


def test_a_failure_unfreezes_the_model(
    tiny_model: MakeModel, labelled: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    data = mostly_right(model, labelled(4))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr("contraverse.attacks.gradient.pgd", fail)
    with pytest.raises(RuntimeError, match="stop"):
        robust_accuracy(model, data, [0.1])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_random_starts_follow_the_seed_and_leave_the_global_state(tiny_model: MakeModel, labelled: MakeData) -> None:
    model = tiny_model()
    data = mostly_right(model, labelled(25))
    before = torch.get_rng_state()

    def sizes(seed: int) -> float | None:
        report = robust_accuracy(model, data, [0.8], steps=1, step_size=0.1, random_start=True, seed=seed)
        return report.at[0.8].relative_size

    first = sizes(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert sizes(1) == first
    assert sizes(2) != first


def test_a_random_start_is_the_rows_own(tiny_model: MakeModel, batch: Any) -> None:
    """Row 7 of the data, in the middle of a padded batch and alone without padding."""
    model, settings = tiny_model(), AttackSettings(restarts=2)
    real = int(batch["attention_mask"][2].sum())
    alone = {name: value[2:3, :real] for name, value in batch.items() if value.dim() == 2}
    starts = []
    for rows, of in (([4, 9, 7, 1], batch), ([7], alone)):
        inputs = perturbation_inputs(model, of)
        starts.append(ball_of(inputs, np.array(rows), 0.5, settings, 1).init(inputs, random=True).detach())
    torch.testing.assert_close(starts[0][2, :real], starts[1][0])
    assert not torch.allclose(starts[0][1, :real], starts[0][2, :real])
    assert (starts[0][2, real:] == 0).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", ["pgd", "apgd"])
def test_random_starts_do_not_depend_on_the_rows_beside(
    tiny_model: MakeModel, labelled: MakeData, attack: Any, norm: Any
) -> None:
    model = tiny_model()
    data = mostly_right(model, labelled(25))
    epsilon = 0.5 if norm == "l2" else 0.05
    settings: dict[str, Any] = {"attack": attack, "norm": norm, "steps": 2, "restarts": 2, "random_start": True}
    found = [robust_accuracy(model, data, [epsilon], batch_size=size, **settings).at[epsilon] for size in (2, 25)]
    np.testing.assert_array_equal(found[0].correct, found[1].correct)
    assert found[0].relative_size == pytest.approx(found[1].relative_size, rel=1e-3)
    assert 0 < found[0].accuracy < 80


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_apgd_on_two_classes_equals_the_closed_form_saturated_or_not(
    bag: Callable[[int], BagOfWords], labelled: MakeData, norm: Any, scale: float
) -> None:
    model = bag(2).scaled(scale)
    data = mostly_right(model, labelled(60))
    radii = np.array(
        [
            robust_reference.radius_of_two_classes(s, *model.arrays(data)[1:], int(label), norm)
            for s, label in zip(model.arrays(data)[0], data.labels or (), strict=True)
        ]
    )
    epsilons = [float(e) for e in np.quantile(radii[radii > 0], [0.21, 0.51, 0.83])]
    model.rows_seen = 0
    report = robust_accuracy(model, data, epsilons, attack="apgd", norm=norm, steps=2)
    for epsilon in epsilons:
        np.testing.assert_array_equal(report.at[epsilon].correct, radii > epsilon)
    assert sum(found.dead_gradients for found in report.at.values()) == 0
    assert model.rows_seen == 60 + 3 * sum(found.attacked for found in report.at.values())  # the margin alone


def test_apgd_climbs_cross_entropy_and_then_dlr_on_what_is_left(
    bag: Callable[[int], BagOfWords], labelled: MakeData
) -> None:
    """Of a saturated model the first sees no gradient, and the second breaks what can be broken."""
    model = bag(4)
    data = mostly_right(model, labelled(40))
    epsilons = [0.3, 0.8]
    alive = robust_accuracy(model, data, epsilons, attack="apgd", steps=3)
    saturated = model.scaled(1e5)
    model.rows_seen = 0
    report = robust_accuracy(saturated, data, epsilons, attack="apgd", steps=3)
    taken = [found.gradients for found in report.at.values()]
    assert taken[0] == {"ce": 3 * 32, "dlr": 3 * 32}
    assert model.rows_seen == 40 + 4 * sum(sum(of.values()) for of in taken) // 3
    # DLR is 1, and flat, where the label is third: on a row that is broken already, which does not count.
    assert [found.zero_grad_rows["dlr"] for found in report.at.values()] == [0, 0]
    assert report.at[0.3].zero_grad_rows["ce"] > 0.9 * 3 * 32
    assert report.warnings == []
    # DLR does not see the scale: only what the cross-entropy alone had found is lost.
    for epsilon in epsilons:
        lost = report.at[epsilon].correct & ~alive.at[epsilon].correct
        assert (report.at[epsilon].correct >= alive.at[epsilon].correct).all()
        assert lost.sum() <= 2
    blind = robust_accuracy(saturated, data, epsilons, steps=3)
    assert blind.at[0.8].accuracy > report.at[0.8].accuracy


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_relative_size_is_what_relative_says(tiny_model: MakeModel, labelled: MakeData, norm: Any) -> None:
    """PGD from zero with steps of half the radius ends on the sphere, so ||delta|| / ||E|| is epsilon."""
    model = tiny_model()
    report = robust_accuracy(model, mostly_right(model, labelled(12)), [0.01, 0.02], relative=True, norm=norm)
    assert [found.relative_size for found in report.at.values()] == pytest.approx([0.01, 0.02], rel=1e-3)


def test_the_same_epsilon_is_relatively_larger_where_embeddings_are_narrower(
    tiny_model: MakeModel, labelled: MakeData
) -> None:
    """ALBERT embeds in fewer dimensions than BERT: what the report shows of it."""
    data = labelled(12)
    sizes = []
    for architecture in ("bert", "albert"):
        model = tiny_model(architecture)
        found = robust_accuracy(model, mostly_right(model, data), [0.01]).at[0.01]
        sizes.append(found.relative_size)
    assert sizes[1] == pytest.approx(sizes[0] * np.sqrt(32 / 16), rel=0.1)


def test_saturated_logits_show_as_dead_gradients(bag: Callable[[int], BagOfWords], labelled: MakeData) -> None:
    model = bag(2)
    data = labelled(10)
    with torch.no_grad():
        model.encoder["out"].bias.copy_(torch.tensor([1000.0, 0.0]))
    report = robust_accuracy(model, relabel(data, [0] * 10, 2), [0.1], steps=3, restarts=2, batch_size=4)
    assert report.at[0.1].accuracy == 100
    assert report.at[0.1].dead_gradients == 10 * 3 * 2


def test_where_nothing_is_right_there_is_nothing_to_attack(
    bag: Callable[[int], BagOfWords], labelled: MakeData
) -> None:
    model = bag(2)
    data = labelled(5)
    wrong = relabel(data, 1 - predict(model, data).argmax(1), 2)
    found = robust_accuracy(model, wrong, [0.5]).at[0.5]
    assert (found.accuracy, found.attacked, found.relative_size) == (0.0, 0, None)


def test_the_report_is_json(tiny_model: MakeModel, labelled: MakeData) -> None:
    report = robust_accuracy(tiny_model(), labelled(6), [0.3, 1], steps=2, norm="linf")
    found = json.loads(json.dumps(report.to_dict()))
    assert found["attack"]["name"] == "pgd"
    assert found["attack"]["norm"] == "linf"
    assert found["n"] == 6
    assert [at["epsilon"] for at in found["at"]] == [0.3, 1]
    assert found["at"][0]["step_size"] == pytest.approx(2.5 * 0.3 / 2)
    assert list(report.metrics) == ["accuracy", "accuracy@pgd-0.3", "accuracy@pgd-1"]
    assert (found["warnings"], found["diagnostics"]) == ([], None)


def test_keys_name_the_attack(tiny_model: MakeModel, labelled: MakeData) -> None:
    report = robust_accuracy(tiny_model(), labelled(6), [0.3], attack="apgd", steps=2)
    assert list(report.metrics) == ["accuracy", "accuracy@apgd-0.3"]
    assert report.to_dict()["attack"]["name"] == "apgd"
    assert report.to_dict()["at"][0]["step_size"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epsilons": [-0.1]}, "epsilon"),
        ({"epsilons": [float("nan")]}, "epsilon"),
        ({"epsilons": [0.1], "steps": 0}, "steps"),
        ({"epsilons": [0.1], "restarts": 0}, "restarts"),
        ({"epsilons": [0.1], "step_size": 0}, "step_size"),
        ({"epsilons": [0.1], "norm": "l1"}, "norm"),
        ({"epsilons": [0.1], "attack": "fgm"}, "attack"),
    ],
)
def test_impossible_settings_are_refused(
    tiny_model: MakeModel, labelled: MakeData, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        robust_accuracy(tiny_model(), labelled(3), **settings)


def test_a_regression_or_no_labels_is_refused(tiny_model: MakeModel, sentences: Callable[..., list[str]]) -> None:
    texts = [(text,) for text in sentences(3)]
    with pytest.raises(UserError, match="regression"):
        robust_accuracy(tiny_model(labels=("score",)), TextData.from_rows(texts, labels=[0.5, 1.5, 2.5]), [0.1])
    with pytest.raises(UserError, match="labels"):
        robust_accuracy(tiny_model(), TextData.from_rows(texts), [0.1])
