"""The scripts for a GPU: without one they say so and exit with 0, and their code runs on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NO_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("command", [[sys.executable, "benchmarks/gpu.py"], ["studies/gpu-check.sh", sys.executable]])
def test_without_a_gpu_they_say_so(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, env=NO_GPU, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "No GPU" in done.stdout


@pytest.mark.slow
def test_the_benchmark_runs_on_the_cpu() -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--tiny"]
    done = subprocess.run(command, cwd=ROOT, env=NO_GPU, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()[4:]] == [
        f"| {name}" for name in ("ce", "scal", "carl", "uscal", "ce", "trades", "acl-ds")
    ]
