"""From run folders to tables, plots, pages and model cards."""

from contraverse.reporting.curve import accuracy_curve
from contraverse.reporting.data import Example, Prediction, ReportData
from contraverse.reporting.figures import Comparison, Measured, compare
from contraverse.reporting.html import FIGURES, render_report, write_report
from contraverse.reporting.model_card import ModelCard, render_model_card, write_model_card
from contraverse.reporting.outcome import outcome
from contraverse.reporting.pictures import AttackedPicture, Picture, data_uri, stretched
from contraverse.reporting.runs import Run, read_run
from contraverse.reporting.tables import Table, summarise

__all__ = [
    "FIGURES",
    "AttackedPicture",
    "Comparison",
    "Example",
    "Measured",
    "ModelCard",
    "Picture",
    "Prediction",
    "ReportData",
    "Run",
    "Table",
    "accuracy_curve",
    "compare",
    "data_uri",
    "outcome",
    "read_run",
    "render_model_card",
    "render_report",
    "stretched",
    "summarise",
    "write_model_card",
    "write_report",
]
