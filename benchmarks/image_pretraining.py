"""The shape of ACL's Tables 1 to 5 at a small scale: seven starts of robust training on a part of CIFAR-10.

    python benchmarks/image_pretraining.py --data ../shared/data/images/cifar10     # goes on where it stopped
    python benchmarks/image_pretraining.py --starts random simclr --seeds 1 2       # a part, beside another process
    python benchmarks/image_pretraining.py --table                                  # print the tables

Five stages. *rate*: the rate of fine-tuning, three tried from a random start. *select*: each pre-training tries three
rates in a quarter of its epochs, scored after fine-tuning on a tenth of the labels, on validation images alone, by the
mean of accuracy clean and under PGD-20. *test*: three seeds; each start is fine-tuned by TRADES with all, a tenth and a
hundredth of the labels and measured on test images: clean (TA), under PGD-20 (RA) and, one seed, under AutoAttack; the
encoders are probed linearly, with the clean and the adversarial batch norm. *linear*, Table 5: a linear classifier on
the frozen encoder of ACL's dual stream, trained on clean or on adversarial images through either batch norm, its rate
one of three. *semi*, Table 2: a random start (which is UAT++), Selfie's and ACL's are fine-tuned on few labels, and
eq. (3) learns all images from that teacher. Training runs in bf16 autocast (half as fast again on a CPU with AMX),
everything is measured in fp32. Models lie in ``runs/image_pretraining``.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from study import Row, Study, averages, markdown
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from contraverse import METHODS, ImageData, ImageModel, Method, Trainer, load_images
from contraverse.data.images import CropFlip, OneView, SimCLRAugment, TwoViews
from contraverse.evaluation import predict, robust_accuracy
from contraverse.evaluation.images import auto_attack, linear_separability
from contraverse.methods import UAT, LinearProbe
from contraverse.types import BNBranch

STUDY = Study(Path("docs/results/image_pretraining.jsonl"))
FOLDER = Path("runs/image_pretraining")
BACKBONE, EPSILON = "resnet8", 8 / 255
TRAIN, VALIDATION, TEST, AUTOATTACKED = 4000, 500, 1000, 100
PRETRAINING, BATCH = 20, 128
SEEDS = (1, 2, 3)
LABELS = {"100%": 8, "10%": 30, "1%": 60}
"""Share of the labels, and for how many epochs they are learnt."""
STARTS: dict[str, tuple[str | None, bool]] = {
    "random": (None, False),
    "simclr": ("simclr", False),
    "acl-a2a": ("acl-a2a", False),
    "acl-a2s": ("acl-a2s", True),
    "acl-ds": ("acl-ds", True),
    "acl-ds, one batch norm": ("acl-ds", False),
    "selfie": ("selfie", False),
}
"""Method of pre-training, and whether batch norm is dual."""
SEMI = ("random", "selfie", "acl-ds")
"""The starts of Table 2."""
TAUGHT = ("teacher", "ta", "ra")
RATES, FINE_RATES, LINEAR_RATES = (0.03, 0.1, 0.3), (0.02, 0.05, 0.1), (0.1, 0.3, 1.0)
ROUTES: tuple[BNBranch, ...] = ("clean", "adversarial")
PROBED = ("none", "pgd")
"""What the linear classifiers of Table 5 are trained on."""


def images(folder: Path) -> tuple[ImageData, ImageData, ImageData]:
    """Training, validation and test images; the draw does not depend on the seed of training."""
    splits = load_images("cifar10", folder, seed=0, train_rows=TRAIN, validation_rows=VALIDATION, test_rows=TEST)
    return splits.need("train"), splits.need("validation"), splits.need("test")


def pretrained(key: Row, train: ImageData) -> tuple[Path | None, float]:
    """The encoder of this start, rate, seed and number of epochs, trained if it is not there yet, and its seconds."""
    name, dual = STARTS[key["start"]]
    if name is None:
        return None, 0.0
    called = key["start"].replace(", ", "-").replace(" ", "-")
    folder = FOLDER / f"{called}-{key['rate']:g}-{key['epochs']}-{key['seed']}"
    seconds = folder / "seconds"
    if (folder / "model").is_dir():
        return folder / "model", float(seconds.read_text())
    set_seed(key["seed"])
    model = ImageModel.from_pretrained(BACKBONE, dual=dual)
    unlabelled = ImageData(train.pixels, None, train.label_names, train.source)
    method = METHODS[name]()
    trainer = Trainer(
        model,
        method,
        unlabelled,
        views=TwoViews(SimCLRAugment()) if method.image_views == 2 else OneView(CropFlip()),
        output_dir=folder / "checkpoints",
        seed=key["seed"],
        learning_rate=key["rate"],
        weight_decay=1e-4,
        num_train_epochs=key["epochs"],
        per_device_train_batch_size=BATCH,
        optimizer={"name": "sgd", "momentum": 0.9},
        schedule={"name": "cosine", "warmup_epochs": 1},
        dataloader_drop_last=True,
        max_grad_norm=0.0,
        bf16=True,
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
    )
    before = get_last_checkpoint(str(folder / "checkpoints")) if (folder / "checkpoints").is_dir() else None
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=before)
    model = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    model.save(folder / "model")
    seconds.write_text(f"{time.perf_counter() - began:.1f}")
    return folder / "model", float(seconds.read_text())


def classifier(start: Path | None, train: ImageData, bn_branch: BNBranch) -> ImageModel:
    """The start, with a classifier and a single batch norm: the ``bn_branch`` set of a dual one."""
    return ImageModel.from_pretrained(start or BACKBONE, labels=train.label_names, bn_branch=bn_branch)


def fine_tune(key: Row, model: ImageModel, method: Method, rows: ImageData, epochs: int) -> ImageModel:
    """``model``, trained and back in fp32, to be measured."""
    with TemporaryDirectory() as folder:
        trainer = Trainer(
            model,
            method,
            rows,
            views=OneView(CropFlip()),
            output_dir=folder,
            seed=key["seed"],
            learning_rate=key["fine_rate"],
            weight_decay=2e-4,
            num_train_epochs=epochs,
            per_device_train_batch_size=min(64, len(rows)),
            optimizer={"name": "sgd", "momentum": 0.9},
            schedule={"name": "cosine"},
            dataloader_drop_last=True,
            max_grad_norm=0.0,
            bf16=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer.train()
    tuned: ImageModel = trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    return tuned


def fine_tuned(key: Row, start: Path | None, train: ImageData) -> ImageModel:
    """A classifier by TRADES on ``key["labels"]`` of the labels, from the adversarial set of a dual batch norm."""
    rows = train if key["labels"] == "100%" else train.labelled_fraction(key["labels"], seed=0)[1]
    set_seed(key["seed"])
    model = classifier(start, train, key.get("bn_branch", "adversarial"))
    return fine_tune(key, model, METHODS["trades"](), rows, LABELS[key["labels"]])


def taught(key: Row, start: Path | None, train: ImageData) -> tuple[ImageModel, float]:
    """ACL's steps ii and iii: a classifier of all images, and percent of them that its teacher of few labels has right.

    The teacher starts from the clean set of a dual batch norm, the student from the adversarial one.
    """
    assert train.labels is not None
    drawn = train.labelled_rows(key["labels"], seed=0)
    set_seed(key["seed"])
    few, epochs = train.select(drawn), LABELS[key["labels"]]
    teacher = fine_tune(key, classifier(start, train, "clean"), METHODS["ce"](), few, epochs)
    logits, known = torch.from_numpy(predict(teacher, train)), torch.zeros(len(train), dtype=torch.bool)
    known[drawn] = True
    method = UAT()
    method.set_targets(logits, known)
    set_seed(key["seed"])
    student = fine_tune(key, classifier(start, train, "adversarial"), method, train, LABELS["100%"])
    right = (logits.argmax(1) == train.labels)[~known].double().mean()
    return student, 100 * float(right)


def trial(key: Row, train: ImageData, measured: ImageData) -> dict[str, float]:
    """Pre-train, fine-tune, measure; a key without labels is a probe."""
    start, seconds = pretrained(key, train)
    if key["stage"] == "probe":
        assert start is not None
        model = ImageModel.load(start)
        return {
            f"probe_{bn_branch}": linear_separability(model, train, measured, bn_branch=bn_branch).accuracy
            for bn_branch in (ROUTES if model.dual else ROUTES[:1])
        }
    began, found = time.perf_counter(), {}
    if key["stage"] == "semi":
        model, found["teacher"] = taught(key, start, train)
    elif "attack" in key:
        set_seed(key["seed"])
        method = LinearProbe(attack=key["attack"])
        model = fine_tune(key, classifier(start, train, key["bn_branch"]), method, train, LABELS["100%"])
    else:
        model = fine_tuned(key, start, train)
    seconds += time.perf_counter() - began
    report = robust_accuracy(model, measured, [EPSILON], norm="linf", steps=20, step_size=2 / 255, random_start=True)
    found |= {"ta": report.clean_accuracy, "ra": report.at[EPSILON].accuracy, "seconds": round(seconds, 1)}
    if key["stage"] == "test" and key["seed"] == SEEDS[0] and "bn_branch" not in key:
        some = measured.sample(AUTOATTACKED, seed=0)
        found |= {"aa": auto_attack(model, some, EPSILON, batch_size=AUTOATTACKED).accuracy}
    return found


def score(row: Row) -> float:
    """What settings are chosen by."""
    return float(row["metrics"]["ta"] + row["metrics"]["ra"]) / 2


def plan(starts: list[str], seeds: list[int]) -> Iterator[Row]:
    """Every training of some starts and seeds in order; what comes later depends on what was found before."""

    def row(stage: str, start: str, rate: float, epochs: int, seed: int, **more: Any) -> Row:
        return {"stage": stage, "start": start, "rate": rate, "epochs": epochs, "seed": seed, **more}

    for rate in FINE_RATES:
        yield row("rate", "random", 0.0, 0, 0, labels="10%", fine_rate=rate)
    fine = STUDY.best(score, stage="rate")["fine_rate"]
    for start in starts:
        for rate in RATES if start != "random" else ():
            yield row("select", start, rate, PRETRAINING // 4, 0, labels="10%", fine_rate=fine)
    for seed in seeds:
        for start in starts:
            random = start == "random"
            rate = 0.0 if random else STUDY.best(score, stage="select", start=start)["rate"]
            key: Row = {"start": start, "rate": rate, "epochs": 0 if random else PRETRAINING, "seed": seed}
            for labels in reversed(LABELS):
                yield row("test", **key, labels=labels, fine_rate=fine)
            if not random:
                yield row("probe", **key)
            if start == "acl-ds":
                yield row("test", **key, labels="10%", fine_rate=fine, bn_branch="clean")
                yield from linear(key)
            if start in SEMI:
                yield from (row("semi", **key, labels=labels, fine_rate=fine) for labels in ("1%", "10%"))


def linear(key: Row) -> Iterator[Row]:
    """Table 5 of one encoder; the rates are chosen by the short encoder that chose its own."""
    short = {**key, "epochs": PRETRAINING // 4, "seed": 0, "bn_branch": "adversarial"}
    for attack in PROBED:
        for rate in LINEAR_RATES:
            yield {"stage": "linear-rate", **short, "attack": attack, "fine_rate": rate}
        rate = STUDY.best(score, stage="linear-rate", start=key["start"], attack=attack)["fine_rate"]
        for bn_branch in ROUTES:
            yield {"stage": "linear", **key, "attack": attack, "bn_branch": bn_branch, "fine_rate": rate}


def tables() -> str:
    """Tables 1 to 5 as Markdown, Tables 5 and 2 last: mean and standard deviation over seeds."""
    rows = STUDY.rows(stage="test")
    lines = []
    for start in STARTS:
        for bn_branch in (None, "clean"):
            mine = [row for row in rows if row["start"] == start and row.get("bn_branch") == bn_branch]
            if not mine:
                continue
            cells = [start if bn_branch is None else f"{start}, fine-tuned from the clean batch norm"]
            for labels in LABELS:
                found = [row for row in mine if row["labels"] == labels]
                cells += averages(found, ("ta", "ra"))
                attacked = [row["metrics"]["aa"] for row in found if "aa" in row["metrics"]]
                cells.append(f"{statistics.mean(attacked):.0f}" if attacked else "-")
            lines.append(cells)
    header = ["start", *(f"{labels} {name}" for labels in LABELS for name in ("TA", "RA", "AA"))]
    probes = []
    for start in STARTS:
        if found := STUDY.rows(stage="probe", start=start):
            probes.append([start, *averages(found, ("probe_clean", "probe_adversarial"))])
    linears = []
    for attack in PROBED:
        cells = [{"none": "standard training", "pgd": "adversarial training"}[attack]]
        for bn_branch in ROUTES:
            cells += averages(STUDY.rows(stage="linear", attack=attack, bn_branch=bn_branch), ("ta", "ra"))
        linears.append(cells)
    semi = []
    for start in SEMI:
        cells = [start]
        for labels in ("10%", "1%"):
            cells += averages(STUDY.rows(stage="semi", start=start, labels=labels), TAUGHT)
        semi.append(cells)
    return "\n\n".join(
        [
            markdown(header, lines),
            markdown(["start", "probe", "probe, adversarial batch norm"], probes),
            markdown(
                ["linear classifier", *(f"{bn_branch} {name}" for bn_branch in ROUTES for name in ("TA", "RA"))],
                linears,
            ),
            markdown(["start", *(f"{labels} {name}" for labels in ("10%", "1%") for name in TAUGHT)], semi),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/images/cifar10"))
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--table", action="store_true", help="print the tables and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(tables())
        return
    set_verbosity_error()
    disable_progress_bar()
    train, validation, test = images(arguments.data)
    testing = ("test", "probe", "linear", "semi")
    STUDY.run(
        plan(arguments.starts, arguments.seeds),
        lambda key: trial(key, train, test if key["stage"] in testing else validation),
        bf16=True,
        device="cpu" if not torch.cuda.is_available() else "cuda",
    )


if __name__ == "__main__":
    main()
