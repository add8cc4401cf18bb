"""Cost of a training before it is started: arithmetic, memory and network of a step, and what to switch on."""

from contraverse.planning.cost import Training, training_of
from contraverse.planning.measure import Forward, forward_of
from contraverse.planning.plan import Plan, Resources, parse_memory, plan
from contraverse.planning.shapes import SHAPES, Shape, build_model

__all__ = [
    "SHAPES",
    "Forward",
    "Plan",
    "Resources",
    "Shape",
    "Training",
    "build_model",
    "forward_of",
    "parse_memory",
    "plan",
    "training_of",
]
