"""The options of the recipes: values stay data, unknown options stop, stages are chosen."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.places import ROOT

COMMON = ROOT / "recipes" / "common.sh"
BASH = shutil.which("bash")
RECIPE = f"""
. '{COMMON}'
option preset tiny "preset of pretraining"
option max_steps 10 "steps"
parse_options "$@"
if stage 1 "first"; then echo one; fi
if stage 2 "second"; then echo two; fi
if stage 3 "third"; then echo three; fi
printf '<%s>' "$preset" "$max_steps" "$data" "$exp"
"""

pytestmark = pytest.mark.skipif(BASH is None, reason="RECIPES NOT TESTED: no bash")


def run(cwd: Path, *arguments: str, recipe: str = RECIPE) -> subprocess.CompletedProcess[str]:
    script = cwd / "run.sh"
    script.write_text(recipe)
    return subprocess.run(
        [str(BASH), str(script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_defaults_and_given_values(tmp_path: Path) -> None:
    assert run(tmp_path).stdout.endswith("<tiny><10><data><exp>")
    done = run(tmp_path, "--max-steps", "20", "--preset", "base", "--data", "/a b", "--exp", "")
    assert done.returncode == 0
    assert done.stdout.endswith("<base><20></a b><>")


@pytest.mark.parametrize(
    "given",
    ["--presett", "--path", "--PATH", "--option-names", "preset", "--", "--preset=x", "-x", ""],
)
def test_an_unknown_option_lists_the_known_ones(tmp_path: Path, given: str) -> None:
    done = run(tmp_path, given, "value")
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"unknown option '{given}'" in done.stderr
    for known in ("--stage", "--stop-stage", "--data", "--exp", "--preset", "--max-steps"):
        assert known in done.stderr


def test_an_option_without_a_value(tmp_path: Path) -> None:
    done = run(tmp_path, "--preset")
    assert done.returncode == 2
    assert "needs a value" in done.stderr


def test_help_goes_to_standard_output(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert "--max-steps" in done.stdout
    assert "steps (default: 10)" in done.stdout


HOSTILE = [
    "$(touch x)",
    "`touch x`",
    "; touch x",
    "a[$(touch x)]",
    "' ; touch x #",
    '"; touch x #',
    "*",
    "\\n %s",
    "$HOME",
    "-n",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_only_data(tmp_path: Path, value: str) -> None:
    done = run(tmp_path, "--preset", value, "--data", value)
    assert done.returncode == 0
    assert done.stdout.endswith(f"<{value}><10><{value}><exp>")
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


@pytest.mark.parametrize(
    "name", ["$(touch x)", "preset[$(touch x)]", "a; touch x", "preset\ntouch x"]
)
def test_a_hostile_name_is_unknown(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, f"--{name}", "value").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


@pytest.mark.parametrize("option", ["--stage", "--stop-stage"])
@pytest.mark.parametrize("value", ["a[$(touch x)]", "two", "", "-1", "1 + 1", "1\ntouch x"])
def test_a_stage_is_a_whole_number(tmp_path: Path, option: str, value: str) -> None:
    done = run(tmp_path, option, value)
    assert done.returncode == 2
    assert "takes a whole number" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


@pytest.mark.parametrize(
    "value", ["a[$(touch x)]", "0", "two", "", "-1", "1.5", "1 + 1", "1\ntouch x"]
)
def test_what_is_counted_with_is_a_whole_number(tmp_path: Path, value: str) -> None:
    recipe = RECIPE.replace(
        'parse_options "$@"', 'parse_options "$@"\nwhole max_steps\necho $((max_steps + 1))'
    )
    done = run(tmp_path, "--max-steps", value, recipe=recipe)
    assert done.returncode == 2
    assert "'--max-steps' takes a whole number above 0" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]
    assert run(tmp_path, "--max-steps", "41", recipe=recipe).stdout.startswith("42\n")


def test_each_system_is_told_of_by_itself_and_none_fails_unseen(tmp_path: Path) -> None:
    (tmp_path / "say").write_text(
        'echo "$1 begins"; sleep "0.$2"; echo "$1 ends"; [[ $1 != *b* || $3 == all ]]\n'
    )
    head = f". '{COMMON}'\nparse_options\nsystems=('a a' b '{{}}$(touch x)')\n"
    for which, code in (("all", 0), ("but b", 1)):
        done = run(tmp_path, recipe=f"{head}each bash say {{}} 2 '{which}'\necho after\n")
        assert done.returncode == code, done.stderr
        assert done.stdout == ("" if code else "after\n")
        said = [line for line in done.stderr.splitlines() if "begins" in line or "ends" in line]
        assert said == [
            f"{name} {what}" for name in ("a a", "b", "{}$(touch x)") for what in ("begins", "ends")
        ]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "stages"),
    [
        ([], ["one", "two", "three"]),
        (["--stage", "2"], ["two", "three"]),
        (["--stop-stage", "2"], ["one", "two"]),
        (["--stage", "2", "--stop-stage", "02"], ["two"]),
        (["--stage", "08"], []),
    ],
)
def test_stages(tmp_path: Path, arguments: list[str], stages: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 0
    assert done.stdout.splitlines()[:-1] == stages
    assert len(done.stderr.splitlines()) == len(stages)


def test_a_failing_stage_stops_the_recipe(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        recipe=f". '{COMMON}'\nparse_options\n"
        "if stage 1 first; then\n  false\n  echo on\nfi\necho after\n",
    )
    assert done.returncode == 1
    assert done.stdout == ""


def test_log_writes_the_time_to_standard_error(tmp_path: Path) -> None:
    done = run(tmp_path, recipe=f". '{COMMON}'\nlog 'a %s b'\n")
    assert done.stdout == ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d a %s b\n", done.stderr)
