"""Figures from data already computed. Each function returns a matplotlib figure."""

from weather_tdr.plots.fields import fields_figure
from weather_tdr.plots.imbalance import imbalance_figure
from weather_tdr.plots.maps import incident_figure, sequence_figure
from weather_tdr.plots.patches import patches_figure
from weather_tdr.plots.scores import (
    performance_figure,
    precision_recall_figure,
    reliability_figure,
)
from weather_tdr.plots.series import probability_series
from weather_tdr.plots.splits import dropped_figure, split_figure
from weather_tdr.plots.training import histogram_figure, methods_figure, weight_history

__all__ = [
    "dropped_figure",
    "fields_figure",
    "histogram_figure",
    "imbalance_figure",
    "incident_figure",
    "methods_figure",
    "patches_figure",
    "performance_figure",
    "precision_recall_figure",
    "probability_series",
    "reliability_figure",
    "sequence_figure",
    "split_figure",
    "weight_history",
]
