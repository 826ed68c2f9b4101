"""mkdocs hook: pages that lie outside docs/, and links that lead out of docs/ on a code host.

The pages of docs/ link to files beside that folder, such as ``../CHANGELOG.md``. On a code host
these links work as they stand. For the built site, this hook adds those files as pages and corrects
the links.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "recipes/*/RESULTS.md",
    "recipes/*/*.png",
)
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of OUTSIDE at their paths in the repository."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Correct the links of a page: on the site, docs/ is the root and holds the OUTSIDE."""
    on_site = page.file.src_uri
    in_docs = (ROOT / "docs" / on_site).exists()
    in_repository = f"docs/{on_site}" if in_docs else on_site

    def corrected(found: re.Match[str]) -> str:
        link, anchor = found[1], found[2] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link))
        target = target.removeprefix("docs/")
        relative = posixpath.relpath(target, posixpath.dirname(on_site) or ".")
        return f"]({relative}{anchor})"

    return LINK.sub(corrected, markdown)
