"""Noise on 10,000 rows of 20 words beside one forward pass of MiniLM over them, both with one thread.

    python benchmarks/noise.py [--rows 10000] [--forward-rows 500]

Prints for each kind the seconds for all rows and their share of the forward pass, which is timed on some rows and
scaled. Then, for training on all kinds: milliseconds to make a batch of 32 rows, and to train on it.
"""

import argparse
import random
import time

import numpy as np
import torch

from contraverse.data import EncodedText, NoisyText, TextData
from contraverse.evaluation import predict
from contraverse.methods import CrossEntropy
from contraverse.models import TextModel
from contraverse.noise import KINDS, NoiseMixture, noisy
from contraverse.training import step

WORDS = """the of and to in that was is for it with as his on be at by had not but from have were which are this one
you all would there their we been has when who will more no if out so said what up its about into than
them can only other new some could time these two may then do first any my now such like our over man me
even most made after also did many before must through back years where much your way well down should
because each just those people how too little state good very make world still own see men work long get
here between both life being under never day same another know while last might us great old year off
come since against go came right used take three something restaurant yesterday wonderful government
question development international university department information community experience""".split()


def sentences(count: int) -> list[str]:
    """Sentences of 20 words; one in four with a number, one in ten with an accent."""
    draw = random.Random(0)
    texts = []
    for i in range(count):
        words = [draw.choice(WORDS) for _ in range(20)]
        if i % 4 == 0:
            words[7] = "12.50"
        if i % 10 == 1:
            words[3] = "café"
        texts.append(" ".join(words).capitalize() + ".")
    return texts


def time_training(model: TextModel, texts: list[str], batches: int = 10, size: int = 32) -> None:
    """Print milliseconds of a batch and of a step of cross-entropy, with noise on none, half and all of the rows."""
    model.train()
    data = TextData.from_rows(texts[: batches * size], [i % 2 for i in range(batches * size)], ["a", "b"])
    plain = EncodedText(data, model.tokenizer, model.max_length)
    noisy_rows = [NoisyText(plain, model.tokenizer, NoiseMixture(share=share), 1) for share in (0.5, 1.0)]
    for name, rows in zip(("no rows", "half of the rows", "all rows"), [plain, *noisy_rows], strict=True):
        for _ in range(2):  # the first time warms up
            start = time.process_time()
            made = [rows.collate([rows[i] for i in range(k * size, (k + 1) * size)]) for k in range(batches)]
            making = 1000 * (time.process_time() - start) / batches
        start = time.process_time()
        for batch in made:
            step(CrossEntropy(), model, batch, backward=lambda loss: loss.backward())
        training = 1000 * (time.process_time() - start) / batches
        width = np.mean([batch["input_ids"].shape[1] for batch in made])
        print(f"noise on {name}: batch {making:.1f} ms, step {training:.0f} ms, {width:.0f} tokens wide")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--forward-rows", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = sentences(arguments.rows)
    model = TextModel.from_pretrained("minilm", labels=["a", "b"])
    part = TextData.from_rows(texts[: arguments.forward_rows])
    predict(model, part.select(range(64)))
    start = time.process_time()
    predict(model, part)
    forward = (time.process_time() - start) * len(texts) / len(part)
    print(f"forward pass of MiniLM over {len(texts):,} rows: {forward:.1f} s")
    shares = []
    for kind in KINDS:
        start = time.process_time()
        noisy(texts, kind, 3)
        seconds = time.process_time() - start
        shares.append(seconds / forward)
        print(f"{kind:18s} {seconds:5.2f} s  {100 * shares[-1]:4.1f} %")
    print(f"mean {100 * np.mean(shares):.1f} %, most {100 * np.max(shares):.1f} %")
    time_training(model, texts)


if __name__ == "__main__":
    main()
