"""The commands and their arguments, as `--help` shows them; imports nothing heavy."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from data_pipelines.errors import InputError
from weather_tdr import __version__

CONFIG_COMMANDS = ("check", "build", "train", "run")
WITH_OVERRIDES = (*CONFIG_COMMANDS, "demo", "benchmark")
OVERRIDES = """\
Any key of CONFIG can be overridden on the command line, such as --train.steps 500 or
--splits.fractions "[0.5,0.25,0.25]"; an unknown key is an error that names the near ones."""
START = """\
a first hour with your own data:
  weather-tdr inspect my.nc                                        what is in a file
  weather-tdr init my.yaml --fields my.nc --catalogue my.csv       a configuration that runs
  weather-tdr check my.yaml                                        will it work, what will it take
  weather-tdr run my.yaml                                          patches, networks, scores, maps
  weather-tdr inspect runs/my                                      what is there, what is missing

without data: weather-tdr demo. `weather-tdr COMMAND --help` tells more of each command.
Exit codes: 0 done, 2 bad input or configuration (one line says what to change), 1 anything else."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raises what is wrong."""
        raise InputError(f"{message}. See `{self.prog} --help`.")


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="weather-tdr",
        description="Finds rare, critical weather incidents in gridded reanalysis.",
        epilog=START,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, more: str = "", *, resume: bool = False) -> Parser:
        about = f"{text[0].upper()}{text[1:]}.{' ' if more else ''}{more}"
        epilog = OVERRIDES if name in CONFIG_COMMANDS else None
        sub: Parser = commands.add_parser(name, help=text, description=about, epilog=epilog)
        if resume:
            sub.add_argument(
                "--resume", action="store_true", help="go on from the last checkpoints"
            )
        sub.add_argument("--quiet", action="store_true", help="print results and errors only")
        return sub

    sub = command(
        "init",
        "write a configuration for your own fields and catalogue",
        "It inspects\nthe files, chooses what suits them, and says in comments what was found and "
        "why each value\nwas chosen. The configuration runs as it is.",
    )
    _init_arguments(sub)
    sub = command(
        "check",
        "tell in seconds whether CONFIG will work, and what it will take",
        "Samples and\nincidents of each split, disk, memory, and what looks odd. Computes and "
        "writes nothing.",
    )
    _config(sub)
    sub = command(
        "inspect",
        "tell what a file or folder holds",
        "Fields (NetCDF, Zarr), a catalogue (CSV,\nIBTrACS, HURDAT2, GeoJSON), a patch "
        "store, a run, a trained method, or an incident map.",
    )
    sub.add_argument("path", metavar="PATH", help="any of these")
    sub = command(
        "run", "build, train, evaluate and map: the whole line",
        "Results go to OUTPUT/NAME,\nby default runs/NAME.", resume=True,
    )  # fmt: skip
    _config(sub)
    _config(command("build", "cut the fields of CONFIG into the patch store",
                    "A build that was interrupted\ngoes on where it was."))  # fmt: skip
    _config(command("train", "train the methods of CONFIG on its patch store", resume=True))
    sub = command("evaluate", "threshold, scores and maps of a trained method")
    _method(sub)
    sub = command(
        "report", "one page that tells an evaluated method",
        "Writes RUN/report.html: scores, diagrams,\na map with a time slider; it needs no network.",
    )  # fmt: skip
    _method(sub)
    sub = command("map", "incident map of new fields with a trained and evaluated method")
    _map_arguments(sub)
    sub = command("demo", "the whole line on synthetic fields, in minutes")
    sub.epilog = "Any key of configs/demo.yaml can be overridden: --output elsewhere"
    sub = command(
        "benchmark",
        "compare methods over seeds, or measure speed",
        "Methods x imbalances x seeds on one\ndata set; a finished cell is not run again. Or the "
        "cost of a training step (`cost`), the speed of\ntraining (`training`), of the pipelines "
        "(`pipelines`) or of maps (`maps`).",
    )
    sub.add_argument(
        "config",
        metavar="CONFIG",
        help="YAML file, a name in configs/benchmarks/, cost, training, pipelines or maps",
    )
    sub.epilog = "Any key of CONFIG can be overridden; for `cost`: --networks=[lenet5] --rounds 15"
    sub = command(
        "imbalance",
        "draw an imbalanced set of images as a patch store, with its histogram",
        "The defaults\nneed no file.",
    )
    _imbalance_arguments(sub)
    return parser


def _config(parser: Parser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help="YAML file, `weather-tdr init` writes one; or a name in configs/, such as demo",
    )


def _method(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")


def _init_arguments(parser: Parser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file to write")
    parser.add_argument(
        "--fields",
        metavar="FILE",
        nargs="+",
        required=True,
        help="NetCDF files (joined along time and variables), or one Zarr store",
    )
    parser.add_argument(
        "--catalogue",
        metavar="FILE",
        default="",
        help="where and when incidents were: CSV with time, latitude, longitude (storm_id) and "
        "columns to choose by; or IBTrACS, HURDAT2, GeoJSON points",
    )
    parser.add_argument(
        "--exceedance",
        metavar="VARIABLE",
        default="",
        help="without a catalogue: incidents are spells of this variable beyond a percentile of "
        "its climatology",
    )
    parser.add_argument(
        "--side", choices=("above", "below"), default="above", help="of --exceedance"
    )
    parser.add_argument("--force", action="store_true", help="replace CONFIG if it exists")


def _map_arguments(parser: Parser) -> None:
    _method(parser)
    parser.add_argument("fields", metavar="FIELDS", nargs="+", help="NetCDF files or a Zarr store")
    parser.add_argument("--output", type=Path, help="folder for the results; default RUN/maps/FILE")
    parser.add_argument("--period", default="", help="FIRST/LAST: the only times to map")
    parser.add_argument(
        "--resolution",
        choices=("grid", "stride"),
        help="a probability at every grid point, or at every patch; default as in the run",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="probability from which on a peak (or a region) is an incident; default as "
        "chosen on validation",
    )
    parser.add_argument("--animation", action="store_true", help="also a GIF of the whole period")
    parser.add_argument(
        "--cluster",
        default="threads",
        help="where to work: threads (here), processes, tcp://HOST:PORT, slurm, pbs, sge, lsf",
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes or jobs; default one a core"
    )


def _imbalance_arguments(parser: Parser) -> None:
    """The settings of `images`, with hyphens; what is not given keeps its default."""
    parser.add_argument("--dataset", help="mnist, fashion_mnist, cifar10, cifar10_jpeg, cifar100, "
                        "digits (default)")  # fmt: skip
    parser.add_argument("--folder", help="where its files lie; default: the usual places")
    parser.add_argument("--download", action="store_true", help="fetch files that are missing")
    parser.add_argument("--imbalance", help="binary (default), long_tailed, step")
    for side in ("minority", "majority"):
        parser.add_argument(f"--{side}", type=int, nargs="+", help=f"binary: {side} classes")
    parser.add_argument("--ratio", type=float, help="binary: 1 - n_minority / n_majority")
    parser.add_argument("--factor", type=float, help="long_tailed, step: largest / smallest class")
    parser.add_argument(
        "--train-size",
        type=int,
        help="binary: all, 100 by default; "
        "others: of the largest class, by default all that there are",
    )
    for name in ("target", "validation", "test"):
        parser.add_argument(f"--{name}-size", type=int, help=f"samples of the {name} set")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--output", default="runs", help="folder of all runs")
    parser.add_argument("--name", default="images", help="the store goes to OUTPUT/NAME")
