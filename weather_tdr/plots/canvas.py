"""What all figures share: colours that colour-blind eyes tell apart, how to show and to save."""

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from data_pipelines.writing import written_whole

# Okabe and Ito (2008), Color universal design; yellow, too light on white, last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
# What a patch, an entry of the catalogue or an incident is: the same colour in every figure.
KIND_COLOURS = {
    "background": "0.55",
    "normal": "0.55",
    "hard_negative": "#E69F00",
    "incident": "#0072B2",
}
NOTEBOOK_DPI = 75


class Picture(Figure):
    """A matplotlib figure that notebooks show, without pyplot and its magic commands."""

    def _repr_png_(self) -> bytes:
        drawn, data = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=NOTEBOOK_DPI)
        # 256 colours, near enough to all that there are, keep notebooks small.
        few = (
            Image.open(drawn)
            .convert("RGB")
            .quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        )
        few.save(data, format="png", optimize=True)
        return data.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, with its folder."""
    with written_whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def colour_of(number: int) -> str:
    """The colour of the method with this number."""
    return COLOURS[number % len(COLOURS)]
