"""Brings the pages at the top of the repository into the site, and mends links between the two.

A page that would fetch anything from elsewhere when it is looked at is an error.
"""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")
ELSEWHERE = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"'](?:https?:)?//[^>]*>"
    r"|<link[^>]*\shref=[\"'](?:https?:)?//[^>]*>"
    r"|(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\s]*",
)
IMAGE = re.compile(r"(!\[[^\]]*\]\()(docs/)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the repository."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Links lead to pages of the site; a file that the site has not is named instead.

    In the repository README.md links to docs/tdr.md, and docs/tdr.md to ../README.md.
    """
    sources = {site: name for name, site in PAGES.items()}
    here = page.file.src_uri
    folder = PurePosixPath(sources.get(here, f"docs/{here}")).parent

    def mended(link: re.Match[str]) -> str:
        text, path, anchor = link.groups(default="")
        inside = normpath(str(folder / path))  # of the repository
        site = PAGES.get(inside, inside.removeprefix("docs/"))
        if (inside in PAGES or inside.startswith("docs/")) and files.get_file_from_path(site):
            return f"[{text}]({relpath(site, PurePosixPath(here).parent)}{anchor})"
        if not (ROOT / inside).exists():
            return link.group()  # the build says that it leads nowhere
        return text if inside in text else f"{text} (`{inside}`)"

    return LINK.sub(mended, IMAGE.sub(r"\1", markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Looks for scripts, styles, fonts and pictures of other hosts.

    Raises:
        PluginError: there is one.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css") and (found := ELSEWHERE.search(path.read_text())):
            raise PluginError(f"{path} must work without a network, got {found.group()}")
