"""Checks disk, memory, workers and device for a run, and measures how long a step takes."""

import importlib.util
import os
import shutil
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch

from data_pipelines.cluster import QUEUES, Cluster, cores, has_memory
from data_pipelines.errors import InputError
from weather_tdr.data import FREE_SHARE
from weather_tdr.devices import pick_device
from weather_tdr.facts import Facts, bytes_text, duration_text
from weather_tdr.models import PatchNet
from weather_tdr.train_settings import Train

SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "sge": "qsub", "lsf": "bsub"}
TIMED_SAMPLES = 32
TIMED_STEPS = 10  # the fastest counts, as others may use the machine
SAMPLE_BYTES = 40  # of what the store keeps of a sample besides its patch


def check_disk(folder: Path, patch_bytes: int, samples: int, facts: Facts) -> None:
    """Compares what the patch store takes with what is free where it goes.

    Args:
        folder: of the run; it need not exist.
        patch_bytes: of all patches.
        samples: of the store.
        facts: takes rows and errors.
    """
    needed = patch_bytes + SAMPLE_BYTES * samples
    place, free = _free(folder)
    facts.add("disk", f"{bytes_text(needed)} for the patch store, {bytes_text(free)} free")
    if needed > free:
        facts.fail(
            f"`output` must be on a disk with room for the patch store, got {bytes_text(free)} "
            f"free at {place} for {bytes_text(needed)}. Keep less background "
            "(`patches.background_share`), a larger `patches.stride`, shorter periods, or another "
            "`output`."
        )
    if not os.access(place, os.W_OK):
        facts.fail(f"`output` must be a folder that can be written to, got {place}.")


def check_daily_values(folder: Path, needed: int, facts: Facts) -> None:
    """Compares what daily values take, before the store is written, with what is free.

    Args:
        folder: of the run; it need not exist.
        needed: bytes of a value a day and point.
        facts: takes rows and errors.
    """
    place, free = _free(folder)
    facts.add("daily values", f"{bytes_text(needed)} on disk while labels are made")
    if needed > free:
        facts.fail(
            f"`output` must be on a disk with room for daily values, got {bytes_text(free)} free "
            f"at {place} for {bytes_text(needed)}. Take a shorter `fields.period`, or another "
            "`output`."
        )


def _free(folder: Path) -> tuple[Path, int]:
    """The nearest folder that is there, and the bytes that are free on its disk."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place, shutil.disk_usage(place).free


def check_memory(train_bytes: int, facts: Facts) -> None:
    """Compares what the training samples take with what is free.

    Args:
        train_bytes: of the patches of training and target set.
        facts: takes a row.
    """
    free = psutil.virtual_memory().available
    text = f"{bytes_text(train_bytes)} for the training samples, {bytes_text(free)} free"
    if train_bytes > FREE_SHARE * free:
        text += "; they are read from the patch store as training goes, which takes longer"
    facts.add("memory", text)


def check_workers(cluster: Cluster, facts: Facts) -> None:
    """Whether the workers that build can be had; a batch queue is not asked."""
    here = cores()
    if cluster.where.startswith(("tcp://", "tls://")):
        address = urlsplit(cluster.where)
        try:
            socket.create_connection((address.hostname or "", address.port or 0), timeout=3).close()
        except OSError as error:
            facts.fail(
                f"`cluster.where` must be the address of a running scheduler, got {cluster.where}, "
                f"which does not answer ({error}). Start one with `dask scheduler`."
            )
        facts.add("workers", f"those of the scheduler at {cluster.where}")
    elif cluster.where in QUEUES:
        facts.add("workers", f"{cluster.number} jobs of {cluster.where}")
        if importlib.util.find_spec("dask_jobqueue") is None:
            facts.fail(
                f"`cluster.where: {cluster.where}` needs dask-jobqueue, which is not installed. "
                'Install it with `pip install "weather-tdr[cluster]"`.'
            )
        elif not has_memory(cluster):
            facts.fail(
                "`cluster.queue` must hold the `memory` of a job, such as 4GB, got "
                f"{cluster.queue}."
            )
        if shutil.which(SUBMIT[cluster.where]) is None:
            facts.fail(
                f"`cluster.where: {cluster.where}` needs the command {SUBMIT[cluster.where]}, "
                "which is not on this machine. Start from a login node of the cluster."
            )
    else:
        facts.add("workers", f"{cluster.number} {cluster.where}, {here} cores here")


def check_training(model: PatchNet, shape: tuple[int, ...], train: Train, samples: int,
                   facts: Facts) -> None:  # fmt: skip
    """Says where training runs, and about how long: a few steps on noise are timed.

    Args:
        model: the network.
        shape: of a patch.
        train: the settings of training.
        samples: of train.
        facts: takes rows and errors.
    """
    try:
        place = pick_device(train.device)
    except InputError as error:
        facts.fail(error)
        return
    device = f"CPU, threads: {torch.get_num_threads()}"
    if place.type != "cpu":
        device = torch.cuda.get_device_name() if place.type == "cuda" else place.type
    steps = train.steps_of(samples)
    seconds = step_seconds(model.to(place), shape, train.batch)
    parameters = sum(p.numel() for p in model.parameters())
    facts.add(
        "training",
        f"{', '.join(train.methods)}; {steps} steps of {train.batch} samples each; network of "
        f"{parameters} parameters, on {device}",
        f"about {duration_text(seconds * steps)} for ordinary training of one method, from "
        f"{TIMED_STEPS} steps timed now; methods that a target set steers take longer",
    )


def step_seconds(model: PatchNet, shape: tuple[int, ...], batch: int) -> float:
    """Seconds of an ordinary training step of so many samples, measured on noise."""
    device = next(model.parameters()).device
    few = min(batch, TIMED_SAMPLES)
    with torch.random.fork_rng():
        inputs = torch.randn(few, *shape, device=device)
        labels = torch.zeros(few, dtype=torch.long, device=device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        taken = []
        for _ in range(TIMED_STEPS + 1):  # the first one is slow
            begun = time.perf_counter()
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - begun)
    return min(taken[1:]) * batch / few
