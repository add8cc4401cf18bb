"""The papers' experiments on images. The recipes have their settings already: here is what they ran them on."""

from contraverse.recipes.image_papers import ACL_PAPER
from contraverse.recipes.recipe import NOT_RUN, experiment

_SMALL = "paper scale: not run; 4,000 images of CIFAR-10 on a small network: docs/results.md"
CIFAR = ("cifar10", "cifar100")
"""The tasks of the papers' tables."""

# Recipe, tables, and at which scale the project ran it.
for _name, _source, _run in (
    ("simclr", f"{ACL_PAPER}, Table 3, S2S", _SMALL),
    ("acl-a2a", f"{ACL_PAPER}, Table 3, A2A", _SMALL),
    ("acl-a2s", f"{ACL_PAPER}, Table 3, A2S", _SMALL),
    ("acl-ds", f"{ACL_PAPER}, Tables 1 to 5, DS", _SMALL),
    ("acl-semi", f"{ACL_PAPER}, Table 2", _SMALL),
    ("uat++", f"{ACL_PAPER}, Table 2, UAT++", _SMALL),
    ("trades", f"{ACL_PAPER}, Tables 1 and 3, fine-tuning", _SMALL),
    ("selfie", f"{ACL_PAPER}, Tables 1 and 2, Selfie", _SMALL),
    ("probe", f"{ACL_PAPER}, Table 5", _SMALL),
    ("dynacl", "DynACL (Luo et al. 2023)", NOT_RUN),
    ("dynacl++", "DynACL (Luo et al. 2023), ++", NOT_RUN),
    ("deacl", "DeACL (Zhang et al. 2022)", NOT_RUN),
):
    experiment(_name, source=_source, tasks=CIFAR, model="resnet18", run=_run)
