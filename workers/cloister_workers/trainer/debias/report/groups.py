# SPDX-License-Identifier: Apache-2.0
"""The parts and groups of one measure on one axis: a table that says how to read each figure, and a plot a scale.

Their figures need not be the measure's: beside the bias on some questions stands the accuracy on them. What differs in
unit or ideal shares no axis.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister_workers.trainer.debias.registry import measures
from cloister_workers.trainer.debias.report import wording
from cloister_workers.trainer.debias.report.document import Document
from cloister_workers.trainer.debias.report.plots import Row, interval_plot
from cloister_workers.trainer.debias.results import GroupEstimate, Measured
from cloister_workers.trainer.debias.subfigures import part_of


def table(entry: Document) -> list[Document]:
    """Rows of the page's table from a measure of the report: its groups, with the change of those that are parts, then
    the parts that are no group.
    """
    parts = {part["part"]: part for part in entry["parts"]}
    judged, rows = entry["bar"] is not None, []
    for group in entry["groups"]:
        part = parts.pop(part_of(group["group"], parts), None)
        rows.append({**group, "change": part["change"] if part else None, "judged": judged and part is not None})
    own = {name: entry[name] for name in ("scale", "ideal", "direction")}
    rows += [{**part, **own, "group": name, "items": None, "judged": judged} for name, part in parts.items()]
    return rows


def plots_by_scale(entry: Measured) -> list[dict[str, str]]:
    """A plot with its caption for each scale and ideal. The bar stands where every row is judged by it."""
    found: dict[tuple[str, float | None, bool], list[GroupEstimate]] = {}
    for group in entry.groups:
        found.setdefault((group.scale, group.ideal, group.signed), []).append(group)
    return [_plot(entry, *key, groups) for key, groups in found.items()]


def _plot(
    entry: Measured,
    scale: str,
    ideal: float | None,
    signed: bool,  # noqa: FBT001 - what the figure says of itself
    groups: Sequence[GroupEstimate],
) -> dict[str, str]:
    parts = [part.part for part in entry.parts]
    judged = entry.bar is not None and all(part_of(group.group, parts) is not None for group in groups)
    title = f"{measures()[entry.measure].title}, {entry.axis}, in {scale}"
    rows = [Row(f"{group.group} ({group.items})", group.before, group.after) for group in groups]
    caption = f"{scale}; {wording.direction(signed, ideal)}"
    if judged:
        caption += f"; bar {entry.bar:g}"
    return {"caption": caption, "svg": interval_plot(title, rows, ideal, entry.bar if judged else None)}
