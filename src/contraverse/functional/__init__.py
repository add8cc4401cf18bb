"""Pure equations: tensors in, tensors out, no state."""

from contraverse.functional.contrastive import info_nce, scal_literal
from contraverse.functional.divergence import kl, symmetric_kl
from contraverse.functional.gather import gather, rank
from contraverse.functional.norms import Norm, Scope, dead, direction, norm, project
from contraverse.functional.supervised import supervised_loss

__all__ = [
    "Norm",
    "Scope",
    "dead",
    "direction",
    "gather",
    "info_nce",
    "kl",
    "norm",
    "project",
    "rank",
    "scal_literal",
    "supervised_loss",
    "symmetric_kl",
]
