"""Settings: what is not known is refused with the nearest name; presets, overrides and merging."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from speechssl.config import (
    Settings,
    as_table,
    build,
    merge,
    parse_overrides,
    preset_names,
    read_preset,
)
from speechssl.errors import ConfigError
from speechssl.storage.json_text import as_json


class Inner(Settings):
    learning_rate: float = Field(0.1, gt=0)
    kind: Literal["one", "two"] = "one"


class Outer(Settings):
    inner: Inner = Inner()
    sizes: tuple[int, ...] = (1, 2)
    limit: float | None = None

    @model_validator(mode="after")
    def _limited(self) -> "Outer":
        if self.limit is not None and len(self.sizes) > self.limit:
            raise ValueError("more sizes than limit")
        return self


def test_values_are_validated_and_frozen() -> None:
    settings = build(Outer, {"inner": {"kind": "two"}, "sizes": [3]})
    assert settings == Outer(inner=Inner(kind="two"), sizes=(3,))
    with pytest.raises(ValidationError, match="frozen"):
        settings.limit = 1.0  # type: ignore[misc]


def test_settings_survive_json() -> None:
    settings = build(Outer, {"inner": {"learning_rate": 1 / 3}, "limit": 7})
    assert build(Outer, json.loads(as_json(as_table(settings)))) == settings


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"iner": {}}, "unknown setting 'iner': did you mean 'inner"),
        (
            {"inner": {"learning_rat": 1}},
            "'inner.learning_rat': did you mean 'inner.learning_rate'",
        ),
        (
            {"inner": {"learning_rate": -1}},
            r"setting inner.learning_rate: .*greater than 0.*given: -1",
        ),
        (
            {"inner": {"learning_rate": "fast"}},
            r"setting inner.learning_rate: .*number.*given: 'fast'",
        ),
        ({"inner": {"kind": "three"}}, r"setting inner.kind: .*'one' or 'two'"),
        ({"inner": {"learning_rate": float("inf")}}, r"setting inner.learning_rate: .*finite"),
        ({"inner": {"learning_rate": float("nan")}}, r"setting inner.learning_rate"),
        ({"inner": 3}, r"setting inner: .*given: 3"),
        ({"limit": 1}, "^setting Outer: Value error, more sizes than limit$"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        build(Outer, table)
    assert "\n" not in str(caught.value)


def test_overrides_take_toml_values_and_otherwise_strings() -> None:
    assert parse_overrides(
        ["a.b=1e-3", "a.c = true", "d=bfloat16", "e=[1, 2]", "f=x=y", "g={h=1}", "a.b=2"]
    ) == {
        "a": {"b": 2, "c": True},
        "d": "bfloat16",
        "e": [1, 2],
        "f": "x=y",
        "g": {"h": 1},
    }


def test_an_override_never_sets_a_second_name_nor_loses_one() -> None:
    assert parse_overrides(["a=1\nb=2"]) == {"a": "1\nb=2"}


@pytest.mark.parametrize("wrong", ["a", "=1", "a.=1", ".a=1", "a..b=1", ""])
def test_a_malformed_override_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="--set takes name=value"):
        parse_overrides([wrong])


tables = st.recursive(
    st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@given(tables, tables)
def test_merge_lays_one_table_over_another_and_changes_neither(base: Any, over: Any) -> None:
    before = json.dumps([base, over])
    merged = merge(base, over)
    assert json.dumps([base, over]) == before
    assert set(merged) == set(base) | set(over)
    for key, value in merged.items():
        if key not in over:
            assert value == base[key]
        elif isinstance(over[key], dict) and isinstance(base.get(key), dict):
            assert value == merge(base[key], over[key])
        else:
            assert value == over[key]
    assert merge(base, {}) == base
    assert merge(base, base) == base


def test_presets_are_found_by_name_and_files_by_path(tmp_path: Path) -> None:
    assert {"tiny", "small", "base", "large"} <= set(preset_names())
    for name in preset_names():
        assert "encoder" in read_preset(name)
    path = tmp_path / "mine.toml"
    path.write_text('[train]\nsteps = 3\nname = "é"\n', encoding="utf-8")
    assert read_preset(path) == {"train": {"steps": 3, "name": "é"}}


def test_presets_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no preset 'huge': give base, .*tiny.* or the path of a \.toml file"
    ):
        read_preset("huge")
    with pytest.raises(ConfigError, match="no preset"):
        read_preset(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_preset(tmp_path / "broken.toml")
    (tmp_path / "latin.toml").write_bytes('a = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as UTF-8"):
        read_preset(tmp_path / "latin.toml")
