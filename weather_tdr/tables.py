"""Results of a benchmark as tables, for `table.md`, for pages and for notebooks."""

import math

import pandas as pd

from weather_tdr import configs_folder

MINORITY = (
    "Minority: the rare class; of more than two, the mean over the rarest third of them (all that "
    "are as rare with it).\n"
)


def main_score(results: pd.DataFrame) -> str:
    """Balanced accuracy for images; average precision for fields, where incidents are rare."""
    return "average_precision" if (results["network"] == "patchnet").all() else "balanced_accuracy"


def by_score(results: pd.DataFrame, score: str) -> list[str]:
    """Methods by their mean score over settings and seeds, best first; any that diverged last."""
    results = results.assign(**{score: results[score].where(~_diverged(results), -math.inf)})
    means = results.groupby(["method", "imbalance"])[score].mean().groupby("method").mean()
    return [str(m) for m in means.sort_values(ascending=False).index]


def score_columns(results: pd.DataFrame) -> list[str]:
    """The scores of a table, in its order."""
    if main_score(results) == "average_precision":
        return ["average_precision", "roc_auc", "minority_recall", "minority_precision", "csi"]
    return [
        "accuracy",
        "balanced_accuracy",
        "minority_recall",
        "minority_precision",
        "minority_f1",
        "g_mean",
    ]


def benchmark_markdown(results: pd.DataFrame) -> str:
    """All of a benchmark: a table of the settings beside each other, then one of each setting.

    Args:
        results: a row a method, setting and seed.
    """
    settings = list(dict.fromkeys(results["imbalance"]))
    of_images = main_score(results) == "balanced_accuracy"
    end = ("\n" + MINORITY if of_images else "") + published_markdown(results)
    if len(settings) == 1:
        return markdown(results) + end
    parts = [overview_markdown(results)]
    for setting in settings:
        part = markdown(results[results["imbalance"] == setting])
        parts.append(f"Imbalance {setting:g}:\n\n{part}")
    return "\n".join(parts) + end


def published(results: pd.DataFrame | None = None) -> pd.DataFrame:
    """Published numbers, measured by others on other draws.

    Args:
        results: a row a method, setting and seed; only numbers on the same data set (lossless
            where `results` has JPEG) at the same imbalance with the same network are given.
            None: all.

    Returns:
        ``dataset, imbalance, network, method, score, value, paper_of_the_method, reported_in``.
    """
    known = pd.read_csv(configs_folder() / "benchmarks" / "published.csv")
    return known if results is None else beside(known, results)


