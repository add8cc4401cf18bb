"""``contraverse evaluate`` on images: by which batch norms, on which rows, and what it refuses."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reference.image_files import FEW, read
from reference.images import tiny

from contraverse.evaluation.images import auto_attack, corruption_accuracy, unforeseen_accuracy
from contraverse.models import ImageModel


@pytest.fixture(scope="module")
def dual(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual classifier, which tells dark from light through its clean batch norms and hardly through the others."""
    model = tiny(("dark", "light"), dual=True)
    with torch.no_grad():
        means = [
            model({"pixel_values": pictures(sorted((folder / "train" / name).iterdir()))}, want=("h",)).h.mean(0)
            for name in ("dark", "light")
        ]
        way = means[1] - means[0]
        model.classifier.weight.copy_(torch.stack([-way, way]))
        model.classifier.bias.copy_(torch.stack(means).mean(0) @ way * torch.tensor([1.0, -1.0]))
        for name, parameter in model.named_parameters():
            if name.endswith(".adversarial.bias"):
                parameter.neg_().add_(0.5)
    return model.save(tmp_path_factory.mktemp("dual") / "model")


def pictures(files: list[Path]) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1]."""
    return torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])


def accuracy(model: Path, folder: Path, bn_branch: Any) -> float:
    """In percent, of the test images, by an ordinary network."""
    files, network = sorted((folder / "test").rglob("*.png")), ImageModel.load(model).plain(bn_branch)
    with torch.no_grad():
        found = network(pictures(files)).argmax(1).tolist()
    return 100 * float(
        np.mean([("dark", "light")[at] == file.parent.name for at, file in zip(found, files, strict=True)])
    )


def test_a_dual_model_is_measured_and_used_by_one_route(invoke: Any, folder: Path, dual: Path, tmp_path: Path) -> None:
    by_route = {bn_branch: accuracy(dual, folder, bn_branch) for bn_branch in ("clean", "adversarial")}
    assert by_route["clean"] != by_route["adversarial"]
    data = ("--data", folder, "--eps", "1/255", "--steps", 1)
    args = ("evaluate", dual, *data, "--no-diagnostics", "--force", "--output", tmp_path / "e.json")
    for bn_branch, given in (
        ("adversarial", ()),
        ("clean", ("--bn-branch", "clean")),
        ("adversarial", ("--bn-branch", "adversarial")),
    ):
        done = invoke(*args, *given)
        found = read(tmp_path / "e.json")
        assert found["metrics"]["accuracy"] == found["robustness"]["accuracy"] == pytest.approx(by_route[bn_branch])
        assert found["bn_branch"] == bn_branch
        assert f"through its {bn_branch} batch norms" in done.stderr
        invoke("predict", dual, folder / "test", "--output", tmp_path / "p.csv", "--force", *given)
        lines = (tmp_path / "p.csv").read_text().splitlines()[1:]
        assert 100 * sum(f"/{line.split(',')[1]}/" in line for line in lines) / 12 == pytest.approx(by_route[bn_branch])
        invoke("encode", dual, folder / "test", "--output", tmp_path / "h.npy", "--force", *given)
        network = ImageModel.load(dual).copy_for_task(bn_branch=bn_branch).eval()
        with torch.no_grad():
            batch = {"pixel_values": pictures([Path(line.split(",")[0]) for line in lines])}
            expected = network(batch, want=("h",)).h.numpy()
        np.testing.assert_allclose(np.load(tmp_path / "h.npy"), expected, atol=1e-4)
    pytest.importorskip("pyautoattack")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("contraverse.evaluation.images.auto_attack", partial(auto_attack, attacks=["apgd-ce"]))
        for bn_branch in ("adversarial", "clean"):
            auto = ("--attack", "autoattack", "--eps", "1/255", "--rows", 12, "--bn-branch", bn_branch)
            invoke("evaluate", dual, "--data", folder, *auto, "--output", tmp_path / "e.json", "--force")
            found = read(tmp_path / "e.json")
            (report,) = found["autoattack"].values()
            assert report["accuracy"] == found["metrics"]["accuracy"] == pytest.approx(by_route[bn_branch])
            assert report["attack"]["bn_branch"] == bn_branch


@pytest.mark.parametrize(("method", "bn_branch"), [("pgd-at", "adversarial"), ("ce", "clean")])
def test_a_dual_run_is_measured_by_what_its_method_trains(
    invoke: Any, folder: Path, tmp_path: Path, method: str, bn_branch: str
) -> None:
    run = tmp_path / "run"
    args = ("--task", "images", "--data", folder, "--model", "resnet8", "--set", "model.dual=true")
    more = () if method == "ce" else ("--set", "method.steps=1")
    done = invoke("train", method, *args, *FEW, *more, "--set", "evaluation.robust_validation=true", "--output", run)
    evaluation = read(run / "evaluation.json")
    assert (evaluation["bn_branch"], evaluation["split"]) == (bn_branch, "test")
    measured = accuracy(run / "model", folder, bn_branch)
    assert evaluation["metrics"]["accuracy"] == evaluation["robustness"]["accuracy"] == pytest.approx(measured)
    assert any("the clean batch norms of a dual model" in note for note in evaluation["notes"]) == (
        bn_branch == "clean"
    )
    invoke("evaluate", run, "--eps", "none", "--output", tmp_path / "e.json")
    assert read(tmp_path / "e.json")["metrics"]["accuracy"] == pytest.approx(measured)
    assert done.exit_code == 0


def test_figures_of_some_rows_stand_apart_from_those_of_all(
    invoke: Any, folder: Path, dual: Path, tmp_path: Path
) -> None:
    args = ("evaluate", dual, "--data", folder, "--force", "--output", tmp_path / "e.json", "--rows", 4)
    auto = partial(auto_attack, attacks=["apgd-ce"])
    for attack in ("pgd", "autoattack") if _has_autoattack() else ("pgd",):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("contraverse.evaluation.images.auto_attack", auto)
            done = invoke(*args, "--eps", "1/255", "--attack", attack)
        found = read(tmp_path / "e.json")
        drawn = found["drawn"]
        report = found["robustness"] if attack == "pgd" else found["autoattack"]["0.00392157"]
        assert (drawn["rows"], report["n"], found["rows"]) == (4, 4, 12)
        assert drawn["metrics"]["accuracy"] == report["accuracy"]
        assert drawn["metrics"][f"accuracy@{attack}-0.00392157"] == found["metrics"][f"accuracy@{attack}-0.00392157"]
        assert found["metrics"]["accuracy"] == pytest.approx(accuracy(dual, folder, "adversarial"))
        assert "4 of them" in done.stdout
        (line,) = [line for line in done.stdout.splitlines() if f"{attack} ε=1/255" in line.lower()]
        assert re.search(r" - [ │]+[\d.]+[ │]*$", line)
        (note,) = found["notes"]
        assert (
            f"4 of 12 rows were drawn (seed 42) to be attacked, and their clean accuracy is {report['accuracy']:.2f}"
            in note
        )
        assert note in done.stderr


def test_autoattack_of_two_classes_is_marked_and_goes_on_from_its_state(
    invoke: Any, folder: Path, dual: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyautoattack")
    calls: list[dict[str, Any]] = []

    def auto(model: Any, data: Any, epsilon: float, **settings: Any) -> Any:
        calls.append(settings | {"epsilon": epsilon})
        return auto_attack(model, data, epsilon, **settings)

    monkeypatch.setattr("contraverse.evaluation.images.auto_attack", auto)
    args = ("evaluate", dual, "--data", folder, "--attack", "autoattack", "--rows", 6, "--force")
    chosen = ("--attacks", "square,apgd-t", "--queries", 30, "--batch-size", 2, "--version", "plus")
    whole = invoke(*args, *chosen, "--eps", "2/255", "--output", tmp_path / "whole.json")
    given = {key: calls[0][key] for key in ("attacks", "queries", "batch_size", "version", "norm")}
    assert given == {
        **{"attacks": ["square", "apgd-t"], "queries": 30, "batch_size": 2, "version": "plus", "norm": "linf"},
    }
    assert "AutoAttack ε=2/255 (square, apgd-t alone; 30 queries; margin for DLR in apgd-t)" in whole.stdout
    expected = read(tmp_path / "whole.json")
    (report,) = expected["autoattack"].values()
    assert report["replaced"] == {"apgd-t": "margin"}
    assert any("with 2 classes" in note for note in expected["notes"])

    told: list[int] = []

    def interrupted(model: Any, data: Any, epsilon: float, **settings: Any) -> Any:
        def stop(rows: int) -> None:
            told.append(rows)
            if len(told) == 3:
                raise KeyboardInterrupt

        return auto_attack(model, data, epsilon, **settings | {"progress": stop})

    state = ("--state", tmp_path / "state.json", "--output", tmp_path / "resumed.json", "--eps", "2/255")
    with monkeypatch.context() as patch:
        patch.setattr("contraverse.evaluation.images.auto_attack", interrupted)
        invoke(*args, *chosen, *state, code=130)
    assert (tmp_path / "state.json").is_file()
    assert not (tmp_path / "resumed.json").exists()
    invoke(*args, *chosen, *state)
    resumed = read(tmp_path / "resumed.json")
    for report in (*expected["autoattack"].values(), *resumed["autoattack"].values()):
        report.pop("seconds")
    assert resumed == expected
    other = invoke(*args, *chosen, "--norm", "l2", *state, code=2)
    assert "another norm" in other.stderr
    two = ("--attacks", "apgd-ce", "--eps", "1/255,2/255", "--state", tmp_path / "each.json")
    invoke(*args, *two)
    assert sorted(file.name for file in tmp_path.glob("each*.json")) == ["each-0.00392157.json", "each-0.00784314.json"]
    assert (calls[-1]["state"], calls[-1].get("queries")) == (tmp_path / "each-0.00784314.json", None)
    invoke(*args, "--attacks", "apgd-ce", "--norm", "l1", "--eps", "2")
    assert (calls[-1]["norm"], calls[-1]["epsilon"]) == ("l1", 2.0)


def _has_autoattack() -> bool:
    try:
        import pyautoattack  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What corruptions and unforeseen attacks were called with; a single one of each runs, for one step."""
    calls: dict[str, Any] = {}

    def corrupt(model: Any, data: Any, **settings: Any) -> Any:
        calls["corruptions"] = (data, settings)
        return corruption_accuracy(model, data, **settings | {"corruptions": ["contrast"], "severities": [1]})

    def attack(model: Any, data: Any, sizes: Any, **settings: Any) -> Any:
        calls["unforeseen"] = (data, sizes, settings)
        return unforeseen_accuracy(
            model, data, {name: sizes[name] for name in list(sizes)[:1]}, **settings | {"steps": 1}
        )

    monkeypatch.setattr("contraverse.evaluation.images.corruption_accuracy", corrupt)
    monkeypatch.setattr("contraverse.evaluation.images.unforeseen_accuracy", attack)
    return calls


