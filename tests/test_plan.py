import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import toy
from torch.nn.functional import cross_entropy

from data_pipelines.errors import InputError
from data_pipelines.schema import GROUPS, LABELS
from weather_tdr.fit_inputs import by_weight
from weather_tdr.methods.method import Method, load_method
from weather_tdr.methods.tdr import TdrSettings
from weather_tdr.models import PatchNet
from weather_tdr.plan import make_plan
from weather_tdr.sampling import Batches, Shuffled, split_batch


def planned(method, model=None, **kw):
    """A plan of 100 steps; positions 0 .. 299 are train, 300 .. 311 the target set."""
    recipe = load_method(method) if isinstance(method, str) else method
    names = GROUPS if recipe.weights_per == "group" else LABELS
    train, target, groups = by_weight(toy(300, 0), toy(12, 1, 0.5), recipe, names)
    model = model or PatchNet(2, 8, 2, width=6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    arguments = {"steps": 100, "batch": 50, "names": groups} | kw
    plan = make_plan(
        recipe, model, optimizer, train, target, torch.Generator().manual_seed(0), **arguments
    )
    return plan, train.and_then(target)


def drawn(plan, steps):
    return torch.cat([plan.draw(s)[0] for s in steps])


@pytest.mark.parametrize(
    ("method", "early", "late"),
    [
        ("uniform", False, False),
        ("merge_target", True, True),
        ("balanced_sampling", True, True),
        ("fine_tune_target", False, "only"),
        ("tdr_faithful", False, False),
        ("meta_weight_net", False, False),
    ],
)
def test_what_each_use_of_the_target_set_draws(method, early, late):
    plan, _ = planned(method)
    for steps, wanted in ((range(40), early), (range(60, 100), late)):
        index = drawn(plan, steps)
        if wanted == "only":
            assert index.min() >= 300
        else:
            assert (set(range(300, 312)) <= set(index.tolist())) is wanted
            assert (index.max() >= 300) == wanted
    assert all(plan.draw(s)[1].min() >= 300 for s in (0, 99))  # the target batch


@pytest.mark.parametrize("eta", ["scheduled", "initial"])
def test_the_rate_of_the_lookahead(eta):
    """dT/dw = -eta <G, v>: at a hundredth of the rate a hundredth, unless eta stays."""
    settings = TdrSettings(every=1, eta=eta)
    recipe = Method("own", weighting="tdr", target="steer", tdr=settings)
    found = []
    for rate in (1e-3, 1e-5):
        torch.manual_seed(0)
        plan, pool = planned(recipe)
        plan.optimizer.param_groups[0]["weight_decay"] = 0.0
        plan.step(0, rate, pool[torch.arange(300)], pool[torch.arange(300, 312)])
        assert plan.learning_rate == rate
        found.append(plan.stepper.hypergradient)
    factor = 100.0 if eta == "scheduled" else 1.0
    torch.testing.assert_close(found[0], factor * found[1], rtol=0.02, atol=1e-7)
    assert found[0].abs().max() > 1e-5
    # The reference implementation keeps that of the start.
    assert load_method("tdr_faithful").tdr.eta == "initial"


def test_an_eta_of_its_own_is_for_a_lookahead_without_the_optimiser():
    with pytest.raises(InputError, match=r"`tdr.eta: initial` is for `lookahead: sgd`"):
        TdrSettings(eta="initial", lookahead="optimizer")


def test_tdr_draws_its_shares_and_lets_the_target_set_join_at_the_end():
    plan, pool = planned("tdr")
    plan.stepper.weights = torch.tensor([0.1, 0.3, 0.6])
    natural = (50 * torch.bincount(pool.groups[:300]) / 300).tolist()
    for step, joins in ((0, False), (59, False), (60, False), (79, False), (80, True), (99, True)):
        plan.stepper.steps = step
        index = drawn(plan, [step] * 42)  # seven epochs of samples as they come
        assert (index.max() >= 300) == joins
        counts = torch.bincount(pool.groups[index], minlength=3) / 42
        wanted = natural if step < 60 else [5.7, 15.1, 29.2]  # >= 1 each
        assert counts.tolist() == pytest.approx(wanted, abs=1.0)
    before = plan.stepper.weights.clone()
    plan.step(99, 0.1, pool[index[:50]], pool[torch.arange(300, 312)])
    assert torch.equal(plan.stepper.weights, before)  # they stand still


def test_the_stepper_knows_what_the_equations_need():
    plan, pool = planned("tdr_faithful")
    plan.step(0, 0.07, pool[torch.arange(50)], pool[torch.arange(300, 312)])
    rule = plan.stepper
    assert (rule.learning_rate, rule.steps_in_all) == (0.1, 100)  # `eta: initial`
    assert rule.l2 == dict.fromkeys(dict(plan.model.named_parameters()), 0.01)
    assert rule.optimizer is plan.optimizer and plan.optimizer.param_groups[0]["lr"] == 0.07


def test_counts_include_the_target_set_where_it_is_merged():
    labels = torch.cat([toy(300, 0).labels, toy(12, 1, 0.5).labels])
    counts = torch.bincount(labels)
    plan, _ = planned("inverse_frequency")
    torch.testing.assert_close(plan.stepper.weights, 312 / (2 * counts))
    plan, _ = planned("logit_adjustment")
    z = torch.randn(4, 2)
    wanted = cross_entropy(
        z + torch.log(counts / 312.0), torch.tensor([0, 1, 1, 0]), reduction="none"
    )
    torch.testing.assert_close(plan.stepper.loss(z, torch.tensor([0, 1, 1, 0])), wanted)


def test_deferred_balanced_sampling_begins_in_its_time():
    method = Method("late", sampling="balanced", weighting="uniform", deferred=0.6)
    plan, pool = planned(method)
    early = pool.labels[drawn(plan, range(60))].double().mean()
    late = pool.labels[drawn(plan, range(60, 100))].double().mean()
    assert early < 0.3 and late == 0.5


def test_fine_tuning_has_its_rate_and_leaves_normalisation_alone():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(),
        torch.nn.Linear(108, 2),
    ).train()  # fmt: skip
    method = Method("slow", target="fine_tune", fine_tune_rate=0.1)
    plan, pool = planned(method, model)
    target = pool[torch.arange(300, 312)]
    plan.step(0, 0.5, pool[torch.arange(50)], target)
    assert plan.optimizer.param_groups[0]["lr"] == 0.5
    before = model[1].running_mean.clone()
    plan.step(50, 0.5, target, target)
    assert plan.optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert torch.equal(model[1].running_mean, before)


