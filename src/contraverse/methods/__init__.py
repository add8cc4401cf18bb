"""Training methods, one file each. A new one is a file, a page in docs/methods and a line here."""

from contraverse.methods.adversarial import AdversarialTraining
from contraverse.methods.contrastive import Contrastive
from contraverse.methods.cross_entropy import CrossEntropy
from contraverse.methods.scal import SCAL
from contraverse.methods.simcse import SimCSE, SupervisedSimCSE
from contraverse.methods.uscal import USCAL
from contraverse.types import Method

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "at": AdversarialTraining,
    "cl": Contrastive,
    "scal": SCAL,
    "simcse": SimCSE,
    "simcse-sup": SupervisedSimCSE,
    "uscal": USCAL,
}

__all__ = [
    "METHODS",
    "SCAL",
    "USCAL",
    "AdversarialTraining",
    "Contrastive",
    "CrossEntropy",
    "SimCSE",
    "SupervisedSimCSE",
]
