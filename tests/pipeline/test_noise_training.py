"""Runs that train on noise: notes, dry run, cost, fingerprint and resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contraverse.errors import UserError
from contraverse.noise import mixture
from contraverse.pipeline import Interrupted, run
from contraverse.pipeline.dry_run import dry_run
from contraverse.pipeline.result import read_json
from contraverse.recipes import RunConfig, split_stages

Configured = Callable[..., RunConfig]


def test_a_run_says_its_noise_and_counts_its_cost(configured: Configured, rows: Path, tmp_path: Path) -> None:
    config = configured("scal", rows, **{"data.noise": "all", "data.noise_except": ["leet"], "train.max_steps": 2})
    (stage,) = split_stages(config)
    (note,) = [note for note in dry_run(stage).splits.notes if note.startswith("noise")]
    assert "beside the clean text of 100 %" in note
    assert "leet" not in note
    assert "homoglyph" in note
    result = run(config, tmp_path / "run")
    assert note in result.notes
    assert read_json(tmp_path / "run" / "evaluation.json")["training"]["forward_units"] == "8F"


def test_other_noise_than_then_is_refused(
    configured: Configured, rows: Path, tmp_path: Path, ctrl_c: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are the same, and the code that draws is not."""
    config = configured("ce", rows, **{"data.noise": "keyboard", "train.report_to": "none"})
    ctrl_c(at=4)
    with pytest.raises(Interrupted):
        run(config, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(mixture, "STREAM", "another")
        with pytest.raises(UserError, match="the noise on training rows is other than then"):
            run(config, tmp_path / "run", resume=True)
    run(config, tmp_path / "run", resume=True)
