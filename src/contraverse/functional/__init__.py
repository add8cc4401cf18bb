"""Pure equations, tensors in and tensors out; and what they, and all above, need of several processes."""

from contraverse.functional.contrastive import SameClass, class_cosines, info_nce, nt_xent, scal_literal
from contraverse.functional.divergence import kl, squared_distance, symmetric_kl
from contraverse.functional.gather import gather, rank
from contraverse.functional.jsd import jsd
from contraverse.functional.mutual_information import anchored, club_bound, info_nce_bound
from contraverse.functional.nce import log_partition, nce, sampled_softmax
from contraverse.functional.norms import Norm, Scope, direction, norm, project, zero_grad
from contraverse.functional.processes import (
    AnyOf,
    all_parts,
    by_itself,
    from_all,
    from_first,
    joined,
    my_share,
    on_first,
    processes,
    share_buffers,
    sharers,
    sharing,
    wait_for_all,
    writes_files,
)
from contraverse.functional.supervised import labelled_loss, supervised_loss, weighting_classes

__all__ = [
    "AnyOf",
    "Norm",
    "SameClass",
    "Scope",
    "all_parts",
    "anchored",
    "by_itself",
    "class_cosines",
    "club_bound",
    "direction",
    "from_all",
    "from_first",
    "gather",
    "info_nce",
    "info_nce_bound",
    "joined",
    "jsd",
    "kl",
    "labelled_loss",
    "log_partition",
    "my_share",
    "nce",
    "norm",
    "nt_xent",
    "on_first",
    "processes",
    "project",
    "rank",
    "sampled_softmax",
    "scal_literal",
    "share_buffers",
    "sharers",
    "sharing",
    "squared_distance",
    "supervised_loss",
    "symmetric_kl",
    "wait_for_all",
    "weighting_classes",
    "writes_files",
    "zero_grad",
]
