"""Chooses variables, lags and patches for a first configuration, and says why."""

import logging
from itertools import pairwise

import numpy as np

from data_pipelines.areas import holed_patches
from data_pipelines.errors import InputError
from data_pipelines.schema import FloatArray, PatchGrid
from data_pipelines.survey import FieldsSurvey, Variable
from weather_tdr.facts import some, step_text
from weather_tdr.first.commented_yaml import Key

log = logging.getLogger(__name__)
MOST_VARIABLES = 6
# CF standard names that tell much about weather, the best first; any of their parts counts.
TELLING = (
    "air_pressure_at_mean_sea_level", "vorticity", "geopotential", "air_temperature",
    "eastward_wind", "northward_wind", "specific_humidity", "wind_speed", "relative_humidity",
)  # fmt: skip
VORTICITY = ("vo", "vort", "rv", "pv")  # short names, without the level, such as vo850
CYCLONE_DEGREES = 40.0  # of a patch: a cyclone and what surrounds it
SIZES = (64, 48, 32, 24, 16, 12, 8, 5)  # grid points of a patch; its stride is a quarter or less
REACHED = 0.6  # share of the incidents that should lie in central cells
LOST = 0.5  # share of patches that a variable may cost by missing values
BACKGROUND_SAMPLES = 50_000
BACKGROUND_BYTES = 512 * 2**20
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.002, 0.001)


def choose_variables(survey: FieldsSurvey, without: str = "") -> Key:
    """The variables that the network sees.

    Args:
        survey: of the fields.
        without: a variable that holds the answer already; taken if there is no other.

    Raises:
        InputError: none can be used.
    """
    reasons = {v.name: _why_not(v, survey) for v in survey.variables}
    good = [v for v in survey.variables if not reasons[v.name]]
    if not good:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(
            "`--fields` must hold a variable with time, latitude and longitude that can be used, "
            f"got none{f' ({told})' if told else ''}."
        )
    others = [v for v in good if v.name != without]
    chosen = sorted(others or good, key=_rank)[:MOST_VARIABLES]
    order = [v for v in survey.variables if v in chosen]
    why = "Variables that the network sees, by name or CF standard name. Found: "
    why += ", ".join(f"{v.name} ({v.long_name or v.standard_name or 'no long name'}, "
                     f"{v.units or 'no units'})" for v in order) + "."  # fmt: skip
    left = [v.name for v in good if v not in chosen]
    if without and others:
        left = [name for name in left if name != without]
        why += f" Without {without}, which defines the incidents and would give them away."
    if left:
        why += f" Not taken, to keep it small: {some(left)}."
    if bad := [f"{name} ({reason})" for name, reason in reasons.items() if reason]:
        for text in bad[:MOST_VARIABLES]:
            log.warning("warning: left out of `fields.variables`: %s", text)
        why += f" Cannot be used: {'; '.join(bad[:MOST_VARIABLES])}"
        why += "." if not why.endswith(".)") else ""
    return Key("fields.variables", [v.name for v in order], why)


def _rank(variable: Variable) -> int:
    found = [k for k, part in enumerate(TELLING) if part in variable.standard_name]
    return found[0] if found else len(TELLING)


def _why_not(variable: Variable, survey: FieldsSurvey) -> str:
    if variable.problem:
        return variable.problem
    if variable.constant:
        return f"it is {variable.low:g} everywhere at {survey.sampled} times"
    if not variable.missing.any():
        return ""
    size, stride = _sizes(survey, CYCLONE_DEGREES)[0]
    grid = PatchGrid(survey.latitude, survey.longitude, size, stride)
    lost = float(holed_patches(variable.missing[None], grid).mean())
    if lost <= LOST:
        return ""
    return f"missing values, such as over land, would cost {lost:.0%} of the patches"


def odd_variables(survey: FieldsSurvey, names: list[str]) -> list[str]:
    """Those that have another sign in the other hemisphere: vorticity."""
    known = {v.name: v for v in survey.variables}
    return [
        name
        for name in names
        if "vorticity" in known[name].standard_name
        or (not known[name].standard_name and name.rstrip("0123456789").lower() in VORTICITY)
    ]


