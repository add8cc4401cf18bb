"""The command line on images as people have them: few labels, wrong options, and what a dry run finds out."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from reference.image_files import PIXELS, encoded, read, write_folder

FEW = (
    "--set", "train.num_train_epochs=1", "--set", "train.per_device_train_batch_size=8",
    "--set", "evaluation.steps=1", "--set", "evaluation.diagnostics=false", "--set", "train.report_to=none",
)  # fmt: skip
IMAGES = ("--task", "images", "--model", "resnet8")


@pytest.fixture(scope="module")
def heap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty labelled images and thirty others, 8 x 8, and four to test on."""
    root = tmp_path_factory.mktemp("heap")
    write_folder(root / "train", {"cat": 10, "dog": 10, "unlabelled": 30})
    write_folder(root / "test", {"cat": 2, "dog": 2}, start=50)
    return root


def test_a_heap_in_three_steps_and_again_from_its_teacher(invoke: Any, heap: Path, tmp_path: Path) -> None:
    short = [
        argument
        for setting in (
            "stages.acl.train.num_train_epochs=1",
            "stages.acl.train.per_device_train_batch_size=8",
            "stages.acl.train.schedule.warmup_epochs=0",
            "stages.teacher.train.num_train_epochs=1",
        )
        for argument in ("--set", setting)
    ]
    data, semi = (*IMAGES, "--data", heap, "--labels", "all", "--size", 12), tmp_path / "semi"
    invoke("train", "acl-semi", *data, *FEW, *short, "--output", semi)
    stages = [read(semi / name / "evaluation.json") for name in ("1-acl", "2-teacher", "3-uat")]
    assert [stage["rows"]["train"] for stage in stages] == [50, 18, 48]
    assert [stage["skipped_rows"] for stage in stages] == [0, 0, 0]
    assert "accuracy" in stages[2]["metrics"]
    assert set(stages[0]["metrics"]) == {"probe", "probe_adversarial"}
    assert "18 of 48 images keep their label" in "\n".join(stages[2]["notes"])
    assert read(semi / "model" / "contraverse.json")["image_size"] == [12, 12]
    assert "torch.rand(1, 3, 12, 12)" in (semi / "model" / "README.md").read_text(encoding="utf-8")

    again = ("train", "uat", "--init", semi / "2-teacher", "--task", "images", "--data", heap, "--labels", 4, *FEW)
    done = invoke(*again, "--output", tmp_path / "uat")
    assert "4 of 48 images keep their label; the model as it starts predicts the others" in done.stderr
    assert read(tmp_path / "uat" / "evaluation.json")["rows"]["train"] == 48
    assert "the model before training is the teacher" in read(tmp_path / "uat" / "evaluation.json")["notes"]
    probed = invoke("evaluate", semi / "1-acl", "--data", heap)
    assert "features of 20 images" in probed.stderr

    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    for given, size in (((), 12), (("--size", 16), 16)):
        invoke("export", semi, "--output", tmp_path / "m.onnx", "--force", *given)
        (pixels,) = onnx.load(tmp_path / "m.onnx").graph.input
        assert [side.dim_value for side in pixels.type.tensor_type.shape.dim][2:] == [size, size]


def test_columns_and_size_have_options(invoke: Any, tmp_path: Path) -> None:
    files, sides = [encoded(PIXELS[i, : 8 + i % 2, :8]) for i in range(40)], [i % 2 for i in range(40)]
    parquet.write_table(pa.table({"photo": files, "kind": sides, "label": [None] * 40}), tmp_path / "a.parquet")
    plan = ("train", "trades", *IMAGES, "--data", tmp_path / "a.parquet", "--dry-run")
    assert "--image" in invoke(*plan, code=2).stderr
    assert "--label" in invoke(*plan, "--image", "photo", "--size", 8, code=2).stderr
    assert "--size" in invoke(*plan, "--image", "photo", "--label", "kind", code=2).stderr
    done = invoke(*plan, "--image", "photo", "--label", "kind", "--size", 8)
    assert "36 rows: 0 18, 1 18" in done.stderr
    assert "size: 8" in done.stdout


