import pytest
import torch
from torch import nn

from weather_tdr.image_models import make_network
from weather_tdr.models import PatchNet


def test_as_many_channels_as_variables():
    """Six variables and a width of six: not mistaken for a network without convolutions."""
    model = PatchNet(6, 8, 2, width=6)
    assert model(torch.zeros(3, 6, 8, 8)).shape == (3, 2)


def rectified_before_pooling(network: nn.Sequential) -> nn.Sequential:
    """The same layers in the order of the papers: every rectifier before the pooling."""
    layers = list(network)
    for k in range(1, len(layers)):
        if isinstance(layers[k], nn.ReLU) and isinstance(layers[k - 1], nn.MaxPool2d):
            layers[k - 1], layers[k] = layers[k], layers[k - 1]
    assert layers != list(network)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_reference", "convnet", "convnet_reference"])
@torch.random.fork_rng()
def test_pooling_before_the_rectifier_changes_nothing(name):
    """Logits and gradients to the last bit, with ties of the maximum and of zero."""
    torch.manual_seed(0)
    network = make_network(name, 1, 28, 3)
    compare(network, rectified_before_pooling(network), torch.randn(6, 1, 28, 28))


@torch.random.fork_rng()
def test_pooling_before_the_rectifier_changes_nothing_in_a_detector():
    torch.manual_seed(0)
    model = PatchNet(3, 24, 8)
    same = nn.Sequential(rectified_before_pooling(model.body), model.head, nn.Flatten())
    compare(model, same, torch.randn(6, 3, 24, 24))


def compare(network, same, images):
    images[:3, :, 4:20] = 0.0
    images = images.contiguous(memory_format=torch.channels_last)
    results = []
    for one in (network, same):
        torch.manual_seed(1)  # of dropout
        logits = one(images)
        parameters = list(network.parameters())
        results.append([logits, *torch.autograd.grad(logits.square().sum(), parameters)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
