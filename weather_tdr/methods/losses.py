"""Losses of single samples that know the class counts of train."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import linear, normalize

from data_pipelines.errors import InputError, unknown_name

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits (n, classes), labels (n,)) -> losses (n,)
NAMES = ("cross_entropy", "focal", "ldam", "logit_adjustment", "balanced_softmax")
PRIOR_AWARE = ("logit_adjustment", "balanced_softmax")


def losses_of(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each sample.

    Raises:
        InputError: the loss gives something else, such as a mean.
    """
    values = loss(logits, labels)
    if values.shape != labels.shape[:1]:
        raise InputError(
            f"`loss` must give one value a sample, shape {tuple(labels.shape[:1])}, got shape "
            f'{tuple(values.shape)}. Use `reduction="none"`, or take out the axis of length 1.'
        )
    return values


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(logits)[label] of each sample, shape (n,)."""
    return torch_cross_entropy(logits, labels, reduction="none")


def focal(gamma: float = 2.0) -> Loss:
    """(1 - p)^gamma times cross-entropy, p the probability of the label.

    Source: Lin et al. (2017), Focal Loss for Dense Object Detection.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        plain = cross_entropy(logits, labels)
        return (1.0 - torch.exp(-plain)).clamp(min=1e-12) ** gamma * plain

    return loss


def ldam(counts: Tensor, max_margin: float = 0.5, scale: float = 1.0) -> Loss:
    """Cross-entropy after a margin that grows as n^(-1/4) is taken off the label's logit.

    Args:
        counts: samples of each class in train, shape (classes,).
        max_margin: margin of the rarest class, before `scale`.
        scale: factor on the margins: that of the `CosineLinear` which the logits come from.

    Source: Cao et al. (2019), Learning Imbalanced Datasets with Label-Distribution-Aware Margin
    Loss.
    """
    margins = counts.double() ** -0.25
    margins = margins * (scale * max_margin / margins.max())

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        taken = torch.zeros_like(logits).scatter(
            1, labels[:, None], margins.to(logits)[labels][:, None]
        )
        return cross_entropy(logits - taken, labels)

    return loss


class CosineLinear(nn.Linear):
    """Last layer of LDAM's networks: `scale` times the cosine of features and class vectors.

    Source: Cao et al. (2019), section 3.3: s = 30 on CIFAR.
    """

    def __init__(self, features: int, classes: int, scale: float = 30.0) -> None:
        super().__init__(features, classes, bias=False)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, classes) in [-scale, scale]."""
        return self.scale * linear(normalize(features), normalize(self.weight))


def with_cosine_layer(model: nn.Module) -> nn.Module:
    """The model, its last linear layer a `CosineLinear` from now on."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    name, last = layers[-1]
    parent, _, child = name.rpartition(".")
    new = CosineLinear(last.in_features, last.out_features)
    setattr(model.get_submodule(parent), child, new.to(last.weight))
    return model


def margin_scale(model: nn.Module) -> float:
    """Unit of LDAM's margins: the scale of the model's `CosineLinear`, 1 without one."""
    return next((m.scale for m in model.modules() if isinstance(m, CosineLinear)), 1.0)


def logit_adjustment(counts: Tensor, tau: float = 1.0) -> Loss:
    """Cross-entropy of logits + tau log(prior): the scorer learned is balanced.

    Source: Menon et al. (2021), Long-tail Learning via Logit Adjustment, eq. 10.
    """
    shift = tau * torch.log(counts.double() / counts.sum())

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if logits.shape[1] != len(shift):
            raise InputError(
                f"a loss that knows the class counts needs samples of every class, got "
                f"{len(shift)} classes in train and {logits.shape[1]} outputs of the network. "
                "Use `cross_entropy`, or give the network as many outputs."
            )
        return cross_entropy(logits + shift.to(logits), labels)

    return loss


def balanced_softmax(counts: Tensor) -> Loss:
    """-log (n_y e^z_y / sum_k n_k e^z_k); the same as `logit_adjustment` with tau = 1.

    Source: Ren et al. (2020), Balanced Meta-Softmax for Long-Tailed Visual Recognition, eq. 3.
    """
    return logit_adjustment(counts, 1.0)


def make_loss(name: str, counts: Tensor, scale: float = 1.0) -> Loss:
    """The loss of that name.

    Args:
        name: one of NAMES.
        counts: samples of each class in train, shape (classes,).
        scale: of LDAM's margins, see `margin_scale`.

    Raises:
        InputError: an unknown name, or a class without samples for a loss that needs them.
    """
    if name not in NAMES:
        raise unknown_name("loss", name, NAMES)
    if name in (*PRIOR_AWARE, "ldam") and (counts == 0).any():
        raise InputError(
            f"`loss: {name}` needs samples of every class in train, got counts {counts.tolist()}. "
            "Use `cross_entropy`, or add samples."
        )
    made: dict[str, Callable[[], Loss]] = {
        "cross_entropy": lambda: cross_entropy,
        "focal": focal,
        "ldam": lambda: ldam(counts, scale=scale),
        "logit_adjustment": lambda: logit_adjustment(counts),
        "balanced_softmax": lambda: balanced_softmax(counts),
    }
    return made[name]()
