"""CARL's phases, what each costs, and what a step leaves behind; its equations are in test_carl_equations.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.bfloat16 import DRAWS, within_rounding
from reference.driving import Watched, flat, gradients, losses_of
from reference.tiny import LABELS, random_batch, rows, take
from torch import Tensor
from transformers import TrainerCallback

from contraverse.errors import UserError
from contraverse.methods import CARL, METHODS
from contraverse.models import TextModel
from contraverse.training import Trainer
from contraverse.types import TrainingInfo

Make = Callable[..., TextModel]


def ready(tiny_model: Make, *, dropout: float = 0.0, **settings: Any) -> tuple[CARL, Watched, dict[str, Any]]:
    """A method told of the eight rows of a batch, a model and the batch."""
    batch = random_batch(8)
    method = CARL(**settings)
    method.prepare(TrainingInfo(num_examples=8, hidden_size=32, labels=batch["labels"]))
    return method, Watched(tiny_model(dropout=dropout, heads=method.heads).train()), batch


def halves(batch: Any, epoch: int = 0) -> list[Any]:
    """An epoch of two steps, in an order of its own."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
    return [take(batch, order[:4]), take(batch, order[4:])]


# the three phases


@pytest.mark.parametrize(
    ("start", "fills", "contrasts"), [(1.0, 0, 2), (2.0, 2, 4), (2.5, 2, 5), (2.6, 2, 6), (3.0, 4, 6)]
)
def test_banks_are_filled_in_the_last_whole_epoch_before_the_loss(
    tiny_model: Make, start: float, fills: int, contrasts: int
) -> None:
    """Two steps an epoch; rows come in another order in each, so that half an epoch would not see them all."""
    method, model, batch = ready(tiny_model, start=start, steps=2)
    for step in range(8):
        filled = method.clean.filled.sum().item()
        assert method.fills == (step >= fills)
        assert method.contrasts == (step >= contrasts)
        parts = [loss.parts for loss in losses_of(method, model, halves(batch, step // 2)[step % 2])]
        assert ("contrast" in parts[0]) == ("contrast_adv" in parts[1]) == (step >= contrasts)
        assert method.clean.filled.sum() == (filled if step < fills else min(8, filled + 4))
        assert torch.equal(method.clean.filled, method.adversarial.filled)


@pytest.mark.parametrize("gamma", [0.0, 0.4])
@pytest.mark.parametrize("steps", [2, 3])
def test_a_clean_pass_of_its_own_is_made_when_there_is_none(tiny_model: Make, gamma: float, steps: int) -> None:
    """Cost 3n and, once L_D is on, 1 with gamma 0. Otherwise 3n, then 3n + 1 while banks are filled, then 3n + 3."""
    method, model, batch = ready(tiny_model, gamma=gamma, steps=steps, start=2)
    random = gamma > 0
    for graphs, alone in ((steps, 0), (steps, random), (steps + random, 0)):
        model.watch.calls.clear()
        assert method.passes == graphs
        assert len(losses_of(method, model, batch)) == graphs
        calls = model.watch.passes()
        assert [call.grad_enabled for call in calls].count(False) == alone
        assert len(calls) == graphs + alone
    assert method.cost == f"{3 * (steps + random) + (not random)}F"


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("filling", [True, False])
def test_the_clean_pass_shares_the_dropout_masks(tiny_model: Make, share: bool, filling: bool) -> None:
    """A start of next to nothing: with the same masks the two views are one."""
    method, model, batch = ready(tiny_model, dropout=0.3, gamma=1e-7, steps=1, start=1, share_dropout=share)
    losses_of(method, model, batch, still=False)
    if not filling:
        losses_of(method, model, batch, still=False)
    same = torch.allclose(method.clean.rows, method.adversarial.rows, atol=1e-4)
    assert same == share


def test_filling_under_autocast_leaves_the_gradient_alone(tiny_model: Make) -> None:
    """Autocast would hand the casts of the pass without gradients on to the passes with them."""
    method, model, batch = ready(tiny_model, gamma=0.3, steps=2, start=1)
    exact = gradients(method, model, batch)

    fresh = [ready(tiny_model, gamma=0.3, steps=2, start=1)[0] for _ in range(DRAWS + 1)]

    def again() -> Tensor:
        grads = gradients(fresh.pop(), model, batch)
        assert grads.keys() == exact.keys()
        return flat(grads)

    assert within_rounding(again, flat(exact))


# what it is made of


@pytest.mark.parametrize(("epochs", "says"), [(3.0, True), (2.0, True), (3.5, False), (None, False)])
def test_too_few_epochs_to_begin_are_told(epochs: float | None, says: bool) -> None:
    method = CARL(start=3)
    method.prepare(TrainingInfo(num_examples=4, hidden_size=8, labels=torch.tensor([0, 1, 0, 1]), epochs=epochs))
    assert ["FreeLB alone" in note for note in method.notes] == [True] * says


def test_before_its_start_it_is_freelb(tiny_model: Make) -> None:
    settings: dict[str, Any] = {"steps": 3, "step_size": 0.3, "epsilon": 0.4}
    method, model, batch = ready(tiny_model, start=2, **settings)
    mine = gradients(method, model, batch)
    torch.testing.assert_close(flat(mine), flat(gradients(METHODS["freelb"](**settings), model, batch)))


def test_without_weight_it_stays_freelb(tiny_model: Make) -> None:
    settings: dict[str, Any] = {"steps": 3, "step_size": 0.3, "epsilon": 0.4}
    method, model, batch = ready(tiny_model, start=1, weight=0.0, **settings)
    losses_of(method, model, batch)
    assert method.contrasts
    mine = gradients(method, model, batch)
    torch.testing.assert_close(flat(mine), flat(gradients(METHODS["freelb"](**settings), model, batch)))


def test_with_reconstruction_it_is_rar_too(tiny_model: Make) -> None:
    settings: dict[str, Any] = {"steps": 2, "step_size": 0.3}
    method, model, batch = ready(tiny_model, weight=0.0, start=1, reconstruction=0.3, **settings)
    assert set(method.heads) == {"reconstruction"}
    losses_of(method, model, batch)
    rar = METHODS["rar"](weight=0.3, **settings)
    torch.testing.assert_close(flat(gradients(method, model, batch)), flat(gradients(rar, model, batch)))


def test_two_steps_from_the_clean_input_are_scals_attack(tiny_model: Make) -> None:
    """CARL on SCAL's adversary: the second pass's perturbation is FGM's of the clean one's cross-entropy."""
    method, model, batch = ready(tiny_model, steps=2, gamma=0.0, step_size=0.3, start=2)
    losses_of(method, model, batch)
    scal = METHODS["scal"](epsilon=0.3)
    other = Watched(tiny_model(dropout=0.0, heads=scal.heads).train())
    losses_of(scal, other, batch)
    ours, theirs = (w.watch.passes()[1].delta for w in (model, other))
    assert ours is not None
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours.flatten(1).norm(dim=1), torch.full((8,), 0.3))


def test_features_may_be_what_the_classifier_reads(tiny_model: Make) -> None:
    method, model, batch = ready(tiny_model, start=1, features="pooled")
    losses_of(method, model, batch)
    pooled = model.module(batch, want=("pooled",)).pooled
    torch.testing.assert_close(method.clean.rows, F.normalize(pooled.detach(), dim=1))
    roberta = tiny_model("roberta", dropout=0.0).train()
    with pytest.raises(UserError, match="no pooler"):
        losses_of(method, roberta, batch)


@pytest.mark.parametrize("z", ["fixed", "running"])
def test_the_normaliser_is_set_once_banks_are_full(tiny_model: Make, z: Any) -> None:
    """T11: never from a bank that is half empty; it is saved. In an epoch of one step the running one is the step's."""
    method, model, batch = ready(tiny_model, z=z, start=2, estimator="nce")
    seen, own = [], []
    plain = method.normalizer

    def noted(view: Any, current: Tensor) -> Tensor:
        own.append(current)
        return plain(view, current)

    method.normalizer = noted  # type: ignore[method-assign]
    for _ in range(4):
        losses_of(method, model, batch)
        seen.append(method.state_dict()["log_z"].clone())
        model.module.encoder.base_model.embeddings.word_embeddings.weight.data.mul_(1.2)
    assert seen[0].isnan().all()
    assert seen[1].isnan().all()
    first, second = torch.stack(own[:2]), torch.stack(own[2:])
    assert (first != second).all()
    torch.testing.assert_close(seen[2], first)
    torch.testing.assert_close(seen[3], first if z == "fixed" else second)


def test_the_running_normaliser_is_a_mean_of_z_itself() -> None:
    method = CARL(z="running")
    method.normalizer("adversarial", torch.tensor(3.0))
    method.normalizer("adversarial", torch.tensor(5.0))
    expected = (0.99 * torch.tensor(3.0).exp() + 0.01 * torch.tensor(5.0).exp()).log()
    torch.testing.assert_close(method.log_z[1], expected)
    assert method.log_z[0].isnan()


@pytest.mark.parametrize("estimator", ["nce", "softmax"])
def test_a_few_steps_lower_the_loss(tiny_model: Make, estimator: Any) -> None:
    """Against the same training without it, of which each step is counted alike."""
    found = []
    for weight in (0.0, 0.3):
        settings: dict[str, Any] = {"start": 1, "steps": 2, "step_size": 0.3, "negatives": None}
        method, model, batch = ready(tiny_model, weight=weight, estimator=estimator, **settings)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(7):
            model.zero_grad()
            losses = losses_of(method, model, batch)
            optimizer.step()
        found.append(losses[0].parts["contrast"] + losses[1].parts["contrast_adv"])
    assert found[1] < found[0] - 0.5


# mistakes


def training_info(labels: Tensor | None) -> TrainingInfo:
    return TrainingInfo(num_examples=4, hidden_size=32, labels=labels)


@pytest.mark.parametrize("labels", [None, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.zeros(4, dtype=torch.long)])
def test_there_have_to_be_two_classes(labels: Tensor | None) -> None:
    with pytest.raises(UserError, match="carl needs"):
        CARL().prepare(training_info(labels))


def test_a_step_needs_an_adversarial_pass() -> None:
    with pytest.raises(UserError, match="adversarial pass"):
        CARL(steps=1)
    assert CARL(steps=1, count="ascents").passes == 2
    assert CARL(steps=1, gamma=0.1).passes == 1


def test_banks_have_to_be_made_first(tiny_model: Make, batch: Any) -> None:
    with pytest.raises(ValueError, match="prepare"):
        losses_of(CARL(), tiny_model(), batch)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": -1}, {"temperature": 0}, {"negatives": 0}, {"momentum": 1}, {"momentum": -0.1}, {"start": 0.5},
     {"estimator": "infonce"}, {"z": "free"}, {"features": "z"}, {"positive": "other"}, {"adversary": "middle"},
     {"bank_dtype": "int8"}, {"reconstruction": -1}],
)  # fmt: skip
def test_impossible_settings_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CARL(**wrong)


