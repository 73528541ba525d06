"""The whole preprocessing line, one call a stage."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from data_pipelines.blocks import Job, build_part
from data_pipelines.cluster import Cluster, compute
from data_pipelines.fields import open_fields
from data_pipelines.groups import Grouping, Groups
from data_pipelines.labelling import Labeller, make_labeller
from data_pipelines.opening import files_of
from data_pipelines.patches import sample_coordinates
from data_pipelines.planning import StorePlan, counts_of, plan_store
from data_pipelines.quality import (
    Finding,
    Quality,
    findings_of,
    joined,
    refuse_reported,
    unchecked,
    write_report,
)
from data_pipelines.releases import changes
from data_pipelines.schema import GROUPS, Columns
from data_pipelines.settings import Fields, Incidents, Patches, Splits, store_settings
from data_pipelines.statistics import from_sums
from data_pipelines.store import fingerprint, same_build, store_identity
from data_pipelines.store_writer import StoreWriter
from data_pipelines.survey import refuse_impossible
from data_pipelines.target_set import assign_splits, refuse_early
from data_pipelines.writing import alone_in

log = logging.getLogger(__name__)
# By rule, of background, hard negatives and incidents.
REASONS = {
    "catalogue": ("background", "catalogue_entry", "selected_entry"),
    "exceedance": ("background", "smaller_exceedance", "exceedance"),
    "mask": ("background", "smaller_mask", "mask"),
    "series": ("background", "near_miss_of_series", "selected_by_series"),
}


def build_store(
    path: str | Path,
    fields: Fields,
    incidents: Incidents,
    patches: Patches,
    splits: Splits,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    quality: Quality | None = None,
    cluster: Cluster | None = None,
    progress: bool = False,
) -> Path:
    """Builds the patch store, or keeps the one that the same inputs and settings have made.

    A build that was interrupted goes on with the parts that it lacks. Beside the store lies
    ``quality.json``.

    Args:
        path: where the store goes.
        fields: which fields.
        incidents: which incidents.
        patches: how to cut.
        splits: how to split.
        groups: what groups are by, besides the class; hard negatives by default.
        seed: of the background that is kept and of the target set.
        quality: whether findings are errors.
        cluster: where to work; threads by default.
        progress: shows a progress bar.

    Returns:
        The path of the store.

    Raises:
        InputError: bad input or settings.
    """
    array = open_fields(**fields.arguments())
    for line in unchecked(array):
        log.warning("%s", line)
    refuse_impossible(array)  # before all of it is read
    labeller = make_labeller(incidents, fields, Path(path).parent, progress=progress)
    groups = groups or Groups()
    return build_from(
        path,
        array,
        labeller,
        patches,
        splits,
        attributes=store_attributes(fields, incidents, patches, splits, groups, seed, array),
        grouping=Grouping(groups),
        reasons=REASONS[incidents.rule],
        seed=seed,
        quality=quality,
        cluster=cluster,
        progress=progress,
    )


def store_attributes(
    fields: Fields,
    incidents: Incidents,
    patches: Patches,
    splits: Splits,
    groups: Groups,
    seed: int,
    array: xr.DataArray,
) -> dict[str, Any]:
    """``settings`` and ``fingerprints``: all that decides a store. Reads the files."""
    changed = changes(incidents, patches, array)
    fields_of_rules = {"exceedance": incidents.exceedance.paths, "mask": incidents.mask.paths}
    return {
        "settings": store_settings(fields, incidents, patches, splits, groups, seed),
        "fingerprints": {
            **fingerprint(files_of([*fields.paths, *incidents.tables()])),
            **{  # so that a file of masks does not pass for one of the fields
                f"{rule} {name}": digest
                for rule, paths in fields_of_rules.items()
                for name, digest in fingerprint(files_of(paths)).items()
            },
            **{key: value for key, value in changed.items() if value},
        },
    }


def build_from(
    path: str | Path,
    array: xr.DataArray,
    labeller: Labeller,
    patches: Patches,
    splits: Splits,
    *,
    attributes: dict[str, Any],
    grouping: Grouping | None = None,
    reasons: tuple[str, ...] = REASONS["catalogue"],
    seed: int = 0,
    quality: Quality | None = None,
    cluster: Cluster | None = None,
    progress: bool = False,
) -> Path:
    """The same from fields and labels that are open already; see `build_store`.

    Args:
        path: where the store goes.
        array: canonical fields, as `open_fields` gives them.
        labeller: labels the patches, as `make_labeller` gives it.
        patches: how to cut.
        splits: how to split.
        attributes: ``settings`` and ``fingerprints``: all that decides the store.
        grouping: numbers the groups; by default those of background, hard negative, incident.
        reasons: why a sample is background, hard negative or incident.
        seed: of the background that is kept and of the target set.
        quality: whether findings are errors.
        cluster: where to work; threads by default.
        progress: shows a progress bar.
    """
    path = Path(path)
    if same_build(path, attributes):
        if quality is not None and quality.strict:
            refuse_reported(path.with_name("quality.json"))
        log.info("patch store %s is up to date", path)
        return path
    quality = quality or Quality()
    if quality.strict and (of_files := findings_of(array)):  # before anything is computed
        write_report(path.with_name("quality.json"), of_files, {}, quality)
    plan = plan_store(
        array, labeller, patches, splits, grouping=grouping or Grouping(Groups()), seed=seed
    )
    for found in plan.labels.findings:
        log.warning("%s", found.line())
    if lost := int(plan.labels.unlabelled.sum()):
        log.warning("%d of %d times have no label", lost, len(plan.listing.times))
    refuse_early(plan.listing, splits.target_per_group)
    job = plan.job(path)
    writer = StoreWriter(path, job.layout, job.shape, "float32", store_identity(attributes))
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(path.parent, f".{path.name}.lock"):
        todo, parts = writer.begin(), len(job.bounds)
        if 0 < len(todo) < parts:
            log.info("%d of %d parts are there already", parts - len(todo), parts)
        compute(build_part, job, todo, cluster or Cluster(), title="building", progress=progress)
        return _finish(writer, plan, job, attributes, reasons, splits, quality)


def _finish(
    writer: StoreWriter,
    plan: StorePlan,
    job: Job,
    attributes: dict[str, Any],
    reasons: tuple[str, ...],
    splits: Splits,
    quality: Quality,
) -> Path:
    """From the parts to the store: quality, statistics, target set, and the values of samples."""
    listing, grid, labels = plan.listing, plan.listing.grid, plan.labels
    parts = writer.facts()
    of_blocks = joined(
        Finding(**found)
        for part in parts
        for block in part["blocks"]
        for found in block["findings"]
    )
    findings = [*findings_of(job.fields), *labels.findings, *of_blocks]
    for found in findings:
        if found not in labels.findings:  # they have been said
            log.warning("%s", found.line())
    codes, left_out = assign_splits(writer.gather, listing, splits.target_per_group, plan.lags)
    if left_out["missing_values"]:
        log.warning("%d samples dropped for such values", left_out["missing_values"])
    report = writer.path.with_name("quality.json")
    write_report(report, findings, {"samples_dropped": left_out["missing_values"]}, quality)
    group, names = writer.gather("group", 0), listing.grouping.names
    counts = counts_of(codes, group, names)
    for name, of_groups in counts.items():
        log.info("%-10s %s", name, ", ".join(f"{n} {k}" for k, n in of_groups.items()))
    dropped = dict(pd.DataFrame([part["dropped"] for part in parts]).sum().astype(int))
    unused = {k: n for k, n in labels.unused.items() if k != "patches_without_label"}  # told above
    facts = {
        "title": "Patches labelled incident or normal",
        "grid": {
            "size": list(grid.shape) if grid.whole else grid.size,
            "whole_field": grid.whole,
            "stride": grid.stride,
            "north": float(grid.latitude[0]),
            "west": float(grid.longitude[0]),
            "dlat": grid.dlat,
            "dlon": grid.dlon,
            "is_global": grid.is_global,
            "rows": grid.rows,
            "columns": grid.columns,
        },
        "counts": counts,
        "dropped": {k: int(v) for k, v in dropped.items()} | unused | left_out,
    }
    storms, storm_of = np.unique(
        ["", *listing.labels["incident_id"].astype(str)], return_inverse=True
    )

    def columns(number: int) -> Columns:
        record, _ = writer.record(number)
        first = int(writer.layout.offsets[number])
        return sample_coordinates(record["step"], record["corner"], listing.times, grid) | {
            "label": (record["kind"] == GROUPS.index("incident")).astype(np.int8),
            "group": record["group"],
            "split": codes[first : first + len(record["kind"])],
            "incident_id": storm_of[record["source"] + 1].astype(np.int32),
            "reason": record["kind"].astype(np.int32),
            "usable": record["usable"],
        }

    return writer.finish(
        columns,
        xr.Dataset(coords=job.fields["variable"].coords),
        from_sums(block["sums"] for part in parts for block in part["blocks"]),
        attributes | facts,
        names={"group": names},
        texts={"incident_id": [str(s) for s in storms], "reason": reasons},
    )
