#!/usr/bin/env bash
# Ten minutes at most on one GPU: speed of the methods (benchmarks/gpu.py), then ACL-DS on CIFAR-10's part for as long as
# remains. Without a GPU it says so and exits with 0.
#
#     studies/gpu-check.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python}
data=../shared/data/images/cifar10/cifar10_20k_10k.parquet
began=$SECONDS
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "No GPU: nothing is measured."
    exit 0
fi
timeout 400 "$python" benchmarks/gpu.py || echo "benchmarks/gpu.py did not finish"
left=$((580 - SECONDS + began))
if [ -f "$data" ] && [ "$left" -gt 60 ]; then
    timeout --signal=INT "$left" "$python" -m contraverse train acl-ds --task cifar10 --data "$data" \
        --output "$(mktemp -d)/acl-ds" --set train.bf16=true --set train.logging_steps=10 || true
fi
