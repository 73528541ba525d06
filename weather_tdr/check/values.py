"""Looks at a few time steps of a planned store: what is missing, impossible or constant."""

import numpy as np

from data_pipelines.areas import holed_patches
from data_pipelines.planning import StorePlan
from data_pipelines.quality import Finding, joined, read_block
from data_pipelines.survey import sampled_steps
from weather_tdr.facts import Facts


def check_values(plan: StorePlan, facts: Facts) -> list[Finding]:
    """Reads a few time steps, and says how many patches their missing values cost.

    Args:
        plan: of the store.
        facts: takes warnings and errors.

    Returns:
        What is wrong with the values.
    """
    listing = plan.listing
    steps = sampled_steps(np.flatnonzero(listing.split > 0))
    if not len(steps):
        return []
    findings: list[Finding] = []
    lows, highs, lost = [], [], []
    for step in steps.tolist():
        block, found = read_block(plan.fields.isel(time=[step]), listing.times[[step]])
        findings += found
        known = np.isfinite(block)
        lost.append(float(holed_patches(np.asarray(~known.all(axis=1)), listing.grid).mean()))
        lows.append(np.where(known, block, np.inf).min(axis=(0, 2, 3)))
        highs.append(np.where(known, block, -np.inf).max(axis=(0, 2, 3)))
    looked = f"the {len(steps)} times that were looked at"
    findings = joined(findings)
    for one in findings:
        facts.warn(f"{one.variable}: {one.values} {one.problem} values at {looked}.")
    share = float(np.mean(lost))
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    if share == 1.0:
        named = zip(plan.fields["variable"].values, plan.fields["units"].values, strict=True)
        seen = ", ".join(
            f"{name} {a:.4g} to {b:.4g} {units}"
            for (name, units), a, b in zip(named, low, high, strict=True)
        )
        facts.fail(
            f"every patch of {looked} holds a missing or impossible value, so that none can be "
            f"used. Seen are {seen}: if the units are wrong, correct them in the files; else "
            "choose other variables, another region or a smaller `patches.size`."
        )
    elif share > 0:
        facts.warn(
            f"{share:.0%} of the patches of {looked} hold a value that cannot be used. Such "
            "patches are dropped by the build; the numbers above still count them."
        )
    for name in plan.fields["variable"].values[low == high]:
        facts.warn(f"{name} is the same everywhere at {looked}; the build refuses a constant.")
    return findings
