import torch

from weather_tdr.models import PatchNet


def test_as_many_channels_as_variables():
    """Six variables and a width of six: not mistaken for a network without convolutions."""
    model = PatchNet(6, 8, 2, width=6)
    assert model(torch.zeros(3, 6, 8, 8)).shape == (3, 2)
