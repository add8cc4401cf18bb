"""The papers' experiments on texts: what ``--paper`` adds to a recipe, table by table.

A comment or ``ours`` says of each value that the papers do not give where it comes from. Values that stand in a recipe
already, as all of SCAL's section 4.1, are not repeated here.
"""

from typing import Any

from contraverse.recipes.recipe import Ours, experiment
from contraverse.recipes.text_papers import CARL_PAPER, ITPT_PAPER, SCAL_PAPER, SIMCSE_PAPER

ALBERT = "albert/albert-base-v2"
BERT, BERT_LARGE = "google-bert/bert-base-uncased", "google-bert/bert-large-uncased"
ROBERTA, ROBERTA_LARGE = "FacebookAI/roberta-base", "FacebookAI/roberta-large"

NLI_SENTENCES: list[dict[str, Any]] = [
    {"source": source, "text": text}
    for source in ("stanfordnlp/snli", "nyu-mll/glue:mnli")
    for text in ("premise", "hypothesis")
]
"""All sentences of the training rows of SNLI and MNLI, as a source of the task ``sentences``."""

_SMALL = "paper scale: not run; 1,000 rows on MiniLM: docs/results.md"
_ENCODERS = "paper scale: not run; 6,400 sentences on MiniLM: docs/results.md"
_NO_ATTACK: dict[str, Any] = {"evaluation.epsilons": []}
_CHOSEN_ON_DEV = Ours("evaluation.split", "as the paper, figures are of the dev rows that chose the checkpoint")

# --- SCAL, Tables 3 to 5 ---------------------------------------------------------------------------------------------

_ALL_GLUE = ("mrpc", "cola", "rte", "sst2", "qnli", "qqp", "mnli", "mnli-mm")
_SCAL_OURS = (
    Ours("train.warmup_steps", "a tenth of the steps; 4.1 has a warm-up and does not say how long"),
    Ours("train.early_stopping_patience", "3 epochs; 4.1 stops early and does not say when"),
    Ours("train.lr_scheduler_type", "linear decay, transformers' default; 4.1 names none"),
)
_EPSILON = Ours("method.epsilon", "4.1 tries .1 to .5 and prints none by task: contraverse search RECIPE --paper")
_ALPHA = Ours("method.alpha", 'the paper says "less than one"')
_CUT = Ours("data.validation_fraction", "a tenth of the training rows chooses the checkpoint; the paper trains on all")


def _scal_tables(names: tuple[str, ...], glue: tuple[str, ...], ours: tuple[Ours, ...]) -> None:
    for model, batch in ((BERT, 32), (ROBERTA, 16)):
        batches = {"train.global_batch_size": batch}
        experiment(
            *names,
            source=f"{SCAL_PAPER}, 4.1, Tables 3 and 4",
            tasks=glue,
            model=model,
            settings={**batches, **_NO_ATTACK, "evaluation.split": "validation"},
            ours=(*_SCAL_OURS, *ours, _CHOSEN_ON_DEV),
            run=_SMALL,
        )
        experiment(
            *names,
            source=f"{SCAL_PAPER}, 4.1, Table 5",
            tasks=("ag_news", "trec"),
            model=model,
            settings={**batches, **_NO_ATTACK},
            ours=(*_SCAL_OURS, *ours, _CUT),
            run=_SMALL,
        )


_scal_tables(("ce",), _ALL_GLUE, ())
_scal_tables(("scal",), _ALL_GLUE, (_EPSILON, _ALPHA))
_scal_tables(("at",), _ALL_GLUE[:3], (_EPSILON,))
_scal_tables(("cl",), _ALL_GLUE[:3], (_ALPHA,))

