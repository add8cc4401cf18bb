"""Whatever a user gives, every command ends in a result, or in one clear message and exit 2 with nothing written.

2,000 examples in the slow tests; a few of each subject always.
"""

import bz2
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz import strategies as odd
from fuzz.harness import Valid, build, drive, parquet_table, picture, table_lines, workplace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

EXAMPLES = {"settings": 500, "yaml": 400, "command lines": 400, "tables": 300, "images": 150, "model folders": 250}
SHORT = 5


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valid]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield build(tmp_path_factory.mktemp("valid"))


def check_settings(valid: Valid, draw: Callable[..., Any]) -> None:
    drive(["train", *draw(odd.settings(str(valid.rows))), "--dry-run"])


def check_yaml(valid: Valid, draw: Callable[..., Any]) -> None:
    kind = draw(st.sampled_from(["train", "train", "study", "search", "space"]))
    study = odd.STUDY.replace(b"ROWS", str(valid.rows).encode())
    if kind == "study" and draw(st.booleans()):
        written = study + draw(odd.YAML)
    elif kind == "study":
        written = draw(odd.mutated(study))
    else:
        written = draw(odd.YAML.flatmap(lambda text: st.just(text) | odd.mutated(text)))
    Path("c.yaml").write_bytes(written)
    if kind == "train":
        drive(["train", "--config", "c.yaml", "--dry-run"])
    elif kind == "study":
        drive(["study", *draw(st.sampled_from([["c.yaml", "--dry-run"], ["report", "c.yaml"]]))])
    elif kind == "space":
        drive(["search", "scal", "--task", "text", "--data", str(valid.rows), "--space", "c.yaml", "--timeout", "0"])
    else:
        Path("s").mkdir()
        Path("c.yaml").rename("s/search.yaml")
        drive(["search", "--output", "s", "--resume", "--timeout", "0"])


def check_command_lines(valid: Valid, draw: Callable[..., Any]) -> None:
    drive(draw(odd.command_lines(valid.paths)), draw(st.sampled_from([b"", b"good work\n", b"\xff\x00", b"y\n"])))


def check_tables(valid: Valid, draw: Callable[..., Any]) -> None:
    kind = draw(st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet", "txt"]))
    lines = [dict(zip(("text", "label"), line.split(","), strict=True)) for line in table_lines(",").splitlines()[1:]]
    if kind == "parquet":
        parquet_table(Path("t.parquet"))
        data = Path("t.parquet").read_bytes()
        Path("t.parquet").unlink()
    elif kind in ("json", "jsonl"):
        if draw(st.booleans()):
            lines[draw(st.integers(0, 11))][draw(st.sampled_from(["text", "label", "x", ""]))] = draw(odd.JSON)
        data = json.dumps(lines).encode() if kind == "json" else "\n".join(map(json.dumps, lines)).encode()
    else:
        data = table_lines("\t" if kind == "tsv" else ",").encode()
    if draw(st.integers(0, 4)):
        data = draw(odd.mutated(data))
    if kind not in ("parquet",) and draw(st.integers(0, 5)) == 0:
        data = data.decode("utf-8", "replace").encode(
            draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "utf-16-le"]))
        )
    name = f"t.{kind}"
    if draw(st.integers(0, 7)) == 0:
        name, data = draw(st.sampled_from([(f"{name}.gz", gzip.compress(data)), (f"{name}.bz2", bz2.compress(data))]))
        data = draw(st.just(data) | odd.mutated(data))
    Path(name).write_bytes(data)
    columns = draw(st.sampled_from([[], [], ["--text", "text"], ["--text", "label", "--text", "text"]]))
    labels = draw(st.sampled_from([[], ["--label", "label"], ["--label", "text"], ["--on-bad-row", "skip"]]))
    task = draw(st.sampled_from(["text", "pair", "sentences", "sst2", "mnli", "stsb", "triplets"]))
    recipe = {"sentences": "simcse", "triplets": "simcse-sup"}.get(task, "ce")
    drive(
        draw(
            st.sampled_from(
                [
                    ["train", recipe, "--dry-run", "--task", task, "--data", name, *columns, *labels],
                    ["train", "uscal", "--dry-run", "--task", "sentences", "--data", name, *columns],
                    ["predict", str(valid.classifier), name, "--output", "o.csv", *columns],
                    ["predict", str(valid.classifier), name, "--output", "o.parquet"],
                    ["encode", str(valid.encoder), name, "--output", "o.npy"],
                    ["evaluate", str(valid.classifier), "--data", name, "--eps", "none", *columns, *labels],
                    ["postprocess", "whitening", str(valid.encoder), name, "--output", "o"],
                    [
                        "adversaries",
                        str(valid.classifier),
                        name,
                        "--output",
                        "o.jsonl",
                        "--encoder",
                        str(valid.encoder),
                    ],
                    ["evaluate", str(valid.encoder), "--sts", name],
                ]
            )
        )
    )


