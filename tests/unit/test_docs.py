# SPDX-License-Identifier: Apache-2.0
"""What the code lists, the documentation explains."""

import re
from pathlib import Path

import pytest

from cloister.api.v1 import errors_pb2
from cloister_audit.catalogue import ACTIONS
from cloister_dev.reference.__main__ import PAGES as PAGES_MADE
from cloister_dev.reference.contract import PACKAGE, read_contract
from cloister_server.policy_table import ROLES

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
)
NAMED = re.compile(r"`((?:client|server|audit|workers|dev|protos|tests|benchmarks|deploy|demo|docs)/[\w./-]+)`")
LINKED = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def documented(page: str) -> list[str]:
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    return [line.split("`")[1] for line in lines if line.startswith("| `")]


def test_every_audit_action_is_documented() -> None:
    """The page lists exactly the catalogue, in its order."""
    assert list(ACTIONS) == documented("audit-events.md")


def test_every_error_reason_is_documented() -> None:
    """The page lists exactly the reasons of the contract."""
    names = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()]  # noqa: SIM118 (no dict)
    assert names[1:] == documented("errors.md")


def rows(page: str) -> dict[str, str]:
    """Name and explanation of each row of a page's table."""
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    return dict(re.findall(r"^\| `(\w[\w.]*)` \| (.*) \|$", "\n".join(lines), re.MULTILINE))


def test_audit_actions_are_explained_as_the_catalogue_does() -> None:
    """What the page says of an action is what the code says."""
    assert ACTIONS == rows("audit-events.md")


def test_error_reasons_are_explained_as_the_contract_does() -> None:
    """What the page says of a reason is the comment in errors.proto."""
    prefix = f"{PACKAGE}.ErrorReason.ERROR_REASON_"
    comments = read_contract().comments
    said = {name.removeprefix(prefix): text for name, text in comments.items() if name.startswith(prefix)}
    del said["UNSPECIFIED"]
    assert said == rows("errors.md")


@pytest.mark.parametrize("name", PAGES_MADE)
def test_a_page_made_from_code_is_up_to_date(name: str) -> None:
    """The page is what the code makes now; `make reference` writes it anew."""
    assert (REFERENCE / f"{name}.md").read_text(encoding="utf-8") == PAGES_MADE[name]()


def test_the_page_of_the_contract_links_to_what_it_describes() -> None:
    """Each link inside the page leads to a heading of it, and every method of the role table has its section."""
    text = (REFERENCE / "rpc.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert set() == set(re.findall(r"\]\(#([^)]+)\)", text)) - {heading.lower() for heading in headings}
    methods = {method.rpartition(".")[2].replace("/", ".") for method in ROLES if "grpc.health" not in method}
    assert set() == methods - set(headings)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Paths in code type and relative links lead somewhere."""
    text = page.read_text(encoding="utf-8")
    missing = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    missing += [link for link in LINKED.findall(text) if not (page.parent / link).exists()]
    assert [] == missing