def beside(known: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Those of published numbers that `published(results)` gives."""
    keys = [key for key in ("dataset", "imbalance", "network") if key in results]
    shown = results[keys].drop_duplicates()
    shown["dataset"] = shown["dataset"].str.replace("_jpeg", "")
    shown["imbalance"] = shown["imbalance"].astype(float)
    return known.merge(shown, on=keys)


def overview(results: pd.DataFrame, score: str = "") -> pd.DataFrame:
    """Mean ± standard deviation over seeds: a row a method, best first, a column an imbalance.

    Args:
        results: a row a method, setting and seed.
        score: column to show; the main score by default.
    """
    score = score or main_score(results)
    settings = list(dict.fromkeys(results["imbalance"]))
    rows = {}
    for method in by_score(results, score):
        part = results[results["method"] == method]
        cells = {f"{v:g}": _spread(part[part["imbalance"] == v], score) for v in settings}
        rows[method] = {"data": part["data"].iloc[0], **cells}
    return pd.DataFrame(rows).T.rename_axis(index="method", columns=score.replace("_", " "))


def published_markdown(results: pd.DataFrame) -> str:
    """Published numbers on the same data set and network; empty where there are none.

    Args:
        results: a row a method, setting and seed.
    """
    known = published(results)
    if known.empty:
        return ""
    lossless = ", and lossless images" if results["dataset"].str.contains("_jpeg").any() else ""
    untraced = (known["reported_in"] == "not traced").any()
    lines = [
        "",
        f"Published, as context (collected from the literature; other draws, sizes and trainings"
        f"{lossless}{'; not traced: we know of no place that reports it' if untraced else ''}):",
        "",
        "| imbalance | method | score | paper of the method | reported in |",
        "|---|---|---|---|---|",
    ]
    for row in known.to_dict("records"):
        lines.append(
            f"| {row['imbalance']:g} | {row['method']} | {row['score'].replace('_', ' ')} "
            f"{row['value']:.3f} | {row['paper_of_the_method']} | {row['reported_in']} |"
        )
    return "\n".join(lines) + "\n"


def overview_markdown(results: pd.DataFrame) -> str:
    """The main score of each method (rows) at each imbalance (columns), best first.

    Args:
        results: a row a method, setting and seed.
    """
    score = main_score(results)
    settings = list(dict.fromkeys(results["imbalance"]))
    columns = " | ".join(f"{v:g}" for v in settings)
    seeds = results.groupby(["method", "imbalance"]).size().min()
    spread = "one seed" if seeds == 1 else f"mean ± standard deviation over {seeds} seeds"
    tuned = _tuned(results)
    lines = [
        f"{score.replace('_', ' ').capitalize()}, {spread}, by imbalance:",
        "",
        f"| method | data |{' learning rate |' if tuned else ''} {columns} |",
        "|---" * (len(settings) + 2 + tuned) + "|",
    ]
    for method, (data, *cells) in overview(results, score).iterrows():
        rate = results.loc[results["method"] == method, "learning_rate"].iloc[0] if tuned else 0
        shown = f" {rate:g} |" if tuned else ""
        lines.append(f"| `{method}` | {data} |{shown} {' | '.join(cells)} |")
    return "\n".join([*lines, "", _about(results)]) + "\n"


def markdown(results: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of each method at one setting, best first.

    Args:
        results: a row a method and seed.
    """
    score, columns = main_score(results), score_columns(results)
    names = " | ".join(c.replace("_", " ") for c in columns)
    tuned = _tuned(results)
    rate = " learning rate |" if tuned else ""
    lines = [
        f"| method | data | seeds |{rate} {names} | seconds |",
        "|---" * (len(columns) + 4 + tuned) + "|",
    ]
    for method in by_score(results, score):
        part = results[results["method"] == method]
        cells = [_spread(part, c) for c in columns]
        rate = f" {part['learning_rate'].iloc[0]:g} |" if tuned else ""
        lines.append(
            f"| `{method}` | {part['data'].iloc[0]} | {len(part)} |{rate} {' | '.join(cells)} | "
            f"{_spread(part, 'seconds', 0)} |"
        )
    return "\n".join([*lines, "", _about(results)]) + "\n"


def _about(results: pd.DataFrame) -> str:
    """Data set and network, the imbalance of one, and when and from which commit they come."""
    told = (", ".join(map(str, dict.fromkeys(results[key]))) for key in ("dataset", "network"))
    one = results["imbalance"].nunique() == 1
    imbalance = f", imbalance {results['imbalance'].iloc[0]:g}" if one else ""
    return f"Data: {next(told)}{imbalance}; network: {next(told)}. {made(results)}".rstrip()


def _tuned(results: pd.DataFrame) -> bool:
    """Whether methods have learning rates of their own."""
    return "learning_rate" in results and results["learning_rate"].nunique() > 1


def _diverged(results: pd.DataFrame) -> "pd.Series[bool]":
    """Which runs ended with a loss that is not finite."""
    if "diverged" not in results:
        return pd.Series(False, index=results.index)
    return results["diverged"].eq(True)  # missing where an older release made the cell


def lacking(part: pd.DataFrame, score: str) -> str:
    """How many of these rows diverged or have no such score, such as "1 of 5 diverged", or ""."""
    if (lost := int(_diverged(part).sum())) > 0:
        return f"{lost} of {len(part)} diverged"
    lost = int(part[score].isna().sum())
    return f"{lost} of {len(part)} undefined" if lost else ""


def _spread(part: pd.DataFrame, score: str, digits: int = 3) -> str:
    """Mean and standard deviation, or what a seed lacks."""
    if lost := lacking(part, score):
        return lost
    values = part[score]
    if len(values) == 1:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def made(table: pd.DataFrame) -> str:
    """When and from which commit figures come."""
    if "date" not in table or table.empty:
        return ""
    known = table["commit"].fillna("").astype(str)
    commits = ", ".join(dict.fromkeys(known[known != ""]))
    dates = " to ".join(dict.fromkeys(map(str, (table["date"].min(), table["date"].max()))))
    return f"Measured {dates}, commit {commits}." if commits else f"Measured {dates}."
