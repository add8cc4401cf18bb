"""Training on noise: the batches that a method gets, in every epoch, worker and resumed run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from reference.tiny import LABELS, rows, sentences, tiny_tokenizer
from torch import nn
from transformers import TrainerCallback

from contraverse.data import EncodedText, NoisyText, TextData
from contraverse.data.images import CropFlip, OneView
from contraverse.errors import UserError
from contraverse.methods import METHODS, CrossEntropy, SimCSE
from contraverse.models import TextModel
from contraverse.noise import NoiseMixture
from contraverse.training import Trainer
from contraverse.types import Batch, Loss

NOISE = NoiseMixture(["keyboard", "drop-space", "append", "space-out"], seed=5)
Build = Callable[..., Trainer]


class Seen(CrossEntropy):
    """Cross-entropy that keeps the rows of every batch: number and tokens without padding."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[dict[int, list[int]]] = []

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        self.batches.append(tokens(batch, batch["index"]))
        yield from super().losses(model, batch)


def tokens(batch: Batch, index: torch.Tensor) -> dict[int, list[int]]:
    return {
        int(i): ids[mask.bool()].tolist()
        for i, ids, mask in zip(index, batch["input_ids"], batch["attention_mask"], strict=True)
    }


def epochs(method: Seen, batches: int = 3) -> list[dict[int, list[int]]]:
    """Tokens by row, of each epoch."""
    merged = []
    for start in range(0, len(method.batches), batches):
        merged.append({i: ids for batch in method.batches[start : start + batches] for i, ids in batch.items()})
    return merged


def expected(trainer: Trainer, epoch: int) -> dict[int, list[int]]:
    """Row by row, without a collator."""
    data, tokenizer = rows(), trainer.model.tokenizer
    return {i: tokenizer(*NOISE.apply(data.texts[i], i, epoch))["input_ids"] for i in range(len(data))}


class Crash(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise RuntimeError("power failure")


@pytest.mark.parametrize("strategy", ["group_by_length", "random"])
def test_each_epoch_has_the_draws_of_its_number(build: Build, strategy: str) -> None:
    method = Seen()
    trainer = build(method, noise=NOISE, train_sampling_strategy=strategy)
    trainer.train()
    seen = epochs(method)
    assert seen == [expected(trainer, epoch) for epoch in range(3)]
    assert seen[0] != seen[1]


def test_workers_that_live_on_see_the_epoch_too(build: Build) -> None:
    method = Seen()
    settings = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True, "num_train_epochs": 2}
    trainer = build(method, noise=NOISE, **settings)
    trainer.train()
    assert epochs(method) == [expected(trainer, epoch) for epoch in range(2)]


def test_another_batch_size_changes_no_draw(build: Build) -> None:
    method = Seen()
    trainer = build(method, noise=NOISE, per_device_train_batch_size=6, num_train_epochs=2)
    trainer.train()
    assert epochs(method, batches=2) == [expected(trainer, epoch) for epoch in range(2)]


@pytest.mark.parametrize("name", ["ce", "cl"])
def test_a_resumed_run_goes_on_with_the_same_draws(build: Build, name: str) -> None:
    """Broken in the middle of the second epoch."""
    settings = {"save_strategy": "steps", "save_steps": 4, "dropout": 0.1, "noise": NOISE, "num_train_epochs": 3}
    whole = build(METHODS[name](), "whole", **settings)
    whole.train()
    with pytest.raises(RuntimeError, match="power"):
        build(METHODS[name](), "broken", callbacks=[Crash()], **settings).train()
    torch.manual_seed(99)
    resumed = build(METHODS[name](), "broken", **settings)
    resumed.train(resume_from_checkpoint=True)
    other = resumed.model.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in whole.model.state_dict().items())


def noisy_rows(model: TextModel, data: TextData, views: Any, mixture: NoiseMixture = NOISE) -> NoisyText:
    return NoisyText(EncodedText(data, model.tokenizer, model.max_length), model.tokenizer, mixture, views)


def test_the_second_view_stands_beside_the_clean_text(tiny_model: Callable[..., TextModel]) -> None:
    model, data = tiny_model(), rows()
    encoded = noisy_rows(model, data, 2)
    encoded.start_epoch(4)
    batch = encoded.collate([encoded[i] for i in range(12)])
    plain = EncodedText(data, model.tokenizer, model.max_length)
    clean = plain.collate([plain[i] for i in range(12)])
    assert set(batch) == {*clean, "noisy"}
    assert all(torch.equal(batch[name], value) for name, value in clean.items())
    twins = [NOISE.apply(data.texts[i], i, 4, 2) for i in range(12)]
    assert any(twin != text for twin, text in zip(twins, data.texts, strict=True))
    assert tokens(batch["noisy"], batch["index"]) == {
        i: model.tokenizer(*twin)["input_ids"] for i, twin in enumerate(twins)
    }


