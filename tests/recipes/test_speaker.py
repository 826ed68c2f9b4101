"""Which commands the recipes kathleen and kerstin give, with commands that only write them down."""

import os
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from support.places import ROOT

# Writes down its arguments, and makes the files that the recipes look for.
SPEECHSSL = """#!/usr/bin/env bash
set -eu
printf '%q ' "$@" >>"$CALLS"
echo >>"$CALLS"
options=("$@")
for ((i = 0; i < $#; i++)); do
    case ${options[i]} in
        --out) out=${options[i + 1]} ;;
        --run) run=${options[i + 1]} ;;
        --unlabelled) second=yes ;;
    esac
done
case $1 in
    lm | lexicon) mkdir -p "$(dirname "$out")" && echo "${options[*]}" >"$out" ;;
    finetune)
        mkdir -p "$run/model"
        if [[ ${second-} ]]; then mkdir -p "$run-first/model/lm"; fi ;;
    tune-lm) if [[ -e $2/lm ]]; then exit 3; else mkdir "$2/lm"; fi ;;
    evaluate) mkdir -p "$out/lm" && touch "$out/score.json" "$out/lm/score.json" ;;
    compare) printf '%s\\n' "${@:2}" ;;
esac
"""
# The tools: the chosen texts, and a GMM-HMM that writes its evaluation.
PYTHON = """#!/usr/bin/env bash
set -eu
printf '%q ' "$(basename -- "$1")" "${@:2}" >>"$CALLS"
echo >>"$CALLS"
case "$(basename -- "$1") ${2-}" in
    "sphinx_peer.py train") mkdir -p "$4" && touch "$4/peer.json" ;;
    "sphinx_peer.py evaluate") mkdir -p "$5" && touch "$5/score.json" ;;
esac
"""


def run(
    folder: Path, recipe: str, *options: object
) -> tuple["subprocess.CompletedProcess[str]", list[list[str]]]:
    """The recipe, and the commands that it gave."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, script in (("speechssl", SPEECHSSL), ("python", PYTHON)):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    calls = folder / "calls"
    calls.write_text("")

    done = subprocess.run(
        ["bash", ROOT / "recipes" / recipe / "run.sh", "--exp", "exp", *map(str, options)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ
        | {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "CALLS": str(calls)},
        check=False,
    )
    return done, [shlex.split(line) for line in calls.read_text().splitlines()]


def option(call: list[str], name: str) -> str:
    return call[call.index(name) + 1]


def settings_of(call: list[str]) -> dict[str, str]:
    """What --set says in a command."""
    given = [call[at + 1] for at, part in enumerate(call) if part == "--set"]
    return dict(part.split("=", 1) for part in given)


class Ran(NamedTuple):
    calls: list[list[str]]
    printed: str


@pytest.fixture(scope="module", params=["kathleen", "kerstin"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Either recipe from end to end: both have the same systems."""
    options = ("--lexicon", "words.dict", "--text", "books.txt.xz", "--few-steps", 100)
    options += ("--seed", 3, "--few-minutes", 10)
    done, calls = run(tmp_path_factory.mktemp("speaker"), request.param, *options)
    assert done.returncode == 0, done.stderr
    return Ran(calls, done.stdout)


def test_lexicons_are_extended_without_a_hint(ran: Ran) -> None:
    extended, own = [call for call in ran.calls if call[0] == "lexicon"]
    assert extended[:5] == ["lexicon", "extend", "words.dict", "exp/store", "exp/general.arpa"]
    # Words that only the general text has would be a hint about it.
    assert own[:5] == ["lexicon", "extend", "words.dict", "exp/store", "--most"]


def trainings(ran: Ran) -> dict[str, list[str]]:
    """The fine-tunings, by the folder of their run."""
    return {option(call, "--run"): call for call in ran.calls if call[0] == "finetune"}


def test_each_system_is_trained_once_with_its_start(ran: Ran) -> None:
    trained = trainings(ran)
    assert list(trained) == [
        "exp/few/heard",
        "exp/few/longer",
        "exp/few/pretrained",
        "exp/few/letters",
        "exp/voices-model",
        "exp/few/made",
        "exp/all/phones",
    ]

    starts = {"exp/few/pretrained": "exp/encoder", "exp/few/made": "exp/voices-model"}
    for run_folder, call in trained.items():
        is_few = run_folder.startswith("exp/few")
        assert ("--minutes" in call) == is_few
        assert settings_of(call)["train.seed"] == "3"
        assert option(call, "--preset") == "minutes"
        units = "chars" if run_folder == "exp/few/letters" else "phones:exp/lexicon.txt"
        assert option(call, "--tokenizer") == units
        assert option(call, "--init-from") == starts.get(run_folder, "none")

    steps = {name: settings_of(call)["train.steps"] for name, call in trained.items()}
    assert steps["exp/few/heard"] == "100"
    assert steps["exp/few/longer"] == "200"
    assert option(trained["exp/few/heard"], "--lm") == "exp/general.arpa"


def test_made_voices_have_a_store_of_their_own_and_one_system(ran: Ran) -> None:
    (read,) = [call for call in ran.calls if call[0] == "read_text.py"]
    assert read[1] == "books.txt.xz"

    (of_made,) = [call for call in ran.calls if call[:2] == ["finetune", "exp/voices-store"]]
    assert option(of_made, "--run") == "exp/voices-model"
    assert not any("voices" in part for part in trainings(ran)["exp/few/heard"])


