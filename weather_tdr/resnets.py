"""Residual networks for images of 32 x 32 points: versions 1 and 2, plain and bottleneck blocks."""

import re

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from data_pipelines.errors import InputError


class _Block(nn.Module):
    """Version 1: convolution, normalisation, rectifier; the sum is rectified."""

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
        return relu(out + _shortcut(x, self.stride, self.more))


class _PreBlock(nn.Module):
    """Version 2: normalisation and rectifier before each convolution; the sum stays as it is."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.stride, self.more = stride, after - before

    def forward(self, x: Tensor) -> Tensor:
        out = self.first(relu(self.norm1(x)))
        out = self.second(relu(self.norm2(out)))
        return torch.as_tensor(out + _shortcut(x, self.stride, self.more))


class _PreBottleneck(nn.Module):
    """Version 2 with 1x1, 3x3 and 1x1 convolutions; a 1x1 projection where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        inner = after // 4
        self.norm1 = nn.BatchNorm2d(before)
        self.first = nn.Conv2d(before, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.third = nn.Conv2d(inner, after, 1, bias=False)
        self.project = None if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = relu(self.norm1(x))
        out = self.first(ready)
        out = self.second(relu(self.norm2(out)))
        out = self.third(relu(self.norm3(out)))
        return torch.as_tensor(out + (x if self.project is None else self.project(ready)))


def _shortcut(x: Tensor, stride: int, more: int) -> Tensor:
    """Without parameters: every `stride`-th point, and zeros for the channels that are new."""
    if stride > 1 or more:
        return pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, more))
    return x


class ResNet(nn.Module):
    """ResNet of three stages with 16, 32 and 64 channels (four times that with bottlenecks).

    Args:
        depth: 6n + 2 (20, 32, 44, 56, 110); with bottlenecks 9n + 2 (29, 47, 56, 110, 164), as a
            block has three layers in place of two.
        channels: of the images.
        classes: number of logits.
        version: 1, or 2 with normalisation before the convolutions.
        bottleneck: 1x1, 3x3, 1x1 convolutions in each block; version 2 only.

    Raises:
        InputError: no such depth, or a bottleneck of version 1.

    Source: He et al. (2016a), Deep Residual Learning, section 4.2 (version 1); He et al. (2016b),
    Identity Mappings in Deep Residual Networks (version 2).
    """

    def __init__(
        self,
        depth: int = 20,
        channels: int = 3,
        classes: int = 10,
        version: int = 1,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        each = 9 if bottleneck else 6
        if bottleneck and version != 2:
            raise InputError(
                f"a ResNet with bottlenecks must be of version 2, got version {version}. Write "
                f"`resnet{depth}_v2_bottleneck`."
            )
        if depth < each + 2 or (depth - 2) % each:
            raise InputError(
                f"a ResNet{' with bottlenecks' if bottleneck else ''} must have depth "
                f"{each}n + 2, got {depth}. Take {each * 3 + 2} or {each * 5 + 2}."
            )
        block = _Block if version == 1 else _PreBottleneck if bottleneck else _PreBlock
        layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
        if version == 1:
            layers += [nn.BatchNorm2d(16), nn.ReLU()]
        before = 16
        for stage, width in enumerate((16, 32, 64)):
            after = 4 * width if bottleneck else width
            for i in range((depth - 2) // each):
                layers.append(block(before, after, 2 if i == 0 and stage > 0 else 1))
                before = after
        if version == 2:
            layers += [nn.BatchNorm2d(before), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (n, channels, y, x) -> (n, classes)."""
        return torch.as_tensor(self.head(self.body(x).mean(dim=(2, 3))))


RESNET = re.compile(r"resnet(\d+)(_v2)?(_bottleneck)?")


def resnet(name: str, channels: int, classes: int) -> ResNet | None:
    """The network of a name such as `resnet32`, `resnet20_v2`, `resnet164_v2_bottleneck`.

    Returns:
        None when it is no such name.
    """
    match = RESNET.fullmatch(name)
    if match is None:
        return None
    depth, second, bottleneck = match.groups()
    return ResNet(int(depth), channels, classes, 2 if second else 1, bool(bottleneck))
