"""The papers' experiments on images: the data and network of each, and the settings that the papers leave open.

The recipes have the papers' settings already.
"""

from contraverse.recipes.image_papers import ACL_PAPER
from contraverse.recipes.recipe import NOT_RUN, Ours, experiment

_SMALL = "paper scale: not run; 4,000 images of CIFAR-10 on a small network: docs/results.md"
CIFAR = ("cifar10", "cifar100")
"""The tasks of the papers' tables."""

_WHOLE_BATCHES = Ours(
    "train.dataloader_drop_last", "a last batch that is smaller is left out: too few images for a batch norm"
)
_PRETRAINING = (
    Ours("train.learning_rate", "5 with LARS, then a cosine to 1e-6, as the authors' code; the paper names SimCLR's"),
    Ours("train.schedule.warmup_epochs", "10, as the authors' code; the paper names SimCLR's optimizer"),
    _WHOLE_BATCHES,
)
_NO_CODE = Ours("method.temperature", ".5, as the code of the dual stream; that of this option is not published")
_FINE_TUNING = (
    Ours("train.weight_decay", "2e-4, as TRADES' own code; section 3.1.1 names none"),
    Ours("data.validation_fraction", "a tenth of the training images is held out; the paper gives no number"),
    _WHOLE_BATCHES,
)
_FEW_LABELS = (
    Ours(
        "train.global_batch_size",
        "250, or 200 at 1 % of the labels and fewer, as the authors' code; the paper has none",
    ),
    Ours("data.validation_fraction", "a tenth of the training images is held out; the paper gives no number"),
    _WHOLE_BATCHES,
)

# Recipe, tables, settings that are ours, and at which scale the project ran it.
for _name, _source, _ours, _run in (
    (
        "simclr",
        f"{ACL_PAPER}, Table 3, S2S",
        (
            *_PRETRAINING,
            Ours("data.views.smallest_crop", "10 % of an image, as ACL's code; SimCLR's crops begin at 8 %"),
        ),
        _SMALL,
    ),
    ("acl-a2a", f"{ACL_PAPER}, Table 3, A2A", (*_PRETRAINING, _NO_CODE), _SMALL),
    ("acl-a2s", f"{ACL_PAPER}, Table 3, A2S", (*_PRETRAINING, _NO_CODE), _SMALL),
    ("acl-ds", f"{ACL_PAPER}, Tables 1 to 5, DS", _PRETRAINING, _SMALL),
    ("acl-semi", f"{ACL_PAPER}, Table 2", _FEW_LABELS, _SMALL),
    ("uat++", f"{ACL_PAPER}, Table 2, UAT++", _FEW_LABELS, _SMALL),
    ("trades", f"{ACL_PAPER}, Tables 1 and 3, fine-tuning", _FINE_TUNING, _SMALL),
    (
        "selfie",
        f"{ACL_PAPER}, Tables 1 and 2, Selfie",
        (
            Ours(
                "train.num_train_epochs", "200 at batch 128, as Adv-SS pre-trains by Selfie; the paper gives no number"
            ),
        ),
        _SMALL,
    ),
    (
        "probe",
        f"{ACL_PAPER}, Table 5",
        (
            Ours("train.learning_rate", ".01 at batch 512, as DynACL's; the paper gives no settings of the classifier"),
            Ours("method.attack", "none; for the adversarial rows set pgd, of which the paper gives no settings"),
            Ours("data.validation_fraction", "a tenth of the training images is held out; the paper gives no number"),
        ),
        _SMALL,
    ),
    ("dynacl", "DynACL (Luo et al. 2023)", (_WHOLE_BATCHES,), NOT_RUN),
    ("dynacl++", "DynACL (Luo et al. 2023), ++", (_WHOLE_BATCHES,), NOT_RUN),
    ("deacl", "DeACL (Zhang et al. 2022)", (_WHOLE_BATCHES,), NOT_RUN),
):
    experiment(_name, source=_source, tasks=CIFAR, model="resnet18", ours=_ours, run=_run)