def test_systems_are_measured_with_each_language_model(ran: Ran) -> None:
    # tune-lm failed where a copy of the model still had the language model that helped to hear.
    measured = {option(call, "--out") for call in ran.calls if call[0] == "evaluate"}
    assert measured == {
        *(f"exp/few/heard-first/{lm}" for lm in ("general", "own", "few")),
        *(
            f"exp/few/{name}/general"
            for name in ("heard", "longer", "pretrained", "letters", "made")
        ),
        *(f"exp/all/phones/{lm}" for lm in ("general", "own")),
        *(f"exp/few/heard-first/open-{lm}" for lm in ("general", "own", "few")),
        "exp/few/heard/open-general",
        *(f"exp/all/phones/open-{lm}" for lm in ("general", "own")),
    }

    for call in ran.calls:
        if call[0] == "tune-lm":
            is_open = Path(call[1]).name.startswith("with-open-")
            lm = Path(call[1]).name.removeprefix("with-").removeprefix("open-")
            assert call[2] == f"exp/{lm}.arpa"
            assert ("--unknown-words" in call) == is_open
            assert ("--words" in call) == (is_open and lm != "general")
            assert "--words" not in call or option(call, "--words") == "exp/words.txt"


def test_the_peer_is_measured_with_the_same_language_models(ran: Ran) -> None:
    of_peer = {call[4] for call in ran.calls if call[:2] == ["sphinx_peer.py", "evaluate"]}
    assert of_peer == {
        *(f"exp/few/peer/{lm}" for lm in ("general", "own", "few")),
        *(f"exp/all/peer/{lm}" for lm in ("general", "own")),
    }

    # pocketsphinx reads longer n-grams than three, and uses none of them.
    arpas = {Path(option(call, "--lm")).stem for call in ran.calls if call[1] == "evaluate"}
    assert arpas == {"general-3", "own", "few"}


def test_tables_have_a_row_for_each_system(ran: Ran) -> None:
    tables = ran.printed.split("10 minutes of labels, language model general:\n")[1]
    assert tables.splitlines()[:9] == [
        "phones=exp/few/heard-first/general/lm",
        "phones, other words too=exp/few/heard-first/open-general/lm",
        "phones and unlabelled audio=exp/few/heard/general/lm",
        "the same, other words too=exp/few/heard/open-general/lm",
        "phones, as many updates=exp/few/longer/general/lm",
        "phones, pretrained=exp/few/pretrained/general/lm",
        "letters=exp/few/letters/general/lm",
        "phones, from made voices=exp/few/made/general/lm",
        "GMM-HMM=exp/few/peer/general",
    ]
    assert tables.splitlines()[-4:] == [
        "all labels, language model own:",
        "phones=exp/all/phones/own/lm",
        "phones, other words too=exp/all/phones/open-own/lm",
        "GMM-HMM=exp/all/peer/own",
    ]


def test_without_general_text_the_labelled_minutes_help_to_hear(tmp_path: Path) -> None:
    """The transcripts of the train split are what is to be heard: they must not help."""
    done, calls = run(tmp_path, "kerstin")
    assert done.returncode == 0, done.stderr
    (heard,) = [call for call in calls if "--unlabelled" in call]
    assert option(heard, "--lm") == "exp/few.arpa"
    (made,) = [call for call in calls if call[0] == "lexicon"]
    assert option(made, "--from") == "espeak-ng:de"
    measured = {option(call, "--out") for call in calls if call[0] == "evaluate"}
    assert "exp/few/longer/own" in measured
    # espeak-ng says any word, so it names none.
    assert not any("/open-" in path for path in measured)
    assert not any(path.endswith("/general") for path in measured)


def test_more_words_are_said_with_every_language_model(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "kerstin", "--words", "duden.txt", "--text", "books.txt")
    assert done.returncode == 0, done.stderr
    made = [call for call in calls if call[0] == "lexicon"]
    sources = [call[2 : call.index("--from")] for call in made]
    assert sources == [["exp/store", "exp/general.arpa", "duden.txt"], ["exp/store", "duden.txt"]]
    measured = {option(call, "--out") for call in calls if call[0] == "evaluate"}
    assert {"exp/all/phones/open-general", "exp/few/heard-first/open-own"} <= measured


def test_without_few_steps_the_preset_decides(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "kerstin", "--stage", 3, "--stop-stage", 3)
    assert done.returncode == 0, done.stderr
    trained = {option(call, "--run"): call for call in calls if call[0] == "finetune"}
    assert "train.steps" not in settings_of(trained["exp/few/heard"])
    assert "train.steps" not in settings_of(trained["exp/few/letters"])
    assert int(settings_of(trained["exp/few/longer"])["train.steps"]) > 1650


def test_kathleen_needs_a_lexicon(tmp_path: Path) -> None:
    done, calls = run(tmp_path, "kathleen")
    assert done.returncode == 2
    assert "--lexicon is needed" in done.stderr
    assert calls == []


@pytest.mark.parametrize("name", ["few-steps", "all-steps", "pretrain-steps"])
def test_updates_are_whole_numbers(tmp_path: Path, name: str) -> None:
    done, calls = run(tmp_path, "kerstin", f"--{name}", "a[$(touch found)]")
    assert done.returncode == 2
    assert f"option '--{name}' takes a whole number above 0" in done.stderr
    assert calls == []
    assert not (tmp_path / "found").exists()
