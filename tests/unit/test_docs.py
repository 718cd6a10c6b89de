# SPDX-License-Identifier: Apache-2.0
"""What the code lists, the documentation explains."""

import re
from pathlib import Path

import pytest

from cloister.api.v1 import errors_pb2
from cloister_audit.catalogue import ACTIONS

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


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Paths in code type and relative links lead somewhere."""
    text = page.read_text(encoding="utf-8")
    missing = [name for name in NAMED.findall(text) if not (ROOT / name).exists()]
    missing += [link for link in LINKED.findall(text) if not (page.parent / link).exists()]
    assert [] == missing
