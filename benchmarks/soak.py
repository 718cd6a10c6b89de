# SPDX-License-Identifier: Apache-2.0
"""An embedded site of real processes under mixed jobs for an hour: memory and descriptors of each service stay flat.

    python benchmarks/soak.py [--minutes 60] [--picture build/soak.svg]

Jobs of every kind run in turn: training with release and pull, evaluation, inference, a cancellation of a training and
of a waiting job, a pause that goes on, rows that are refused. Every second each service's resident memory, descriptors
and threads are read from /proc. The first fifth is warm-up. Exit status 1 where a service gained, by the slope over the
rest, more than 5 % of its memory, one descriptor or one thread, where one ended, or a job ended otherwise than it
should.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from soaking.chart import picture
from soaking.jobs import Mix, prepare
from soaking.samples import MEASURES, Sampler, Trend, trend

from cloister import Client
from cloister_dev.found import found_site
from cloister_dev.layout import Layout
from cloister_dev.site import running_site

WARM_UP = 0.2
EVERY_SECONDS = 1.0


def soak(folder: Path, minutes: float) -> tuple[Sampler, Mix]:
    """Run the mix against a new site for so long."""
    layout = Layout(folder / "site")
    with ExitStack() as stack:
        found_site(layout)
        # A trainer that took every core would make the services wait, not grow.
        (layout.worker / "agent" / "agent.toml").write_text("threads = 1\n")
        running = running_site(stack, layout, print)
        client = stack.enter_context(Client.open(layout.home("alice")))
        prepare(client, folder)
        mix = Mix(client, folder)
        sampler = Sampler({p.program.name: p.process.pid for p in running}, EVERY_SECONDS, time.monotonic)
        sampler.start()
        end = time.monotonic() + 60 * minutes
        try:
            while time.monotonic() < end and not mix.unexpected and not sampler.died:
                mix.once()
        finally:
            sampler.stop()
    return sampler, mix


def table(trends: dict[tuple[str, str], Trend]) -> str:
    """A row for each service and measure."""
    lines = [f"{'service':<10} {'measure':<12} {'start':>8} {'end':>8} {'peak':>8} {'gained':>8} {'bound':>8}"]
    for (name, measure), found in trends.items():
        figures = (found.start, found.end, found.peak, found.growth, found.bound)
        cells = " ".join(f"{figure:8.2f}" for figure in figures)
        lines.append(f"{name:<10} {measure:<12} {cells}{'' if found.is_flat else '  GROWS'}")
    return "\n".join(lines)


def main() -> int:
    """Soak, print, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--picture", type=Path, default=Path("build/soak.svg"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        sampler, mix = soak(Path(folder), options.minutes)
    warm_up = WARM_UP * 60 * options.minutes
    trends = {
        (name, measure): trend(found, measure, warm_up)
        for name, found in sampler.samples.items()
        for measure in MEASURES
    }
    print(f"\njobs: {', '.join(f'{count} {name}' for name, count in mix.ended.items())}")
    print(f"memory in MiB; gained by the slope after {warm_up / 60:.1f} minutes of warm-up\n\n{table(trends)}")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(picture(sampler.samples, warm_up), encoding="utf-8")
    print(f"\npicture: {options.picture}")
    for problem in (*mix.unexpected, *(f"{name} ended" for name in sampler.died)):
        print(f"problem: {problem}")
    flat = all(found.is_flat for found in trends.values())
    return 0 if flat and not mix.unexpected and not sampler.died else 1


if __name__ == "__main__":
    sys.exit(main())
