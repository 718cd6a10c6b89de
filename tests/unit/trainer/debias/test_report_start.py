# SPDX-License-Identifier: Apache-2.0
"""The page that a trainer writes is one that a client keeps."""

from pathlib import Path

from cloister.reports import PAGE_START, check_page

TEMPLATE = Path(__file__).parents[4] / "workers/cloister_workers/trainer/debias/report/page.html.j2"


def test_the_template_begins_as_every_page_must(tmp_path: Path) -> None:
    """The report's template opens with the policy that keeps a browser from fetching and running anything."""
    (tmp_path / "report.html").write_bytes(TEMPLATE.read_bytes())
    (tmp_path / "report.json").write_bytes(b"{}")
    assert TEMPLATE.read_bytes().startswith(PAGE_START)
    check_page(tmp_path)
