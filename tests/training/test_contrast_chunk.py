"""Batches in chunks: the gradients of the whole batch for the activations of a chunk, and one forward more."""

import copy
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from reference.driving import CASES, TEXT_CASES, make, ready, settled
from reference.images import image_batch, tiny
from reference.tiny import LABELS, random_batch, rows, take, with_pairs
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from contraverse.errors import UserError
from contraverse.methods import METHODS, SimCSE
from contraverse.models import TextModel
from contraverse.models.chunks import bounds_of
from contraverse.training import Trainer, step
from contraverse.types import ForwardCalls, Method, Outputs

CONTRASTIVE = [case for case, (name, _) in CASES.items() if METHODS[name].in_batch_negatives]
TEXTS = [case for case in TEXT_CASES if case in METHODS or case in CONTRASTIVE]
"""Every method with its defaults, and contrastive ones with their further settings."""
IMAGES = [
    name for name in METHODS if METHODS[name].modality == "images" or name in ("scal", "simclr", "acl-ds", "dynacl")
]
COSTS = {"simcse": 6 + 2, "scal": 7 + 3, "uscal": 10 + 4, "acl-a2s": 9 + 3, "acl-ds": 16 + 6}
"""Forward-units without chunks, and those that the backward passes add; attacks take one step here."""


@pytest.fixture(scope="module")
def encoder(tiny_folder: Callable[..., Any]) -> Callable[..., Any]:
    """Two sizes of one encoder, loaded once."""
    made: dict[str, TextModel] = {}

    def build(method: Method, dropout: float = 0.0, **settings: Any) -> TextModel:
        key = f"{dropout} {settings}"
        if key not in made:
            torch.manual_seed(1)
            made[key] = TextModel.from_pretrained(tiny_folder("bert", dropout, **settings), labels=LABELS)
        model = copy.deepcopy(made[key])
        torch.manual_seed(2)
        model.add_heads(method.heads)
        return model.train()

    return build


def make_short(case: str, steps: int = 1, **training_info: Any) -> Method:
    """As `make`, with attacks of at most ``steps`` steps."""
    method = make(case, **training_info)
    if hasattr(method, "steps") and method.passes != method.steps:
        method.steps = min(method.steps, steps)
    return method


def driven(method: Method, model: nn.Module, batch: Any, chunk: int | None) -> tuple[dict[str, Tensor], Any]:
    ready(method, model)
    torch.manual_seed(3)
    parts = step(method, model, batch, backward=lambda loss: loss.backward(), contrast_chunk=chunk)
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, parts


def images(count: int = 8, size: int = 8) -> dict[str, Any]:
    batch = image_batch(count, size)
    return {**batch, "positive": {"pixel_values": image_batch(count, size, seed=1)["pixel_values"]}}


def in_double(batch: Any) -> Any:
    """Pixels in fp64."""
    if isinstance(batch, dict):
        return {name: in_double(value) for name, value in batch.items()}
    return batch.double() if isinstance(batch, Tensor) and batch.is_floating_point() and batch.dim() > 1 else batch