def check_images(valid: Valid, draw: Callable[..., Any]) -> None:
    kind = draw(st.sampled_from(["folder", "npz", "idx", "cifar"]))
    name = "d"
    if kind == "folder":
        shutil.copytree(valid.images, "d")
        file = Path("d/dark/0.png")
        form = draw(st.sampled_from(["png", "jpeg", "bmp", "gif", "tiff", "webp", "ppm"]))
        file.unlink()
        file = file.with_suffix(f".{draw(st.sampled_from([form, 'png', 'jpg']))}")
        image = picture(9).convert(draw(st.sampled_from(["RGB", "L"])))
        image = image.resize(draw(st.sampled_from([(8, 8), (1, 1), (8, 9), (1, 300)])))
        image.save(file, format=form)
        file.write_bytes(draw(st.just(file.read_bytes()) | odd.mutated(file.read_bytes())))
        strange = draw(st.sampled_from([None, "d/\udcff/1.png", "d/dark/\udcff.png", "d/dark/sub/1.png", "d/1.png"]))
        if strange:
            Path(strange).parent.mkdir(exist_ok=True)
            picture(1).save(str(Path("p.png")))
            os.rename("p.png", strange)
        if draw(st.integers(0, 5)) == 0:
            os.mkfifo("d/light/pipe.png")
    elif kind == "npz":
        name = "d.npz"
        pixels = np.zeros(draw(st.sampled_from([(6, 8, 8, 3), (6, 8, 8), (0, 8, 8, 3), (6,), (6, 3, 8, 8)])))
        pixels = pixels.astype(draw(st.sampled_from(["uint8", "float32", "int64", "bool", "complex64", "O", "U3"])))
        labels = np.array(draw(st.sampled_from([[0, 1] * 3, ["a", "b"] * 3, [0.5] * 6, [np.nan] * 6, [-1] * 6, [1]])))
        keys = draw(
            st.sampled_from(
                [("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("a", "b")]
            )
        )
        np.savez(name, **dict(zip(keys, (pixels, labels), strict=True)))
        Path(name).write_bytes(draw(st.just(Path(name).read_bytes()) | odd.mutated(Path(name).read_bytes())))
    elif kind == "idx":
        Path("d").mkdir()
        images = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (6, 8, 8)) + bytes(6 * 64)
        labels = b"\x00\x00\x08\x01" + (6).to_bytes(4, "big") + bytes([0, 1] * 3)
        for split in ("train", "t10k"):
            Path(f"d/{split}-images-idx3-ubyte").write_bytes(draw(st.just(images) | odd.mutated(images)))
            Path(f"d/{split}-labels-idx1-ubyte").write_bytes(draw(st.just(labels) | odd.mutated(labels)))
    else:
        Path("d").mkdir()
        rows = b"".join(bytes([i % 2]) + bytes(3072) for i in range(6))
        for file in ("data_batch_1.bin", "test_batch.bin"):
            Path(f"d/{file}").write_bytes(draw(st.just(rows) | odd.mutated(rows)))
        Path("d/batches.meta.txt").write_bytes(draw(odd.mutated(b"dark\nlight\n")))
    skip = draw(st.sampled_from([[], ["--on-bad-row", "skip"]]))
    model = str(valid.images_model)
    drive(
        draw(
            st.sampled_from(
                [
                    ["train", "trades", "--dry-run", "--task", "images", "--data", name, *skip],
                    ["train", "simclr", "--dry-run", "--task", "images", "--data", name, "--size", "8", *skip],
                    ["predict", model, name, "--output", "o.csv", *skip],
                    ["encode", model, name, "--output", "o.parquet", "--size", "8", *skip],
                    ["evaluate", model, "--data", name, "--task", "images", "--eps", "none", *skip],
                ]
            )
        )
    )


def check_model_folders(valid: Valid, draw: Callable[..., Any]) -> None:
    kind = draw(st.sampled_from(["classifier", "encoder", "images"]))
    shutil.copytree({"classifier": valid.classifier, "encoder": valid.encoder, "images": valid.images_model}[kind], "m")
    for _ in range(draw(st.integers(1, 2))):
        file = draw(st.sampled_from(sorted(path for path in Path("m").rglob("*") if path.is_file())))
        _damage(file, draw)
    if draw(st.integers(0, 9)) == 0:
        Path("config.yaml").write_bytes(draw(odd.YAML))
    rows, output = str(valid.images if kind == "images" else valid.rows), draw(st.sampled_from(["o.parquet", "o.npy"]))
    command = draw(st.sampled_from(["encode", "evaluate", "predict", "postprocess", "export"]))
    words = {
        "encode": ["encode", "m", rows, "--output", output],
        "predict": ["predict", "m", rows, "--output", "o.csv"],
        "evaluate": ["evaluate", "m", "--data", rows, "--eps", draw(st.sampled_from(["none", "0.1"]))],
        "postprocess": ["postprocess", "whitening", "m", rows, "--output", "o"],
        "export": ["export", "m", "--output", "o.safetensors"],
    }[command]
    result = drive(words)
    if result.exit_code == 0 and command == "encode" and output == "o.npy":
        assert np.isfinite(np.load(output)).all()


def _damage(file: Path, draw: Callable[..., Any]) -> None:
    how = draw(st.sampled_from(["inside", "inside", "inside", "bytes", "empty", "gone", "folder"]))
    if how == "inside" and file.suffix == ".json":
        try:
            content = json.loads(file.read_bytes())
        except ValueError:
            content = {}
        _change(content, draw)
        file.write_text(json.dumps(content), encoding="utf-8")
    elif how == "inside" and file.suffix == ".safetensors" and file.stat().st_size > 100:
        try:
            tensors = load_file(file)
        except Exception:  # damaged already
            tensors = {"x": torch.zeros(1)}
        name = draw(st.sampled_from(sorted(tensors)))
        old = tensors.pop(name)
        changed = {
            "nan": old * float("nan"), "cut": old.flatten()[:1], "half": old.half(), "long": old.long(), "other": None,
            "inf": old + float("inf"), "more": torch.cat([old.flatten(), old.flatten()]), "bool": old.bool(),
        }[draw(st.sampled_from(["nan", "cut", "half", "long", "other", "inf", "more", "bool"]))]  # fmt: skip
        tensors |= {"other": old} if changed is None else {name: changed}
        save_file(tensors, file, metadata={"format": draw(st.sampled_from(["pt", "pt", "tf", ""]))})
    elif how == "gone":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(b"" if how == "empty" else draw(odd.mutated(file.read_bytes())))


_HUGE = ("layer", "vocab", "experts")
"""Numbers in a configuration that are loops of another library's, which no length is too much for."""


def _change(content: Any, draw: Callable[..., Any]) -> None:
    """One value inside ``content`` is another, gone, or new."""
    while True:
        keys = sorted(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(content[key], dict | list) and content[key] and draw(st.booleans()):
            content = content[key]
            continue
        if draw(st.integers(0, 4)) == 0:
            del content[key]
        else:
            value = draw(odd.JSON)
            content[key] = 3 if isinstance(value, int) and value > 7 and any(w in str(key) for w in _HUGE) else value
        return
    if isinstance(content, dict):
        content[draw(st.sampled_from(["auto_map", "x", "_attn_implementation", "quantization_config"]))] = draw(
            odd.JSON
        )


CHECKS = {
    "settings": check_settings,
    "yaml": check_yaml,
    "command lines": check_command_lines,
    "tables": check_tables,
    "images": check_images,
    "model folders": check_model_folders,
}


def hunt(subject: str, valid: Valid, examples: int) -> None:
    """Check so many examples of ``subject``, the same ones every time."""

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        with workplace():
            CHECKS[subject](valid, data.draw)

    check()


@pytest.mark.filterwarnings("ignore")  # the command line does so, too, and so do the processes of users
@pytest.mark.parametrize("subject", CHECKS)
def test_a_few_examples_end_well(subject: str, valid: Valid) -> None:
    hunt(subject, valid, SHORT)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("subject", CHECKS)
def test_every_example_ends_well(subject: str, valid: Valid) -> None:
    assert sum(EXAMPLES.values()) == 2000
    hunt(subject, valid, EXAMPLES[subject])
