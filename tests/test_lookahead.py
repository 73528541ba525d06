"""The lookahead of the optimiser, against the optimiser and double backpropagation."""

import pytest
import torch
from test_hypergradient import ETA, L2, losses, oracle_inner, problem, relative

from weather_tdr.methods.hypergradient import hypergradient
from weather_tdr.methods.lookahead import look_ahead, trainable


@pytest.mark.parametrize("way", ["per_group", "forward_mode"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=ETA, momentum=0.9, weight_decay=L2),
        lambda p: torch.optim.SGD(p, lr=ETA, momentum=0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=ETA, momentum=0.8, dampening=0.3),
        lambda p: torch.optim.Adam(p, lr=1e-3, weight_decay=L2),
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("rates", [1, 0.1])
@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", ["linear", "lenet", "patchnet"])
def test_lookahead_with_the_optimiser(name, make, steps, way, rates):
    """q is where the optimiser really goes; its derivative is that of double backpropagation."""
    model, batch, target, weights = problem(name, seed=2)
    biases = [p for p in model.parameters() if p.ndim == 1]
    others = [p for p in model.parameters() if p.ndim > 1]
    optimizer = make([{"params": others}, {"params": biases}])
    optimizer.param_groups[1]["lr"] *= rates
    for _ in range(steps):
        optimizer.zero_grad()
        losses(model(batch.patches), batch.labels).mean().backward()
        optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    scale = torch.full((14,), 1 / 14, dtype=torch.float64)
    inner = oracle_inner(model, batch, weights, scale)
    ahead, _ = look_ahead(trainable(model), inner, rate, 0.0, optimizer)
    arguments = {"loss": losses, "learning_rate": rate, "optimizer": optimizer}
    got = hypergradient(model, batch, target, weights, way=way, **arguments)
    wanted = hypergradient(model, batch, target, weights, way="double_backward", **arguments)
    # Adam's derivative is the difference of two nearly equal terms.
    exact = 1e-12 if isinstance(optimizer, torch.optim.SGD) else 1e-10
    assert relative(got.value, wanted.value) < exact
    for k, p in model.named_parameters():
        p.grad = inner[k].clone()
    optimizer.step()
    for k, p in model.named_parameters():
        torch.testing.assert_close(ahead[k], p.detach(), rtol=1e-10, atol=1e-12)
