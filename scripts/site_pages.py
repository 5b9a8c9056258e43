"""Adds files outside docs/ to the documentation site. A hook of MkDocs, loaded by mkdocs.yml.

Pages in the repository's root become pages of the site. Other files that a page links to become pages that show them,
so the site needs no copy of the repository beside it. Links are written for readers of the repository (tests check
them there), and rewritten here.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / ".build" / "reference"
"""Where scripts/protocol_reference.sh puts the protocol's reference."""
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security-policy.md",
    "clients/js/README.md": "project/javascript.md",
}
"""Pages outside docs/: their path in the repository, and in the site."""
LANGUAGES = {".md": "markdown", ".proto": "protobuf", ".py": "python", ".ts": "typescript", ".yml": "yaml", "": "bash"}
"""The highlighting language of a file whose suffix isn't the language's name."""
LINK = re.compile(r"(\]\(|src=\")([^)\s\"]+)")
CODE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, the files that pages link to, the protocol's reference, and pages missing in nav."""
    pages = {f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()} | ROOT_PAGES
    config.extra["pages"] = pages
    for source, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text(encoding="utf-8")))
    for source in list(pages):
        for _, link in LINK.findall(CODE.sub("", (ROOT / source).read_text(encoding="utf-8"))):
            path = _target(source, link)
            if path and path not in pages and not path.startswith("docs/") and (ROOT / path).exists():
                pages[path] = f"source/{path.lstrip('.')}.md"  # MkDocs ignores files that begin with a dot
                files.append(File.generated(config, pages[path], content=_shown(path)))
    for file in REFERENCE.rglob("*"):
        if file.is_file():
            uri = f"reference/protocol/{file.relative_to(REFERENCE).as_posix()}"
            files.append(File.generated(config, uri, content=file.read_bytes()))
    _complete(config.nav or [], sorted(file.src_uri for file in files.documentation_pages()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites the links of a page: from paths in the repository to paths in the site."""
    pages: dict[str, str] = config.extra["pages"]
    sources = {uri: source for source, uri in pages.items()}
    here = page.file.src_uri
    source = sources.get(here)
    if source is None or here.startswith("source/"):
        return markdown

    def rewritten(match: re.Match[str]) -> str:
        path = _target(source, match[2])
        if path is None:
            return match[0]
        uri = pages.get(path) or path.removeprefix("docs/")
        _, mark, anchor = match[2].partition("#")
        return match[1] + posixpath.relpath(uri, posixpath.dirname(here) or ".") + mark + anchor

    parts = CODE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)


def _target(source: str, link: str) -> str | None:
    """Returns the path in the repository that a link of a page leads to; None if it leads elsewhere."""
    file = link.partition("#")[0]
    if not file or "://" in link or link.startswith("mailto:"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), file))


def _shown(path: str) -> str:
    """Returns a page that shows a file, or lists a folder."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(os.listdir(file))
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names if not name.startswith("_"))
    suffix = PurePosixPath(path).suffix
    language = LANGUAGES.get(suffix, suffix.lstrip("."))
    return f"# {path}\n\n`````{language}\n{file.read_text(encoding='utf-8')}\n`````\n"


def _complete(nav: list[Any], uris: list[str]) -> None:
    """Adds the decisions to the navigation, and a section of all pages that it doesn't name."""
    named = set(_named(nav))
    missing = [uri for uri in uris if uri not in named and not uri.startswith("source/")]
    decisions = [uri for uri in missing if uri.startswith("decisions/")]
    for section in nav:
        for pages in section.values() if isinstance(section, dict) else ():
            if isinstance(pages, list) and "decisions/index.md" in pages:
                pages.remove("decisions/index.md")
                pages.append({"Decisions": ["decisions/index.md", *decisions]})
    others = [uri for uri in missing if uri not in decisions]
    if others:
        nav.append({"More": others})


def _named(nav: Any) -> list[str]:
    """Returns the pages that a part of the navigation names."""
    match nav:
        case str():
            return [nav]
        case list():
            return [uri for part in nav for uri in _named(part)]
        case dict():
            return [uri for part in nav.values() for uri in _named(part)]
    return []
