import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from weather_tdr.intervals import bootstrap_average_precision
from weather_tdr.plots.scores import precision_recall_figure
from weather_tdr.scores import (
    Counts,
    Curve,
    choose_threshold,
    ranking_scores,
    reliability_table,
    wilson_interval,
)

FINLEY = Counts(hits=28, false_alarms=72, misses=23, correct_negatives=2680)
counts = st.builds(Counts, *[st.integers(0, 500)] * 4)


def test_finleys_tornadoes():
    """Published values: Finley (1884) as in Jolliffe and Stephenson."""
    got = FINLEY.scores()
    assert got["pod"] == pytest.approx(0.5490, abs=5e-5)
    assert got["far"] == pytest.approx(0.7200, abs=5e-5)
    assert got["csi"] == pytest.approx(0.2276, abs=5e-5)
    assert got["hss"] == pytest.approx(0.3553, abs=5e-5)
    assert got["pofd"] == pytest.approx(0.0262, abs=5e-5)


def test_undefined_is_nan_not_zero():
    got = Counts(0, 0, 0, 10).scores()
    assert np.isnan(got["pod"]) and np.isnan(got["far"]) and np.isnan(got["csi"])
    assert Counts(0, 0, 5, 10).scores()["pod"] == 0


@given(counts, counts)
def test_counts_add_up(a, b):
    total = a + b
    assert sum(vars(total).values()) == sum(vars(a).values()) + sum(vars(b).values())
    assert total == b + a


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1), st.integers(0, 20))
def test_parts_combine_exactly(pairs, cut):
    predicted, observed = (np.array(v) for v in zip(*pairs, strict=True))
    whole = Counts.of(predicted, observed)
    assert whole == Counts.of(predicted[:cut], observed[:cut]) + Counts.of(
        predicted[cut:], observed[cut:]
    )
    if 0 < observed.sum() < len(observed):
        assert whole.scores()["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(observed, predicted)
        )


@given(st.integers(0, 10_000))
def test_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    label = (rng.random(60) < 0.2).astype(int)
    score = np.round(rng.random(60) + 0.3 * label, 1)  # with ties
    if not label.any():
        assert np.isnan(choose_threshold(score, label))
        return

    def csi(threshold):
        c = Counts.of(score >= threshold, label == 1)
        return c.hits / (c.hits + c.misses + c.false_alarms)

    best = max(csi(t) for t in np.unique(score))
    assert csi(choose_threshold(score, label)) == pytest.approx(best)


def test_bootstrap_with_one_resample_of_everything_is_scikit_learn():
    """With one block every resample is the data itself: both limits are the exact value."""
    rng = np.random.default_rng(0)
    label = (rng.random(500) < 0.05).astype(int)
    score = np.round(rng.random(500) + 0.5 * label, 2)
    got = bootstrap_average_precision(score, label, np.zeros(500, int), rounds=3)
    assert got == pytest.approx([average_precision_score(label, score)] * 2)


def test_bootstrap_interval_is_wider_when_incidents_share_few_blocks():
    rng = np.random.default_rng(1)
    label = np.zeros(4000, int)
    label[rng.choice(4000, 80, replace=False)] = 1
    score = rng.random(4000) + 0.4 * label
    fine = bootstrap_average_precision(score, label, np.arange(4000) // 10)
    assert fine[0] < average_precision_score(label, score) < fine[1]


def test_one_class_has_no_ranking():
    assert np.isnan(ranking_scores(np.arange(3.0), np.zeros(3, int))["average_precision"])


@given(seed=st.integers(0, 200))
def test_reliability_bins_hold_every_sample_once(seed):
    rng = np.random.default_rng(seed)
    probability = 10.0 ** rng.uniform(-9, 0, 400)
    probability[:3] = (0.0, 1.0, 10.0**-0.5)
    label = (rng.random(400) < probability).astype(int)
    table = reliability_table(probability, label)
    assert table["samples"].sum() == 400 and table["incidents"].sum() == label.sum()
    assert (table["probability"] * table["samples"]).sum() == pytest.approx(probability.sum())
    for row in table.to_dict("records"):
        assert row["probability"] <= row["to"]
        assert row["from"] <= row["probability"] or row["from"] == 1e-6
        assert 0 <= row["low"] <= row["frequency"] <= row["high"] <= 1


def test_wilson_intervals_of_a_published_table():
    """Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3."""
    for hits, samples, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(hits, samples) == pytest.approx((low, high), abs=5e-5)


def test_reliability_tells_forecasts_of_a_third_from_certain_ones():
    """Both would be one point on the diagonal in a bin from 0.32 to 1."""
    probability = np.repeat([0.4, 0.98], 1000)
    label = np.r_[np.arange(1000) < 800, np.arange(1000) < 580].astype(int)
    table = reliability_table(probability, label)
    assert list(table["frequency"]) == [0.8, 0.58]
    np.testing.assert_allclose(table[["from", "to"]], [[0.4, 0.5], [0.9, 1.0]])


@pytest.mark.parametrize("label", [0, 1])
def test_a_curve_of_one_class_is_undefined(label):
    curve = Curve.of(np.array([0.1, 0.2]), np.full(2, label))
    assert np.isnan(curve.average_precision) and len(curve.recall) == len(curve.precision) == 0
    figure = precision_recall_figure({"tdr": curve}, 0.00003)
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert told == ["tdr: undefined without incidents", "chance 0.003%"]