@pytest.mark.parametrize(("kind", "case"), [("text", c) for c in TEXTS] + [("images", c) for c in IMAGES])
def test_gradients_are_those_of_the_whole_batch(kind: str, case: str, encoder: Callable[..., Any]) -> None:
    """Every method, attacks included, in fp64; batch norm in training mode has a test of its own."""
    results = []
    for chunk in (None, 3):
        method = make_short(case, 2)
        model = encoder(method) if kind == "text" else tiny(heads=method.heads)
        settled(model)
        batch = with_pairs(random_batch(8)) if kind == "text" else images()
        results.append(driven(method.double(), model.double(), in_double(batch), chunk))
    (whole, parts), (chunked, parts_of_chunks) = results
    assert whole.keys() == chunked.keys()
    for name, grad in whole.items():
        torch.testing.assert_close(chunked[name], grad, rtol=1e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    for expected, part in zip(parts, parts_of_chunks, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-5, atol=1e-8)


class Held(nn.Module):
    """Slow reference: each chunk's pass with its graph, all of which are held until the backward pass."""

    def __init__(self, model: nn.Module, chunk: int) -> None:
        super().__init__()
        self.model, self.chunk = model, chunk

    def forward(self, batch: Any, *, delta: Any = None, want: Any = ("logits",), bn_branch: Any = "clean") -> Any:
        if isinstance(batch, ForwardCalls):
            return batch.run(self)
        if want == ("inputs",):
            return self.model(batch, want=want)
        chunks = bounds_of(len(batch["index"]), self.chunk)
        parts = [
            self.model(take({k: v for k, v in batch.items() if isinstance(v, Tensor)}, rows),
                       delta=None if delta is None else delta[rows], want=want, bn_branch=bn_branch)
            for rows in chunks
        ]  # fmt: skip
        return Outputs(**{name: torch.cat([getattr(out, name) for out in parts]) for name in want})


@pytest.mark.parametrize("case", ["simcse", "uscal", "scal", "vat", "simclr", "acl-ds", "dynacl"])
def test_a_chunk_runs_again_with_its_dropout_masks_and_batch_statistics(case: str, encoder: Callable[..., Any]) -> None:
    """Stated difference: a chunk has masks of its own, and batch norm the statistics of its rows."""
    results = []
    for held in (True, False):
        method = make(case, longest=100)
        on_images = case in ("simclr", "acl-ds", "dynacl")
        model = tiny(heads=method.heads).train() if on_images else encoder(method, dropout=0.1)
        batch = images() if on_images else random_batch(8)
        ready(method, model)
        if held and "reference_model" in dict(method.named_children()):
            method.reference_model = Held(method.reference_model, 3)
        grads, parts = driven(method, Held(model, 3) if held else model, batch, None if held else 3)
        results.append(({name.removeprefix("model."): grad for name, grad in grads.items()}, parts))
    (expected, expected_parts), (grads, parts) = results
    assert grads.keys() == expected.keys()
    largest = max(grad.abs().max().item() for grad in expected.values())
    for name, grad in expected.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-5 * largest, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(parts, expected_parts, rtol=1e-4, atol=1e-6)


def test_running_statistics_move_once_by_the_mean_over_chunks() -> None:
    """The mean is that of the whole batch, whatever the sizes of chunks; eval mode moves nothing."""
    norm, pixels = nn.BatchNorm2d(3), torch.randn(7, 3, 4, 4) + 2
    whole = copy.deepcopy(norm)
    whole(pixels)

    class OneNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x).mean((2, 3))

    from contraverse.models import ImageModel
    from contraverse.models.chunks import chunking

    model = ImageModel(OneNorm(), 3, mean=(0.0,) * 3, std=(1.0,) * 3).train()
    with chunking([model], 3):
        h = model({"pixel_values": pixels}, want=("h",)).h
        h.square().sum().backward()
    torch.testing.assert_close(norm.running_mean, whole.running_mean)
    chunks = [pixels[rows] for rows in bounds_of(7, 3)]
    variance = sum(len(x) / 7 * x.var((0, 2, 3)) for x in chunks)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance)
    assert norm.momentum == 0.1
    assert norm.track_running_stats
    before = norm.running_mean.clone()
    with chunking([model.eval()], 3):
        model({"pixel_values": pixels}, want=("h",)).h.sum().backward()
    assert torch.equal(norm.running_mean, before)


class Peak:
    """Bytes that graphs hold at once, by what they save; storages of weights are not counted."""

    def __init__(self, *modules: nn.Module) -> None:
        self.known = {tensor.untyped_storage().data_ptr() for m in modules for tensor in m.state_dict().values()}
        self.now = self.most = 0

    class Saved:
        def __init__(self, peak: "Peak", tensor: Tensor) -> None:
            self.peak, self.tensor = peak, tensor
            self.size = 0 if tensor.untyped_storage().data_ptr() in peak.known else tensor.nbytes
            peak.now += self.size
            peak.most = max(peak.most, peak.now)

        def __del__(self) -> None:
            self.peak.now -= self.size

    def __enter__(self) -> "Peak":
        self.hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: Peak.Saved(self, x), lambda saved: saved.tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)


@pytest.mark.parametrize("case", ["simcse", "uscal", "simclr", "acl-ds", "dynacl"])
def test_memory_is_flat_in_the_batch(case: str, encoder: Callable[..., Any]) -> None:
    """Eight times the batch in the memory of the small one, but for the features and the matrix of their products."""
    on_images, most = case in ("simclr", "acl-ds", "dynacl"), {}
    for count, chunk in ((4, None), (32, None), (32, 4)):
        method = make_short(case, num_examples=32)
        model = tiny(heads=method.heads).train() if on_images else encoder(method)
        batch = images(count) if on_images else random_batch(count, 16)
        ready(method, model)
        gc.collect()
        with Peak(method, model) as peak:
            driven(method, model, batch, chunk)
        most[count, chunk] = peak.most
    of_loss = 4 * (8 * 32 * 64 + 40 * 32 * 64)  # bytes of the loss's own matrices (B, 2B) and features (B, Z)
    assert most[32, None] > 2.5 * most[4, None]
    assert most[32, 4] < most[4, None] + of_loss
    assert most[32, 4] < most[32, None] / 2


