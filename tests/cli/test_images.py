"""The commands on images, from a folder of files to a measured classifier."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.image_files import FEW, read
from safetensors.torch import load_file

from contraverse.evaluation.images import auto_attack


def test_from_a_folder_to_a_measured_classifier(invoke: Any, folder: Path, tmp_path: Path) -> None:
    data = ("--task", "images", "--data", folder)
    first, second = tmp_path / "acl", tmp_path / "trades"
    schedule = ("--set", "train.schedule.warmup_epochs=0")
    invoke("train", "acl-ds", *data, "--model", "resnet8", "--output", first, *FEW, *schedule)
    assert (first / "report.html").is_file()
    config = read(first / "model" / "contraverse.json")
    assert config["dual"] is True
    assert config["labels"] is None
    assert set(read(first / "evaluation.json")["metrics"]) == {"probe", "probe_adversarial"}
    assert "Linear probe" in invoke("evaluate", first).stdout
    invoke("export", first, "--output", tmp_path / "encoder.safetensors")
    assert (tmp_path / "encoder.safetensors").is_file()
    assert "needs no" not in invoke("export", first, "--output", tmp_path / "encoder.txt", code=2).stderr

    done = invoke("train", "trades", "--init", first, *data, "--output", second, *FEW)
    assert "adversarial batch norm" in done.stderr
    assert "PGD ε=8/255" in done.stdout
    metrics = read(second / "evaluation.json")["metrics"]
    assert set(metrics) == {"accuracy", "accuracy@pgd-0.0313725"}
    logged = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_robust_accuracy" in row for row in logged)
    card = (second / "model" / "README.md").read_text(encoding="utf-8")
    assert "image-classification" in card
    assert "on the pixels" in card

    again = invoke(
        "evaluate", second, "--eps", "2/255,8/255", "--steps", 3, "--no-diagnostics", "--output", tmp_path / "e.json"
    )
    assert "ε=2/255" in again.stdout
    found = read(tmp_path / "e.json")
    assert found["metrics"]["accuracy"] == metrics["accuracy"]
    assert found["rows"] == 12

    pytest.importorskip("pyautoattack")
    with pytest.MonkeyPatch.context() as patch:  # four attacks of 100 steps and more, but for this
        patch.setattr("contraverse.evaluation.images.auto_attack", partial(auto_attack, attacks=["apgd-ce"]))
        auto = invoke("evaluate", second, "--attack", "autoattack", "--eps", "8/255", "--rows", 4)
    assert "Accuracy, AutoAttack ε=8/255" in auto.stdout
    assert f"{metrics['accuracy']:.2f}" in auto.stdout

    invoke("predict", second, folder / "test", "--output", tmp_path / "p.csv")
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "image,label,probability,probability_dark,probability_light"
    assert len(lines) == 13
    right = sum(f"/{line.split(',')[1]}/" in line for line in lines[1:])
    assert 100 * right / 12 == pytest.approx(metrics["accuracy"])
    invoke("encode", first, folder / "test", "--output", tmp_path / "h.npy")
    assert np.load(tmp_path / "h.npy").shape == (12, config["width"])

    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "a.png").write_bytes((folder / "test" / "dark" / "0.png").read_bytes())
    (mixed / "b.png").write_bytes(b"no image")
    (mixed / "c.png").write_bytes((folder / "test" / "light" / "0.png").read_bytes()[:60])
    refused = invoke("predict", second, mixed, "--output", tmp_path / "q.csv", code=2).stderr
    assert "2 of 3 images cannot be used" in refused
    assert "b.png" in refused
    assert "c.png" in refused
    done = invoke("predict", second, mixed, "--output", tmp_path / "q.csv", "--on-bad-row", "skip")
    assert "2 bad images left out" in done.stderr
    whole = {line.split(",")[0]: line.split(",")[1:] for line in lines[1:]}
    found = (tmp_path / "q.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in found] == [whole[str(folder / "test" / "dark" / "0.png")][0]]
    pixels = np.asarray(Image.open(mixed / "a.png"))[None]
    np.savez(tmp_path / "plain.npz", images=pixels)
    invoke("predict", second, tmp_path / "plain.npz", "--output", tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text().splitlines()[1].split(",")[-2:] == found[0].split(",")[-2:]

    run_again = tmp_path / "again"
    invoke("train", "--config", second / "config.yaml", "--output", run_again)
    weights = [load_file(run / "model" / "model.safetensors") for run in (second, run_again)]
    assert all((weights[0][name] == value).all() for name, value in weights[1].items())


def test_three_steps_for_few_labels(invoke: Any, folder: Path, tmp_path: Path) -> None:
    short = [
        setting for stage in ("acl", "teacher") for setting in ("--set", f"stages.{stage}.train.num_train_epochs=1")
    ]
    short += [
        "--set",
        "stages.acl.train.per_device_train_batch_size=8",
        "--set",
        "stages.acl.train.schedule.warmup_epochs=0",
    ]
    args = ("--task", "images", "--data", folder, "--model", "resnet8", "--labels", "8", *FEW, *short)
    done = invoke("train", "acl-semi", *args, "--output", tmp_path / "semi")
    assert "keep their label" in done.stderr
    evaluation = read(tmp_path / "semi" / "evaluation.json")
    assert list(evaluation["stages"]) == ["1-acl", "2-teacher", "3-uat"]
    notes = "\n".join(evaluation["notes"])
    assert "2-teacher: goes on with the clean batch norm" in notes
    assert re.search(r"the teacher is right on [\d.]+ % of the \d+ other images", notes)
    assert "goes on with the adversarial batch norm" in notes
    assert read(tmp_path / "semi" / "2-teacher" / "evaluation.json")["rows"]["train"] == 8


def test_clusters_in_the_place_of_labels(invoke: Any, folder: Path, tmp_path: Path) -> None:
    short = [
        argument
        for setting in (
            "stages.dynacl.train.num_train_epochs=1",
            "stages.dynacl.train.per_device_train_batch_size=8",
            "stages.dynacl.train.schedule.warmup_epochs=0",
            "stages.probe.train.num_train_epochs=1",
            "data.clusters=3",
        )
        for argument in ("--set", setting)
    ]
    run = tmp_path / "plus"
    args = ("--task", "images", "--data", folder, "--model", "resnet8", *FEW, *short)
    done = invoke("train", "dynacl++", *args, "--output", run)
    assert re.search(r"3 clusters in the place of labels; [\d.]+ % lie", done.stderr)
    assert "nothing to validate on" in done.stderr
    probe, last = (read(run / stage / "model" / "contraverse.json") for stage in ("2-probe", "3-trades"))
    assert probe["labels"] == ["cluster 0", "cluster 1", "cluster 2"]
    assert (last["labels"], last["dual"]) == (None, False)
    before, after = (load_file(run / stage / "model" / "model.safetensors") for stage in ("1-dynacl", "2-probe"))
    same = [name for name in after if name.startswith("encoder.") and "bn" not in name]
    assert same
    assert all(torch.equal(before[name], after[name]) for name in same)
    assert set(read(run / "evaluation.json")["metrics"]) == {"probe"}
    assert "Linear probe" in invoke("evaluate", run).stdout
    few = ("--set", "data.labels=4")
    assert "without labels" in invoke("train", "dynacl++", *args, *few, "--output", tmp_path / "no", code=2).stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("train", "selfie", "--task", "trec"), "selfie trains on images, and trec is a task of texts"),
        (("train", "uscal", "--task", "cifar10"), "uscal trains on texts, and cifar10 is a task of images"),
        (("train", "acl-dss"), 'did you mean "acl-ds"'),
        (("train", "trades", "--task", "cifar11"), 'did you mean "cifar10"'),
        (("train", "trades", "--task", "images", "--data", "/no/such/folder"), "/no/such/folder"),
        (("train", "trades", "--set", "train.schedule.name=cosin"), "train.schedule"),
        (("train", "trades", "--set", "model.dual=maybe"), "model.dual"),
        (
            ("train", "acl-ds", "--set", "train.num_train_epochs=5", "--set", "train.schedule.warmup_epochs=10"),
            "a warm-up of 10 epochs leaves none of 5",
        ),
        (("train", "acl-ds", "--set", "train.optimizer.nesterov=true"), "train.optimizer"),
        (("train", "trades", "--task", "digits", "--model", "resnet9"), "resnet9"),
        (("train", "trades", "--set", "method.epsilon=0/255"), "method.epsilon"),
    ],
)
def test_what_is_not_possible(invoke: Any, args: Any, says: str, tmp_path: Path) -> None:
    done = invoke(*args, "--output", tmp_path / "run", code=2)
    assert says in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_epsilon_as_a_fraction(invoke: Any) -> None:
    plan = ("train", "trades", "--task", "digits", "--dry-run")
    done = invoke(*plan, "--set", "method.epsilon=4/255", "--set", "evaluation.epsilons=[2/255, 4/255]")
    assert "epsilon: 0.01568" in done.stdout
    assert "epsilons: [0.00784" in done.stdout
