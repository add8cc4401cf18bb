"""Training methods, one file each, named as on the command line. A new one is a file, its page and a line here."""

# isort: off
# The order is that of every table: baselines, supervised and unsupervised methods of texts, then of images.
from contraverse.methods._settings import settings as settings
from contraverse.methods._settings import settings_of as settings_of
from contraverse.methods.ce import CrossEntropy as CrossEntropy
from contraverse.methods.at import AdversarialTraining as AdversarialTraining
from contraverse.methods.cl import Contrastive as Contrastive
from contraverse.methods.scal import SCAL as SCAL
from contraverse.methods.freelb import FreeLB as FreeLB
from contraverse.methods.carl import CARL as CARL
from contraverse.methods.rar import RAR as RAR
from contraverse.methods.smart import SMART as SMART
from contraverse.methods.alum import ALUM as ALUM
from contraverse.methods.vat import VAT as VAT
from contraverse.methods.infobert import InfoBERT as InfoBERT
from contraverse.methods.consistency import Consistency as Consistency
from contraverse.methods.simcse import SimCSE as SimCSE
from contraverse.methods.simcse_sup import SupervisedSimCSE as SupervisedSimCSE
from contraverse.methods.uscal import USCAL as USCAL
from contraverse.methods.consert import ConSERT as ConSERT
from contraverse.methods.isbert import ISBERT as ISBERT
from contraverse.methods.mlm import MaskedLanguageModelling as MaskedLanguageModelling
from contraverse.methods.simclr import SimCLR as SimCLR
from contraverse.methods.acl_a2a import AdversarialToAdversarial as AdversarialToAdversarial
from contraverse.methods.acl_a2s import AdversarialToStandard as AdversarialToStandard
from contraverse.methods.acl_ds import DualStream as DualStream
from contraverse.methods.dynacl import DynACL as DynACL
from contraverse.methods.deacl import DeACL as DeACL
from contraverse.methods.pgd_at import PGDAdversarialTraining as PGDAdversarialTraining
from contraverse.methods.trades import TRADES as TRADES
from contraverse.methods.probe import LinearProbe as LinearProbe
from contraverse.methods.uat import UAT as UAT
from contraverse.methods.selfie import Selfie as Selfie
from contraverse.types import Method
# isort: on

METHODS: dict[str, type[Method]] = {
    cls.name: cls
    for cls in list(globals().values())
    if isinstance(cls, type) and issubclass(cls, Method) and cls is not Method
}
"""Every method imported above, by its name on the command line."""
