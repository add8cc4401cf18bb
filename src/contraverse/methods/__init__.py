"""Training methods, one file each. A new one is a file, a page in docs/methods and a line here."""

from contraverse.methods.acl import AdversarialToAdversarial, AdversarialToStandard, DualStream
from contraverse.methods.adversarial import AdversarialTraining
from contraverse.methods.alum import ALUM
from contraverse.methods.carl import CARL
from contraverse.methods.consert import ConSERT
from contraverse.methods.contrastive import Contrastive
from contraverse.methods.cross_entropy import CrossEntropy
from contraverse.methods.deacl import DeACL
from contraverse.methods.dynacl import DynACL
from contraverse.methods.freelb import FreeLB
from contraverse.methods.infobert import InfoBERT
from contraverse.methods.isbert import ISBERT
from contraverse.methods.mlm import MaskedLanguageModelling
from contraverse.methods.pgd_at import PGDAdversarialTraining
from contraverse.methods.probe import LinearProbe
from contraverse.methods.rar import RAR
from contraverse.methods.scal import SCAL
from contraverse.methods.selfie import Selfie
from contraverse.methods.simclr import SimCLR
from contraverse.methods.simcse import SimCSE, SupervisedSimCSE
from contraverse.methods.smart import SMART
from contraverse.methods.trades import TRADES
from contraverse.methods.uat import UAT
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
    "simclr": SimCLR,
    "acl-a2a": AdversarialToAdversarial,
    "acl-a2s": AdversarialToStandard,
    "acl-ds": DualStream,
    "dynacl": DynACL,
    "deacl": DeACL,
    "pgd-at": PGDAdversarialTraining,
    "trades": TRADES,
    "probe": LinearProbe,
    "uat": UAT,
    "selfie": Selfie,
}

__all__ = [
    "ALUM",
    "CARL",
    "ISBERT",
    "METHODS",
    "RAR",
    "SCAL",
    "SMART",
    "TRADES",
    "UAT",
    "USCAL",
    "AdversarialToAdversarial",
    "AdversarialToStandard",
    "AdversarialTraining",
    "ConSERT",
    "Contrastive",
    "CrossEntropy",
    "DeACL",
    "DualStream",
    "DynACL",
    "FreeLB",
    "InfoBERT",
    "LinearProbe",
    "MaskedLanguageModelling",
    "PGDAdversarialTraining",
    "Selfie",
    "SimCLR",
    "SimCSE",
    "SupervisedSimCSE",
]
