"""Which trainings are refused, told from the configuration alone."""

from data_pipelines.errors import InputError
from data_pipelines.groups import Grouping
from data_pipelines.schema import LABELS
from weather_tdr.augment import refuse_augmentation
from weather_tdr.config import Config
from weather_tdr.methods.method import Method, load_method
from weather_tdr.plan import check_batch


def training_errors(config: Config) -> list[InputError]:
    """Why the training of a run would be refused, whatever its patch store holds."""
    errors = []
    try:
        refuse_augmentation(
            config.train.augment,
            of_images=config.of_images,
            whole_field=config.patches.whole_field,
        )
    except InputError as error:
        errors.append(error)
    for method in map(load_method, config.train.methods):
        try:
            check_batch(method, config.train.batch, _groups(config, method))
        except InputError as error:
            errors.append(error)
    return errors


def refuse_training(config: Config) -> None:
    """Refuses a training that cannot be, before anything is built or written.

    Raises:
        InputError: the first of `training_errors`.
    """
    for error in training_errors(config):
        raise error


def _groups(config: Config, method: Method) -> int:
    """How many groups a method's weights belong to; detectors have two classes."""
    if config.of_images or method.weights_per == "class":
        return len(LABELS)
    return len(Grouping(config.groups).names)
