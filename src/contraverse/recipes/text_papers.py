"""The papers' settings on texts, one function each; methods without a function have the baselines' settings."""

from typing import Any, Literal

from contraverse.noise import KINDS
from contraverse.recipes.recipe import baseline, plain, recipe
from contraverse.recipes.schema import (
    DataConfig,
    MethodConfig,
    ModelConfig,
    NoiseConfig,
    RunConfig,
    StageConfig,
    TrainConfig,
)

# Simple Contrastive Representation Adversarial Learning for NLP Tasks.
SCAL_PAPER = "SCAL/USCAL (Miao et al. 2021)"
# SimCSE: Simple Contrastive Learning of Sentence Embeddings.
SIMCSE_PAPER = "SimCSE (Gao et al. 2021)"
# Improving Gradient-based Adversarial Training for Text Classification by Contrastive Learning and Auto-Encoder.
CARL_PAPER = "CARL/RAR (Qiu et al. 2021)"
ITPT_PAPER = "How to Fine-Tune BERT for Text Classification? (Sun et al. 2019)"


# SCAL 4.1: AdamW, weight decay .01, warm-up (over how much, it does not say: a tenth here), rate 3e-5. What a paper
# leaves out is Hugging Face's default: linear decay to zero, norms of gradients clipped at 1.
_OPTIMISER: dict[str, Any] = {
    "optim": "adamw_torch_fused",
    "learning_rate": 3e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "seed": 42,
}
_TEMPERATURE = {"temperature": 0.05}
_BEST: dict[str, Any] = {"load_best_model_at_end": True, "save_total_limit": 2, "logging_steps": 50}


@baseline("text", "labels")
def labelled(name: str, **settings: Any) -> RunConfig:
    """SCAL 4.1: batch 32, 128 tokens, 15 epochs with early stopping. The patience is ours: 3 epochs."""
    train: dict[str, Any] = {
        "early_stopping_patience": 3,
        "num_train_epochs": 15,
        "global_batch_size": 32,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }
    return RunConfig(
        recipe=name,
        task="text",
        method=MethodConfig(name=name, **settings),
        model=ModelConfig(pooling="cls", max_length=128),
        train=TrainConfig(**train, **_OPTIMISER, **_BEST),
    )


def sentences(
    name: str,
    method: dict[str, Any],
    *,
    task: str = "sentences",
    embedding: Literal["h", "z", "ngrams"] = "h",
    **changes: Any,
) -> RunConfig:
    """SCAL 4.1 on USCAL: batch 64, 32 tokens, STS-B's dev set every 250 steps, the best checkpoint kept; one epoch."""
    train: dict[str, Any] = {
        "num_train_epochs": 1,
        "global_batch_size": 64,
        "eval_strategy": "steps",
        "eval_steps": 250,
        "save_strategy": "steps",
        "save_steps": 250,
    }
    return RunConfig(
        recipe=name,
        task=task,
        method=MethodConfig(name=name, **method),
        model=ModelConfig(pooling="cls", max_length=32, embedding=embedding),
        train=TrainConfig(**{**train, **_OPTIMISER, **_BEST, **changes}),
    )


@baseline("text", "inputs")
def unlabelled(name: str) -> RunConfig:
    """USCAL's training, for a method of sentences alone."""
    return sentences(name, {})


@baseline("text", "pairs")
def paired(name: str) -> RunConfig:
    """USCAL's training on pairs of sentences."""
    return sentences(name, {}, task="nli")


@recipe("ce", summary="plain fine-tuning, the baseline", paper=SCAL_PAPER, task="text")
def ce() -> RunConfig:
    """Cross-entropy alone: the baseline of Tables 3 to 5."""
    return labelled("ce")


@recipe("at", summary="adversarial training alone", paper=SCAL_PAPER, task="text")
def at() -> RunConfig:
    """SCAL without its contrastive loss: "+AT" of Tables 4 and 5."""
    return labelled("at", epsilon=0.3)


@recipe("cl", summary="contrastive learning alone", paper=SCAL_PAPER, task="text")
def cl() -> RunConfig:
    """SCAL with a dropout view in place of the adversarial one: "+CL" of Tables 4 and 5."""
    return labelled("cl", temperature=0.05)


@recipe("scal", summary="supervised contrastive adversarial learning", paper=SCAL_PAPER, task="text")
def scal() -> RunConfig:
    """SCAL; the paper tries epsilon .1 to .5 on each task."""
    return labelled("scal", epsilon=0.3, temperature=0.05)


# CARL/RAR, Table 1, SST-2; epsilon 0 of the table is no limit. All else is the baselines', so that methods compare.
_FREELB: dict[str, Any] = {"steps": 2, "step_size": 0.1, "gamma": 0.6, "epsilon": None}


@recipe("freelb", summary="adversarial training whose ascent is free", paper=CARL_PAPER, task="text")
def freelb() -> RunConfig:
    """FreeLB with the settings that CARL/RAR found for SST-2."""
    return labelled("freelb", **_FREELB)


