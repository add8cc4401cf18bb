"""Worst cases of texts: the least change of a text, as a text, by which it evades a classifier."""

from contraverse.evasion.append import Append, pool_of_file, pools_of_classes
from contraverse.evasion.asking import Asker
from contraverse.evasion.checks import Belief, believe
from contraverse.evasion.edits import RULES, Edits
from contraverse.evasion.gate import Figure, Figures, Gate, failures
from contraverse.evasion.goals import Goal
from contraverse.evasion.invisible import Unicode
from contraverse.evasion.keeping import Keeping
from contraverse.evasion.outcomes import EvasionReport, Rate, RowResult, Success
from contraverse.evasion.run import digest_of_rows, evade, worst
from contraverse.evasion.search import SearchSettings, TextAttack
from contraverse.evasion.state import State
from contraverse.evasion.suite import BUDGETS, Suite, evade_suite
from contraverse.evasion.swaps import FromEmbeddings, FromMaskedLM, Swaps
from contraverse.evasion.targets import Access, FunctionTarget, ModelTarget, Target

__all__ = [
    "BUDGETS",
    "RULES",
    "Access",
    "Append",
    "Asker",
    "Belief",
    "Edits",
    "EvasionReport",
    "Figure",
    "Figures",
    "FromEmbeddings",
    "FromMaskedLM",
    "FunctionTarget",
    "Gate",
    "Goal",
    "Keeping",
    "ModelTarget",
    "Rate",
    "RowResult",
    "SearchSettings",
    "State",
    "Success",
    "Suite",
    "Swaps",
    "Target",
    "TextAttack",
    "Unicode",
    "believe",
    "digest_of_rows",
    "evade",
    "evade_suite",
    "failures",
    "pool_of_file",
    "pools_of_classes",
    "worst",
]
