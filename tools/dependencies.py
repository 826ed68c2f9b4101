"""What an installation for development consists of: the lock file of CI, and a table of licences.

    python tools/dependencies.py .ci/constraints.txt docs/licences.md

Run it in a fresh environment in which the tests pass; it takes the versions that are installed there.
"""

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = (
    "",
    "demo",
    "lm",
    "bench",
    "convert",
    "docs",
    "dev",
)  # in this order: a package belongs to the first that needs it
UNSAID = {  # by packages whose metadata say nothing short
    "atheris": "Apache-2.0",
    "cuda-toolkit": "NVIDIA proprietary",
    "espeakng-loader": "not said; the espeak-ng inside: GPL-3.0-or-later",
    "flashlight-text": "MIT; the KenLM inside: LGPL-2.1-or-later",
    "soundfile": "BSD-3-Clause; the libsndfile inside: LGPL-2.1-or-later",
}


def needed(name: str, extras: frozenset[str], found: dict[str, Distribution]) -> None:
    """Add all installed distributions that ``name[extras]`` needs, directly or not, by canonical name."""
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        marker, key = requirement.marker, canonicalize_name(requirement.name)
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
            continue
        if key in found and not requirement.extras:
            continue
        if key != canonicalize_name(name):  # speechssl[dev] needs speechssl[demo]
            try:
                found[key] = distribution(key)
            except PackageNotFoundError:  # for another platform
                continue
        needed(key, frozenset(requirement.extras), found)


def licence(package: Distribution) -> str:
    """In a few words, from what the package says of itself."""
    about, key = package.metadata, canonicalize_name(package.metadata["Name"])
    if key in UNSAID:
        return UNSAID[key]
    classified = [
        c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License ::")
    ]
    named = (
        about.get("License-Expression")
        or "; ".join(classified)
        or about.get("License")
        or "not said"
    )
    return "NVIDIA proprietary" if "roprietary" in named else re.split(r"\n|, as found", named)[0]


def main() -> None:
    """Write both files."""
    lock, page = map(Path, sys.argv[1:])
    parts: dict[str, str] = {}
    packages: dict[str, Distribution] = {}
    for extra in EXTRAS:
        needed("speechssl", frozenset([extra]), packages)
        for key in packages:
            parts.setdefault(key, extra or "speechssl")
    lines = [f"{key}=={package.version}\n" for key, package in sorted(packages.items())]
    lock.write_text("# Written by tools/dependencies.py: what CI installs.\n" + "".join(lines))
    rows = [
        f"| {key} | {licence(package)} | {parts[key]} |\n"
        for key, package in sorted(packages.items())
    ]
    page.write_text(
        "# Licences of what is installed\n\nWritten by `tools/dependencies.py`; versions are those of "
        "`.ci/constraints.txt`. `speechssl` = needed to run it; the others\nare extras, of which `demo`, `lm`, `bench` "
        "and `convert` serve users, `docs` and `dev` those who work on it. speechssl itself: Apache-2.0.\n\n"
        "| package | licence | first needed by |\n|---|---|---|\n" + "".join(rows)
    )


if __name__ == "__main__":
    main()
