"""Ctrl-C: once, and training ends after the step in hand with a checkpoint; twice, at once."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from contraverse.methods import CrossEntropy
from contraverse.training import StopOnInterrupt, Trainer

Build = Callable[..., Trainer]


class Interrupt(TrainerCallback):
    """Presses Ctrl-C at the start of a step."""

    def __init__(self, at: int, times: int = 1) -> None:
        self.at, self.times = at, times

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_one_interrupt_ends_after_the_step_with_a_checkpoint(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    trainer = build(CrossEntropy(), callbacks=[Interrupt(at=4), stop])
    with stop:
        trainer.train()
    assert stop.interrupted
    assert trainer.state.global_step == 5
    assert (Path(trainer.args.output_dir) / "checkpoint-5" / "model.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) == before
    assert "checkpoint" in capsys.readouterr().err


def test_two_interrupts_end_at_once(build: Build) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = StopOnInterrupt()
    trainer = build(CrossEntropy(), callbacks=[Interrupt(at=4, times=2), stop])
    with pytest.raises(KeyboardInterrupt), stop:
        trainer.train()
    assert trainer.state.global_step == 4
    assert signal.getsignal(signal.SIGINT) == before


def test_a_run_without_interrupt_is_not_interrupted(build: Build) -> None:
    stop = StopOnInterrupt()
    with stop:
        build(CrossEntropy(), callbacks=[stop], max_steps=1).train()
    assert not stop.interrupted
