import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from data_pipelines.writing import no_nan
from weather_tdr.calibration import (
    FOLDS,
    Calibration,
    calibrate,
    fit_isotonic,
    fit_platt,
    folds,
    gain_is_clear,
    log_loss,
)


def forecasts(n=60_000, seed=0, distort=lambda z: z):
    """True log-odds, those that a network would give, and what happened."""
    rng = np.random.default_rng(seed)
    true = rng.normal(-6.0, 2.0, n)
    return true, distort(true), (rng.random(n) < expit(true)).astype(int)


def test_platt_is_logistic_regression_of_scikit_learn():
    """With many incidents the softened labels differ by little from 0 and 1."""
    _, raw, label = forecasts(distort=lambda z: 0.5 * z + 3)
    peer = LogisticRegression(C=1e8, tol=1e-10, max_iter=1000).fit(raw[:, None], label)
    found = fit_platt(raw, label)
    slope = (found.calibrated[1] - found.calibrated[0]) / (found.raw[1] - found.raw[0])
    assert slope == pytest.approx(peer.coef_[0, 0], rel=5e-3)
    at = np.array([-8.0, -2.0, 3.0])
    np.testing.assert_allclose(found.log_odds(at), peer.decision_function(at[:, None]), atol=0.05)


def test_platt_undoes_a_distortion_and_restores_the_prior():
    true, raw, label = forecasts(distort=lambda z: 0.5 * z + 3)
    found = fit_platt(raw, label)
    assert abs(expit(raw).mean() / label.mean()) > 20
    assert found.probability(raw).mean() == pytest.approx(label.mean(), rel=0.01)
    np.testing.assert_allclose(found.log_odds(raw), true, atol=0.6)


def test_isotonic_follows_scikit_learn_and_never_loses_the_order():
    _, raw, label = forecasts(distort=lambda z: np.where(z < -4, 3 * z, z - 8.0))
    found = fit_isotonic(raw, label)
    steps = IsotonicRegression().fit(raw, label)
    centres = np.array(found.raw)[1:-1]
    peer = steps.predict(centres)
    # The extra sample of each step and the line through centres move a step by little.
    big = peer > 0.01
    np.testing.assert_allclose(found.probability(centres)[big], peer[big], rtol=0.3)
    assert 0 < found.probability(np.array([-100.0]))[0] < 1e-12
    assert (np.diff(found.log_odds(np.linspace(-40, 20, 5000))) > 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(5, 400), rate=st.floats(0.01, 0.9))
def test_every_kind_keeps_the_order_and_gives_probabilities(seed, n, rate):
    rng = np.random.default_rng(seed)
    raw = np.round(rng.normal(0, 4, n), 1)
    label = (rng.random(n) < rate).astype(int)
    label[:2] = (0, 1)
    at = np.r_[np.unique(raw), 300.0]
    for found in (fit_platt(raw, label), fit_isotonic(raw, label)):
        assert (np.diff(found.log_odds(at)) > 0).all()
        inside = found.probability(raw)
        assert ((inside > 0) & (inside < 1)).all()


@pytest.mark.parametrize(
    ("distort", "kind"),
    [
        (lambda z: z, "none"),
        (lambda z: 0.4 * z + 3, "platt"),
        (lambda z: np.where(z < -3, 6 * z, z - 12), "isotonic"),
    ],
)
def test_the_kind_that_fits_is_chosen_on_blocks(distort, kind):
    _, raw, label = forecasts(200_000, distort=distort)
    found = calibrate(raw, label, np.arange(len(raw)) // 500)
    assert found.kind == kind
    if kind != "none":
        assert found.log_loss[kind] < 0.98 * found.log_loss["none"]
    assert found.prior == label.mean()
    fresh = forecasts(200_000, seed=1, distort=distort)
    before, after = (log_loss(c, *fresh[1:]).mean() for c in (Calibration(), found))
    assert after <= before * 1.001


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), blocks=st.integers(2, 40))
def test_blocks_are_never_cut_and_incidents_are_shared_out(seed, blocks):
    rng = np.random.default_rng(seed)
    block, label = rng.integers(0, blocks, 500) * 7 - 20, (rng.random(500) < 0.1).astype(int)
    fold = folds(label, block)
    assert all(len(np.unique(fold[block == b])) == 1 for b in np.unique(block))
    of_block = np.array([label[block == b].sum() for b in np.unique(block)])
    of_fold = np.array([label[fold == f].sum() for f in range(min(FOLDS, len(of_block)))])
    assert of_fold.max() - of_fold.min() <= of_block.max()


