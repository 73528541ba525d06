"""The command line: `weather-tdr COMMAND ...`. Exit codes: 0 done, 2 bad input, 1 anything else."""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import InputError, RankLost
from data_pipelines.proj import load_proj_first
from weather_tdr.arguments import WITH_OVERRIDES, make_parser


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
    except BrokenPipeError:  # such as by `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor at the end
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
            "with `--resume`, `benchmark` from that of each cell",
            file=sys.stderr,
        )
        sys.exit(1)


def _dispatch(argv: list[str]) -> None:
    parser = make_parser()
    arguments, overrides = parser.parse_known_args(argv)
    if overrides and arguments.command not in WITH_OVERRIDES:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    quiet = arguments.quiet or arguments.command in ("init", "inspect")
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, format="%(message)s")
    for library in ("distributed", "matplotlib"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # Everything heavy is imported only now: --help and typing errors answer at once.
    if arguments.command == "init":
        _init(arguments)
        return
    if arguments.command == "inspect":
        from weather_tdr.inspect.path import inspect_path

        print(inspect_path(arguments.path).text())
        return
    if arguments.command == "check":
        _check(arguments.config, overrides)
        return
    from data_pipelines.cluster import Cluster
    from weather_tdr import configs_folder, ranks, run
    from weather_tdr.assess import evaluate_all
    from weather_tdr.config import load_config, read_config
    from weather_tdr.devices import pick_device
    from weather_tdr.report import write_report
    from weather_tdr.settings import named, read_yaml

    rank, number = ranks.wanted()
    if number > 1 and arguments.command != "train":
        raise InputError(
            f"COMMAND must be `train` with several processes, got `{arguments.command}`. "
            "Start it without torchrun."
        )
    if rank:
        logging.getLogger().setLevel(logging.ERROR)  # rank 0 says what all would say
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
            period=arguments.period,
            threshold=arguments.threshold,
            cluster=Cluster(arguments.cluster, arguments.workers),
            progress=progress,
        )
        _tell(folder)
    elif arguments.command == "benchmark":
        from weather_tdr.benchmark_settings import read_benchmark
        from weather_tdr.benchmarks import run_benchmark
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
            path = named(arguments.config, configs_folder() / "benchmarks")
            benchmark = read_benchmark(path, overrides)
            said = sys.argv[1:] if argv is None else argv
            command = shlex.join(["weather-tdr", *said])
            run_benchmark(benchmark, command=command, progress=progress)
            print((benchmark.folder / "table.md").read_text())
            _tell(benchmark.folder)
    elif arguments.command == "imbalance":
        from weather_tdr.imbalance import draw_imbalanced

        given = {
            k: v
            for k, v in vars(arguments).items()
            if k not in ("command", "quiet") and v is not None and v is not False
        }
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
        source = "demo" if arguments.command == "demo" else arguments.config
        path = named(source, configs_folder())
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
        if overrides and path.resolve() == (config.folder / "config.yaml").resolve():
            logging.info("%s, which tells what was run, now holds %s", path, " ".join(overrides))
        _tell(config.folder)


def _init(arguments: argparse.Namespace) -> None:
    from weather_tdr.first.configuration import write_first_config

    path = write_first_config(
        arguments.config,
        arguments.fields,
        catalogue=arguments.catalogue,
        exceedance=arguments.exceedance,
        side=arguments.side,
        force=arguments.force,
    )
    print(f"{'configuration':22} {path}")
    if not arguments.quiet:
        print(f"Read it: its comments say what was chosen and why. Next: weather-tdr check {path}")


def _check(source: str, overrides: Sequence[str]) -> None:
    """Prints what was found, then every error."""
    from weather_tdr import configs_folder
    from weather_tdr.check.run import check_config
    from weather_tdr.config import read_config
    from weather_tdr.settings import named

    facts = check_config(read_config(named(source, configs_folder()), overrides))
    print(facts.text())
    for error in facts.errors:
        print(f"error: {error}", file=sys.stderr)
    if facts.errors:
        sys.exit(2)
    warned = f" (warnings: {len(facts.warnings)})" if facts.warnings else ""
    command = shlex.join(["weather-tdr", "run", source, *overrides])
    print(f"\nIt will run{warned}: {command}")


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
