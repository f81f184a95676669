"""What the site takes from beside ``docs/``, and where links to other files of the project go."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
TAKEN = {
    "scenarios/README.md": "scenarios.md",
    "strategies/README.md": "strategies.md",
    "benchmarks/evidence/results/README.md": "evidence.md",
}
"""File of the project -> its page."""
LINK = re.compile(r"(!?)\[((?:`[^`]*`|[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie beside ``docs/``."""
    for source, page in TAKEN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links lead to pages; what is no page is named, and not linked."""
    here = {page_: posixpath.dirname(source) for source, page_ in TAKEN.items()}
    folder = here.get(page.file.src_uri, "docs")

    def replaced(found: re.Match[str]) -> str:
        picture, text, target = found.groups()
        if picture or target.startswith(("http:", "https:", "#", "mailto:")):
            return found[0]
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(folder, path))
        name = TAKEN.get(place) or (
            place.removeprefix("docs/") if place.startswith("docs/") else ""
        )
        if not name or not name.endswith(".md"):
            return text if text.startswith("`") else f"{text} (`{place}`)"
        return f"[{text}]({name}{'#' + anchor if anchor else ''})"

    return LINK.sub(replaced, markdown)
