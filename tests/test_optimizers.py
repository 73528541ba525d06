import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_train import Killed, run
from torch import nn

from weather_tdr.optimizers import Average, decay_of, make_optimizer
from weather_tdr.resnets import ResNet


def test_biases_and_batch_norm_do_not_decay():
    """A step on zero gradients shrinks what decays by 1 - rate x decay, and nothing else."""
    torch.manual_seed(0)
    for decay_all in (False, True):
        model = ResNet(8, 3, 2)
        before = {k: p.detach().clone() for k, p in model.named_parameters()}
        optimizer = make_optimizer(model, 0.1, 0.9, 0.5, decay_all=decay_all)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        norms = {
            f"{name}.{k}"
            for name, m in model.named_modules()
            for k, _ in m.named_parameters(recurse=False)
            if isinstance(m, nn.BatchNorm2d) or k == "bias"
        }
        assert norms and norms < set(before)
        for name, p in model.named_parameters():
            free = name in norms and not decay_all
            torch.testing.assert_close(p.detach(), before[name] * (1.0 if free else 0.95))
        assert {decay_of(model, optimizer)[n] for n in norms} == {0.5 if decay_all else 0.0}


@given(st.floats(0.0, 0.99), st.lists(st.floats(-5, 5), min_size=1, max_size=30))
def test_the_average_is_the_sum_that_it_says(decay, values):
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.5)
    average, wanted = Average(model, decay), 1.5
    for step, value in enumerate(values):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        keep = min(decay, (step + 1) / (step + 10))
        wanted = keep * wanted + (1 - keep) * value
        assert float(average.tensors["weight"]) == pytest.approx(wanted, abs=1e-12)
    with average.shown():
        assert model.weight.item() == pytest.approx(wanted, abs=1e-12)
    assert model.weight.item() == values[-1]


def test_training_ends_with_the_average_and_resumes_to_it(tmp_path):
    settings = {"average": 0.9, "checkpoint_every": 20}
    networks = []

    def collect(network):
        networks.append({k: t.clone() for k, t in network.state_dict().items()})
        return 0.5

    whole, _ = run(tmp_path / "whole", "tdr", s=settings, validate=collect)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, networks[-1][name], rtol=0, atol=0)
    plain, _ = run(tmp_path / "plain", "tdr")
    assert not torch.equal(plain.head[0].weight, whole.head[0].weight)

    def kill(_):
        if len(list((tmp_path / "killed" / "checkpoints").glob("step_*"))) == 2:
            raise Killed
        return 0.5

    with pytest.raises(Killed):
        run(tmp_path / "killed", "tdr", s=settings, validate=kill)
    resumed, _ = run(tmp_path / "killed", "tdr", s=settings, resume=True)
    for name, value in resumed.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[name], rtol=0, atol=0)
