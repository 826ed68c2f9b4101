"""What a probe can ask, and of which store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from speechssl.errors import ConfigError

ProbeTarget = Literal["characters", "keyword", "digit", "speaker"]

# What each target asks, and what it is measured on.
PROBE_TARGETS: Mapping[ProbeTarget, str] = {
    "characters": "a linear CTC of the transcripts; "
    "character error rate on split dev, or 10 minutes of it",
    "keyword": "the first folder of each recording; "
    "error on a quarter of the recordings of split train",
    "digit": "the whole transcript as one class; error on split dev",
    "speaker": "the speaker; error on a quarter of the recordings of split train",
}


# What is written of a probe.
PROBE_JSON = "probe.json"
PROBE_PNG = "probe.png"


def probe_stores(probes: Sequence[str]) -> dict[ProbeTarget, Path]:
    """Read what the user wants to probe: ``TARGET=STORE`` each.

    Raises:
        ConfigError: another form, or a target that is given twice.
    """
    stores: dict[ProbeTarget, Path] = {}

    for given in probes:
        name, _, path = given.partition("=")
        target = next((target for target in PROBE_TARGETS if target == name), None)

        if target is None or not path:
            forms = ", ".join(f"{target}=STORE" for target in PROBE_TARGETS)
            raise ConfigError(f"a probe is {forms}, not {given!r}")
        if target in stores:
            raise ConfigError(f"{target} is asked of two stores: give one of them")
        stores[target] = Path(path)

    return stores