# a run that stops


class _Crash(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise RuntimeError("power failure")


def test_a_run_resumes_with_its_banks_normaliser_and_draws(tiny_model: Make, tmp_path: Path) -> None:
    """T11: three steps an epoch; saved and broken where L_D is on, with negatives that are drawn, bit for bit."""

    def train(name: str, *, resume: bool = False, crash: bool = False) -> dict[str, Tensor]:
        model = tiny_model(dropout=0.1, labels=LABELS)
        method = CARL(start=1, negatives=2, bank_dtype="float16")
        trainer = Trainer(
            model, method, rows(), output_dir=tmp_path / name, max_steps=7, per_device_train_batch_size=4,
            learning_rate=1e-3, logging_steps=1, save_strategy="steps", save_steps=4, report_to="none",
            disable_tqdm=True, use_cpu=True, seed=7, callbacks=[_Crash()] if crash else [],
        )  # fmt: skip
        trainer.train(resume_from_checkpoint=resume or None)
        assert method.contrasts
        return {**model.state_dict(), **method.state_dict()}

    whole = train("whole")
    with pytest.raises(RuntimeError, match="power"):
        train("broken", crash=True)
    torch.manual_seed(99)
    resumed = train("broken", resume=True)
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []
    assert {"clean.rows", "adversarial.rows", "clean.filled", "labels", "seen", "log_z"} <= set(whole)


def test_epochs_are_those_that_training_passes_over() -> None:
    """Six rows, of which an epoch sees four: its last batch is left out."""
    method = CARL(start=3.0)
    method.prepare(
        TrainingInfo(num_examples=6, hidden_size=2, labels=torch.tensor([0, 1] * 3), epochs=5.0, epoch_examples=4)
    )
    method.clean.filled.fill_(True)
    found = []
    for seen in range(0, 16, 2):
        method.seen.fill_(seen)
        found.append((method.fills, method.contrasts))
    assert found == [(False, False)] * 4 + [(True, False)] * 2 + [(True, True)] * 2