def test_every_sample_once_an_epoch():
    draw = Shuffled(10, torch.Generator().manual_seed(0))
    seen = torch.cat([draw.draw(4) for _ in range(5)])  # two epochs
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))


@given(
    batch=st.integers(5, 200),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    absent=st.integers(0, 5),
)
def test_a_batch_is_split_near_its_shares(batch, shares, absent):
    present = [k != absent for k in range(len(shares))]
    if not any(present):
        return
    counts = split_batch(batch, torch.tensor(shares), present)
    assert sum(counts) == batch
    assert all((c >= 1) == p for c, p in zip(counts, present, strict=True))
    total = sum(s for s, p in zip(shares, present, strict=True) if p)
    for count, share, p in zip(counts, shares, present, strict=True):
        if p and total > 1e-3:  # one a group is set aside first
            assert abs(count - share / total * batch) <= len(shares) + 1


def test_stratified_batches_use_every_sample_of_a_group_once_an_epoch():
    groups = torch.tensor([0] * 40 + [1] * 4)
    batches = Batches(groups, 2, 8, torch.Generator().manual_seed(0))
    drawn = torch.cat([batches.draw(torch.tensor([0.5, 0.5])) for _ in range(10)])
    counts = torch.bincount(drawn, minlength=44)
    assert (counts[:40] == 1).all() and (counts[40:] == 10).all()