def test_pairs_and_triplets_get_noise_in_every_column(tiny_model: Callable[..., TextModel]) -> None:
    model, mixture = tiny_model(), NoiseMixture(["space-out"], [5], 1.0)
    for columns in (2, 3):
        texts = list(zip(*(sentences(12, seed) for seed in range(columns)), strict=True))
        encoded = noisy_rows(model, TextData.from_rows(texts), 1, mixture)
        batch = encoded.collate([encoded[i] for i in range(12)])
        drawn = [mixture.apply(row, i, 0) for i, row in enumerate(texts)]
        if columns == 2:
            pairs = {
                i: model.tokenizer(*row, truncation=True, max_length=model.max_length) for i, row in enumerate(drawn)
            }
            assert tokens(batch, batch["index"]) == {i: pair["input_ids"] for i, pair in pairs.items()}
            continue
        for column, part in enumerate((batch, batch["positive"], batch["negative"])):
            assert tokens(part, batch["index"]) == {
                i: model.tokenizer(row[column], truncation=True, max_length=model.max_length)["input_ids"]
                for i, row in enumerate(drawn)
            }


def test_rows_that_are_repeated_get_other_draws(tiny_model: Callable[..., TextModel]) -> None:
    data = TextData.from_rows(["the people of the state were there before"], [0], LABELS)
    data.repeats = [6]
    encoded = noisy_rows(tiny_model(), data, 1, NoiseMixture(["space-out"], [3], 1.0))
    batch = encoded.collate([encoded[i] for i in range(6)])
    assert batch["index"].tolist() == [0] * 6
    assert len({tuple(ids) for ids in batch["input_ids"].tolist()}) > 2


def test_rows_without_letters_stay_as_they_are(tiny_model: Callable[..., TextModel]) -> None:
    model = tiny_model()
    data = TextData.from_rows(["…", "你好", "🎵🎵", "7"], [0, 1, 0, 1], LABELS)
    encoded = noisy_rows(model, data, 1, NoiseMixture(["homoglyph"], [5], 1.0))
    plain = EncodedText(data, model.tokenizer, model.max_length)
    batch, clean = (some.collate([some[i] for i in range(4)]) for some in (encoded, plain))
    assert all(torch.equal(batch[name], value) for name, value in clean.items())


def test_noise_on_images_is_refused(build: Build) -> None:
    from reference.images import tiny

    from contraverse.data import ImageData

    data = ImageData.from_arrays(torch.rand(8, 3, 8, 8).numpy(), [0, 1] * 4)
    model = tiny(labels=["0", "1"])
    with pytest.raises(UserError, match="noise is for texts"):
        build(CrossEntropy(), data=data, model=model, noise=NOISE, views=OneView(CropFlip()))


def test_an_encoder_trains_on_noise(build: Build) -> None:
    trainer = build(SimCSE(), noise=NOISE, max_steps=2, dropout=0.1)
    trainer.train()
    assert trainer.state.global_step == 2


def test_of_several_draws_the_first_is_the_only_one_of_one() -> None:
    data, tokenizer = rows(), tiny_tokenizer(type_ids=True)
    encoded, several = EncodedText(data, tokenizer, 32), 3
    one, three = (NoisyText(encoded, tokenizer, NOISE, 2, draws) for draws in (1, several))
    items = [0, 3, 5, 6]
    single, batch = one.collate([one[i] for i in items]), three.collate([three[i] for i in items])
    assert "noisy" not in batch
    draws = batch["draws"]
    assert draws["input_ids"].shape[:2] == (several, 4)
    assert tokens({**draws, **{k: v[0] for k, v in draws.items()}}, batch["index"]) == tokens(
        single["noisy"], single["index"]
    )
    texts = [[NOISE.apply(data.texts[i], i, 0, 2, draw) for i in items] for draw in range(several)]
    for draw in range(several):
        ids = tokens({k: v[draw] for k, v in draws.items()}, batch["index"])
        assert list(ids.values()) == [tokenizer(*text)["input_ids"] for text in texts[draw]]
    assert texts[0] != texts[1] != texts[2]


def test_batches_are_of_like_noisy_length(build: Build) -> None:
    """Words whose letters stand apart are several times as long; the rows are grouped by that, anew in each epoch."""
    noise, method = NoiseMixture(["space-out"], strengths=[5], share=0.5, seed=5), Seen()
    data = TextData.from_rows(sentences(60), [i % 3 for i in range(60)], LABELS)
    trainer = build(method, data=data, noise=noise, num_train_epochs=2, model=None)
    trainer.train()
    sampler = trainer._sampler
    assert sampler is not None
    assert sampler.lengths is not None
    tokenizer = trainer.model.tokenizer
    expected = [len(tokenizer(*noise.apply(data.texts[i], i, 1))["input_ids"]) for i in range(60)]
    assert [min(length, 32) for length in expected] == list(sampler.lengths)
    padded = sum(max(map(len, batch.values())) * len(batch) for batch in method.batches[15:])
    assert sum(sampler.lengths) / padded > 0.85


def test_the_worst_view_needs_noise(build: Build) -> None:
    with pytest.raises(UserError, match="needs noise"):
        build(SimCSE(views_of="worst"))
    method = SimCSE(views_of="worst", view_draws=2)
    build(method, noise=NOISE, max_steps=2).train()