@pytest.mark.parametrize("case", list(COSTS))
def test_each_backward_pass_costs_one_forward_more(case: str, encoder: Callable[..., Any]) -> None:
    method = make_short(case, hidden_size=64)
    model = encoder(method, hidden_size=64, num_hidden_layers=4, intermediate_size=256)
    batch = random_batch(8, 16)
    batch["input_ids"][batch["input_ids"] == 0] = 7
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
    other = {name: batch[name] for name in ("input_ids", "attention_mask")}
    batch |= {"positive": other, "negative": other}
    ready(method, model)

    def flops(work: Callable[[], Any]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    forward = flops(lambda: model(batch, want=("tokens",)))
    assert flops(lambda: driven(method, model, batch, 4)) / forward == pytest.approx(COSTS[case], rel=0.03)


def test_the_page_states_these_costs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    stated = {}
    for names, whole, chunked in re.findall(r"^\| (`[^|]*) \| (\d+) \| (\d+) \|$", page, flags=re.MULTILINE):
        for name in re.findall(r"`([^`]+)`", names):
            assert METHODS[name]().cost == f"{whole}F"
            stated[name] = int(chunked)
    steps = METHODS["acl-ds"]().steps
    # Of five attack steps, each on both views: 2 (F + b) without chunks and 2F more with them.
    assert stated["acl-ds"] == COSTS["acl-ds"] + (steps - 1) * 6
    assert stated["acl-a2s"] == COSTS["acl-a2s"] + (steps - 1) * 3
    assert all(stated[name] == COSTS[name] for name in ("simcse", "scal", "uscal"))


def test_bfloat16_and_checkpointing_go_with_chunks(encoder: Callable[..., Any]) -> None:
    """Under autocast a chunk's second run is in the precision of the first; recomputed layers change no digit."""
    results = []
    for chunk, checkpointing, bf16 in ((3, False, False), (3, True, False), (None, False, True), (3, False, True)):
        method = make("uscal")
        model = encoder(method, dropout=0.0 if bf16 else 0.1)
        if checkpointing:
            model.activation_checkpointing_enable()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            grads, _ = driven(method, model, random_batch(8), chunk)
        results.append(torch.cat([grad.flatten() for _, grad in sorted(grads.items())]))
    assert torch.equal(results[0], results[1])
    assert torch.cosine_similarity(results[2], results[3], dim=0) > 0.999


def trained(build: Callable[..., Trainer], method: Method, **settings: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    trainer = build(method, optim="sgd", learning_rate=0.1, max_steps=3, max_grad_norm=0.0, **settings)
    trainer.train()
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_the_trainer_embeds_in_chunks(build: Callable[..., Trainer]) -> None:
    accumulated = {"gradient_accumulation_steps": 2}
    whole = trained(build, SimCSE(), **accumulated)
    chunked = trained(build, SimCSE(), contrast_chunk=3, **accumulated)
    for name, value in whole.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(chunked[name], value) for name, value in whole.items())  # chunks were made


def test_chunks_that_cannot_be_are_refused(build: Callable[..., Trainer], encoder: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="0 rows"):
        build(SimCSE(), contrast_chunk=0)
    with pytest.raises(UserError, match="compiled"):
        build(SimCSE(), contrast_chunk=2, torch_compile=True)
    with pytest.raises(UserError, match="in chunks"):
        step(SimCSE(), nn.Linear(2, 2), random_batch(), backward=lambda loss: None, contrast_chunk=2)
    model = encoder(SimCSE())
    out = SimCSE().losses(model, random_batch())
    model.chunk_rows = 2
    loss = next(out).total
    with torch.no_grad():
        model.heads["z"][0].weight.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize("case", CONTRASTIVE)
def test_a_batch_of_one_row_has_no_negatives(case: str, encoder: Callable[..., Any]) -> None:
    method = make(case)
    with pytest.raises(UserError, match="which has one row"):
        driven(method, encoder(method), take(with_pairs(random_batch()), slice(1)), None)


def test_training_makes_no_batch_of_one_row(build: Callable[..., Trainer]) -> None:
    """Of thirteen rows in batches of four the last is dropped, for a method with in-batch negatives alone."""
    assert len(build(SimCSE(), data=rows(13)).get_train_dataloader()) == 3
    assert len(build(METHODS["ce"](), data=rows(13)).get_train_dataloader()) == 4
    assert len(build(SimCSE(), data=rows(14)).get_train_dataloader()) == 4
    with pytest.raises(UserError, match="every batch has one row"):
        build(SimCSE(), per_device_train_batch_size=1)
    with pytest.raises(UserError, match="every batch has one row"):
        build(SimCSE(), data=rows(1))
