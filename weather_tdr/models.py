"""Networks. PatchNet is fully convolutional: one pass over a field gives every patch's logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data_pipelines.errors import InputError

CLASSES = 2


class PatchNet(nn.Module):
    """A small fully convolutional detector of patches.

    Only unpadded convolutions and poolings, so that ``forward`` of a whole field of shape
    (n, variables, height, width) gives at every `stride` exactly the logits of the patch that
    starts there; of patches of shape (n, variables, size, size) it gives one position.

    Architecture: log2(stride) blocks of two 3x3 convolutions (one, where no more fit) and a 2x2
    max pooling, a convolution with the size of what is left, and a 1x1 convolution to the logits.

    Args:
        variables: number of input variables.
        size: points a side of a patch; or from north to south, and from west to east.
        stride: points between patches, a power of two.
        width: channels of the first block; doubled in each further one.
        dropout: share of the last features dropped in training.

    Raises:
        InputError: the stride is no power of two, or the size too small for it.
    """

    def __init__(
        self,
        variables: int,
        size: int | Sequence[int] = 16,
        stride: int = 4,
        width: int = 24,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        high, wide = (size, size) if isinstance(size, int) else size
        self.size, self.stride = (high, wide), stride
        blocks = stride.bit_length() - 1
        if stride < 1 or 2**blocks != stride:
            raise InputError(
                f"`patches.stride` must be a power of two for PatchNet, got {stride}. "
                "Use 1, 2, 4 or 8."
            )
        layers: list[nn.Module] = []
        channels = variables
        for block in range(max(blocks, 1)):
            out = width * 2**block
            for _ in range(2):
                # Enough must be left to halve in the blocks to come, and one point at the end.
                if (min(high, wide) - 2) // 2 ** (blocks - block) >= 2:
                    layers += [nn.Conv2d(channels, out, 3), nn.ReLU()]
                    channels, high, wide = out, high - 2, wide - 2
            if blocks:
                # Before the rectifier: the same values and gradients, of a quarter of the points.
                layers.insert(-1, nn.MaxPool2d(2))
                high, wide = high // 2, wide // 2
        if min(high, wide) < 1 or not any(isinstance(m, nn.Conv2d) for m in layers):
            raise InputError(
                f"`patches.size` is too small for PatchNet, got {size} with stride {stride}. "
                f"Use at least {4 * stride}, or a smaller stride."
            )
        features = 4 * width
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Conv2d(channels, features, (high, wide)),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(features, CLASSES, 1),
        )
        # Channels last in memory: convolutions and poolings are 1.5 times as fast on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, fields: Tensor) -> Tensor:
        """Logits at every stride: (n, variables, h, w) -> (n, classes, rows, columns)."""
        return torch.as_tensor(self.head(self.body(fields)))

    def forward(self, patches: Tensor) -> Tensor:
        """Logits of patches: (n, variables, size, size) -> (n, classes)."""
        return self.maps(patches).flatten(1)


def log_odds(logits: Tensor) -> Tensor:
    """Log-odds of the class incident, from logits with the classes along axis 1."""
    return logits[:, 1] - logits[:, 0]
