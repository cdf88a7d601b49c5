"""What is written leads where it says, and what is said twice is the same."""

import re
from pathlib import Path

import pytest
import tomllib
import yaml

from benchmark import __version__

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("roles/*/README.md")])
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_every_page_is_in_the_index() -> None:
    index = (CHECKOUT / "docs" / "README.md").read_text()
    pages = {page.name for page in CHECKOUT.glob("docs/*.md")} - {"README.md"}
    assert {name for name in pages if f"({name}" not in index} == set()


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\S+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert project["version"] == __version__ == newest[1]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    rule = (CHECKOUT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    made = [line.strip().replace("$(BIN)", ".venv/bin") for line in rule.splitlines()[1:]]
    (repository,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    hooked = []
    for hook in repository["hooks"]:
        assert (hook["language"], hook["pass_filenames"]) == ("system", False)
        inner = re.fullmatch(r"sh -c '(PATH=\S+) exec (.*)'", hook["entry"])
        hooked.append(
            f"{inner[1].replace('$PWD', '$(CURDIR)').replace('$P', '$$P')} {inner[2]}" if inner else hook["entry"]
        )
    assert hooked == made
