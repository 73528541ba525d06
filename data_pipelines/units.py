"""Units as files write them, and the SI units in which everything is read."""

import re

# symbol -> (SI symbol, factor); words of two letters or more in any case
SYMBOLS = {
    "m": ("m", 1.0),
    "mm": ("m", 1e-3),
    "cm": ("m", 1e-2),
    "km": ("m", 1e3),
    "dam": ("m", 10.0),
    "gpm": ("m", 1.0),
    "gpdam": ("m", 10.0),
    "s": ("s", 1.0),
    "sec": ("s", 1.0),
    "min": ("s", 60.0),
    "h": ("s", 3_600.0),
    "d": ("s", 86_400.0),
    "kg": ("kg", 1.0),
    "g": ("kg", 1e-3),
    "K": ("K", 1.0),
    "pa": ("Pa", 1.0),
    "hpa": ("Pa", 100.0),
    "kpa": ("Pa", 1e3),
    "mb": ("Pa", 100.0),
    "J": ("J", 1.0),
    "N": ("N", 1.0),
    "W": ("W", 1.0),
}
# words, also with an `s` at the end -> symbol
WORDS = {
    "meter": "m",
    "metre": "m",
    "millimeter": "mm",
    "millimetre": "mm",
    "kilometer": "km",
    "kilometre": "km",
    "second": "s",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "day": "d",
    "kelvin": "K",
    "degk": "K",
    "pascal": "pa",
    "hectopascal": "hpa",
    "kilopascal": "kpa",
    "millibar": "mb",
    "mbar": "mb",
}
# what is more than a factor, or holds only on its own -> (SI unit, factor, offset)
KNOT = ("m s-1", 1852.0 / 3600.0, 0.0)
CELSIUS = ("K", 1.0, 273.15)
ALONE = {
    **dict.fromkeys(("kt", "kts", "knot", "knots"), KNOT),
    **dict.fromkeys(
        ("c", "°c", "degc", "deg_c", "deg c", "degree_c", "degrees_c", "degree c", "degrees c",
         "celsius", "degree_celsius", "degrees_celsius", "degree celsius", "degrees celsius"),
        CELSIUS,
    ),
    **dict.fromkeys(("deg_k", "degree_k", "degrees_k", "degree_kelvin", "degrees_kelvin"),
                    ("K", 1.0, 0.0)),
}  # fmt: skip
# Converted since the first release: stores of them do not say that they were.
FIRST = frozenset(
    ("hpa", "mb", "mbar", "millibar", "millibars",
     "degc", "celsius", "degree_celsius", "degrees_celsius")
)  # fmt: skip


def si_units(units: str) -> tuple[str, float, float]:
    """SI units, with the factor and the offset that lead to them.

    ``mm/day`` and ``mm d**-1`` become ``m s-1``: each part keeps its place, so that an amount stays
    an amount, a rate a rate, and a depth of water no mass. Units with an unknown part stay as
    they are, but for their exponents: ``s**-1`` and ``s^-1`` are ``s-1``.
    """
    plain = units.strip().replace("**", "").replace("^", "")
    if plain.lower() in ALONE:
        return ALONE[plain.lower()]
    factor, parts = 1.0, []
    given = re.split(r"[\s.*·]+", re.sub(r"\s*/\s*", " /", plain))
    for part in given[1:] if given[0] == "1" and len(given) > 1 else given:  # 1/s is s-1
        met = re.fullmatch(r"(/?)([A-Za-z]+)(-?[1-9])?", part)
        known = _symbol(met[2]) if met else None
        if met is None or known is None:
            return plain, 1.0, 0.0
        power = int(met[3] or 1) * (-1 if met[1] else 1)
        symbol, size = known
        factor *= size**power
        parts.append(symbol if power == 1 else f"{symbol}{power}")
    return " ".join(parts), factor, 0.0


def _symbol(text: str) -> tuple[str, float] | None:
    """SI symbol and factor of a symbol or word; one letter means another in capitals."""
    lower = text.lower() if len(text) > 1 else text
    word = WORDS.get(lower) or WORDS.get(lower.removesuffix("s"))
    return SYMBOLS.get(word or lower)


def newly_converted(units: str) -> bool:
    """Whether values in these units are converted, and were not in the first release."""
    return si_units(units)[1:] != (1.0, 0.0) and units.strip().lower() not in FIRST
