"""Results as Markdown tables, for the README and for `table.md`."""

import pandas as pd


def main_score(results: pd.DataFrame) -> str:
    """Average precision where incidents are rare in the test data, else balanced accuracy."""
    images = results["dataset"].str.contains(" against ").any()
    return "balanced_accuracy" if images else "average_precision"


def markdown(results: pd.DataFrame) -> str:
    """Mean and standard deviation over seeds of each method, best first.

    Args:
        results: a row a method and seed.
    """
    score = main_score(results)
    other = ["csi"] if score == "average_precision" else ["minority_f1", "g_mean"]
    columns = [score, "roc_auc", "minority_recall", "minority_precision", *other]
    names = " | ".join(c.replace("_", " ") for c in columns)
    lines = [f"| method | data | seeds | {names} | seconds |", "|---" * (len(columns) + 4) + "|"]
    order = results.groupby("method")[score].mean().sort_values(ascending=False).index
    for method in order:
        part = results[results["method"] == method]
        cells = [_spread(part[c]) for c in columns]
        lines.append(
            f"| `{method}` | {part['data'].iloc[0]} | {len(part)} | {' | '.join(cells)} | "
            f"{part['seconds'].mean():.0f} |"
        )
    return "\n".join([*lines, "", _made(results)]) + "\n"


def _spread(values: pd.Series) -> str:
    """Mean and standard deviation; nothing where a seed's score is undefined."""
    if values.isna().any():
        return "-"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def run_markdown(comparison: pd.DataFrame) -> str:
    """A run's `comparison.csv`, as a table.

    Args:
        comparison: a row a method; with the columns `date` and `commit`.
    """
    lines = [
        "| method | data | average precision | x base rate | ROC AUC | POD | FAR | CSI | Brier | "
        "incidents: hits / misses / false alarms |",
        "|---" * 10 + "|",
    ]
    for row in comparison.to_dict("records"):
        interval = f"{row['average_precision_low']:.2f} to {row['average_precision_high']:.2f}"
        matched = " / ".join(
            "-" if pd.isna(row[f"incident_{k}"]) else f"{row[f'incident_{k}']:.0f}"
            for k in ("hits", "misses", "false_alarms")
        )
        brier = "-" if pd.isna(row["brier"]) else f"{row['brier']:.2e}"
        lines.append(
            f"| `{row['method']}` | {row['data']} | {row['average_precision']:.3f} ({interval}) | "
            f"{row['average_precision_over_base_rate']:.0f} | {row['roc_auc']:.3f} | "
            f"{row['pod']:.2f} | {row['far']:.2f} | {row['csi']:.2f} | {brier} | {matched} |"
        )
    return "\n".join([*lines, "", _made(comparison)]) + "\n"


def cost_markdown(cost: pd.DataFrame) -> str:
    """`cost.csv` as a table: a row a network and way, time and memory beside each other.

    Args:
        cost: with the columns `date` and `commit`.
    """
    lines = [
        "| network | batch | method | hypergradient | time, every step | time, every 10 | memory |",
        "|---" * 7 + "|",
    ]
    keys = ["network", "batch", "method", "hypergradient"]
    for key, part in cost[cost["method"] != "uniform"].groupby(keys, sort=False):
        at = part.set_index("every")
        times = [f"{at['time_ratio'][e]:.2f}" if e in at.index else "-" for e in (1, 10)]
        names = " | ".join(f"`{k}`" if i > 1 else str(k) for i, k in enumerate(key))
        lines.append(f"| {names} | {' | '.join(times)} | {at['memory_ratio'].max():.2f} |")
    return "\n".join([*lines, "", _made(cost)]) + "\n"


def _made(table: pd.DataFrame) -> str:
    if "date" not in table or table.empty:
        return ""
    commits = ", ".join(dict.fromkeys(map(str, table["commit"])))
    return f"Measured {table['date'].max()}, commit {commits}."
