"""From a network's log-odds to probabilities that mean what they say.

Training with weights, or on more incidents than there are, distorts probabilities: where one patch
in 1,500 holds an incident, a network may say 30 % a hundred times for each time that it is right.
The map from log-odds to calibrated log-odds is fitted on validation, at its natural prevalence,
which so becomes the prior.
"""

import logging
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

Kind = Literal["none", "platt", "isotonic"]
KINDS: tuple[Kind, ...] = ("none", "platt", "isotonic")  # the simplest first
FOLDS = 5
FAR = 50.0  # log-odds between which a straight line is drawn
Values = npt.NDArray[np.float64]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """A rising, piecewise linear map of log-odds.

    Attributes:
        kind: `none`, `platt` (a straight line) or `isotonic`.
        raw: log-odds of the network at the knots, rising.
        calibrated: log-odds of what they mean, rising.
        prior: share of incidents in validation, to which the probabilities belong; NaN without.
        log_loss: of each kind in cross-validation on validation, per sample.
    """

    kind: Kind = "none"
    raw: list[float] = field(default_factory=lambda: [-FAR, FAR])
    calibrated: list[float] = field(default_factory=lambda: [-FAR, FAR])
    prior: float = float("nan")
    log_loss: dict[str, float] = field(default_factory=dict)

    def log_odds(self, raw: npt.ArrayLike) -> Values:
        """Calibrated log-odds of any shape; NaN stays NaN."""
        values = np.asarray(raw, dtype=np.float64)
        inside = np.interp(values, self.raw, self.calibrated)
        # Beyond the knots a line stays itself; else slope 1, so that order is never lost.
        slope = 1.0
        if self.kind == "platt":
            slope = (self.calibrated[-1] - self.calibrated[0]) / (self.raw[-1] - self.raw[0])
        below, above = values - self.raw[0], values - self.raw[-1]
        return np.asarray(inside + slope * (np.minimum(below, 0.0) + np.maximum(above, 0.0)))

    def probability(self, raw: npt.ArrayLike) -> Values:
        """Calibrated probability of any shape; NaN stays NaN."""
        return np.asarray(expit(self.log_odds(raw)))

    @classmethod
    def from_facts(cls, facts: dict[str, Any] | None) -> "Calibration":
        """From what `vars` gave and JSON kept, where undefined is null."""
        if not facts:
            return cls()
        prior = facts.get("prior")
        return cls(**{**facts, "prior": float("nan") if prior is None else prior})


def fit_platt(raw: Values, label: npt.NDArray[np.integer]) -> Calibration:
    """The straight line through log-odds with the least log loss.

    The labels are softened as by Platt, so that a perfect separation does not give certainty; the
    slope is kept positive, so that order stays.

    Source: Platt (1999), Probabilistic outputs for support vector machines; the softened labels in
    Lin, Lin and Weng (2007), Machine Learning 68, 267-276.
    """
    incidents = int(label.sum())
    high, low = (incidents + 1) / (incidents + 2), 1 / (len(label) - incidents + 2)
    truth = np.where(label == 1, high, low)
    centre, scale = float(raw.mean()), float(raw.std()) or 1.0
    x = (raw - centre) / scale

    def loss(parameters: Values) -> tuple[float, Values]:
        z = np.exp(parameters[0]) * x + parameters[1]
        wrong = expit(z) - truth
        gradient = np.array([(wrong * x).mean() * np.exp(parameters[0]), wrong.mean()])
        return float(-(truth * log_expit(z) + (1 - truth) * log_expit(-z)).mean()), gradient

    start = np.array([0.0, logit(truth.mean())])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-7.0, 7.0), (None, None)],
                     options={"gtol": 1e-12, "ftol": 1e-15})  # fmt: skip
    slope = float(np.exp(found.x[0])) / scale
    at = [centre - FAR, centre + FAR]
    return Calibration("platt", at, [slope * (v - centre) + float(found.x[1]) for v in at])


