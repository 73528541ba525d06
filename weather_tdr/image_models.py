"""Networks of the image benchmarks, by name: LeNet5, a small ConvNet, an MLP, ResNets."""

from torch import nn

from data_pipelines.errors import InputError, unknown_name
from weather_tdr.resnets import resnet

SMALLEST = {"lenet5": 12, "convnet": 8, "mlp": 1}  # points a side
EXAMPLES = (*SMALLEST, "resnet20", "resnet32", "resnet32_v2", "resnet56_v2_bottleneck")


class LeNet5(nn.Sequential):
    """Two 5x5 convolutions with pooling and three linear layers, rectified.

    Args:
        channels: of the images.
        size: points a side.
        classes: number of logits.

    Source: LeCun et al. (1998), with rectifiers and maximum pooling in place of sigmoids.
    """

    def __init__(self, channels: int = 1, size: int = 28, classes: int = 2) -> None:
        border = 2 if size < 32 else 0
        left = ((size + 2 * border - 4) // 2 - 4) // 2
        super().__init__(
            nn.Conv2d(channels, 6, 5, padding=border),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * left * left, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, classes),
        )


class ConvNet(nn.Sequential):
    """Three blocks of a padded 3x3 convolution and pooling, and a linear layer."""

    def __init__(self, channels: int = 3, size: int = 32, classes: int = 10) -> None:
        layers: list[nn.Module] = []
        for before, after in ((channels, 32), (32, 64), (64, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * (size // 8) ** 2, classes))


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
    made = {"lenet5": LeNet5, "convnet": ConvNet, "mlp": MLP}
    if name not in made:
        raise unknown_name("`network`:", name, EXAMPLES)
    if size < SMALLEST[name]:
        raise InputError(
            f"`network: {name}` needs larger images, got {size} x {size}. Use `convnet` or `mlp`."
        )
    return made[name](channels, size, classes)
