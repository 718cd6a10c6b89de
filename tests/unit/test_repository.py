# SPDX-License-Identifier: Apache-2.0
import ast
import os
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = {"build", "dist", "demo-site", "__pycache__"}
LONGEST_FILE = 400
PROJECTS = {path: tomllib.loads((ROOT / path).read_text()) for path in ("pyproject.toml", "client/pyproject.toml")}
# Hosts of package registries, machine paths and build caches have no place here; brackets keep this line out.
OUT_OF_PLACE = re.compile(
    r"https?://[\w.-]*(pyp[i]|pythonhoste[d]|npmj[s]|debia[n]|pytorc[h])\b|/wor[k]/|/opt/(wheels|pyp[i])"
)


def files(pattern: str) -> list[Path]:
    """Return the files of that name which people wrote, hidden folders aside."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in GENERATED and (f == ".ci" or not f.startswith("."))]
        found += [Path(folder, name) for name in names if fnmatch(name, pattern) and "_pb2" not in name]
    return sorted(found)


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_make_help_lists_every_target() -> None:
    """Each phony target has a line of explanation, which is what `make help` prints."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert targets == explained


def test_both_distributions_have_one_version() -> None:
    """The application depends on the client at exactly its own version."""
    application, client = (PROJECTS[path]["project"] for path in PROJECTS)
    assert application["version"] == client["version"]
    assert [f"cloister-client=={client['version']}"] == application["dependencies"]


@pytest.mark.parametrize("path", PROJECTS)
def test_every_command_has_its_module(path: str) -> None:
    """What the metadata promise as commands can be imported."""
    modules = {entry.partition(":")[0] for entry in PROJECTS[path]["project"]["scripts"].values()}
    assert {module for module in modules if find_spec(module) is None} == set()


def test_constraints_are_exact_and_name_no_source() -> None:
    """Each line names one version, without a build tag or an address; torch is there."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)] == []
    assert "torch==2.13.0" in lines


def test_every_dependency_is_constrained() -> None:
    """What the metadata ask for and `make setup` installs is in the constraints file."""
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    asked = {
        canonical(requirement)
        for project in PROJECTS.values()
        for group, requirements in groups(project["project"])
        for requirement in requirements
        if group != "console"
    }
    assert asked - pinned == {"cloister", "cloister-client"}


def groups(project: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    yield "", project["dependencies"]
    yield from project.get("optional-dependencies", {}).items()


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[=<>~! ]", requirement, maxsplit=1)[0]).lower()


def test_no_file_is_too_long() -> None:
    """A file that outgrows the limit is two files."""
    lengths = {shown(path): len(path.read_text().splitlines()) for path in files("*.py")}
    assert {path: length for path, length in lengths.items() if length > LONGEST_FILE} == {}


def test_files_say_their_licence() -> None:
    """The SPDX line heads each contract file, the Makefile and the scripts; ruff asks it of Python."""
    paths = [*files("*.proto"), *files("*.sh"), ROOT / "Makefile", ROOT / ".ci/run"]
    heads = {shown(path): path.read_text().splitlines()[:2] for path in paths}
    assert {
        path for path, head in heads.items() if not any("SPDX-License-Identifier: Apache-2.0" in h for h in head)
    } == set()


def test_both_distributions_carry_the_licence() -> None:
    """The client's copy is the repository's text."""
    assert (ROOT / "LICENSE").read_bytes() == (ROOT / "client/LICENSE").read_bytes()


def test_no_text_names_a_registry_or_a_machine() -> None:
    """The repository works anywhere, so it names no package host and no path of one machine."""
    found = {
        shown(path): [hit[0] for hit in OUT_OF_PLACE.finditer(path.read_text(errors="replace"))] for path in files("*")
    }
    assert {path: hits for path, hits in found.items() if hits} == {}


def test_every_test_says_what_must_hold() -> None:
    """A test's docstring is one sentence: one paragraph that ends in a full stop."""
    silent = [
        f"{shown(path)}::{node.name}"
        for path in files("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not (ast.get_docstring(node) or "").endswith(".") or "\n\n" in (ast.get_docstring(node) or "")
    ]
    assert silent == []
