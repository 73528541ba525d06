"""Slopes of the losses of single samples, also through layers without a forward mode."""

import pytest
import torch
from test_hypergradient import losses
from torch import nn

from data_pipelines.errors import InputError
from weather_tdr.data import Batch
from weather_tdr.methods.lookahead import trainable
from weather_tdr.methods.randomness import Randomness
from weather_tdr.methods.sample_slopes import frozen_buffers, sample_slopes


class Sequence(nn.Module):
    """Rows of a picture as a sequence, and a layer whose own derivative is not written for jvp."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.out = nn.LazyLinear(2)

    def forward(self, x):
        found = self.layer(x[:, 0])
        return self.out((found[0] if isinstance(found, tuple) else found).flatten(1))


SEQUENCES = {
    "recurrent": lambda: nn.LSTM(8, 5, batch_first=True),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 5)),
}


@pytest.mark.parametrize("name", list(SEQUENCES))
def test_slopes_of_layers_without_a_forward_mode(name):
    """Against a backward pass of each sample by itself."""
    torch.manual_seed(0)
    model = Sequence(SEQUENCES[name]()).double().train()
    batch = Batch(torch.randn(5, 1, 8, 8).double(), torch.arange(5) % 2, torch.arange(5) % 2)
    model(batch.patches)
    params = trainable(model)
    v = {k: torch.randn_like(p) for k, p in params.items()}
    wanted = [
        sum(
            (g * v[k]).sum()
            for k, g in zip(
                params,
                torch.autograd.grad(
                    losses(model(batch.patches[i : i + 1]), batch.labels[i : i + 1]).sum(),
                    list(params.values()),
                ),
                strict=True,
            )
        )
        for i in range(5)
    ]
    got = sample_slopes(model, batch, losses, v, Randomness.of(model), frozen_buffers(model))
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-12, atol=1e-14)


class Doubled(torch.autograd.Function):
    """2 x, whose derivative can be taken once, and in backward mode only."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * gradient


def test_a_layer_with_neither_derivative_is_refused_with_words():
    class Network(nn.Sequential):
        def forward(self, x):
            return super().forward(Doubled.apply(x * self[1].weight[0, 0]))

    torch.manual_seed(0)
    model = Network(nn.Flatten(), nn.Linear(4, 2)).double()
    batch = Batch(torch.randn(3, 1, 2, 2).double(), torch.arange(3) % 2, torch.arange(3) % 2)
    v = {k: torch.ones_like(p) for k, p in trainable(model).items()}
    with pytest.raises(InputError, match="neither forward-mode nor second derivatives"):
        sample_slopes(model, batch, losses, v, Randomness.of(model), frozen_buffers(model))
