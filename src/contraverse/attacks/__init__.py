"""Attacks: where a perturbation may live (balls), and how the worst one is sought."""

from contraverse.attacks.balls import EmbeddingBall
from contraverse.attacks.gradient import ATTACKS, Attack, AttackInfo, LossOf, climb, one_step, perturbable, pgd

__all__ = ["ATTACKS", "Attack", "AttackInfo", "EmbeddingBall", "LossOf", "climb", "one_step", "perturbable", "pgd"]
