"""Networks of the image benchmarks: LeNet5, a small ConvNet, ResNet of depth 6n + 2."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu


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


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.stride, self.more = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.norm1(self.first(x)))
        out = self.norm2(self.second(out))
        if self.stride > 1:  # shortcut without parameters: every second point, zeros for channels
            x = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return relu(out + x)


class ResNet(nn.Module):
    """ResNet of depth 6n + 2 for 32 x 32 images, version 1, with shortcuts without parameters.

    Args:
        depth: 20, 32, 44, 56, 110, ...
        channels: of the images.
        classes: number of logits.

    Source: He et al. (2016), section 4.2; 0.27 million parameters at depth 20, 0.46 at 32.
    """

    def __init__(self, depth: int = 20, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        n = (depth - 2) // 6
        layers: list[nn.Module] = [
            nn.Conv2d(channels, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
        before = 16
        for width in (16, 32, 64):
            for i in range(n):
                layers.append(_Block(before, width, 2 if i == 0 and width > 16 else 1))
                before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, channels, 32, 32) -> (n, classes)."""
        return torch.as_tensor(self.head(self.body(x).mean(dim=(2, 3))))
