"""The papers' settings on images, one function each; methods without a function have the baselines' settings."""

from collections.abc import Mapping
from typing import Any

from contraverse.recipes.image_schema import (
    ImageDataConfig,
    ImageEvaluationConfig,
    ImageModelConfig,
    ImageRunConfig,
    ViewsConfig,
)
from contraverse.recipes.recipe import baseline, follows, on_images, on_texts, plain, recipe
from contraverse.recipes.schema import START, MethodConfig, RunConfig, StageConfig, TrainConfig
from contraverse.recipes.text_papers import labelled, sentences

# Robust Pre-Training by Adversarial Contrastive Learning.
ACL_PAPER = "ACL (Jiang et al. 2020)"
UAT_PAPER = "UAT (Alayrac et al. 2019)"
SIMCLR_PAPER = "SimCLR (Chen et al. 2020)"

# Where a paper leaves a thing out, transformers' default stands. The last batch of an epoch, which has too few images
# for a batch norm or a contrast, is left out.
_COMMON: dict[str, Any] = {
    "logging_steps": 50,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "dataloader_drop_last": True,
    "sync_batch_norm": True,  # the papers train on one device, where batch norm sees the whole batch
    "seed": 42,
}


# The authors' train_simCLR.py: LARS at 5, batch 512, 1000 epochs, ten of them warm-up, cosine to 1e-6. The paper gives
# batch, epochs and the attack, and for the rest points to SimCLR.
_PRETRAINING: dict[str, Any] = {
    "num_train_epochs": 1000,
    "global_batch_size": 512,
    "learning_rate": 5.0,
    "weight_decay": 1e-6,
    "optimizer": {"name": "lars", "momentum": 0.9},
    "schedule": {"name": "cosine", "warmup_epochs": 10, "floor": 1e-6 / 5},
    "max_grad_norm": 0.0,
}
# ACL 4: SGD at .1, batch 128, 25 epochs, a tenth of the rate from the 15th and from the 20th on.
_FINE_TUNING: dict[str, Any] = {
    "num_train_epochs": 25,
    "global_batch_size": 128,
    "learning_rate": 0.1,
    "weight_decay": 2e-4,
    "optimizer": {"name": "sgd", "momentum": 0.9},
    "schedule": {"name": "milestones", "epochs": [15, 20], "factor": 0.1},
    "max_grad_norm": 0.0,
    "eval_strategy": "epoch",
    "load_best_model_at_end": True,
}
# The authors' readme for CIFAR-10, and their train_trades_cifar10_semisupervised.py for the teacher.
_LONG: dict[str, Any] = {
    "num_train_epochs": 100,
    "schedule": {"name": "milestones", "epochs": [40, 60], "factor": 0.1},
}
# ACL 4: PGD-20 from a uniform start.
_PGD: dict[str, Any] = {"step_size": 2 / 255, "random_start": True}
_ROBUST: dict[str, Any] = {"metric_for_best_model": "robust_accuracy", "greater_is_better": True}


# All images, as the papers pre-train: those that fine-tuning sets aside are seen, too, without their labels.
_ALL: dict[str, Any] = {"validation_fraction": 0.0}


@baseline("images", "inputs")
def _pretraining(name: str, *, dual: bool = False, train: dict[str, Any] | None = None) -> ImageRunConfig:
    """Pre-training of ACL; SimCLR's views."""
    return ImageRunConfig(
        recipe=name,
        task="cifar10",
        method=MethodConfig(name=name),
        model=ImageModelConfig(dual=dual),
        data=ImageDataConfig(views=ViewsConfig(kind="simclr"), **_ALL),
        train=TrainConfig.model_validate(_COMMON | _PRETRAINING | (train or {})),
    )


@baseline("images", "labels")
def _fine_tuning(
    name: str, *, robust: bool = True, train: dict[str, Any] | None = None, **settings: Any
) -> ImageRunConfig:
    """Fine-tuning of ACL; crop and flip.

    The best checkpoint is that of the best accuracy on validation images, under attack where the method is ``robust``.
    """
    chosen = (_ROBUST if robust else {}) | (train or {})
    return ImageRunConfig(
        recipe=name,
        task="cifar10",
        method=MethodConfig(name=name, **settings),
        data=ImageDataConfig(views=ViewsConfig(kind="crop-flip")),
        evaluation=ImageEvaluationConfig(robust_validation=robust, **_PGD),
        train=TrainConfig.model_validate(_COMMON | _FINE_TUNING | chosen),
    )