def fit_isotonic(raw: Values, label: npt.NDArray[np.integer]) -> Calibration:
    """Isotonic regression, drawn through the centres of its steps so that order stays.

    Each step's rate counts one more sample at the overall rate, so that none is 0 or 1.

    Source: Zadrozny and Elkan (2002), KDD; centred: Oron and Flournoy (2017), Statistics in
    Biopharmaceutical Research 9, 258-267.
    """
    from sklearn.isotonic import IsotonicRegression

    level = IsotonicRegression().fit_transform(raw, label.astype(float))
    order = np.argsort(raw, kind="stable")
    steps = np.split(order, np.flatnonzero(np.diff(level[order]) > 0) + 1)
    x = np.array([raw[s].mean() for s in steps])
    base = label.mean()
    rate = np.array([(label[s].sum() + base) / (len(s) + 1) for s in steps])
    size = np.array([len(s) for s in steps], dtype=float)
    # The extra sample can put neighbours out of order: they are joined, never left out.
    level = IsotonicRegression().fit_transform(np.arange(len(x)), rate, sample_weight=size + 1)
    joined = np.split(np.arange(len(x)), np.flatnonzero(np.diff(level) > 1e-15) + 1)
    centres = [float(np.average(x[j], weights=size[j])) for j in joined]
    y = logit(np.clip([level[j[0]] for j in joined], 1e-12, 1 - 1e-12))
    return Calibration("isotonic", centres, y.tolist())


FITS = {"platt": fit_platt, "isotonic": fit_isotonic}


def log_loss(calibration: Calibration, raw: Values, label: npt.NDArray[np.integer]) -> Values:
    """Negative log-likelihood of each label, in nats."""
    z = calibration.log_odds(raw)
    return np.asarray(-np.where(label == 1, log_expit(z), log_expit(-z)))


def calibrate(
    raw: Values, label: npt.NDArray[np.integer], block: npt.NDArray[np.integer]
) -> Calibration:
    """The best kind in cross-validation over blocks of time, fitted on all.

    The best has the least log loss; a kind with more freedom must win by a standard error.

    Args:
        raw: log-odds of the validation samples, shape (n,).
        label: 0 or 1, shape (n,).
        block: number of the time block of each, shape (n,); blocks are never cut in two.

    Returns:
        `none` where there is no incident, or no normal sample, to fit; Platt's line, untried, where
        all incidents lie in one block.
    """
    prior = float(label.mean())
    if label.min() == label.max():
        return Calibration(prior=prior)
    fold = folds(label, block)
    losses: dict[str, Values] = {kind: np.full(len(label), np.nan) for kind in KINDS}
    for held in np.unique(fold):
        inside, outside = fold == held, fold != held
        if not outside.any() or label[outside].min() == label[outside].max():
            continue
        for kind in KINDS:
            fitted = FITS[kind](raw[outside], label[outside]) if kind in FITS else Calibration()
            losses[kind][inside] = log_loss(fitted, raw[inside], label[inside])
    if np.isnan(losses["none"]).any():
        log.warning(
            "warning: all incidents of validation lie in one block of time, so that no calibration "
            "can be tried on others: Platt's line is taken as it is. Take a longer validation."
        )
        return _with(fit_platt(raw, label), prior, {})
    mean = {kind: float(v.mean()) for kind, v in losses.items()}
    best = KINDS[0]
    for kind in KINDS[1:]:
        if gain_is_clear(losses[best] - losses[kind], block):
            best = kind
    chosen = FITS[best](raw, label) if best in FITS else Calibration()
    return _with(chosen, prior, dict(mean))


def _with(fitted: Calibration, prior: float, losses: dict[str, float]) -> Calibration:
    return Calibration(fitted.kind, fitted.raw, fitted.calibrated, prior, losses)


def gain_is_clear(gain: Values, block: npt.NDArray[np.integer]) -> bool:
    """Whether a mean gain is more than its standard error, over blocks: else simpler is better.

    Args:
        gain: of each sample, shape (n,).
        block: number of the block of each, shape (n,).
    """
    of_block = np.bincount(np.unique(block, return_inverse=True)[1], weights=gain)
    error = of_block.std(ddof=1) * np.sqrt(len(of_block))
    return bool(of_block.sum() > error)


def folds(label: npt.NDArray[np.integer], block: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Blocks dealt out so that each fold has about as many incidents, then as many samples."""
    names, number = np.unique(block, return_inverse=True)
    incidents = np.bincount(number, weights=label, minlength=len(names))
    samples = np.bincount(number, minlength=len(names))
    place = np.empty(len(names), dtype=np.int64)
    place[np.lexsort((-samples, -incidents))] = np.arange(len(names)) % FOLDS
    return place[number]
