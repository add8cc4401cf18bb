"""Noise on texts: typos, other forms and other characters, added words; drawn by seed and row alone.

Imports without torch.
"""

from contraverse.noise.apply import NoisyText, Seed, noise, noisy
from contraverse.noise.edits import Edit
from contraverse.noise.kinds import KINDS, STRENGTHS, Kind, get_kind, parse_kinds
from contraverse.noise.marking import mark_edits, visible

__all__ = [
    "KINDS",
    "STRENGTHS",
    "Edit",
    "Kind",
    "NoisyText",
    "Seed",
    "get_kind",
    "mark_edits",
    "noise",
    "noisy",
    "parse_kinds",
    "visible",
]
