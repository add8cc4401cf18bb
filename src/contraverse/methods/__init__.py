"""Training methods, one file each. A new one is a file, a page in docs/methods and a line here."""

from contraverse.methods.adversarial import AdversarialTraining
from contraverse.methods.alum import ALUM
from contraverse.methods.carl import CARL
from contraverse.methods.consert import ConSERT
from contraverse.methods.contrastive import Contrastive
from contraverse.methods.cross_entropy import CrossEntropy
from contraverse.methods.freelb import FreeLB
from contraverse.methods.infobert import InfoBERT
from contraverse.methods.isbert import ISBERT
from contraverse.methods.mlm import MaskedLanguageModelling
from contraverse.methods.rar import RAR
from contraverse.methods.scal import SCAL
from contraverse.methods.simcse import SimCSE, SupervisedSimCSE
from contraverse.methods.smart import SMART
from contraverse.methods.uscal import USCAL
from contraverse.types import Method

METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "at": AdversarialTraining,
    "cl": Contrastive,
    "scal": SCAL,
    "freelb": FreeLB,
    "carl": CARL,
    "rar": RAR,
    "smart": SMART,
    "alum": ALUM,
    "infobert": InfoBERT,
    "simcse": SimCSE,
    "simcse-sup": SupervisedSimCSE,
    "uscal": USCAL,
    "consert": ConSERT,
    "isbert": ISBERT,
    "mlm": MaskedLanguageModelling,
}

__all__ = [
    "ALUM",
    "CARL",
    "ISBERT",
    "METHODS",
    "RAR",
    "SCAL",
    "SMART",
    "USCAL",
    "AdversarialTraining",
    "ConSERT",
    "Contrastive",
    "CrossEntropy",
    "FreeLB",
    "InfoBERT",
    "MaskedLanguageModelling",
    "SimCSE",
    "SupervisedSimCSE",
]
