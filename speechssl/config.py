"""Settings: frozen pydantic models, read from TOML presets and ``--set a.b=v``.

A name that is not known is refused, never ignored.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from speechssl.errors import ConfigError
from speechssl.storage.text_files import read_text

# Settings as nested tables, as TOML and JSON hold them.
Table = dict[str, Any]

# The folder of the presets that ship with the package.
_PRESETS = resources.files("speechssl") / "presets"


class Settings(BaseModel):
    """Base of every settings class.

    Its objects cannot be changed. Unknown names, infinities and NaN are refused; defaults are
    validated too.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    usual_names: ClassVar[Mapping[str, str]] = {}
    """What other toolkits call a setting, and its name here: for messages."""


S = TypeVar("S", bound=Settings)


def preset_names() -> list[str]:
    """List the presets that ship with the package, sorted."""
    names = []
    for file in _PRESETS.iterdir():
        name, _, suffix = file.name.rpartition(".")
        if suffix == "toml":
            names.append(name)

    return sorted(names)


def read_preset(name_or_path: str | Path) -> Table:
    """Read a shipped preset (``tiny``) or a TOML file of the user's own (``my.toml``).

    Raises:
        ConfigError: no such preset or file, or not TOML.
    """
    name = str(name_or_path)

    if name in preset_names():
        file = _PRESETS / f"{name}.toml"
        text = file.read_text(encoding="utf-8")
    else:
        text = _read_own_preset(name)

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from error


def _read_own_preset(name: str) -> str:
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        known = ", ".join(preset_names())
        raise ConfigError(f"no preset {name!r}: give {known} or the path of a .toml file")

    return read_text(path, "UTF-8 text")


def parse_overrides(assignments: Iterable[str]) -> Table:
    """Turn ``["optim.lr=1e-3", "batch.seconds=60"]`` into nested tables.

    A value that is not TOML is taken as a string. Of two values for one name the later one counts.

    Raises:
        ConfigError: an assignment without ``=`` or with an empty name.
    """
    table: Table = {}

    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        keys = name.strip().split(".")
        is_named = all(keys)
        if not equals or not is_named:
            raise ConfigError(f"--set takes name=value such as optim.lr=0.001, not {assignment!r}")

        # From the innermost key outwards: a.b=1 becomes {"b": 1}, then {"a": {"b": 1}}.
        nested: Any = _toml_value(text.strip())
        for key in reversed(keys):
            nested = {key: nested}

        table = merge(table, nested)

    return table


def _toml_value(text: str) -> Any:
    """Return the value that ``text`` is in TOML, or ``text`` itself."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text

    # A line break could bring further names with it, which would then be dropped without a word.
    has_further_names = len(parsed) > 1
    return text if has_further_names else parsed["value"]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Table:
    """Lay the values of ``over`` on top of ``base``, table by table; neither is changed."""
    merged = dict(base)

    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value

    return merged


def build(kind: type[S], table: Mapping[str, Any], saved_in: Path | None = None) -> S:
    """Validate a table as settings of class ``kind``.

    Args:
        saved_in: the file that holds them, where no user wrote them: another version of speechssl
            may know other settings.

    Raises:
        ConfigError: one line that names the first wrong setting, what was given, and for an unknown
            name the nearest known one.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        message = _what_is_wrong(kind, error)
        if saved_in is not None:
            message = f"{saved_in}: {message}; read it with the version of speechssl that wrote it"
        raise ConfigError(message) from error


def _what_is_wrong(kind: type[Settings], error: ValidationError) -> str:
    """Describe the first wrong setting in one line."""
    first, *_ = error.errors()
    name = ".".join(map(str, first["loc"]))

    if first["type"] == "extra_forbidden":
        return f"unknown setting {name!r}: {_meant_by(kind, name, first['input'])}"

    # A rule between settings has the whole table as its input: its own message says what was given.
    value = first["input"]
    is_rule_between = isinstance(value, Mapping)
    given = "" if is_rule_between else f" (given: {value!r})"
    setting = name or kind.__name__
    message = first["msg"]
    return f"setting {setting}: {message}{given}"


def _meant_by(kind: type[Settings], name: str, value: Any) -> str:
    """Say which setting or table of settings an unknown name may mean, or which there are.

    Args:
        value: what was given for it: a table where the name is that of a table.
    """
    known = _known_names(kind)
    tables = list(dict.fromkeys(setting.rpartition(".")[0] for setting in known if "." in setting))

    if isinstance(value, Mapping):
        nearest_table = difflib.get_close_matches(name, tables, n=1)
        if nearest_table:
            return f"did you mean {nearest_table[0]!r}?"

    # Other toolkits have tables of their own before the name, such as model.optim.lr.
    while isinstance(value, Mapping) and value:
        below, value = next(iter(value.items()))
        name = f"{name}.{below}"
    table, _, last = name.rpartition(".")

    usual = {other: setting for other, setting in kind.usual_names.items() if setting in known}
    by_last = {setting.rpartition(".")[2]: setting for setting in [*tables, *reversed(known)]}
    meant = usual | by_last
    if last in meant:
        return f"did you mean {meant[last]!r}?"

    here = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == table}
    candidates = here if table in tables else by_last
    nearest = difflib.get_close_matches(last, candidates, n=1)
    if nearest:
        return f"did you mean {candidates[nearest[0]]!r}?"

    # A bad guess would hide that there is nothing of the kind.
    if table in tables:
        return f"{table} has {', '.join(here)}"
    return f"there are {', '.join(tables or known)}"


def _known_names(kind: type[BaseModel]) -> list[str]:
    """List the names of all settings of a class, and of the classes inside, such as "optim.lr"."""
    names = []

    for name, field in kind.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel):
            names += [f"{name}.{name_below}" for name_below in _known_names(below)]
        else:
            names.append(name)

    return names


def as_table(settings: BaseModel) -> Table:
    """Turn settings into plain JSON values, for run folders and checkpoints."""
    return settings.model_dump(mode="json")