@on_images("ce")
def ce() -> ImageRunConfig:
    """Standard training: SGD as in fine-tuning."""
    return _fine_tuning("ce", robust=False)


@on_images("at")
def at() -> ImageRunConfig:
    """One sign step of 8/255."""
    return _fine_tuning("at", attack="fgsm", epsilon=8 / 255)


@on_images("scal")
def scal() -> ImageRunConfig:
    """SCAL on a sign step of 8/255."""
    return _fine_tuning("scal", attack="fgsm", epsilon=8 / 255, temperature=0.05)


_FREELB: dict[str, Any] = {"norm": "linf", "steps": 3, "step_size": 4 / 255, "gamma": 8 / 255, "epsilon": 8 / 255}


@on_images("freelb")
def freelb() -> ImageRunConfig:
    """FreeLB within 8/255, in three steps of 4/255 from a random start."""
    return _fine_tuning("freelb", **_FREELB)


@on_images("carl")
def carl() -> ImageRunConfig:
    """CARL on that FreeLB, with the paper's contrast."""
    return _fine_tuning("carl", **_FREELB, weight=0.03, temperature=0.07, negatives=16000, momentum=0.5, start=3.0)


plain("simclr", summary="contrast of two views", paper=SIMCLR_PAPER, task="cifar10")
plain("acl-a2a", summary="contrast of two adversarial views", paper=ACL_PAPER, task="cifar10")


@recipe("acl-a2s", summary="contrast of an adversarial and a clean view", paper=ACL_PAPER, task="cifar10")
def acl_a2s() -> ImageRunConfig:
    """ACL, adversarial to standard, with dual batch norm."""
    return _pretraining("acl-a2s", dual=True)


@recipe("acl-ds", summary="a clean and an adversarial stream of contrast", paper=ACL_PAPER, task="cifar10")
def acl_ds() -> ImageRunConfig:
    """ACL, dual stream with dual batch norm: the paper's choice."""
    return _pretraining("acl-ds", dual=True)


@recipe("dynacl", summary="ACL whose views grow weaker", paper="DynACL (Luo et al. 2023)", task="cifar10")
def dynacl() -> ImageRunConfig:
    """DynACL: as ACL, but bilinear crops and a rate that changes from epoch to epoch."""
    config = _pretraining("dynacl", dual=True, train={"schedule": {**_PRETRAINING["schedule"], "every": "epoch"}})
    views = ViewsConfig(kind="simclr", resample="bilinear")
    return config.model_copy(update={"data": ImageDataConfig(views=views, **_ALL)})


@recipe("dynacl++", summary="dynacl, and TRADES on its clusters", paper="DynACL (Luo et al. 2023)", task="cifar10")
def dynacl_plus() -> ImageRunConfig:
    """DynACL and its post-processing: a classifier of the features' clusters, from which TRADES learns them.

    Ten clusters, whatever the data, as in the authors' LPAFT.py. The result is an encoder again.
    """
    config, first = _fine_tuning("trades"), dynacl()
    clustered = {"global_batch_size": 512, "weight_decay": 1e-4}
    stages = {
        "dynacl": StageConfig(
            method=first.method,
            model={"dual": True},
            data={"pseudo_labels": None, "clusters": None, "views": first.data.views.model_dump()},
            train=first.train.model_dump(exclude_none=True),
        ),
        "probe": StageConfig(
            method=MethodConfig(name="probe"),
            train={"num_train_epochs": 10, "learning_rate": 0.01, "schedule": {"name": "milestones", "epochs": []}},
        ),
    }
    train = config.train.model_dump() | clustered
    train["schedule"] = {"name": "milestones", "epochs": [11, 21], "factor": 0.1}
    return config.model_copy(
        update={
            "recipe": "dynacl++",
            "stages": stages,
            "data": config.data.model_copy(update={"pseudo_labels": "dynacl", "clusters": 10, **_ALL}),
            "evaluation": ImageEvaluationConfig(**_PGD),
            "train": TrainConfig.model_validate(train),
        }
    )