# Sun et al. 2019, 5.1 and 5.4: 100,000 steps of batch 32 at 5e-5, 10,000 of them warm-up; then four epochs of batch 24
# at 2e-5, a tenth of them warm-up.
experiment(
    "itpt",
    source=f"{ITPT_PAPER}, the row BERT-ITPT-FiT of SCAL's Table 5",
    tasks=("ag_news", "trec"),
    model=BERT,
    settings={
        "stages.itpt.train.max_steps": 100_000,
        "stages.itpt.train.warmup_steps": 10_000,
        "train.num_train_epochs": 4,
        "train.global_batch_size": 24,
        "train.learning_rate": 2e-5,
        "train.early_stopping_patience": None,
        **_NO_ATTACK,
    },
    ours=(
        Ours("train.learning_rate", "the same for every layer; the paper's falls by .95 a layer, which is not offered"),
        Ours("model.max_length", "128 tokens; the paper fine-tunes on 512"),
        _CUT,
    ),
)

# --- CARL and RAR, Tables 1 to 5 -------------------------------------------------------------------------------------

# Table 1 (epsilon 0 there is no limit), the batch of 4.3, and for CARL Table 3 in epochs: 6,315 steps of 32 out of
# 67,349 rows, 7,200 and 5,625 of 32 out of 60,000, 7,750 of 16 out of 60,000; m is of 4.3.
_FREELB_BY_TASK: dict[str, dict[str, Any]] = {
    "sst2": {"gamma": 0.6, "step_size": 0.1, "steps": 2},
    "yahoo_answers": {"gamma": 0.0, "step_size": 0.01, "steps": 3},
    "yelp_polarity": {"gamma": 0.5, "step_size": 0.05, "steps": 3},
    "ag_news": {"gamma": 0.0, "step_size": 0.01, "steps": 3},
}
_CONTRAST_BY_TASK: dict[str, dict[str, Any]] = {
    "sst2": {"start": 3.0, "negatives": 16000},
    "yahoo_answers": {"start": 3.84, "negatives": 16000},
    "yelp_polarity": {"start": 3.0, "negatives": 20000},
    "ag_news": {"start": 2.07, "negatives": 16000},
}
# 4.3: Adam at 1e-5, and nothing of a decay, a warm-up or a schedule. Adam is AdamW without decay.
_CARL_TRAINING: dict[str, Any] = {
    "data.rows": "paper",
    "train.learning_rate": 1e-5,
    "train.weight_decay": 0.0,
    "train.warmup_steps": 0,
    "train.lr_scheduler_type": "constant",
    "train.num_train_epochs": 10,
    "train.early_stopping_patience": None,
    # Tables 4 and 5: k-PGD, its steps not given.
    "evaluation.epsilons": [0.02, 0.075, 0.1],
    "evaluation.attack": "pgd",
    "evaluation.steps": 10,
    "evaluation.shift": True,
}
_CARL_OURS = (
    Ours("train.lr_scheduler_type", "constant, without warm-up; 4.3 names no schedule"),
    Ours("train.num_train_epochs", "10, of which the best on dev rows is kept; 4.3 gives no number"),
    Ours("train.max_grad_norm", "1, transformers' default; 4.3 names no clipping"),
    Ours("model.max_length", "128 tokens, the default of the code for GLUE that 4.3 names"),
    Ours("evaluation.steps", "10 steps of PGD; the paper gives no number, and no step size"),
    Ours("data.rows", "4.1 and Table 9 differ on dev rows; these are 4.1's, drawn by data.seed"),
)
_FREELB_OURS = (Ours("method.count", "n of Table 1 counts passes, as steps do in FreeLB's Hugging Face code"),)
_OWN_OURS: dict[str, tuple[Ours, ...]] = {
    "ce": (),
    "freelb": _FREELB_OURS,
    "rar": _FREELB_OURS,
    "carl": (
        *_FREELB_OURS,
        Ours(
            "method.features", "R is what the encoder gives for the first token, of unit norm; the paper says neither"
        ),
        Ours("method.adversary", "R^adv is of the last perturbation; the paper does not say of which"),
    ),
}
# Eqs. (2), (6) and (7): L_D unweighted, its positives of this step, and L_C alone is climbed.
_CARL_METHODS: dict[str, dict[str, Any]] = {
    "ce": {},
    "freelb": {},
    "carl": {"method.weight": 1.0, "method.positive": "current", "method.climb": "ce"},
    "rar": {"method.weight": 0.1, "method.climb": "ce"},
}


