"""Changes of the training samples that leave their class as it is."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.errors import InputError
from weather_tdr.photographs import Strong, crop_flip, shift

log = logging.getLogger(__name__)
Augmentation = Literal["none", "shift", "crop_flip", "strong", "mirror"]
Augment = Callable[[Tensor, torch.Generator], Tensor]
# What changes sign between the hemispheres, by CF standard name or else by usual short name.
ODD_NAMES = (  # a part of the standard name, or of a name in the file
    "northward", "vorticity", "y_wind", "v_component", "v component", "meridional",
    "streamfunction", "stream_function", "y_stress", "vwind", "vwnd", "v_wind",
)  # fmt: skip
ODD_SHORT = ("v", "vo", "vas", "vort", "pv", "rv", "va")  # without the level, such as vo850


@dataclass(frozen=True)
class Mirror:
    """Each patch as it is, or as it would be in the other hemisphere.

    North and south change places, and what is odd (northward wind, vorticity unless
    `fields.hemisphere_sign` has made it even) changes its sign.

    Attributes:
        odd: whether each variable is odd, shape (variable,).
        offset: 2 x mean / standard deviation of each variable: patches are normalised.
    """

    odd: Tensor
    offset: Tensor

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Patches of shape (n, variable, y, x), normalised; each mirrored with probability 1/2."""
        chosen = (torch.rand(len(patches), generator=generator) < 0.5).to(patches.device)
        turned = patches.flip(2)
        shape = (1, -1, 1, 1)
        odd = self.odd.to(patches.device).reshape(shape)
        offset = self.offset.to(patches.device, patches.dtype).reshape(shape)
        turned = torch.where(odd, -turned - offset, turned)
        return torch.where(chosen[:, None, None, None], turned, patches)


def is_odd(name: str, standard_name: str) -> bool:
    """Whether a variable changes its sign between the hemispheres.

    Args:
        name: in the file, such as ``v10`` or ``V_850``.
        standard_name: of CF; counts alone where there is one.
    """
    plain = name.casefold()
    if standard_name and standard_name != "unknown":
        return any(part in standard_name.casefold() for part in ODD_NAMES)
    short = re.sub(r"^\d+m?_?|[_-]?\d+(m|n|hpa|mb|pa)?$", "", plain)
    return short in ODD_SHORT or any(part in plain for part in ODD_NAMES)


def refuse_augmentation(name: Augmentation, *, of_images: bool, whole_field: bool) -> None:
    """Refuses a `train.augment` that would change the class of such patches.

    Args:
        name: of the change.
        of_images: the patches are images, and not of fields.
        whole_field: a patch is the whole field of one region.

    Raises:
        InputError: with what to use instead.
    """
    if name == "none":
        return
    if name != "mirror" and not of_images:
        raise InputError(
            f"`train.augment` must not be {name} for fields, got it: incidents lie in the "
            "central cell, east and west are not alike, and values are no colours. Use "
            "`mirror` or `none`."
        )
    if name == "mirror" and (of_images or whole_field):
        raise InputError(
            "`train.augment: mirror` is for patches of fields, got "
            f"{'images' if of_images else 'the whole field of one region'}. Use `none`."
        )


def augmentation(name: Augmentation, store: xr.Dataset) -> Augment | None:
    """What `train.augment` means for the patches of a store.

    Raises:
        InputError: it would change their class.
    """
    grid = store.attrs["grid"]
    refuse_augmentation(
        name, of_images="dlat" not in grid, whole_field=bool(grid.get("whole_field"))
    )
    if name == "none":
        return None
    mean, std = (store[k].to_numpy() for k in ("mean", "std"))
    if name != "mirror":
        if name == "shift":
            return shift
        dataset = store.attrs.get("settings", {}).get("images", {}).get("dataset", "")
        if dataset in ("mnist", "digits"):
            log.warning(
                "`train.augment: %s` mirrors images: mirrored digits are no digits. Use `%s`.",
                name, "shift" if dataset == "mnist" else "none",
            )  # fmt: skip
        if name == "crop_flip":
            return crop_flip
        return Strong(torch.from_numpy(mean), torch.from_numpy(std))
    even = store.attrs["settings"].get("fields", {}).get("hemisphere_sign", [])
    base, standard = (store[k].to_numpy().astype(str) for k in ("base_variable", "standard_name"))
    odd = np.array([b not in even and is_odd(b, s) for b, s in zip(base, standard, strict=True)])
    changed = ", ".join(dict.fromkeys(base[odd])) or "no variable"
    log.info("mirrored patches: north for south; %s changes its sign", changed)
    return Mirror(torch.from_numpy(odd), torch.from_numpy(2.0 * mean / std))
