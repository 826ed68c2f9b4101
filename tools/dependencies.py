"""Write the lock file of CI and a table of licences, for an installation for development.

    python tools/dependencies.py .ci/constraints.txt docs/licences.md

Run it in a fresh environment in which the tests pass; it takes the versions that are installed
there.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# In this order: a package belongs to the first extra that needs it.
EXTRAS = ("", "espeak", "g2p", "demo", "lm", "bench", "convert", "docs", "dev")

# Licences of packages whose metadata say nothing short.
UNSAID = {
    "atheris": "Apache-2.0",
    "cuda-toolkit": "NVIDIA proprietary",
    "espeakng-loader": "not said; the espeak-ng inside: GPL-3.0-or-later",
    "soundfile": "BSD-3-Clause; the libsndfile inside: LGPL-2.1-or-later",
    "ufal-flashlight-text": "MIT; the KenLM inside: LGPL-2.1-or-later",
}

PAGE_HEAD = """\
# Licences of what is installed

Written by `tools/dependencies.py`; versions are those of `.ci/constraints.txt`. `speechssl` = \
needed to run it; the others
are extras, of which `espeak`, `g2p`, `demo`, `lm`, `bench` and `convert` serve users, `docs` and \
`dev` those who work on it. speechssl itself: Apache-2.0.

| package | licence | first needed by |
|---|---|---|
"""


def needed(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Add all installed distributions that ``name[extras]`` needs, directly or not.

    Args:
        found: distributions by canonical name, added to.
    """
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        key = canonicalize_name(requirement.name)

        if not is_wanted(requirement, extras):
            continue
        if key in found and not requirement.extras:
            continue

        # speechssl[dev] needs speechssl[demo]: more of itself, and no other package.
        is_itself = key == canonicalize_name(name)
        if not is_itself:
            try:
                found[key] = distribution(key)
            except PackageNotFoundError:
                # It is needed on another platform only.
                continue

        needed(key, frozenset(requirement.extras), found)


def is_wanted(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement applies here, with any of the extras or with none."""
    marker = requirement.marker
    if marker is None:
        return True
    return any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def licence(package: Distribution) -> str:
    """Name a licence in a few words, from what the package says of itself."""
    about = package.metadata
    key = canonicalize_name(about["Name"])
    if key in UNSAID:
        return UNSAID[key]

    classifiers = about.get_all("Classifier") or []
    licences = [text for text in classifiers if text.startswith("License ::")]
    classified = "; ".join(text.split(" :: ")[-1] for text in licences)
    named = about.get("License-Expression") or classified or about.get("License") or "not said"

    if "roprietary" in named:
        return "NVIDIA proprietary"
    # Some packages have their whole licence text here; its first line is the name.
    return re.split(r"\n|, as found", named)[0]


def main() -> None:
    """Write both files."""
    lock, page = map(Path, sys.argv[1:])

    needed_by: dict[str, str] = {}
    packages: dict[str, Distribution] = {}
    for extra in EXTRAS:
        needed("speechssl", frozenset([extra]), packages)
        for key in packages:
            needed_by.setdefault(key, extra or "speechssl")

    lines = ["# Written by tools/dependencies.py: what CI installs.\n"]
    rows = [PAGE_HEAD]
    for key, package in sorted(packages.items()):
        lines.append(f"{key}=={package.version}\n")
        rows.append(f"| {key} | {licence(package)} | {needed_by[key]} |\n")

    lock.write_text("".join(lines), encoding="utf-8")
    page.write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