def _own(name: str, task: str) -> dict[str, Any]:
    """The settings of a method that go with the data set, by dotted name; plain fine-tuning has none."""
    if name == "ce":
        return {}
    method = {**_FREELB_BY_TASK[task], "epsilon": None, **(_CONTRAST_BY_TASK[task] if name == "carl" else {})}
    return {f"method.{key}": value for key, value in method.items()} | _batch(task)


def _batch(task: str) -> dict[str, Any]:
    return {"train.global_batch_size": 16 if task == "ag_news" else 32}


for _task in _FREELB_BY_TASK:
    _on_dev: dict[str, Any] = {"evaluation.split": "validation"} if _task == "sst2" else {}
    for _name, _method in _CARL_METHODS.items():
        experiment(
            _name,
            source=f"{CARL_PAPER}, 4.1 and 4.3, Tables 1 to 5",
            tasks=(_task,),
            model=ALBERT,
            own=_own(_name, _task),
            settings={**_batch(_task), **_CARL_TRAINING, **_method, **_on_dev},
            ours=(*_CARL_OURS, *_OWN_OURS[_name], *([_CHOSEN_ON_DEV] if _on_dev else [])),
            run=_SMALL,
        )

# --- ANLI, Tables 7 and 8 of SCAL ------------------------------------------------------------------------------------

# InfoBERT's second setting, without up-sampling, and its training: batch 32 at 2e-5, 128 tokens, 1,000 steps of
# warm-up, the best checkpoint on dev rows from a third of the training on.
_ANLI_TRAINING: dict[str, Any] = {
    "data.source": {
        "train": [{"task": name} for name in ("snli", "mnli", "fever-nli", "anli_a1", "anli_a2", "anli_a3")],
        "validation": {"task": "anli"},
        "test": {"task": "anli"},
    },
    "data.on_bad_row": "skip",
    "model.max_length": 128,
    "train.global_batch_size": 32,
    "train.learning_rate": 2e-5,
    "train.warmup_steps": 1000,
    "train.num_train_epochs": 2,
    "train.early_stopping_patience": None,
    "train.eval_strategy": "steps",
    "train.eval_steps": 2000,
    "train.eval_delay": 27_000,
    "train.save_strategy": "steps",
    "train.save_steps": 2000,
    **_NO_ATTACK,
}
_ANLI_OURS = (
    Ours("train.num_train_epochs", "2, as in ANLI's own script; SCAL does not say"),
    Ours(
        "train.eval_steps",
        "every 2,000 steps from a third of some 82,000 on, as InfoBERT begins; it prints no interval",
    ),
    Ours("data.on_bad_row", "rows without a text are left out and counted, not an error"),
)
_ANLI_SOURCE = f"{SCAL_PAPER}, 4.6, Table 8, as InfoBERT trains; of Table 7 examples/anli-unseen.yaml"
_INFOBERT_CLIMB = {"method.steps": 3, "method.step_size": 0.04, "method.gamma": 0.08, "method.epsilon": None}
# The papers of SMART and ALUM, with the masks of their code.
_VIRTUAL = {"method.epsilon": 1e-5, "method.step_size": 1e-3, "method.sigma": 1e-5, "method.share_dropout": False}
_MASKS = Ours(
    "method.share_dropout",
    "each pass has its own masks, as in the authors' code: with shared ones 1e-5 changes no prediction",
)
_ANLI_OWN: dict[str, dict[str, Any]] = {
    "scal": {},
    "ce": {},
    "freelb": _INFOBERT_CLIMB,
    "infobert": {**_INFOBERT_CLIMB, "method.alpha": 5e-3, "method.beta": 5e-3},
    "smart": _VIRTUAL,
    "alum": _VIRTUAL,
}
_ANLI_METHOD_OURS: dict[str, tuple[Ours, ...]] = {
    "scal": (_EPSILON, _ALPHA),
    "freelb": (Ours("method.step_size", "climb and start of InfoBERT's code; the row's own are not printed"),),
    "smart": (
        _MASKS,
        Ours(
            "method.weight", "1; the paper tries 1, 3 and 5 and prints none by task: contraverse search smart --paper"
        ),
        Ours("method.momentum", ".99 throughout; the paper has .999 after a tenth of the updates"),
    ),
    "alum": (_MASKS,),
}

