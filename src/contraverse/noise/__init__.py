"""Noise on texts: typos, other forms and other characters, added words; drawn by seed and row alone.

Imports without torch.
"""

from contraverse.noise.apply import NoisyText, Seed, noise, noisy
from contraverse.noise.edits import Edit
from contraverse.noise.kinds import KINDS, STRENGTHS, Kind, get_kind, parse_kinds
from contraverse.noise.marking import mark_edits
from contraverse.noise.mixture import NoiseMixture

__all__ = [
    "KINDS",
    "STRENGTHS",
    "Edit",
    "Kind",
    "NoiseMixture",
    "NoisyText",
    "Seed",
    "get_kind",
    "mark_edits",
    "noise",
    "noisy",
    "parse_kinds",
]