def test_unforeseen_attacks_take_the_reference_s_steps(
    invoke: Any, folder: Path, dual: Path, tmp_path: Path, spied: dict[str, Any]
) -> None:
    args = ("evaluate", dual, "--data", folder, "--eps", "none", "--force", "--output", tmp_path / "e.json")
    done = invoke(*args, "--unforeseen", "--rows", 4, "--bn-branch", "clean")
    data, sizes, settings = spied["unforeseen"]
    assert (len(data), settings["steps"], settings["bn_branch"]) == (4, 200, "clean")
    assert list(sizes) == ["linf", "l2", "l1"]  # of 8 x 8 pixels
    assert "jpeg_linf is left out" in done.stderr
    assert "elastic is left out" in done.stderr
    assert "UAR, linf (1 of 200 steps)" in done.stdout
    notes = read(tmp_path / "e.json")["notes"]
    assert any("UAR with 1 steps" in note for note in notes)
    assert any("8 x 8" in note for note in notes)
    invoke(*args, "--unforeseen-attacks", "fog,gabor", "--steps", 7)
    data, sizes, settings = spied["unforeseen"]
    assert (len(data), settings["steps"], list(sizes)) == (12, 7, ["fog", "gabor"])
    assert "accuracy@fog-8192" in read(tmp_path / "e.json")["metrics"]
    invoke(*args, "--unforeseen-attacks", "all")
    assert list(spied["unforeseen"][1]) == ["fog", "snow", "gabor", "linf", "l2", "l1"]


