"""Text-form adversaries (CARL/RAR, section 4.5, Table 6): sentences read out of an attack on the word embeddings."""

from contraverse.evaluation.adversaries.report import Adversary, AdversaryReport, Closeness
from contraverse.evaluation.adversaries.rewriting import changed_words, edits, words_of
from contraverse.evaluation.adversaries.search import find_adversaries

__all__ = ["Adversary", "AdversaryReport", "Closeness", "changed_words", "edits", "find_adversaries", "words_of"]