def choose_lags(survey: FieldsSurvey, *, tendencies: bool) -> Key:
    """The field itself, and that of a day before where the time step has it.

    Args:
        survey: of the fields.
        tendencies: whether a change over a day tells something about the incidents.
    """
    step = survey.step_hours
    why = f"Fields of earlier times become further variables. There is one every {step_text(step)}"
    day = np.timedelta64(24, "h")
    has_day = np.isin(survey.times.to_numpy() - day, survey.times.to_numpy()).mean()
    if tendencies and has_day >= 0.5:
        why += ", so that the day before is there: the network sees how things have changed."
        return Key("fields.lags", ["0h", "-24h"], why)
    why += "; the field of a day before is not there." if tendencies else "."
    return Key("fields.lags", ["0h"], why)


def choose_patches(
    survey: FieldsSurvey,
    latitude: FloatArray,
    longitude: FloatArray,
    degrees: float = CYCLONE_DEGREES,
) -> tuple[int, int, list[Key]]:
    """Size and stride of the patches.

    Args:
        survey: of the fields.
        latitude: of the incidents, degrees; empty where they are areas.
        longitude: of the incidents.
        degrees: of a patch that shows an incident and what surrounds it.

    Returns:
        Size and stride, and the keys.

    Raises:
        InputError: the grid is too small for any patch.
    """
    reached = {}
    for size, stride in _sizes(survey, degrees):
        grid = PatchGrid(survey.latitude, survey.longitude, size, stride)
        inside = grid.cells(latitude, longitude)[0] >= 0
        reached[size, stride] = float(inside.mean()) if len(inside) else 1.0
        if reached[size, stride] >= REACHED:
            break
    (size, stride), share = max(reached.items(), key=lambda item: min(item[1], REACHED))
    dlat, dlon = survey.spacing
    why = f"Grid points a side: {size} are {size * dlat:.3g} x {size * dlon:.3g} degrees"
    if size * dlat >= degrees / 2:
        why += ", enough for an incident and its surroundings. "
    else:
        limit = "slow on so fine a grid" if size == SIZES[0] else "without room in this region"
        why += f"; {degrees:g} degrees would show more, but are {limit}. "
    if len(latitude):
        why += f"{share:.0%} of the incidents lie in the central cell of a patch; nearer to the "
        why += "edges of the fields no patch has room around them."
        if share < REACHED:
            why += " Fields of a larger region would hold more of them."
    return (
        size,
        stride,
        [
            Key("patches.size", size, why.strip()),
            Key(
                "patches.stride",
                stride,
                "Grid points from one patch to the next, a power of two: an incident is placed "
                f"to within {stride * dlat:.3g} degrees.",
            ),
        ],
    )


def _sizes(survey: FieldsSurvey, degrees: float) -> list[tuple[int, int]]:
    """Sizes and strides that fit the grid: that of about so many degrees, then smaller ones."""
    least = min(len(survey.latitude), len(survey.longitude))
    if least < SIZES[-1]:
        raise InputError(
            f"`--fields` must have at least {SIZES[-1]} points of latitude and longitude, got "
            f"{len(survey.latitude)} x {len(survey.longitude)}. Give a larger region."
        )
    points = degrees / max(survey.spacing)
    # The next smaller size is better only if it is nearer, as a ratio.
    wanted = next(
        (a for a, b in pairwise(SIZES) if points >= (a * b) ** 0.5), SIZES[-1]
    )  # fmt: skip
    sizes = [s for s in SIZES if s <= min(wanted, least)]
    sizes = [s for s in sizes if s > SIZES[-1]] or sizes  # the smallest only if nothing else fits
    return [(s, 2 ** int(np.log2(s / 4))) for s in sizes]


def choose_background(positions: int, patch_bytes: int) -> Key:
    """The share of the background that training keeps.

    Args:
        positions: of training, over all its times.
        patch_bytes: of one patch with all variables.
    """
    most = min(BACKGROUND_SAMPLES, BACKGROUND_BYTES // patch_bytes)
    share = next((s for s in SHARES if s * positions <= most), SHARES[-1])
    return Key(
        "patches.background_share",
        share,
        f"Training keeps this share of the {positions:,} patches without any entry, drawn at "
        f"random, and every other patch; {share * positions:,.0f} of them are enough. Validation "
        "and test keep all.",
    )
