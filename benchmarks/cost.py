"""What a training step of each method takes beside one of cross-entropy: measured side by side, in turns.

    python benchmarks/cost.py                  # MiniLM, batch 32 of 16 tokens
    python benchmarks/cost.py --tokens 64 --bf16

Prints a Markdown table: the cost in forward-units that the method states, the ratio that this predicts, and the
ratio of median times of forward, attack, backward and optimizer step. The optimizer takes the same time whatever the
method, so measured ratios lie below the predicted ones, and the more so the fewer tokens a batch holds.
"""

import argparse
import copy
import statistics
import time
from typing import Any

import torch

from contraverse import METHODS, TextModel, step
from contraverse.types import Method, TrainingInfo


def make_batch(tokens: int) -> dict[str, Any]:
    """32 rows of random words, with labels and a positive and a negative for each."""
    generator = torch.Generator().manual_seed(0)

    def ids() -> dict[str, torch.Tensor]:
        drawn = torch.randint(1000, 20000, (32, tokens), generator=generator)
        return {"input_ids": drawn, "attention_mask": torch.ones_like(drawn)}

    rows = torch.arange(32)
    return {**ids(), "labels": rows % 4, "index": rows, "positive": ids(), "negative": ids()}


def prepared(name: str, model: TextModel) -> Method:
    """A method with its defaults, told of 32 rows; CARL's contrast begins after the first turn."""
    method = METHODS[name](**({"start": 1} if name == "carl" else {}))
    words = {"mask_id": model.tokenizer.mask_token_id, "special_ids": tuple(model.tokenizer.all_special_ids)}
    training_info = TrainingInfo(
        32, model.width, torch.arange(32) % 4, epochs=100.0, vocab_size=model.embedding_shape[0], **words
    )
    model.add_heads(method.heads)
    method.prepare(training_info)
    return method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    known = [name for name, kind in METHODS.items() if kind.modality != "images" and name != "ce"]
    parser.add_argument("--methods", nargs="+", choices=known, default=known)
    parser.add_argument("--bf16", action="store_true")
    arguments = parser.parse_args()

    batch = make_batch(arguments.tokens)
    model = TextModel.from_pretrained("minilm", labels=list("abcd")).train()
    methods = {name: prepared(name, model) for name in ("ce", *arguments.methods)}
    for method in methods.values():
        if method.needs_reference_model:
            method.set_reference_model(copy.deepcopy(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    times: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(arguments.rounds + 1):
        for name, method in methods.items():
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bf16):
                step(method, model, batch, backward=torch.Tensor.backward)
            optimizer.step()
            optimizer.zero_grad()
            if turn:  # the first is to warm up
                times[name].append(time.perf_counter() - began)
    base = statistics.median(times["ce"])
    print(
        f"{torch.get_num_threads()} threads, {arguments.tokens} tokens a row, {'bf16' if arguments.bf16 else 'fp32'}\n"
    )
    print("| method | cost | predicted | measured | milliseconds |\n|---|---|---|---|---|")
    for name, method in methods.items():
        median = statistics.median(times[name])
        predicted = float(method.cost.removesuffix("F")) / 3
        print(f"| {name} | {method.cost} | {predicted:.2f} | {median / base:.2f} | {1000 * median:.0f} |")


if __name__ == "__main__":
    main()
