"""Every link of the documents leads to a file and an anchor that are there, on GitHub and on the site alike.

The site's own build (`make docs`) checks the same and more; this takes no time.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from embedded.settings import PROJECT_ROOT
from tests.support.documents import DOCUMENTS

FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(text)):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(document: Path) -> list[str]:
    """The links of a document that lead nowhere. A folder is nowhere: the site has no page for it."""
    wrong = []
    for link in LINK.findall(prose(document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_links_lead_to_what_is_there(document: Path) -> None:
    assert not broken(document)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# On AWS: `make`\n## Twice\n## Twice\n```\n# no heading [x](no-link)\n```\n"
        "[a](#on-aws-make) [b](page.md#twice-1) [c](https://example.com/x#y)\n"
        "[d](#no-heading-x) [e](gone.md) [f](page.md#thrice) [g](.)\n"
    )
    assert broken(page) == ["#no-heading-x", "gone.md", "page.md#thrice", "."]
