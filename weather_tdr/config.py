"""The configuration of a run: read from YAML, checked key by key, overridden, written resolved."""

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.cluster import Cluster
from data_pipelines.errors import InputError
from data_pipelines.groups import Groups
from data_pipelines.images import Images
from data_pipelines.opening import is_url
from data_pipelines.quality import Quality
from data_pipelines.settings import Fields, Incidents, Patches, Splits, store_settings
from data_pipelines.synthetic import Synthetic
from data_pipelines.writing import write_atomically
from weather_tdr import configs_folder
from weather_tdr.maps import Maps
from weather_tdr.settings import check_folder_name, named, read_changed, read_yaml
from weather_tdr.train_settings import Train


@dataclass
class Config:
    """A run.

    Attributes:
        name: the run folder is OUTPUT/NAME.
        output: folder of all runs.
        seed: of the background that is kept, the target set, and the draw of images.
        synthetic: with `days` above 0, makes synthetic fields and catalogue and uses them.
        fields: which fields.
        incidents: which incidents.
        images: an imbalanced set of images in place of fields; `dataset: none` is none.
        patches: how to cut.
        splits: how to split.
        groups: what a weight may belong to besides the class.
        quality: what to do about fields that cannot be right.
        cluster: where the patch store is built.
        train: how to train.
        maps: how to draw and match maps.
    """

    name: str = "run"
    output: str = "runs"
    seed: int = 0
    synthetic: Synthetic = field(default_factory=lambda: Synthetic(days=0))
    fields: Fields = field(default_factory=Fields)
    incidents: Incidents = field(default_factory=Incidents)
    images: Images = field(default_factory=lambda: Images(dataset="none"))
    patches: Patches = field(default_factory=Patches)
    splits: Splits = field(default_factory=Splits)
    groups: Groups = field(default_factory=Groups)
    quality: Quality = field(default_factory=Quality)
    cluster: Cluster = field(default_factory=Cluster)
    train: Train = field(default_factory=Train)
    maps: Maps = field(default_factory=Maps)

    def __post_init__(self) -> None:
        """Checks the name.

        Raises:
            InputError: the name is no name of a folder.
        """
        check_folder_name(self.name)
        if self.seed < 0:
            raise InputError(f"`seed` must not be negative, got {self.seed}.")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output).expanduser() / self.name

    @property
    def of_images(self) -> bool:
        """Whether the run is on images."""
        return self.images.dataset != "none"

    def use_synthetic(self) -> None:
        """Points `fields` and `incidents` at the synthetic files of the run, if it has any."""
        if self.synthetic.days > 0:
            folder = self.folder / "synthetic"
            self.fields.paths = [str(folder / "fields.nc")]
            self.incidents.catalogue = str(folder / "catalogue.csv")


def settings_of_store(config: Config) -> dict[str, Any]:
    """All settings that decide the patch store of a run on fields; JSON values."""
    parts = (config.fields, config.incidents, config.patches, config.splits, config.groups)
    return store_settings(*parts, config.seed)


def save_config(config: Config) -> None:
    """Writes the resolved configuration, with absolute paths, into the run folder."""
    config.folder.mkdir(parents=True, exist_ok=True)
    values = asdict(config)
    values["fields"]["paths"] = [_absolute(p) for p in config.fields.paths]
    values["train"]["methods"] = [
        _absolute(m) if m.endswith((".yaml", ".yml")) else m for m in config.train.methods
    ]
    values["images"]["folder"] = _absolute(config.images.folder)
    incidents = values["incidents"]
    incidents["catalogue"] = _absolute(config.incidents.catalogue)
    incidents["series"]["path"] = _absolute(config.incidents.series.path)
    for rule in ("exceedance", "mask"):
        incidents[rule]["paths"] = [_absolute(p) for p in incidents[rule]["paths"]]
    text = yaml.safe_dump(values, sort_keys=False)
    write_atomically(config.folder / "config.yaml", text)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path and not is_url(path) else path


def load_config(folder: Path) -> Config:
    """The configuration of the run that a method's folder belongs to.

    The run is where it is found, so that a run folder can be moved.

    Raises:
        InputError: the folder does not lie in a run folder.
    """
    folder = folder.resolve()
    if not (folder.parent / "config.yaml").is_file():
        inside = sorted(str(p.parent) for p in folder.glob("*/model.json"))
        hint = f" There is: {', '.join(inside)}." if inside else ""
        raise InputError(
            f"RUN must be the folder of a method in a run, runs/NAME/METHOD, got {folder} "
            f"without config.yaml above it.{hint}"
        )
    return config_of_run(folder.parent)


def config_of_run(run: Path) -> Config:
    """The configuration of a run folder, whose name and place are those that it has now.

    Args:
        run: the run folder; errors and results name it as it is given.
    """
    given = read_config(run / "config.yaml")
    config = dataclasses.replace(given, name=run.name, output=str(run.parent))
    config.use_synthetic()
    return config


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads the configuration of a run; see `read_yaml`."""
    return read_yaml(Config, path, overrides)


def configure(source: str | Path = "", **changes: Any) -> Config:
    """The configuration of a run, for use from Python.

    Args:
        source: a name in `configs/`, such as `demo`, or a YAML file; by default all defaults.
        changes: keys in place of those of the file, nested as there:
            ``configure("demo", name="mine", train={"steps": 500})``.

    Raises:
        InputError: no such configuration, an unknown key, or a value of the wrong type.
    """
    return read_changed(Config, named(source, configs_folder()) if source else None, changes)
