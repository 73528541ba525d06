"""What `test_ranks.py` starts several times at once, and runs alone for comparison."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from test_train import toy

from data_pipelines.store import open_store
from weather_tdr import ranks
from weather_tdr.data import Batch
from weather_tdr.evaluate import predict
from weather_tdr.image_models import make_network
from weather_tdr.methods.method import load_method
from weather_tdr.methods.tdr import Tdr
from weather_tdr.models import PatchNet
from weather_tdr.train import Train, fit

# As `tdr`, but with its three parts within a few steps.
STEERED = Tdr(settings=replace(load_method("tdr").tdr, every=3, start=0.25, finish=0.25))
PER_GROUP = Tdr(settings=replace(STEERED.settings, hypergradient="per_group"))
WITH_MOMENTUM = Tdr(settings=replace(STEERED.settings, lookahead="optimizer"))
CASES = {
    "uniform": ("uniform", "patchnet"),
    "tdr_faithful": ("tdr_faithful", "patchnet"),
    "tdr_shares": (STEERED, "patchnet"),
    "forward_mode": (STEERED, "lenet5"),
    "learning_to_reweight": ("learning_to_reweight", "patchnet"),
    "meta_weight_net": ("meta_weight_net", "patchnet"),
    "last_layer": ("fine_tune_last_layer", "patchnet"),
    "few_targets": ("tdr_faithful", "patchnet"),  # one target sample a step: none for rank 1
    "lookahead": (WITH_MOMENTUM, "patchnet"),
    "average": (STEERED, "patchnet"),  # ends with the moving average of the network
    "unused": ("tdr_faithful", "patchnet"),  # a parameter that the loss does not depend on
    "complex": (PER_GROUP, "fourier"),  # real parameters before complex ones; averaged too
    "batch_norm": (STEERED, "resnet8"),  # three groups: forward mode
    "batch_norm_per_group": (PER_GROUP, "resnet8"),
}


class Fourier(torch.nn.Module):
    """A real layer, then one of a Fourier neural operator, and a complex running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = torch.nn.Conv2d(2, 3, 1)
        self.factors = torch.nn.Parameter(torch.randn(3, 8, 5, dtype=torch.complex128) / 4)
        self.head = torch.nn.Linear(192, 2)
        self.register_buffer("mean", torch.zeros(3, dtype=torch.complex128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.rfft2(self.lift(x)) * self.factors
        if self.training:
            self.mean = 0.5 * self.mean + self.factors.detach().mean((1, 2))
        return self.head(torch.fft.irfft2(waves).flatten(1))


def real(tensor: torch.Tensor) -> torch.Tensor:
    """Complex numbers as pairs."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def samples(n: int, seed: int, incidents: float, strata: int, size: int) -> Batch:
    """Samples of `toy`, the last group divided into so many, at a size that the network takes."""
    batch = toy(n, seed, incidents)
    groups = batch.groups + (batch.groups == 2) * (torch.arange(n) % strata)
    grown = torch.nn.functional.interpolate(batch.patches.double(), (size, size))
    return Batch(grown, batch.labels, groups)


def train(case: str, folder: Path) -> None:
    """A training in float64 without dropout; network and history go to FOLDER/RANK.json."""
    method, network = CASES[case]
    torch.manual_seed(ranks.rank())  # another start on each rank, were they not made to agree
    size = 28 if network == "lenet5" else 8
    if network == "patchnet":
        model: torch.nn.Module = PatchNet(2, 8, 2, width=4, dropout=0.0)
        if case == "unused":
            model.register_parameter("unused", torch.nn.Parameter(torch.ones(3, 3)))
    elif network == "fourier":
        model = Fourier()
    else:
        model = make_network(network, 2, size, 2)
    strata = 6 if case == "forward_mode" else 1

    def stretched(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x * (0.5 + torch.rand(len(x), 1, 1, 1, generator=generator).double())

    history = fit(
        model.double(),
        samples(200, 0, 0.2, strata, size),
        samples(23, 1, 0.5, strata, size),
        method,
        Train(
            steps=12,
            batch=20,  # neither divides by 3
            target_batch=1 if case == "few_targets" else 22,
            checkpoint_every=6,
            log_every=1,
            seed=20240101,
            average=0.9 if case in ("average", "complex") else 0.0,
        ),
        folder=folder / case,
        augment=stretched,
    )
    state = {k: real(t).tolist() for k, t in model.state_dict().items()}
    path = folder / f"{case}-{ranks.rank()}.json"
    path.write_text(json.dumps([state, history.to_dict("list")]))


def run(folder: Path, store: Path) -> None:
    """Every case, and what a network says of a split."""
    torch.set_num_threads(1)
    for case in CASES:
        train(case, folder)
    torch.manual_seed(0)
    opened = open_store(store)
    said = predict(PatchNet(opened.sizes["variable"], 8, 2, width=4), opened, "test")
    (folder / f"said-{ranks.rank()}.json").write_text(json.dumps(said.tolist()))


if __name__ == "__main__":
    with ranks.together(torch.device("cpu")):
        run(Path(sys.argv[1]), Path(sys.argv[2]))
