"""Settings: frozen pydantic models, read from TOML presets and ``--set a.b=v``; unknown names are refused."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from speechssl.errors import ConfigError


class Settings(BaseModel):
    """Base of every settings class: immutable, unknown names, infinities and NaN refused, defaults validated too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


S = TypeVar("S", bound=Settings)
Table = dict[str, Any]


def preset_names() -> list[str]:
    """Names of the presets that ship with the package, sorted."""
    folder = resources.files("speechssl") / "presets"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def read_preset(name_or_path: str | Path) -> Table:
    """Tables of a shipped preset (``tiny``) or of a TOML file of the user's own (``my.toml``).

    Raises:
        ConfigError: no such preset or file, or not TOML.
    """
    name = str(name_or_path)
    if name in preset_names():
        text = (resources.files("speechssl") / "presets" / f"{name}.toml").read_text(
            encoding="utf-8"
        )
    else:
        path = Path(name)
        if path.suffix != ".toml" or not path.is_file():
            raise ConfigError(
                f"no preset {name!r}: give {', '.join(preset_names())} or the path of a .toml file"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name} cannot be read as UTF-8 text: {error}") from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from error


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """``base`` with the values of ``over`` laid on top, table by table; neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged


def parse_overrides(assignments: Iterable[str]) -> Table:
    """``["optim.lr=1e-3", "batch.seconds=60"]`` as nested tables; a value that is not TOML is taken as a string.

    Raises:
        ConfigError: an assignment without ``=`` or with an empty name.
    """
    table: Table = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set takes name=value such as optim.lr=0.001, not {assignment!r}")
        nested: Any = _toml_value(text.strip())
        for key in reversed(keys):
            nested = {key: nested}
        table = merge(table, nested)
    return table


def _toml_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break could smuggle in further names, which would then be dropped without a word.
    return parsed["value"] if len(parsed) == 1 else text


def build(kind: type[S], table: Mapping[str, Any]) -> S:
    """Validated settings of class ``kind``.

    Raises:
        ConfigError: one line that names the first wrong setting, what was given, and the nearest known name.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] != "extra_forbidden":
            # A rule between settings has the whole table as its input: its own message says what was given.
            given = "" if isinstance(first["input"], Mapping) else f" (given: {first['input']!r})"
            raise ConfigError(f"setting {name or kind.__name__}: {first['msg']}{given}") from error
        known = _known_names(kind, "")
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown setting {name!r}: did you mean {nearest!r}?") from error


def _known_names(kind: type[BaseModel], prefix: str) -> list[str]:
    names = []
    for name, field in kind.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            names += _known_names(below, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def as_table(settings: BaseModel) -> Table:
    """Plain JSON-ready values, for run folders and checkpoints."""
    return settings.model_dump(mode="json")
