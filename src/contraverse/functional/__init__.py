"""Pure equations: tensors in, tensors out, no state."""

from contraverse.functional.contrastive import SameClass, class_cosines, info_nce, nt_xent, scal_literal
from contraverse.functional.divergence import kl, squared_distance, symmetric_kl
from contraverse.functional.gather import gather, rank
from contraverse.functional.jsd import jsd
from contraverse.functional.mutual_information import anchored, club_bound, info_nce_bound
from contraverse.functional.nce import log_partition, nce, sampled_softmax
from contraverse.functional.norms import Norm, Scope, dead, direction, norm, project
from contraverse.functional.supervised import supervised_loss

__all__ = [
    "Norm",
    "SameClass",
    "Scope",
    "anchored",
    "class_cosines",
    "club_bound",
    "dead",
    "direction",
    "gather",
    "info_nce",
    "info_nce_bound",
    "jsd",
    "kl",
    "log_partition",
    "nce",
    "norm",
    "nt_xent",
    "project",
    "rank",
    "sampled_softmax",
    "scal_literal",
    "squared_distance",
    "supervised_loss",
    "symmetric_kl",
]