@recipe("deacl", summary="robustness distilled from a teacher", paper="DeACL (Zhang et al. 2022)", task="cifar10")
def deacl() -> ImageRunConfig:
    """DeACL's second stage, from a ``simclr`` run with --init: SGD at .5, batch 256, 100 epochs; crop and flip."""
    train = {
        "num_train_epochs": 100,
        "global_batch_size": 256,
        "learning_rate": 0.5,
        "weight_decay": 5e-4,
        "optimizer": {"name": "sgd", "momentum": 0.9},
    }
    config = _pretraining("deacl", train=train)
    return config.model_copy(update={"data": ImageDataConfig(views=ViewsConfig(kind="crop-flip"), **_ALL)})


@recipe("selfie", summary="masked-patch classification", paper="Selfie (Trinh et al. 2019)", task="cifar10")
def selfie() -> ImageRunConfig:
    """Selfie as Adv-SS pre-trains by it: SGD with Nesterov's momentum at .1, cosine, batch 128, 200 epochs."""
    train = {
        "num_train_epochs": 200,
        "global_batch_size": 128,
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True},
        "schedule": {"name": "cosine"},
    }
    config = _pretraining("selfie", train=train)
    return config.model_copy(update={"data": ImageDataConfig(views=ViewsConfig(kind="crop-flip"), **_ALL)})


plain("pgd-at", summary="adversarial training by PGD", paper="PGD (Madry et al. 2018)", task="cifar10")
# With which ACL fine-tunes: from random weights, or from a pre-trained run with --init.
plain("trades", summary="accuracy traded against robustness", paper="TRADES (Zhang et al. 2019)", task="cifar10")


@recipe("trades-100", summary="trades for 100 epochs, as ACL's code", paper=ACL_PAPER, task="cifar10")
def trades_100() -> ImageRunConfig:
    """TRADES as the authors of ACL run it on CIFAR-10: 100 epochs, a tenth of the rate from the 40th and the 60th on.

    The paper itself has 25 epochs (``trades``).
    """
    config = _fine_tuning("trades", train=_LONG)
    return config.model_copy(update={"recipe": "trades-100"})


@recipe("probe", summary="a linear classifier on a frozen encoder", paper=ACL_PAPER, task="cifar10")
def probe() -> ImageRunConfig:
    """A linear probe of a run given with --init: 25 epochs at .01, batch 512, a tenth from the 11th and the 21st on.

    These are DynACL's settings, which RobustSSL took over. The best checkpoint is that of the best accuracy on
    validation images, under attack with ``method.attack=pgd``.
    """
    train = {
        "global_batch_size": 512,
        "learning_rate": 0.01,
        "schedule": {"name": "milestones", "epochs": [11, 21], "factor": 0.1},
    }
    return _fine_tuning("probe", robust=False, train=train)


@follows("probe")
def _chosen_under_attack(settings: Mapping[str, Any]) -> dict[str, Any]:
    """ACL 3: a classifier that is trained under attack is chosen by its accuracy under attack."""
    method = settings.get("method")
    if not isinstance(method, Mapping) or method.get("attack", "none") == "none":
        return {}
    return {"evaluation": {"robust_validation": True}, "train": _ROBUST}


# The authors' train_trades_cifar10_semisupervised.py: 25 images with a label and 225 without a batch at 10 % of the
# labels, 2 and 198 at 1 %.
_BATCH, _BATCH_OF_FEW = 250, 200
_SEMI: dict[str, Any] = {
    "num_train_epochs": 15,
    "global_batch_size": _BATCH,
    "weight_decay": 5e-4,
    "schedule": {"name": "milestones", "epochs": [5, 10], "factor": 0.1},
}
_FEW_LABELS: dict[str, Any] = {**_FINE_TUNING, **_LONG, "metric_for_best_model": "accuracy"}