def test_corruptions_are_of_the_rows_that_were_drawn(
    invoke: Any, folder: Path, dual: Path, tmp_path: Path, spied: dict[str, Any]
) -> None:
    pytest.importorskip("imagecorruptions")
    args = ("evaluate", dual, "--data", folder, "--eps", "none", "--rows", 4, "--output", tmp_path / "e.json")
    done = invoke(*args, "--corruptions", code=2)
    assert "8 x 8 are too small to corrupt" in done.stderr
    assert "Measuring" not in done.stderr
    large = tmp_path / "large"
    for file in folder.rglob("*.png"):
        copy = large / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).resize((28, 28)).save(copy)
    args = ("evaluate", dual, "--data", large, *args[4:])
    done = invoke(*args, "--corruptions")
    data, settings = spied["corruptions"]
    assert (len(data), settings["bn_branch"]) == (4, "adversarial")
    found = read(tmp_path / "e.json")
    assert set(found["drawn"]["metrics"]) == {"accuracy", "accuracy@contrast"}
    assert "padded to 32" in done.stderr
    assert any("padded to 32" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--attack", "autoattack", "--eps", "8/255", "--steps", 3), "--steps"),
        (("--attack", "autoattack", "--eps", "8/255", "--restarts", 3), "--restarts"),
        (("--attack", "autoattack", "--eps", "8/255", "--shift"), "--shift"),
        (("--attack", "autoattack", "--eps", "8/255", "--diagnostics"), "--diagnostics"),
        (("--attack", "autoattack", "--eps", "8/255", "--relative"), "relative"),
        (("--attack", "autoattack", "--eps", "none"), "needs a radius"),
        (("--eps", "none", "--steps", 3), "--steps"),
        (("--eps", "none", "--rows", 3), "--rows"),
        (("--eps", "none", "--attack", "apgd", "--shift"), "--attack, --shift"),
        (("--eps", "none", "--attack", "pgd", "--corruptions"), "--attack"),
        (("--corruptions", "--corrupted", "files"), "one at a time"),
        (("--corrupted", "files"), "cannot be read"),
        (("--unforeseen-attacks", "rain"), "rain"),
        (("--unforeseen-attacks", "jpeg_l1"), "blocks of 16"),
        (("--queries", 5), "--queries is AutoAttack's"),
        (("--version", "plus", "--attack", "apgd"), "--version is AutoAttack's"),
        (("--norm", "l1", "--eps", "12"), "no L1 norm"),
        (("--attack", "autoattack", "--eps", "8/255", "--state", "nowhere/s.json"), "its folder does not exist"),
        (("--attack", "autoattack", "--eps", "8/255", "--state", "s.txt"), "ends in .json"),
        (("--sts", "x"), "models of texts"),
        (("--text", "x"), "models of texts"),
    ],
)
def test_flags_of_evaluate_that_would_be_ignored(invoke: Any, folder: Path, dual: Path, args: Any, says: str) -> None:
    done = invoke("evaluate", dual, "--data", folder, *args, code=2)
    assert says in " ".join(done.stderr.split())
    assert "Measuring" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [("--attack", "pgd", "--eps", "8/255"), ("--eps", "8/255"), ("--corruptions",), ("--unforeseen",), ("--rows", 3)],
)
def test_an_encoder_is_probed_and_nothing_else(invoke: Any, folder: Path, tmp_path: Path, args: Any) -> None:
    encoder = tiny(None, dual=True).save(tmp_path / "encoder")
    says = invoke("evaluate", encoder, "--data", folder, *args, code=2).stderr
    assert "linear probe" in says
    assert all(str(flag) in says for flag in args if str(flag).startswith("--"))
    if args == ("--rows", 3):
        args = ("evaluate", encoder, "--data", folder, "--eps", "none", "--output", tmp_path / "e.json", "--force")
        invoke(*args)
        both = read(tmp_path / "e.json")["metrics"]
        invoke(*args, "--bn-branch", "adversarial")
        assert read(tmp_path / "e.json")["metrics"] == {"probe_adversarial": both["probe_adversarial"]}


def test_a_route_is_of_dual_models_of_images(invoke: Any, folder: Path, classifier: Path, tmp_path: Path) -> None:
    alone = tiny(("dark", "light")).save(tmp_path / "alone")
    done = invoke("evaluate", alone, "--data", folder, "--eps", "none", "--bn-branch", "clean")
    assert "--bn-branch changes nothing" in done.stderr
    (tmp_path / "t.txt").write_text("good work\n")
    bn_branch = ("--bn-branch", "clean")
    for command in ("predict", "encode"):
        output = tmp_path / ("p.csv" if command == "predict" else "h.npy")
        done = invoke(command, classifier, tmp_path / "t.txt", "--output", output, *bn_branch, code=2)
        assert "models of images" in done.stderr
    assert "for images" in invoke("evaluate", classifier, "--task", "text", *bn_branch, code=2).stderr
