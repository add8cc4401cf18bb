"""The papers' settings, one function each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from contraverse.recipes.config import MethodConfig, ModelConfig, RunConfig, TrainConfig

# Simple Contrastive Representation Adversarial Learning for NLP Tasks.
SCAL_PAPER = "SCAL/USCAL (Miao et al. 2021)"
# SimCSE: Simple Contrastive Learning of Sentence Embeddings.
SIMCSE_PAPER = "SimCSE (Gao et al. 2021)"


@dataclass(frozen=True)
class Recipe:
    """A paper's setting by name: calling it gives its `RunConfig`, with the method's own defaults not yet filled in.

    ``task`` is the one it runs on unless another is given.
    """

    name: str
    summary: str
    paper: str
    task: str
    build: Callable[[], RunConfig]

    def __call__(self) -> RunConfig:
        """The recipe's configuration."""
        return self.build()


RECIPES: dict[str, Recipe] = {}


def _recipe(name: str, *, summary: str, paper: str, task: str) -> Callable[[Callable[[], RunConfig]], Recipe]:
    def register(build: Callable[[], RunConfig]) -> Recipe:
        RECIPES[name] = Recipe(name, summary, paper, task, build)
        return RECIPES[name]

    return register


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
_BEST: dict[str, Any] = {"load_best_model_at_end": True, "save_total_limit": 2, "logging_steps": 50}


def _labelled(name: str, **settings: Any) -> RunConfig:
    """SCAL 4.1: batch 32, 128 tokens, 15 epochs with early stopping. The patience is ours: 3 epochs."""
    train: dict[str, Any] = {
        "early_stopping_patience": 3,
        "num_train_epochs": 15,
        "per_device_train_batch_size": 32,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
    }
    return RunConfig(
        recipe=name,
        task=RECIPES[name].task,
        method=MethodConfig(name=name, **settings),
        model=ModelConfig(pooling="cls", max_length=128),
        train=TrainConfig(**train, **_OPTIMISER, **_BEST),
    )


def _sentences(name: str, *, embedding: Literal["h", "z"] = "h", **changes: Any) -> RunConfig:
    """SCAL 4.1 on USCAL: batch 64, 32 tokens, STS-B's dev set every 250 steps, the best checkpoint kept; one epoch."""
    train: dict[str, Any] = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 64,
        "eval_strategy": "steps",
        "eval_steps": 250,
        "save_strategy": "steps",
        "save_steps": 250,
    }
    settings: dict[str, Any] = {"temperature": 0.05}
    return RunConfig(
        recipe=name,
        task=RECIPES[name].task,
        method=MethodConfig(name=name, **settings),
        model=ModelConfig(pooling="cls", max_length=32, embedding=embedding),
        train=TrainConfig(**{**train, **_OPTIMISER, **_BEST, **changes}),
    )


@_recipe("ce", summary="plain fine-tuning, the baseline", paper=SCAL_PAPER, task="text")
def ce() -> RunConfig:
    """Cross-entropy alone: the baseline of Tables 3 to 5."""
    return _labelled("ce")


@_recipe("at", summary="adversarial training alone", paper=SCAL_PAPER, task="text")
def at() -> RunConfig:
    """SCAL without its contrastive loss: "+AT" of Tables 4 and 5."""
    return _labelled("at", epsilon=0.3)


@_recipe("cl", summary="contrastive learning alone", paper=SCAL_PAPER, task="text")
def cl() -> RunConfig:
    """SCAL with a dropout view in place of the adversarial one: "+CL" of Tables 4 and 5."""
    return _labelled("cl", temperature=0.05)


@_recipe("scal", summary="supervised contrastive adversarial learning", paper=SCAL_PAPER, task="text")
def scal() -> RunConfig:
    """SCAL; the paper tries epsilon .1 to .5 on each task."""
    return _labelled("scal", epsilon=0.3, temperature=0.05)


@_recipe("simcse", summary="sentence embeddings from dropout views", paper=SIMCSE_PAPER, task="sentences")
def simcse() -> RunConfig:
    """Unsupervised SimCSE, trained as USCAL is, so that the two differ in the method alone."""
    return _sentences("simcse")


@_recipe("simcse-sup", summary="sentence embeddings from NLI pairs with hard negatives", paper=SIMCSE_PAPER, task="nli")
def simcse_sup() -> RunConfig:
    """Supervised SimCSE: three epochs at 5e-5, the head kept at test, but a batch of 64 where the paper has 512."""
    return _sentences("simcse-sup", embedding="z", num_train_epochs=3, learning_rate=5e-5)


@_recipe("uscal", summary="sentence embeddings from adversarial views", paper=SCAL_PAPER, task="sentences")
def uscal() -> RunConfig:
    """USCAL, trained as 4.1 says."""
    return _sentences("uscal")
