# SPDX-License-Identifier: Apache-2.0
"""What the code lists, the documentation explains."""

from pathlib import Path

from cloister.api.v1 import errors_pb2
from cloister_audit.catalogue import ACTIONS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


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
