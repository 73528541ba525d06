"""What all figures share: colours that colour-blind eyes tell apart, and how to save."""

from pathlib import Path

from matplotlib.figure import Figure

# Okabe and Ito (2008), Color universal design; yellow, too light on white, last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def colour_of(number: int) -> str:
    """The colour of the method with this number."""
    return COLOURS[number % len(COLOURS)]
