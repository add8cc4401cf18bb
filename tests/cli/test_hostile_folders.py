"""Commands on a folder that brings code of its own, with a yes on standard input: none of it runs."""

import json
from pathlib import Path
from typing import Any

import pytest
from reference.foreign import edit_json, evil_folder
from typer.testing import CliRunner

from contraverse.cli.app import app
from contraverse.recipes import SearchConfig, configure

TRUST = "model.trust_remote_code"
SMALL = ("--set", "train.num_train_epochs=1", "--set", "evaluation.epsilons=[]", "--set", "train.report_to=none")
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", "ce", "--task", "text", "--model", "EVIL", "--data", "ROWS", "--output", "OUT", *SMALL),
    "train --init": ("train", "ce", "--task", "text", "--init", "EVIL", "--data", "ROWS", "--output", "OUT", *SMALL),
    "train uscal": ("train", "uscal", "--model", "EVIL", "--data", "ROWS", "--output", "OUT", *SMALL),
    "predict": ("predict", "EVIL", "ROWS", "--output", "OUT.csv"),
    "evaluate": ("evaluate", "EVIL", "--task", "text", "--data", "ROWS"),
    "encode": ("encode", "EVIL", "ROWS", "--output", "OUT.npy"),
    "search": ("search", "ce", "--task", "text", "--model", "EVIL", "--data", "ROWS", "--output", "OUT", *SMALL),
    "adversaries": ("adversaries", "EVIL", "ROWS", "--output", "OUT.jsonl"),
    "adversaries --encoder": ("adversaries", "FINE", "ROWS", "--output", "OUT.jsonl", "--encoder", "EVIL"),
    "adversaries --against": ("adversaries", "FINE", "ROWS", "--output", "OUT.jsonl", "--against", "EVIL"),
    "postprocess": ("postprocess", "whitening", "EVIL", "ROWS", "--output", "OUT"),
    "export": ("export", "EVIL", "--output", "OUT.onnx"),
}  # fmt: skip


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, and a run's around it."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return evil_folder(tmp_path / "evil", tmp_path / "ran")


def filled(command: str, tmp_path: Path, evil: Path, rows: Path, fine: Path) -> list[str]:
    places = {"EVIL": evil, "ROWS": rows, "FINE": fine, "OUT": tmp_path / "out"}
    words = []
    for word in COMMANDS[command]:
        stem, dot, ending = word.partition(".")
        words.append(f"{places[stem]}{dot}{ending}" if stem in places else word)
    return words


@pytest.mark.parametrize("command", list(COMMANDS))
def test_no_code_of_a_folder_runs(
    invoke: Any, tmp_path: Path, evil: Path, rows: Path, classifier: Path, command: str
) -> None:
    result = invoke(*filled(command, tmp_path, evil, rows, classifier), stdin="y\ny\n", code=2)
    assert "needs Python code of its own" in result.stderr
    assert "--trust-remote-code" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("export",)])
def test_code_runs_where_the_user_says_so(
    invoke: Any, tmp_path: Path, evil: Path, rows: Path, classifier: Path, command: str
) -> None:
    """The folder has no weights, which is what fails then."""
    words = filled(command, tmp_path, evil, rows, classifier)
    result = invoke(*words, "--trust-remote-code", code=2)
    assert "needs Python code" not in result.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "encode", "adversaries"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_no_code_beside_a_known_architecture_runs(
    invoke: Any, tmp_path: Path, rows: Path, classifier: Path, command: str, file: str
) -> None:
    """What the model needs is there: it is read by transformers' own classes, or refused."""
    ran = tmp_path / "ran"
    (classifier / "evilcode.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")
    names = {"AutoConfig": "evilcode.Evil", "AutoModel": "evilcode.Evil", "AutoTokenizer": ["evilcode.Evil", None]}
    edit_json(classifier / file, auto_map=names)
    words = filled(command, tmp_path, classifier, rows, classifier)

    result = CliRunner().invoke(app, words, input="y\ny\n")
    assert result.exit_code in (0, 2), result.output
    assert not ran.exists()


def test_images_load_no_code(invoke: Any, tmp_path: Path, evil: Path, folder: Path) -> None:
    """A backbone of timm's or torchvision's is a name, and its config.json none of anybody's."""
    edit_json(evil / "config.json", architecture="resnet18", pretrained_cfg={"custom_load": "evilcode.Evil"})
    words = ("train", "ce", "--task", "images", "--data", folder, "--output", tmp_path / "out", *SMALL)
    for name in (str(evil), f"timm/{evil}", f"timm/local-dir:{evil}", f"timm/hf-hub:{evil}"):
        result = invoke(*words, "--model", name, stdin="y\n", code=2)
        assert not (tmp_path / "ran").exists(), result.stderr
        assert not list(tmp_path.glob("out*"))


def test_a_file_does_not_allow_a_models_code(invoke: Any, tmp_path: Path, evil: Path, rows: Path) -> None:
    """A configuration, a stage of one, a search and a study are files that people hand on; the reader decides."""
    model = {"name": str(evil), "trust_remote_code": True}
    run = {"recipe": "ce", "task": "text", "model": model, "data": {"source": str(rows)}}
    staged = {"recipe": "itpt", "task": "text", "data": {"source": str(rows)}, "stages": {"itpt": {"model": model}}}
    for name, written in (("run", run), ("staged", staged)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(written))
        for command in ("train", "search"):
            words = (command, "--config", tmp_path / f"{name}.yaml", "--output", tmp_path / "out")
            assert "--trust-remote-code" in invoke(*words, code=2).stderr
    plan = SearchConfig(config=configure("ce", source=str(rows), settings={TRUST: True}), space={TRUST: [True]})
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "search.yaml").write_text(plan.to_yaml())
    assert "--trust-remote-code" in invoke("search", "--output", tmp_path / "search", "--resume", code=2).stderr
    for place in ("settings", "methods", "tasks"):
        allowed = {TRUST: True, "model.name": str(evil)}
        study = {
            "name": "x",
            "question": "?",
            "settings": allowed if place == "settings" else {},
            "tasks": {"text": {"data.source": str(rows)} | (allowed if place == "tasks" else {})},
            "methods": {"ce": {"recipe": "ce", "settings": allowed if place == "methods" else {}}},
            "seeds": [1],
            "baseline": "ce",
        }
        (tmp_path / "study.yaml").write_text(json.dumps(study))
        refused = invoke("study", tmp_path / "study.yaml", "--output", tmp_path / "out", code=2).stderr
        assert "a file does not decide" in refused
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("out*"))