for _name, _settings in _ANLI_OWN.items():
    for _model in (ROBERTA_LARGE, BERT_LARGE):
        experiment(
            _name,
            source=_ANLI_SOURCE,
            tasks=("anli",),
            model=_model,
            own=_settings,
            settings=_ANLI_TRAINING,
            ours=(*_ANLI_OURS, *_ANLI_METHOD_OURS.get(_name, ())),
        )

# --- Sentence embeddings, Table 6 of SCAL ----------------------------------------------------------------------------

_STS: dict[str, Any] = {"evaluation.sts": "hub"}
_EVERY_125: dict[str, Any] = {"train.eval_steps": 125, "train.save_steps": 125}
# The authors' run_unsup_example.sh and the table of their README.
_SIMCSE: dict[str, Any] = {"train.weight_decay": 0.0, "train.warmup_steps": 0, **_EVERY_125, **_STS}

for _model in (BERT, ROBERTA):
    experiment(
        "uscal",
        source=f"{SCAL_PAPER}, 4.1, Table 6",
        tasks=("sentences",),
        model=_model,
        settings=_STS,
        ours=(
            Ours("method.epsilon", "not printed for USCAL: contraverse search uscal"),
            Ours("method.alpha", 'the paper says "less than one"'),
            Ours("train.learning_rate", "3e-5, as in SCAL; not printed for USCAL"),
            Ours("train.num_train_epochs", "one, as SimCSE; not printed"),
            _SCAL_OURS[0],
        ),
        run=_ENCODERS,
    )
for _model, _batch_size, _rate in ((BERT, 64, 3e-5), (ROBERTA, 512, 1e-5)):
    experiment(
        "simcse",
        source=f"{SIMCSE_PAPER}, unsupervised, Table 5 and appendix A",
        tasks=("sentences",),
        model=_model,
        settings={"train.global_batch_size": _batch_size, "train.learning_rate": _rate, **_SIMCSE},
        run=_ENCODERS,
    )
    experiment(
        "simcse-sup",
        source=f"{SIMCSE_PAPER}, supervised, Table 5 and appendix A",
        tasks=("nli",),
        model=_model,
        settings={
            "train.global_batch_size": 512,
            "train.learning_rate": 5e-5,
            "train.num_train_epochs": 3,
            **_SIMCSE,
        },
    )
experiment(
    "consert",
    source="ConSERT (Yan et al. 2021), unsupervised, BERT-base",
    tasks=("sentences",),
    model=BERT,
    settings=_STS,
    ours=(
        Ours(
            "data", "the task's own sentences; the authors train on the texts of the STS sets, those of test included"
        ),
    ),
)
experiment(
    "isbert",
    source="IS-BERT (Zhang et al. 2020), BERT-base on sentences of SNLI and MNLI",
    tasks=("sentences",),
    model=BERT,
    settings={"data.source": NLI_SENTENCES, "data.on_bad_row": "skip", **_STS},
    ours=(
        Ours("model.max_length", "32 tokens, as USCAL"),
        Ours("data.on_bad_row", "rows without a text are left out and counted, not an error"),
    ),
)
