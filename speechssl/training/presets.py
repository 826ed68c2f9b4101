"""What decides a run: defaults, then a preset or the model that is continued, then what the user changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from speechssl.config import Table, as_table, build, merge, preset_names, read_preset
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import ConfigError
from speechssl.pretraining.settings import PretrainSettings
from speechssl.recognition.settings import FinetuneSettings

S = TypeVar("S", PretrainSettings, FinetuneSettings)


def resolve_settings(kind: type[S], preset: str, overrides: Mapping[str, Any], encoder: Table | None = None) -> S:
    """Defaults, then the preset (or the ``encoder`` of a model that is continued), then ``overrides``.

    Raises:
        ConfigError: unknown preset or setting, or the preset among the ``overrides``.
    """
    tables = read_preset(preset)
    known = {"encoder", "pretrain", "finetune"}
    wrong = sorted(name for name, table in tables.items() if name not in known or not isinstance(table, dict))
    if wrong:
        raise ConfigError(f"preset {preset}: {wrong[0]!r} is no table of a preset, allowed are {sorted(known)}")
    own = tables.get("pretrain" if kind is PretrainSettings else "finetune", {})
    if "preset" in overrides:
        raise ConfigError("preset decides what the other settings start from: give --preset instead of --set preset")
    defaults = as_table(kind(preset=preset))
    # An encoder table is complete or replaced as a whole: half of BASE and half of a preset would be neither.
    shape = as_table(build(EncoderConfig, encoder if encoder is not None else tables.get("encoder", {})))
    table = merge(merge(merge(defaults, own), {"encoder": shape}), overrides)
    return build(kind, table)


def _made_with(record: Table) -> str:
    """The preset of a model.

    Raises:
        ConfigError: it was a file, and is not there.
    """
    name = str(record.get("about", {}).get("preset", "tiny"))
    if name not in preset_names() and not Path(name).is_file():
        raise ConfigError(f"the model was made with the preset {name}, which is not there: give one as --preset")
    return name
