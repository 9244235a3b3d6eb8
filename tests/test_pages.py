"""Links, anchors and navigation of the README and the documentation."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = prose(page)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return set(found)


def test_anchors_are_github_s(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b.c` (d), e\n## [The x](y.md)_z\n```bash\n# no heading\n```\n### Twice\n### Twice\n"
    )
    assert anchors(page) == {"a-bc-d-e", "the-x_z", "twice", "twice-1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_link_to_exists(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", prose(page)):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name} links to #{anchor} of {linked.name}"


def test_make_targets_that_the_pages_name_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = {
            name
            for pair in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text, re.M)
            for name in pair
            if name
        }
        assert named <= targets, f"{page.name}: {named - targets}"


def test_every_page_of_the_site_is_in_its_navigation_and_in_llms_txt():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    summary = (ROOT / "docs" / "llms.txt").read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name in navigation, name
        if not name.startswith("adr/"):
            assert f"({name})" in summary, name
