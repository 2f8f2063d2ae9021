"""The documentation as a site: `make docs`. Its pages are the repository's, at the same paths: links hold in both."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
NAVIGATION = Path(__file__).parent / "navigation"
sys.path.insert(0, str(ROOT / "plugins"))

project = author = html_title = "Scones ML"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "sagemaker_local/**.md", "infrastructure/*.md"]
exclude_patterns = ["docs/site"]
# The anchors that GitHub makes of headings.
myst_heading_anchors = 6

# What the operators are built on need not be installed. `links` makes classes of it as soon as it is imported.
autodoc_mock_imports = ["airflow", "aiobotocore", "boto3", "botocore", "scones.jobs.links"]
default_role = "code"

html_theme = "furo"
html_extra_path = ["start"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False


def add_navigation(app: Sphinx, name: str, text: list[str]) -> None:
    """Add to a page that GitHub shows as well what only the site understands. `@rest`: the pages of docs/ not named."""
    part = NAVIGATION / f"{name.replace('/', '.')}.md"
    if part.exists():
        added = part.read_text()
        pages = (f"docs/{path.stem}" for path in sorted((ROOT / "docs").glob("*.md")))
        rest = "\n".join(page for page in pages if f"\n{page}\n" not in added)
        text[0] += f"\n{added.replace('@rest', rest)}"


def show_arguments(app: Sphinx, what: str, name: str, item: Any, *_: Any) -> tuple[str, str] | None:
    """Give a class the arguments of its own `__init__`: its base, made up, takes anything."""
    if what != "class" or "__init__" not in vars(item):
        return None
    parameters = list(inspect.signature(item.__init__).parameters.values())[1:]
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in parameters]
    return str(inspect.Signature(bare)), ""


def setup(app: Sphinx) -> None:
    """Sphinx calls it."""
    app.connect("source-read", add_navigation)
    app.connect("autodoc-process-signature", show_arguments)
