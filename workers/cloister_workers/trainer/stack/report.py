# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation: one table in which base, each layer and the version stand beside one another.

`report.html` needs nothing but a browser: it fetches nothing and runs nothing, and its content policy forbids both.
`report.json` holds the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2

from cloister_workers.messages import MetricName, Metrics
from cloister_workers.trainer.layer import LayerKind

_LOW, _HIGH = "_ci_low", "_ci_high"
_LOWER_IS_BETTER = frozenset(
    {MetricName.EVAL_LOSS, MetricName.EVAL_PERPLEXITY, MetricName.EVAL_CALIBRATION_ERROR, MetricName.EVAL_RMSE}
)
_NAMES = {
    LayerKind.ADAPTER: "adapter",
    LayerKind.MERGED_WEIGHTS: "weights",
    LayerKind.RETRIEVAL_INDEX: "index",
    LayerKind.DEMONSTRATIONS: "demonstrations",
}


@dataclass(frozen=True)
class Line:
    """A line of the table: which layers were in force, and what was measured."""

    kinds: tuple[LayerKind, ...]
    metrics: Metrics

    @property
    def name(self) -> str:
        """For a reader."""
        return " + ".join(["base", *(_NAMES[kind] for kind in self.kinds)])


def report_files(model: str, task: str, lines: Sequence[Line]) -> dict[str, bytes]:
    """The two files of the report by name; the last line is the whole version."""
    columns = sorted({name for line in lines for name in line.metrics if not name.endswith((_LOW, _HIGH))} - _COUNTED)
    best = {name: _best(name, lines) for name in columns}
    document = {
        "model": model,
        "task": task,
        "rows": int(max(line.metrics.get(MetricName.EVAL_ROWS, 0) for line in lines)),
        "columns": [{"name": name, "lower_is_better": name in _LOWER_IS_BETTER} for name in columns],
        "lines": [
            {
                "name": line.name,
                "layers": [kind.value for kind in line.kinds],
                "metrics": {name: _cell(name, line, best[name]) for name in columns if name in line.metrics},
            }
            for line in lines
        ],
    }
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    page = _environment().get_template("page.html.j2").render(report=document)
    return {"report.html": page.encode(), "report.json": f"{text}\n".encode()}


_COUNTED = {MetricName.EVAL_ROWS}


def _cell(name: MetricName, line: Line, best: float) -> dict[str, float | bool | None]:
    metrics = {str(key): value for key, value in line.metrics.items()}
    low, high = metrics.get(f"{name}{_LOW}"), metrics.get(f"{name}{_HIGH}")
    return {"value": line.metrics[name], "low": low, "high": high, "best": line.metrics[name] == best}


def _best(name: MetricName, lines: Sequence[Line]) -> float:
    values = [line.metrics[name] for line in lines if name in line.metrics]
    return min(values) if name in _LOWER_IS_BETTER else max(values)


def _environment() -> jinja2.Environment:
    folder = resources.files(__package__)
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text("utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: f"{value:.4g}"
    environment.filters["title"] = lambda name: name.removeprefix("eval_").replace("_", " ")
    return environment