@recipe("uat", summary="few labels, a teacher for the rest", paper=UAT_PAPER, task="cifar10")
def uat() -> ImageRunConfig:
    """Eq. (3) of ACL; ``data.pseudo_labels`` names the teacher's run, and without one the start is the teacher."""
    return _fine_tuning("uat", train=_SEMI)


def _taught(name: str, before: dict[str, StageConfig], **teacher: Any) -> ImageRunConfig:
    """A tenth of the labels: stages, a teacher that learns from them, and eq. (3) with it."""
    config = uat()
    stages = {
        **before,
        "teacher": StageConfig(
            method=MethodConfig(name="ce"),
            data={"pseudo_labels": None},
            evaluation={"robust_validation": False},
            train=_FEW_LABELS,
            **teacher,
        ),
    }
    data = config.data.model_copy(update={"labels": "10%", "pseudo_labels": "teacher"})
    first = next(iter(before), START)
    return config.model_copy(update={"recipe": name, "stages": stages, "init_from": first, "data": data})


@recipe("uat++", summary="a teacher from few labels, then uat", paper=UAT_PAPER, task="cifar10")
def uat_plus() -> ImageRunConfig:
    """UAT++ as ACL compares with it: teacher and student start from random weights."""
    return _taught("uat++", {})


@recipe("acl-semi", summary="ACL's three steps for few labels", paper=ACL_PAPER, task="cifar10")
def acl_semi() -> ImageRunConfig:
    """ACL 3.3: pre-train by ``acl-ds``, fine-tune on few labels with the clean batch norm, learn from both.

    The third step, eq. (3), starts from the first one's adversarial batch norm.
    """
    first = StageConfig(
        method=MethodConfig(name="acl-ds"),
        model={"dual": True},
        data={"pseudo_labels": None, "views": {"kind": "simclr"}, **_ALL},
        train=_PRETRAINING,
    )
    return _taught("acl-semi", {"acl": first}, init_from="acl", model={"bn_branch": "clean"})


@follows("uat", "uat++", "acl-semi")
def _batch_of_few(settings: Mapping[str, Any]) -> dict[str, Any]:
    """200 images a batch where 1 % of the labels or fewer are kept, 250 where there are more."""
    data = settings.get("data")
    few = isinstance(data, Mapping) and _is_few(data.get("labels"))
    return {"train": {"global_batch_size": _BATCH_OF_FEW}} if few else {}


def _is_few(labels: object) -> bool:
    """True for a share of 1 % and below, and for as many labels as that is of CIFAR-10's 45,000 images (ACL's 450)."""
    written = str(labels).strip()
    try:
        value = float(written.removesuffix("%"))
    except ValueError:
        return False  # all, or what loading will refuse
    if written.endswith("%"):
        return value <= 1
    return value <= 0.01 if value < 1 else value <= 450


# Radii of word embeddings; the papers have none for texts.
_EMBEDDINGS: dict[str, Any] = {"norm": "l2", "epsilon": 0.3, "step_size": 0.1}


@on_texts("simclr")
def simclr_on_texts() -> RunConfig:
    """Dropout views of sentences, trained as USCAL is."""
    return sentences("simclr", {"temperature": 0.05})


@on_texts("acl-ds")
def acl_ds_on_texts() -> RunConfig:
    """Two streams of dropout views of sentences, trained as USCAL is."""
    return sentences("acl-ds", {"temperature": 0.05, **_EMBEDDINGS})


@on_texts("pgd-at")
def pgd_at_on_texts() -> RunConfig:
    """PGD on word embeddings, trained as SCAL is."""
    return labelled("pgd-at", **_EMBEDDINGS, steps=3)


@on_texts("trades")
def trades_on_texts() -> RunConfig:
    """TRADES on word embeddings, trained as SCAL is."""
    return labelled("trades", **_EMBEDDINGS, steps=3)


@on_texts("probe")
def probe_on_texts() -> RunConfig:
    """A linear probe, trained as SCAL is but at a rate for a classifier alone."""
    config = labelled("probe")
    train = {**config.train.model_dump(), "learning_rate": 1e-2}
    return config.model_copy(update={"train": TrainConfig.model_validate(train)})
