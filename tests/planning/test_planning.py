"""The model of cost beside what is measured: FLOPs by torch's counter, memory by its allocator, bytes by counting."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reference.driving import METHODS, make, ready
from reference.images import image_batch, tiny
from reference.ranks import run_ranks
from reference.saved import Graphs
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, BertConfig

from contraverse.errors import UserError
from contraverse.models import AnyModel, ImageModel, TextModel
from contraverse.planning import Resources, parse_memory, plan, tables, training_of
from contraverse.planning.plan import RESERVE, Layout
from contraverse.planning.shapes import SHAPES, build_model
from contraverse.recipes import TrainConfig, configure
from contraverse.training import step
from contraverse.types import Method, TrainingInfo

ROWS, LENGTH = 32, 32
DOCS = Path(__file__).resolve().parents[2] / "docs"
FEW: dict[str, dict[str, Any]] = {name: {"steps": 2} for name in ("trades", "acl-ds", "acl-a2a")}


def text_model() -> TextModel:
    """A BERT whose activations outweigh its weights, without attention's own dropout."""
    config = BertConfig(
        hidden_size=128,
        num_hidden_layers=4,
        intermediate_size=512,
        num_attention_heads=2,
        vocab_size=500,
        num_labels=3,
        attention_probs_dropout_prob=0.0,
    )
    return TextModel(AutoModelForSequenceClassification.from_config(config), None, labels=list("abc")).train()


def image_model() -> ImageModel:
    return ImageModel.from_pretrained("resnet8", labels=list("abc")).train()


def text_batch(rows: int = ROWS) -> dict[str, Any]:
    ids = torch.randint(5, 400, (rows, LENGTH))
    other = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    numbers = torch.arange(rows)
    return {**other, "labels": numbers % 3, "index": numbers, "positive": other, "negative": other}


def pixels(rows: int = ROWS) -> dict[str, Any]:
    batch = image_batch(rows, LENGTH)
    return {**batch, "positive": {"pixel_values": image_batch(rows, LENGTH, seed=1)["pixel_values"]}}


def trained(name: str, build: Callable[[], AnyModel]) -> tuple[Method, AnyModel]:
    """A method and its model, ready for a step."""
    model, labels = build(), torch.arange(2 * ROWS) % 3
    if name in FEW:
        method = METHODS[name](**FEW[name])
        method.prepare(TrainingInfo(2 * ROWS, model.width, labels, epochs=4.0))
    else:  # late terms on, banks full
        method = make(name, longest=100, num_examples=2 * ROWS, hidden_size=model.width, labels=labels)
    model.add_heads(method.heads)
    ready(method, model)
    return method, model


def planned(name: str, build: Callable[[], AnyModel]) -> Any:
    with torch.device("meta"):
        model = build()
    return training_of(model, METHODS[name](**FEW.get(name, {})), TrainConfig(), LENGTH, rows=2 * ROWS)


def size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(
    ("name", "build", "batch"),
    [
        ("scal", text_model, text_batch),
        ("uscal", text_model, text_batch),
        ("carl", text_model, text_batch),
        ("trades", image_model, pixels),
        ("acl-ds", image_model, pixels),
    ],
)
def test_a_step_takes_the_planned_arithmetic_and_memory(
    name: str, build: Callable[[], AnyModel], batch: Callable[[], dict[str, Any]]
) -> None:
    """FLOPs by torch's counter; memory is the peak of torch's allocator over what is held before the step."""
    training, (method, model) = planned(name, build), trained(name, build)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    inputs = batch()

    def whole_step() -> None:
        step(method, model, inputs, backward=lambda loss: loss.backward())
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        whole_step()
    assert training.flops(ROWS) == pytest.approx(counter.get_total_flops(), rel=0.06)
    weights = [*model.parameters(), *model.buffers(), *method.buffers()]
    held = size(*weights, *(weight.grad for weight in model.parameters() if weight.grad is not None))
    held += size(*(value for state in optimizer.state.values() for value in state.values()))
    assert training.fixed(1) == pytest.approx(held, rel=0.02)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        whole_step()
    recorded: Any = profiler.profiler
    events = ((event.start_ns(), event.nbytes()) for event in recorded.kineto_results.events() if event.nbytes())
    now = peak = 0
    for _, change in sorted(events):
        now += change
        peak = max(peak, now)
    assert training.memory(ROWS) == pytest.approx(held + peak, rel=0.15)