def test_a_dry_run_tells_of_images_without_a_label(invoke: Any, heap: Path) -> None:
    plan = ("--data", heap, *IMAGES, "--dry-run")
    done = invoke("train", "uat++", *plan, "--labels", "all")
    assert "18 rows: cat 9, dog 9\n" in done.stderr
    assert "48 rows: cat 9, dog 9, no label 30\n" in done.stderr
    assert "30 of 48 training images have no label" in done.stderr
    assert "trades leaves the other 30 out" in invoke("train", "trades", *plan).stderr
    ignored = invoke("train", "acl-ds", *plan, "--labels", "10%")
    assert "acl-ds does not use the labels of images, so that data.labels: 10% changes nothing" in ignored.stderr


DIGITS = ("--task", "digits", "--model", "resnet8")


def test_a_mistake_in_a_later_stage_is_found_before_the_first_one_trains(invoke: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = invoke("train", "acl-semi", *DIGITS, "--labels", "200%", "--output", str(run), code=2)
    assert "2,588 labels of 1,294 images leave none unlabelled" in found.stderr
    assert "[1-acl-ds]" not in found.stderr
    assert not run.exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("trades", "--task", "digits", "--model", "resnet9"), "no backbone is called 'resnet9'"),
        (("trades", "--model", "resnet9"), "no backbone is called 'resnet9'"),  # CIFAR-10, on the Hub
        (("trades", "--task", "digits", "--model", "minilm"), "no backbone is called 'minilm'"),
        (("trades", *DIGITS, "--labels", "0%"), "'0%' is no number of labels"),
        (("trades", *DIGITS, "--labels", "200%"), "leave none unlabelled"),
        (("trades", *DIGITS, "--labels", "5"), "5 labels cannot be balanced over 10 classes"),
        (("uat", *DIGITS, "--labels", "10%"), "resnet8 has no classifier of 0, 1, 2, 3 and 6 more"),
        (("selfie", *DIGITS, "--set", "method.grid=3"), "cannot be cut into 3 x 3 patches"),
        (("ce", "--data", "ROWS", "--model", "resnet18"), "resnet18 reads images"),
        (("ce", "--data", "ROWS", "--model", "./none/at/all"), "./none/at/all"),
        (("ce", "--task", "trec", "--model", "resnet18"), "resnet18 reads images"),  # on the Hub
        (("trades", "--data", "COLOURS", "--model", "resnet8"), "--task images"),
    ],
)
def test_a_dry_run_refuses_what_the_run_does(
    invoke: Any, args: tuple[str, ...], says: str, rows: Path, tmp_path: Path
) -> None:
    write_folder(tmp_path / "colours", {"red": 3, "blue": 3})
    given = [{"ROWS": rows, "COLOURS": tmp_path / "colours"}.get(arg, arg) for arg in args]
    assert says in " ".join(invoke("train", *given, "--dry-run", code=2).stderr.split())
    if args[1:3] not in (("--model", "resnet9"), ("--task", "trec")):
        run = tmp_path / "run"
        assert says in " ".join(invoke("train", *given, "--output", run, code=2).stderr.split())
        assert not run.exists()


@pytest.mark.parametrize(
    ("args", "unread"),
    [
        (("ce", "--task", "pair", "--set", "data.source=[{task: snli}, {source: a/b}]"), ["stanfordnlp/snli", "a/b"]),
        (("ce", "--data", "someone/texts"), ["someone/texts"]),
        (("trades", "--task", "images", "--data", "someone/pets", "--model", "resnet8"), ["someone/pets"]),
        (("ce", "--data", "ROWS", "--model", "someone/encoder"), ["someone/encoder"]),
        (("ce", "--task", "digits", "--model", "timm/resnet18.a1_in1k"), ["timm/resnet18.a1_in1k"]),
    ],
)
def test_a_dry_run_reads_nothing_from_the_hub(
    invoke: Any, args: tuple[str, ...], unread: list[str], rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the Hub was asked")

    for name in ("huggingface_hub.HfApi.dataset_info", "datasets.load_dataset", "socket.socket.connect"):
        monkeypatch.setattr(name, refuse)
    done = invoke("train", *[rows if arg == "ROWS" else arg for arg in args], "--dry-run")
    for name in unread:
        assert f"{name} is not read: on the Hub" in done.stderr