@recipe("rar", summary="FreeLB plus reconstruction of every token", paper=CARL_PAPER, task="text")
def rar() -> RunConfig:
    """RAR on that FreeLB, the reconstruction loss weighted .1 (4.3)."""
    return labelled("rar", weight=0.1, **_FREELB)


# 4.3; from step 6315 of SST-2 on (Table 3), which is 3.0 epochs. The weight is the one that was trained here: the paper
# gives none, which is 1, and was never tried.
_CONTRAST: dict[str, Any] = {"weight": 0.03, "temperature": 0.07, "negatives": 16000, "momentum": 0.5, "start": 3.0}


@recipe("carl", summary="FreeLB, and contrast with adversaries over memory banks", paper=CARL_PAPER, task="text")
def carl() -> RunConfig:
    """CARL on that FreeLB."""
    return labelled("carl", **_CONTRAST, **_FREELB)


plain("smart", summary="predictions change little around an input", paper="SMART (Jiang et al. 2020)", task="text")
plain("alum", summary="predictions stay under perturbation", paper="ALUM (Liu et al. 2020)", task="text")
plain("infobert", summary="FreeLB and mutual information", paper="InfoBERT (Wang et al. 2021)", task="text")


@recipe(
    "consistency",
    summary="the same prediction for a text and its noisy twin",
    paper="Self-Teaching (Zhuang and Zuccon 2022)",
    task="text",
)
def consistency() -> RunConfig:
    """The baselines' training, with noise of all kinds."""
    return labelled("consistency").model_copy(update={"data": DataConfig(noise=NoiseConfig(kinds=list(KINDS)))})


@recipe("simcse", summary="sentence embeddings from dropout views", paper=SIMCSE_PAPER, task="sentences")
def simcse() -> RunConfig:
    """Unsupervised SimCSE, trained as USCAL is, so that the two differ in the method alone."""
    return sentences("simcse", _TEMPERATURE)


@recipe("simcse-sup", summary="sentence embeddings from NLI pairs with hard negatives", paper=SIMCSE_PAPER, task="nli")
def simcse_sup() -> RunConfig:
    """Supervised SimCSE: three epochs at 5e-5, the head kept at test, but a batch of 64 where the paper has 512."""
    return sentences("simcse-sup", _TEMPERATURE, task="nli", embedding="z", num_train_epochs=3, learning_rate=5e-5)


@recipe("uscal", summary="sentence embeddings from adversarial views", paper=SCAL_PAPER, task="sentences")
def uscal() -> RunConfig:
    """USCAL, trained as 4.1 says."""
    return sentences("uscal", _TEMPERATURE)


# The authors' unsup-consert-base.sh.
_CONSERT: dict[str, Any] = {
    "num_train_epochs": 10,
    "global_batch_size": 96,
    "learning_rate": 5e-7,
    "eval_steps": 200,
    "save_steps": 200,
    "early_stopping_patience": 10,
}


@recipe("consert", summary="contrast of augmented views", paper="ConSERT (Yan et al. 2021)", task="sentences")
def consert() -> RunConfig:
    """ConSERT, unsupervised, as the authors' script for BERT-base has it; the mean of the last two layers is tested."""
    config = sentences("consert", {}, **_CONSERT)
    return config.model_copy(update={"model": ModelConfig(pooling="last-two", max_length=64)})


@recipe(
    "isbert",
    summary="mutual information of n-grams and their sentence",
    paper="IS-BERT (Zhang et al. 2020)",
    task="sentences",
)
def isbert() -> RunConfig:
    """IS-BERT: batch 32, one epoch, and 2e-5 over a warm-up of a tenth, their code's defaults; 32 tokens, as USCAL."""
    return sentences("isbert", {}, embedding="ngrams", global_batch_size=32, learning_rate=2e-5)


# ITPT: rate 5e-5, batch 32 and a warm-up over a tenth of the steps are the paper's. It takes 100,000 steps; the ten
# epochs are ours.
_FURTHER: dict[str, Any] = {
    "num_train_epochs": 10,
    "global_batch_size": 32,
    "learning_rate": 5e-5,
    "early_stopping_patience": None,
}


@recipe("mlm", summary="further pre-training on texts", paper=ITPT_PAPER, task="sentences")
def mlm() -> RunConfig:
    """Masked language modelling alone, 128 tokens; there is nothing to validate on, and the last weights are kept."""
    train = {**_OPTIMISER, **_FURTHER, "save_strategy": "epoch", "save_total_limit": 2, "logging_steps": 50}
    return RunConfig(
        recipe="mlm",
        task="sentences",
        method=MethodConfig(name="mlm"),
        model=ModelConfig(pooling="cls", max_length=128),
        train=TrainConfig(**train),
    )


@recipe("itpt", summary="further pre-training on the task's texts, then fine-tuning", paper=ITPT_PAPER, task="text")
def itpt() -> RunConfig:
    """Within-task further pre-training: masked language modelling on the training texts, then `ce` from there."""
    stages = {"itpt": StageConfig(method=MethodConfig(name="mlm"), train=_FURTHER)}
    return labelled("ce").model_copy(update={"recipe": "itpt", "stages": stages})