ALL = [
    (name, kind)
    for name, method in METHODS.items()
    for kind in ("text", "images")
    if method.modality in ("both", kind)
    # An image has no vocabulary; on both kinds of data the methods of texts do the same.
    and (kind == "text" or method.modality == "images" or name in ("acl-ds", "trades", "simclr", "probe"))
]


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_each_method_declares_its_graphs_and_what_it_gathers(
    name: str, kind: str, tiny_model: Callable[..., TextModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in a step as the first of two processes: the graphs alive at once, and the features that are sent."""
    method = make(name, longest=100, hidden_size=32 if kind == "text" else tiny().width)
    if kind == "text":
        model: AnyModel = tiny_model(dropout=0.0, num_hidden_layers=3).train()
        batch: dict[str, Any] = {**text_batch(4), "index": torch.arange(4)}
        for view in (batch, batch["positive"], batch["negative"]):
            view["input_ids"] = view["input_ids"] % 20 + 5
    else:
        model, batch = tiny(dual=True).train(), {**pixels(4), "negative": pixels(4)["positive"]}
    model.add_heads(method.heads)
    model.train()
    ready(method, model)
    sent: list[torch.Tensor] = []

    def all_gather(parts: list[torch.Tensor], mine: torch.Tensor) -> None:
        sent.append(mine)
        for part in parts:
            part.copy_(mine)

    with Graphs(model, method, batch) as single:
        large = [head for head, spec in method.heads.items() if spec.kind in ("mlm", "ngrams")]
        out = model(batch, delta=delta_of(model, batch), want=("tokens" if kind == "text" else "h", *large))
    del out
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda *group: 2)
    monkeypatch.setattr(dist, "get_rank", lambda *group: 0)
    monkeypatch.setattr(dist, "all_gather", all_gather)
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: None)
    with Graphs(model, method, batch) as graphs:
        step(method, model, batch, backward=lambda loss: loss.backward())
    assert sum(mine.dim() == 2 and mine.shape[0] == 4 for mine in sent) == method.gathered
    # Beside encoders this small the heads of some are large. DynACL's other half has frozen weights: it keeps less.
    above = {"infobert": 1.0, "isbert": 0.5, "selfie": 1.2}.get(name, 0.2)
    below = 0.8 if name == "dynacl" else 0.1
    assert method.graphs - below <= graphs.peak / single.peak <= method.graphs + above


def delta_of(model: AnyModel, batch: dict[str, Any]) -> torch.Tensor:
    if isinstance(model, ImageModel):
        return torch.zeros_like(batch["pixel_values"], requires_grad=True)
    return torch.zeros(*batch["input_ids"].shape, model.embedding_shape[1], requires_grad=True)


def _count(rank: int, folder: Path) -> None:
    """Count the bytes of a step's collectives, of gradients by a hook of DDP's, and write them down."""
    counts: dict[str, dict[str, int]] = {}
    for name in ("uscal", "acl-a2a", "carl"):
        method, model = trained(name, text_model)
        wrapped = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        count = counts[name] = {"reduced": 0, "gathered": 0}

        def reduce(
            state: Any, bucket: dist.GradBucket, count: dict[str, int] = count
        ) -> torch.futures.Future[torch.Tensor]:
            count["reduced"] += size(bucket.buffer())
            work = dist.all_reduce(bucket.buffer(), async_op=True)
            summed: torch.futures.Future[torch.Tensor] = work.get_future().then(lambda future: future.value()[0])
            return summed

        wrapped.register_comm_hook(None, reduce)
        gather = dist.all_gather

        def counted(parts: Any, mine: Any, count: dict[str, int] = count, gather: Any = gather) -> Any:
            count["gathered"] += size(*parts)
            return gather(parts, mine)

        dist.all_gather = counted
        step(method, wrapped, text_batch(8), backward=lambda loss: loss.backward(), no_sync=wrapped.no_sync)
        dist.all_gather = gather
    if rank == 0:
        (folder / "counts.json").write_text(json.dumps(counts))


@pytest.mark.ddp
def test_two_processes_send_the_planned_bytes(tmp_path: Path) -> None:
    run_ranks(_count, tmp_path)
    for name, count in json.loads((tmp_path / "counts.json").read_text()).items():
        training = planned(name, text_model)
        assert count["reduced"] == training.reduced(2)
        assert training.gathered_bytes(8, 2) == pytest.approx(count["gathered"], rel=0.05)
        assert training.reduced(1) == training.gathered_bytes(8, 1) == 0


PARAMETERS = {
    "bert-base": 109_482_240,
    "modernbert-large": 394_781_696,
    "mistral-7b": 7_110_660_096,
    "resnet18": 11_168_832,
    "resnet50": 23_500_352,
    "vit-b": 85_798_656,
}
"""Weights without a classifier, as published; of ResNets with the stem of 32 pixels, of a decoder without its head."""


@pytest.mark.parametrize("name", SHAPES)
def test_known_shapes_have_the_published_number_of_weights(name: str) -> None:
    model = build_model(
        configure("simcse" if SHAPES[name].size is None else "simclr", settings={"model.name": name}), None
    )
    assert sum(weight.numel() for weight in model.encoder.parameters()) == PARAMETERS[name]
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_a_large_batch_is_split_before_layers_are_recomputed_and_whole_weights_before_shards(
    tiny_folder: Callable[..., Path],
) -> None:
    folder = str(tiny_folder("bert", 0.1, hidden_size=64, num_hidden_layers=3))
    config = configure("ce", settings={"model.name": folder, "train.global_batch_size": 4096})
    training = plan(config, Resources(8))[0].training
    fixed, row = training.fixed(8), training.activations(1)

    def planned_for(memory: float) -> Any:
        return plan(config, Resources(8, memory / (1 - RESERVE)))[0]

    roomy, narrow, tight, none = (planned_for(m) for m in (fixed + 513 * row, fixed + 100.5 * row, fixed / 3, 1.0))
    assert (roomy.layout, roomy.fits[Layout()]) == (Layout(), 513)
    assert narrow.layout == Layout(at_once=100)
    assert narrow.factor(narrow.layout) == 1
    assert tight.layout is not None
    assert tight.layout.sharded
    assert none.layout is None
    assert training.activations(1, recompute=True) < row


def test_nothing_is_advised_that_a_run_refuses(tiny_folder: Callable[..., Path]) -> None:
    """Split weights take no chunks, no images and no second copy of the model; a compiled model takes no chunks."""
    tiny = {"model.name": str(tiny_folder("bert", 0.1))}

    def layouts(recipe: str, settings: dict[str, Any]) -> list[Layout]:
        made = plan(configure(recipe, settings=settings), Resources(8, 1e7))[0]
        return [*made.fits, *([made.layout] if made.layout else [])]

    assert not any(layout.sharded and layout.at_once for layout in layouts("simcse", tiny))
    assert not any(layout.sharded for layout in layouts("simclr", {"model.name": "resnet8"}))
    assert any(layout.sharded for layout in layouts("ce", tiny))
    assert not any(layout.sharded for layout in layouts("smart", tiny | {"method.mu": 1.0}))
    compiled = layouts("simcse", tiny | {"train.torch_compile": True, "train.global_batch_size": 65536})
    assert not any(layout.at_once for layout in compiled)


@pytest.mark.parametrize("written", ["80 G", "80", "GB", "-1GB", "0GB", "1e400GB", "80GB8"])
def test_an_amount_of_memory_that_is_none_is_refused(written: str) -> None:
    with pytest.raises(UserError, match="80GB, 24GiB"):
        parse_memory(written)
    assert parse_memory("80GB") == 80e9
    assert parse_memory("24gib") == 24 * 2**30


@pytest.mark.parametrize(
    "name", ["bert-base", *(pytest.param(n, marks=pytest.mark.slow) for n in SHAPES if n != "bert-base")]
)
def test_the_page_of_tables_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the measured forward passes; `python -m contraverse.planning.tables docs` writes both."""
    passes, written = json.loads((DOCS / tables.FORWARDS).read_text()), (DOCS / tables.PAGE).read_text()
    assert [part.partition("\n")[0] for part in written.split("\n## ")[1:]] == [s.summary for s in SHAPES.values()]
    monkeypatch.setattr(tables, "SHAPES", {name: SHAPES[name]})
    head, _, section = tables.page(passes).partition("\n## ")
    assert written.startswith(head)
    assert f"\n## {section.strip()}\n" in written


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(n, marks=pytest.mark.slow) for n in SHAPES if n != "resnet18")]
)
def test_the_forward_passes_of_the_tables_are_measured_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SHAPES", {name: SHAPES[name]})
    passes = json.loads((DOCS / tables.FORWARDS).read_text())
    assert tables.measure_forwards()[name] == pytest.approx(passes[name])
