"""The documents of the repository."""

from __future__ import annotations

from embedded.settings import PROJECT_ROOT

PATTERNS = ("*.md", "docs/**/*.md", "sagemaker_local/**/*.md", "infrastructure/*.md", "docker/**/*.md")
# What the site adds to its pages is no page.
DOCUMENTS = sorted(
    path
    for pattern in PATTERNS
    for path in PROJECT_ROOT.glob(pattern)
    if not path.is_relative_to(PROJECT_ROOT / "docs" / "site")
)
