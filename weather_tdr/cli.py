"""The command line: `weather-tdr COMMAND ...`. Exit codes: 0 done, 2 bad input, 1 anything else."""

import argparse
import dataclasses
import logging
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from data_pipelines.errors import InputError, RankLost
from data_pipelines.proj import load_proj_first

CONFIG_COMMANDS = {
    "build": "cut the fields of CONFIG into the patch store",
    "train": "train the methods of CONFIG on its patch store",
    "run": "build, train, evaluate and map: the whole line",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits."""
    load_proj_first()
    try:
        _dispatch(list(sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RankLost as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        where = error.filename or "a file"
        print(
            f"error: cannot read or write {where}: {error.strerror or error}. "
            "Check the path and the disk.",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "interrupted; the same command goes on: `train` and `run` from the last checkpoint "
            "with `--resume`, `benchmark` with the next cell",
            file=sys.stderr,
        )
        sys.exit(1)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See `{self.prog} --help`.")


def _dispatch(argv: list[str]) -> None:
    parser = _Parser(
        prog="weather-tdr",
        description="Finds rare, critical weather incidents in gridded reanalysis.",
    )
    parser.add_argument("--version", action="version", version=version("weather-tdr"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in CONFIG_COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
        sub.add_argument("config", metavar="CONFIG", help="YAML file; see configs/")
        _common(sub, resume=name != "build")
        sub.epilog = "Any key of CONFIG can be overridden: --train.steps 500 --name other"
    sub = commands.add_parser("demo", help="the whole line on synthetic fields, in minutes")
    _common(sub, resume=False)
    sub.epilog = "Any key of configs/demo.yaml can be overridden: --output elsewhere"
    sub = commands.add_parser("evaluate", help="threshold, scores and maps of a trained method")
    sub.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")
    _common(sub, resume=False)
    sub = commands.add_parser(
        "report",
        help="one page that tells an evaluated method: scores, diagrams, map with a time slider",
    )
    sub.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")
    _common(sub, resume=False)
    sub = commands.add_parser("map", help="incident map of new fields")
    sub.add_argument("run", metavar="RUN", help="folder of the method: runs/NAME/METHOD")
    sub.add_argument("fields", metavar="FIELDS", nargs="+", help="NetCDF files or a Zarr store")
    sub.add_argument("--output", type=Path, help="folder for the results; default RUN/maps/FILE")
    sub.add_argument(
        "--resolution", choices=("grid", "stride"), help="every grid point, or every patch"
    )
    sub.add_argument("--animation", action="store_true", help="also a GIF of the whole period")
    sub.add_argument(
        "--cluster",
        default="threads",
        help="threads (here), processes, tcp://HOST:PORT, slurm, ...",
    )
    sub.add_argument("--workers", type=int, default=0, help="processes or jobs; default one a core")
    _common(sub, resume=False)
    sub = commands.add_parser(
        "benchmark",
        help="methods x seeds on one data set; cost of steering; speed of all",
    )
    sub.add_argument(
        "config",
        metavar="CONFIG",
        help="configs/benchmarks/NAME.yaml, cost, training, pipelines or maps",
    )
    _common(sub, resume=False)
    sub.epilog = "Any key of CONFIG can be overridden; for `cost`: --networks lenet5 --rounds 15"
    sub = commands.add_parser(
        "imbalance",
        help="an imbalanced set of images as a patch store, with its histogram",
        description="Draws an imbalanced set of images; the defaults need no file.",
    )
    _imbalance_arguments(sub)
    _common(sub, resume=False)
    arguments, overrides = parser.parse_known_args(argv)
    takes_overrides = arguments.command in (*CONFIG_COMMANDS, "demo", "benchmark")
    if overrides and not takes_overrides:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    # Everything heavy is imported only now: --help and typing errors answer at once.
    from data_pipelines.cluster import Cluster
    from weather_tdr import configs_folder, ranks, run
    from weather_tdr.assess import evaluate_all
    from weather_tdr.config import load_config, read_config
    from weather_tdr.devices import pick_device
    from weather_tdr.report import write_report
    from weather_tdr.settings import read_yaml

    rank, number = ranks.wanted()
    if number > 1 and arguments.command != "train":
        raise InputError(
            f"COMMAND must be `train` with several processes, got `{arguments.command}`. "
            "Start it without torchrun."
        )
    level = logging.ERROR if rank else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s")
    logging.getLogger("distributed").setLevel(logging.WARNING)
    progress = not arguments.quiet and sys.stderr.isatty()
    if arguments.command == "map":
        maps = run.maps_of(Path(arguments.run))
        folder = run.map_fields(
            Path(arguments.run),
            arguments.fields,
            arguments.output,
            maps=dataclasses.replace(
                maps,
                resolution=arguments.resolution or maps.resolution,
                animation=arguments.animation or maps.animation,
            ),
            cluster=Cluster(arguments.cluster, arguments.workers),
            progress=progress,
        )
        _tell(folder)
    elif arguments.command == "benchmark":
        from weather_tdr.benchmarks import Benchmark, run_benchmark
        from weather_tdr.cost_benchmark import CostBenchmark, run_cost

        if arguments.config == "maps":
            from weather_tdr.map_benchmark import MapBenchmark, run_maps

            speed = read_yaml(MapBenchmark, None, overrides)
            print(run_maps(speed).to_string(index=False))
            _tell(speed.folder)
        elif arguments.config == "pipelines":
            from weather_tdr.pipeline_benchmark import PipelineBenchmark, run_pipelines

            pipelines = read_yaml(PipelineBenchmark, None, overrides)
            print(run_pipelines(pipelines).to_string(index=False))
            _tell(pipelines.folder)
        elif arguments.config == "training":
            from weather_tdr.training_benchmark import TrainingBenchmark, run_training

            training = read_yaml(TrainingBenchmark, None, overrides)
            print(run_training(training, progress=progress).to_string(index=False))
            _tell(training.folder)
        elif arguments.config == "cost":
            cost = read_yaml(CostBenchmark, None, overrides)
            print(run_cost(cost, progress=progress).to_string(index=False))
            _tell(cost.folder)
        else:
            benchmark = read_yaml(Benchmark, Path(arguments.config), overrides)
            said = sys.argv[1:] if argv is None else argv
            command = shlex.join(["weather-tdr", *said])
            run_benchmark(benchmark, command=command, progress=progress)
            print((benchmark.folder / "table.md").read_text())
            _tell(benchmark.folder)
    elif arguments.command == "imbalance":
        from weather_tdr.imbalance import draw_imbalanced

        given = {k: v for k, v in vars(arguments).items() if v is not None}
        for name in ("command", "quiet"):
            given.pop(name)
        folder, text = draw_imbalanced(**given)
        print(text)
        _tell(folder)
    elif arguments.command == "report":
        print(f"{'report':22} {write_report(Path(arguments.run))}")
    elif arguments.command == "evaluate":
        folder = Path(arguments.run)
        config = load_config(folder)
        table = evaluate_all(config, methods=[folder.resolve().name], progress=progress)
        print(_show(table))
        _tell(folder)
    else:
        path = (
            configs_folder() / "demo.yaml"
            if arguments.command == "demo"
            else Path(arguments.config)
        )
        config = read_config(path, overrides)
        if arguments.command == "build":
            run.build(config, progress=progress)
        elif arguments.command == "train":
            with ranks.together(pick_device(config.train.device, ranks.place())):
                run.train_all(config, resume=arguments.resume, progress=progress)
            if rank:
                return
        else:
            resume = getattr(arguments, "resume", False)
            print(_show(run.run(config, resume=resume, progress=progress)))
        _tell(config.folder)


def _imbalance_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--train-size", type=int, help="binary: all; others: of the largest class")
    for name in ("target", "validation", "test"):
        parser.add_argument(f"--{name}-size", type=int, help=f"samples of the {name} set")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--output", default="runs", help="folder of all runs")
    parser.add_argument("--name", default="images", help="the store goes to OUTPUT/NAME")


def _common(parser: argparse.ArgumentParser, *, resume: bool) -> None:
    if resume:
        parser.add_argument("--resume", action="store_true", help="go on from the last checkpoints")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")


def _show(table: Any) -> str:
    columns = {
        "method": "method",
        "average_precision": "AP",
        "average_precision_low": "AP low",
        "average_precision_high": "AP high",
        "average_precision_over_base_rate": "AP / base rate",
        "roc_auc": "ROC AUC",
        "pod": "POD",
        "far": "FAR",
        "csi": "CSI",
    }
    shown = table[list(columns)].rename(columns=columns)
    return str(shown.to_string(index=False, float_format=lambda v: f"{v:.3f}"))


def _tell(folder: Path) -> None:
    """Says what lies where; pictures last."""
    notes = {
        "patches.zarr": "patches",
        "config.yaml": "configuration",
        "figures/histogram.png": "histogram",
        "comparison.csv": "scores of all methods",
        "scores.json": "scores",
        "incident_map.nc": "incident map",
        "incidents.csv": "incident table",
        "incidents.nc": "incident tracks",
        "incidents.gif": "animation",
        "figures/precision_recall.png": "precision and recall",
        "figures/performance.png": "performance diagram",
        "figures/reliability.png": "reliability",
        "figures/probability.png": "probability over time",
        "results.csv": "results",
        "table.md": "table",
        "methods.png": "figure",
        "cost.csv": "cost of a step",
        "maps.csv": "speed of maps",
        "training.csv": "speed of training",
    }
    for pattern in ("", "*/"):
        for name, note in notes.items():
            for path in sorted(folder.glob(pattern + name)):
                print(f"{note:22} {path}")
    for path in sorted(folder.glob("**/incident_1.png")):
        print(f"{'incident map, picture':22} {path}")
