"""What decides a run: defaults, then a preset or a continued model, then what the user changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field

from speechssl.config import Settings, Table, as_table, build, merge, preset_names, read_preset
from speechssl.encoder.config import EncoderConfig
from speechssl.errors import ConfigError
from speechssl.training.setting_names import USUAL_NAMES, with_current_names

# The tables that a preset may hold: the shape of the encoder, and the settings of each kind of run.
PRESET_TABLES = ("encoder", "finetune", "pretrain")


class RunSettings(Settings):
    """What every kind of run has: the preset that it started from, and an encoder."""

    usual_names = USUAL_NAMES

    preset_table: ClassVar[str]
    """The table of a preset that is meant for this kind of run."""

    preset: str = Field("tiny", description="where the other settings started from")
    encoder: EncoderConfig = EncoderConfig()


S = TypeVar("S", bound=RunSettings)


def resolve_settings(
    kind: type[S], preset: str, overrides: Mapping[str, Any], encoder: Table | None = None
) -> S:
    """Lay a preset over the defaults, and ``overrides`` over both.

    Args:
        kind: class of the settings.
        preset: name of a preset or path of a .toml file.
        overrides: nested tables of the user's settings.
        encoder: shape of a model that is continued, in place of the preset's; None = the preset's.

    Raises:
        ConfigError: unknown preset or setting, or the preset among the ``overrides``.
    """
    if "preset" in overrides:
        raise ConfigError(
            "preset decides what the other settings start from: "
            "give --preset instead of --set preset"
        )

    tables = read_preset(preset)
    _check_tables(preset, tables)

    # An encoder table is complete or replaced as a whole: half of BASE and half of a preset would
    # be neither.
    shape = tables.get("encoder", {}) if encoder is None else encoder
    whole_shape = as_table(build(EncoderConfig, shape))

    resolved = as_table(kind(preset=preset))
    resolved = merge(resolved, with_current_names(tables.get(kind.preset_table, {})))
    resolved = merge(resolved, {"encoder": whole_shape})
    resolved = merge(resolved, with_current_names(overrides))
    return build(kind, resolved)


def _check_tables(preset: str, tables: Table) -> None:
    """See that a preset holds nothing but the tables that are known.

    Raises:
        ConfigError: names the first that is not.
    """
    for name in sorted(tables):
        if name not in PRESET_TABLES or not isinstance(tables[name], dict):
            allowed = list(PRESET_TABLES)
            raise ConfigError(
                f"preset {preset}: {name!r} is no table of a preset, allowed are {allowed}"
            )


def preset_of(record: Table) -> str:
    """The preset that a model was made with, as its record says.

    Raises:
        ConfigError: it was a file, and is not there.
    """
    name = str(record.get("about", {}).get("preset", "tiny"))

    if name not in preset_names() and not Path(name).is_file():
        raise ConfigError(
            f"the model was made with the preset {name}, which is not there: give one as --preset"
        )
    return name