def test_one_class_or_one_block_of_incidents(caplog):
    raw = np.linspace(-5, 5, 100)
    assert calibrate(raw, np.zeros(100, int), np.arange(100)).kind == "none"
    label = np.zeros(100, int)
    label[98:] = 1
    for blocks in (2, 1):
        found = calibrate(raw, label, np.arange(100) // (100 // blocks))
        assert found.kind == "platt" and found.log_loss == {}
        assert "lie in one block" in caplog.text
        caplog.clear()


def test_through_json():
    _, raw, label = forecasts(2000)
    for found in (Calibration(), fit_isotonic(raw, label)):
        back = Calibration.from_facts(json.loads(json.dumps(no_nan(vars(found)))))
        np.testing.assert_array_equal(back.log_odds(raw), found.log_odds(raw))
    assert np.isnan(Calibration.from_facts(None).prior)


def test_missing_stays_missing_and_none_changes_nothing():
    raw = np.array([-70.0, -3.0, np.nan, 0.0, 70.0])
    np.testing.assert_allclose(Calibration().log_odds(raw), raw)
    assert logit(0.5) == Calibration().log_odds(0.0)


def test_a_gain_within_its_error_is_no_gain():
    rng = np.random.default_rng(0)
    block = np.arange(4000) // 100
    gain = np.repeat(rng.normal(0, 1, 40), 100)  # blocks agree within themselves
    spread = gain.reshape(40, 100).sum(1).std(ddof=1) / np.sqrt(40) / 100
    centred = gain - gain.mean()
    assert not gain_is_clear(centred + 0.9 * spread, block)
    assert gain_is_clear(centred + 1.1 * spread, block)


def test_few_incidents_that_are_calibrated_stay_as_they_are():
    """With a dozen incidents a straight line fits noise more often than a distortion."""
    kinds = []
    for seed in range(20):
        _, raw, label = forecasts(600, seed=seed)
        kinds.append(calibrate(raw, label, np.arange(600) // 40).kind)
    assert kinds.count("none") >= 14


def test_a_few_samples_at_the_bottom_do_not_hide_the_rest():
    """The extra sample of a tiny step puts it above a huge one: both are joined."""
    rng = np.random.default_rng(0)
    raw = np.sort(rng.normal(-5, 2, 20_000))
    label = (rng.random(20_000) < expit(raw)).astype(int)
    label[:3] = (0, 0, 1)
    found = fit_isotonic(raw, label)
    lower = slice(0, 10_000)
    assert found.probability(raw).mean() == pytest.approx(label.mean(), rel=0.2)
    assert found.probability(raw)[lower].mean() < 3 * label[lower].mean() + 3e-4


def test_platt_is_a_line_however_far_the_log_odds_are():
    """An over-confident network: scikit-learn's line holds beyond 50 from the mean too."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-2, 1, 20_000)
    label = (rng.random(20_000) < expit(truth)).astype(int)
    raw = 30 * truth
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(raw[:, None] / 30, label)
    wanted = line.decision_function(raw[:, None] / 30)
    assert (np.abs(raw - raw.mean()) > 50).mean() > 0.05
    np.testing.assert_allclose(fit_platt(raw, label).log_odds(raw), wanted, atol=0.02)
