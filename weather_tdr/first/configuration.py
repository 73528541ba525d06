"""Writes a first configuration for a user's own files: it runs as it is, and says why."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from data_pipelines.cadence import never_looked_at
from data_pipelines.errors import InputError
from data_pipelines.fields import lag_hours, open_fields
from data_pipelines.groups import Grouping, Groups
from data_pipelines.labelling import Labeller, catalogue_labeller, make_labeller
from data_pipelines.planning import StorePlan, grid_of, plan_store
from data_pipelines.settings import Exceedance, Fields, Incidents, Patches, Splits
from data_pipelines.survey import FieldsSurvey, survey_catalogue, survey_fields
from data_pipelines.writing import write_atomically
from weather_tdr.facts import bytes_text, period_text, region_text, step_text
from weather_tdr.first.commented_yaml import Key, commented_yaml
from weather_tdr.first.fields import (
    choose_background,
    choose_lags,
    choose_patches,
    choose_variables,
    odd_variables,
)
from weather_tdr.first.incidents import (
    choose_incidents,
    choose_period,
    exceedance_keys,
)
from weather_tdr.first.splits import (
    SHARES,
    choose_incident_stride,
    choose_splits,
    choose_training,
    incident_stride_key,
    splits_keys,
)

READ_AT_MOST = 2**30  # bytes of fields that are read to find incidents in them
GAP_HOURS = 48.0
SPELL_DEGREES = 20.0  # of a patch over half of which a spell lies
SHORT = pd.Timedelta(days=40)  # a shorter archive has no room for such gaps


def write_first_config(
    path: str | Path,
    fields: Sequence[str],
    *,
    catalogue: str = "",
    exceedance: str = "",
    side: str = "above",
    force: bool = False,
) -> Path:
    """Inspects a user's files and writes a commented configuration that runs as it is.

    Args:
        path: of the configuration to write.
        fields: NetCDF files or a Zarr store.
        catalogue: positions and times of incidents, in any format that `read_catalogue` reads.
        exceedance: instead of a catalogue, a variable whose extremes are the incidents.
        side: of the extremes, ``above`` or ``below``.
        force: whether an existing file may be replaced.

    Returns:
        The path.

    Raises:
        InputError: the file exists, an input cannot be used, fields and catalogue do not overlap,
            or no choice gives every split an incident.
    """
    path = Path(path)
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise InputError(f"CONFIG must be a YAML file to write, got {path}. Name a file.")
    if path.exists() and not force:
        raise InputError(f"CONFIG must be a new file, got {path}, which exists. Use --force.")
    if not path.parent.is_dir():
        raise InputError(f"CONFIG must lie in a folder that exists, got {path}. Make it first.")
    survey = survey_fields(fields)
    if bool(catalogue) == bool(exceedance):
        names = ", ".join(v.name for v in survey.variables if not v.problem)
        raise InputError(
            "what an incident is must come from one of `--catalogue FILE` (CSV with time, "
            "latitude, longitude, storm_id; IBTrACS; HURDAT2; GeoJSON) and `--exceedance VARIABLE` "
            f"(extremes of one of {names}), got {'both' if catalogue else 'neither'}. "
            "docs/labels.md tells of masks and series."
        )
    keys = (
        _of_catalogue(survey, catalogue) if catalogue else _of_exceedance(survey, exceedance, side)
    )
    name = path.name.removesuffix(path.suffix)
    about = Key("name", name, f"Results go to runs/{name}; `output` names another folder.")
    head = (
        f"Written by `weather-tdr init`. Start it with: weather-tdr run {path}\n"
        f"What it would do, in seconds: weather-tdr check {path}\n"
        "What is left out has a default; any key can be overridden: --train.steps 500"
    )
    write_atomically(path.resolve(), commented_yaml(head, [about, *keys]))
    return path


def _of_catalogue(survey: FieldsSurvey, path: str) -> list[Key]:
    catalogue = survey_catalogue(path)
    chosen, of_incidents = choose_incidents(catalogue, survey)
    of_fields = _fields_keys(survey, choose_variables(survey), tendencies=True)
    of_fields += choose_period(catalogue, survey)
    values = {k.name.partition(".")[2]: k.value for k in of_incidents}
    incidents = Incidents(**values)
    labeller = catalogue_labeller(catalogue.table, incidents)
    latitude, longitude = (chosen[k].to_numpy(dtype=float) for k in ("latitude", "longitude"))
    size, stride, of_patches = choose_patches(survey, latitude, longitude)
    return _planned(
        of_fields, of_incidents, of_patches, Patches(size, stride), labeller,
        pd.DatetimeIndex(chosen["time"]),
        1.0 - float(never_looked_at(catalogue.table, survey.times, incidents.match_time).mean()),
    )  # fmt: skip


def _of_exceedance(survey: FieldsSurvey, variable: str, side: str) -> list[Key]:
    of_incidents = exceedance_keys(survey, variable, side)
    size = len(survey.times) * len(survey.latitude) * len(survey.longitude) * 4
    if size > READ_AT_MOST:
        raise InputError(
            f"`--exceedance` reads all of `{variable}` to find incidents, at most "
            f"{bytes_text(READ_AT_MOST)}, got {bytes_text(size)}. Give a part of the files, and "
            "put the others into `fields.paths` afterwards."
        )
    of_fields = _fields_keys(survey, choose_variables(survey, variable), tendencies=False)
    incidents = Incidents(rule="exceedance", exceedance=Exceedance(**of_incidents[1].value))
    fields = Fields(paths=list(survey.paths))
    labeller = make_labeller(incidents, fields, None)
    patch, stride, of_patches = choose_patches(survey, np.zeros(0), np.zeros(0), SPELL_DEGREES)
    return _planned(
        of_fields, of_incidents, of_patches, Patches(patch, stride), labeller,
        pd.DatetimeIndex([]),
    )  # fmt: skip


def _fields_keys(survey: FieldsSurvey, variables: Key, *, tendencies: bool) -> list[Key]:
    first, last = survey.times[0], survey.times[-1]
    south, west = survey.stored[0] < survey.stored[1], survey.stored[2] < 0
    paths = (
        "NetCDF files or a Zarr store, from where weather-tdr is started. Found: "
        f"{len(survey.times)} times, {period_text(first, last)}, every "
        f"{step_text(survey.step_hours)}; {region_text(survey.latitude, survey.longitude)}, "
        f"{survey.spacing[0]:.4g} x {survey.spacing[1]:.4g} degrees apart."
    )
    if south or west:
        odd = ["from south to north"] * south + [f"from {survey.stored[2]:g} east on"] * west
        paths += f" The files go {' and '.join(odd)}, which is put right when they are read."
    if survey.findings:
        paths += f" Beware: {'; '.join(f.line() for f in survey.findings)}."
    keys = [
        Key("fields.paths", list(survey.paths), paths),
        variables,
        choose_lags(survey, tendencies=tendencies),
    ]
    if odd_names := odd_variables(survey, variables.value):
        why = "Vorticity changes its sign with the hemisphere; so cyclonic is positive everywhere."
        keys.append(Key("fields.hemisphere_sign", odd_names, why))
    return keys


def _planned(
    of_fields: list[Key],
    of_incidents: list[Key],
    of_patches: list[Key],
    patches: Patches,
    labeller: Labeller,
    incident_times: pd.DatetimeIndex,
    labelled: float = 1.0,
) -> list[Key]:
    """All keys; those of splits and training from plans of what the store would hold.

    The share `labelled` of the times is known to hold incidents or none.
    """
    settings = Fields(**{k.name.partition(".")[2]: k.value for k in of_fields})
    array = open_fields(**settings.arguments())
    times = pd.DatetimeIndex(array.indexes["time"])
    grid = grid_of(array, patches)
    positions = round(SHARES[0][0] * labelled * len(times)) * grid.rows * grid.columns
    patch_bytes = array.sizes["variable"] * patches.size**2 * 4
    background = choose_background(positions, patch_bytes)
    patches = replace(patches, background_share=background.value)
    grouping = Grouping(Groups())

    def planner(splits: Splits) -> StorePlan:
        return plan_store(array, labeller, patches, splits, grouping=grouping)

    gap = GAP_HOURS if times[-1] - times[0] >= SHORT else -min(map(lag_hours, settings.lags)) or 24
    here = incident_times[(incident_times >= times[0]) & (incident_times <= times[-1])]
    plan, splits = choose_splits(times, here, gap, planner)
    codes = plan.assigned(splits.target_per_group)[0]
    at_points = any(k.name == "incidents.catalogue" for k in of_incidents)
    of_places = []
    if at_points and (step := choose_incident_stride(plan, codes)):
        patches = replace(patches, incident_stride=step)  # as the planner sees too
        plan = planner(splits)
        codes = plan.assigned(splits.target_per_group)[0]
        of_places = [incident_stride_key(step, plan, codes)]
    return [
        *of_fields,
        *of_incidents,
        *of_patches,
        background,
        *of_places,
        *splits_keys(splits, plan.incidents(codes)),
        *choose_training(codes),
    ]
