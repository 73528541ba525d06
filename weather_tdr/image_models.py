"""Networks of the image benchmarks, by name: LeNet5, ConvNets, an MLP, ResNets.

They pool before they rectify: the same values and gradients, of a quarter of the points.
"""

from collections.abc import Callable

import torch
from torch import nn

from data_pipelines.errors import InputError, unknown_name
from weather_tdr.resnets import resnet

# Points a side.
SMALLEST = {"lenet5": 12, "convnet": 8, "mlp": 1, "lenet5_reference": 16, "convnet_reference": 24}
EXAMPLES = (*SMALLEST, "resnet20", "resnet32", "resnet32_v2", "resnet56_v2_bottleneck")


class LeNet5(nn.Sequential):
    """Two 5x5 convolutions with pooling and three linear layers, rectified.

    Args:
        channels: of the images.
        size: points a side.
        classes: number of logits.
        padded: images of less than 32 points get a border of 2.

    Source: LeCun et al. (1998), with rectifiers and maximum pooling in place of sigmoids.
    """

    def __init__(
        self, channels: int = 1, size: int = 28, classes: int = 2, *, padded: bool = True
    ) -> None:
        border = 2 if padded and size < 32 else 0
        left = ((size + 2 * border - 4) // 2 - 4) // 2
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=border),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(6, 16, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * left * left, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class ConvNet(nn.Sequential):
    """Three blocks of a padded 3x3 convolution and pooling, and a linear layer: ours, and small."""

    def __init__(self, channels: int = 3, size: int = 32, classes: int = 10) -> None:
        layers: list[nn.Module] = []
        for before, after in ((channels, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * (size // 8) ** 2, classes))


class ConvNetReference(nn.Sequential):
    """Four 3x3 convolutions without padding, dropout and a wide layer.

    Source: the reference implementation of TDR (`BilevelConvNet`).
    """

    def __init__(self, channels: int = 3, size: int = 32, classes: int = 2) -> None:
        left = (((size - 4) // 2 - 2) // 2 - 2) // 2
        super().__init__(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Conv2d(64, 128, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(128, 128, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Flatten(),
            nn.Linear(128 * left * left, 1024),
            nn.ReLU(),
            nn.Dropout(0.25),
            nn.Linear(1024, classes),
        )


def _glorot(network: nn.Module) -> nn.Module:
    """The network with uniform weights after Glorot and Bengio (2010) and biases of zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network


class MLP(nn.Sequential):
    """Linear layers to 300, 100 and the classes, rectified.

    Source: LeNet-300-100 of LeCun et al. (1998), with rectifiers.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 10) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(channels * size * size, 300),
            nn.ReLU(),
            nn.Linear(300, 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )


def make_network(name: str, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Module:
    """A network by name: `lenet5`, `convnet`, `mlp`, `resnet32`, `resnet56_v2_bottleneck`, ...

    `lenet5_reference` and `convnet_reference` are those of the reference implementation of TDR
    (`BilevelLenet`, `BilevelConvNet`), with its start: Glorot weights, biases of zero.

    Args:
        name: of the network.
        channels: of the images.
        size: points a side.
        classes: number of logits.

    Raises:
        InputError: an unknown name, or images too small for it.
    """
    found = resnet(name, channels, classes)
    if found is not None:
        return found
    made: dict[str, Callable[[int, int, int], nn.Module]] = {
        "lenet5": LeNet5,
        "convnet": ConvNet,
        "mlp": MLP,
        "lenet5_reference": lambda *given: _glorot(LeNet5(*given, padded=False)),
        "convnet_reference": lambda *given: _glorot(ConvNetReference(*given)),
    }
    if name not in made:
        raise unknown_name("`network`:", name, EXAMPLES)
    if size < SMALLEST[name]:
        raise InputError(
            f"`network: {name}` needs larger images, got {size} x {size}. Use `convnet` or `mlp`."
        )
    network = made[name](channels, size, classes)
    # Channels last in memory: convolutions and poolings are faster on a CPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
