# SPDX-License-Identifier: Apache-2.0
"""Reading a TOML file into a frozen dataclass whose fields are annotated with what the file's keys are.

    @dataclass(frozen=True, kw_only=True)
    class Config:
        lease_seconds: Annotated[int, Setting("queue.lease_seconds", Whole(1, 3600), "…")] = 60

The reference page is made from the same annotations (`page.py`).  Every problem of a file is told at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cloister.configuration.kinds import File, Kind, Place
from cloister.configuration.lines import line_of, line_of_fault, lines_of
from cloister.errors import ConfigurationError

T = TypeVar("T")

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"


@dataclass(frozen=True)
class Setting:
    """What a field's key is."""

    key: str
    """`section.key`, or `key` in a file without sections."""
    kind: Kind
    meaning: str
    """For the reference page; sizes in bytes and times in seconds, unless it says more."""


@dataclass(frozen=True)
class Declared:
    """A setting with the field that it fills."""

    name: str
    setting: Setting
    default: object
    """MISSING where the key must be given."""

    @property
    def required(self) -> bool:
        return self.default is MISSING


@dataclass(frozen=True)
class Problem:
    """Something that an administrator must mend."""

    key: str
    text: str
    """What is wrong, with which value; what to do."""


@dataclass(frozen=True)
class Source:
    """A configuration file, to say where in it a problem is."""

    path: Path
    lines: Mapping[str, int]

    def show(self, problem: Problem) -> str:
        """`FILE:LINE: [section] key: what is wrong`."""
        line = line_of(self.lines, problem.key) if problem.key else None
        where = f"{self.path}:{line}" if line else str(self.path)
        return f"{where}: {_shown(problem.key)}{problem.text}"


def declared(kind: type[T]) -> list[Declared]:
    """The settings of a configuration class, in its order."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):  # type: ignore[arg-type]  # every configuration class is a dataclass
        marks = getattr(hints[field.name], "__metadata__", ())
        found += [Declared(field.name, mark, field.default) for mark in marks if isinstance(mark, Setting)]
    return found


def read_settings(kind: type[T], path: Path, environment: Mapping[str, str], **given: object) -> tuple[T, Source]:
    """The file's settings, `given` for the fields that are no settings, and the file's lines.

    Raises ConfigurationError with every problem, each with its line.
    """
    text = _text(path)
    source = Source(path, lines_of(text))
    credentials = environment.get(CREDENTIALS_VARIABLE)
    place = Place(path.parent, Path(credentials) if credentials else None)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # no TOML, a number of too many digits, nesting without end
        line = line_of_fault(str(error))
        where = f"{path}:{line}" if line else str(path)
        raise ConfigurationError(f"{where}: cannot be read: this is not TOML: {error}") from None
    values, problems = _values(declared(kind), document, place)
    if problems:
        raise ConfigurationError("\n".join(source.show(problem) for problem in problems))
    return kind(**values, **given), source


def check_files(config: Any, names: Iterable[Declared]) -> list[Problem]:  # noqa: ANN401 - any configuration class
    """Whether the files that the settings name are there, can be read, and are closed where they hold keys."""
    found = []
    for one in names:
        path = getattr(config, one.name)
        kind = one.setting.kind
        if not isinstance(kind, File) or not isinstance(path, Path) or kind.made:
            continue
        if fault := _file_fault(path, secret=kind.secret):
            found.append(Problem(one.setting.key, fault))
    return found


def _file_fault(path: Path, *, secret: bool) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        return f"{path}: {error.strerror}; put the file there, readable by the service's user"
    if secret and mode & 0o007:
        return f"{path} has mode {mode:04o}, so that everybody may use the key in it; run: chmod 0600 {path}"
    return ""


def _values(
    settings: list[Declared], document: dict[str, object], place: Place
) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    flat = _flat(document, {one.setting.key.partition(".")[0] for one in settings if "." in one.setting.key})
    known = {one.setting.key for one in settings}
    problems = [Problem(key, _unknown(key, known)) for key in flat if key not in known]
    for one in settings:
        setting = one.setting
        if setting.key not in flat:
            if one.required:
                problems.append(Problem(setting.key, f"is missing; add it ({setting.kind.words}: {setting.meaning})"))
            continue
        try:
            values[one.name] = setting.kind.read(flat[setting.key], place)
        except ValueError as error:
            problems.append(Problem(setting.key, str(error)))
    return values, problems


def _flat(document: dict[str, object], sections: set[str]) -> dict[str, object]:
    """`section.key` -> value; a section that is none of ours, or no section, stands for itself."""
    flat: dict[str, object] = {}
    for name, value in document.items():
        if name in sections and isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _unknown(key: str, known: set[str]) -> str:
    section, dot, _ = key.rpartition(".")
    if not dot and any("." in one for one in known):
        names = sorted({one.partition(".")[0] for one in known})
        return f"unknown section or key; the sections are {', '.join(names)}"
    names = sorted(one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == section)
    return f"unknown key; known here are {', '.join(names)}"


def _shown(key: str) -> str:
    if not key:
        return ""
    section, dot, name = key.rpartition(".")
    return f"[{section}] {name}: " if dot else f"{name}: "


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}; check the path and its mode") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: cannot be read: this is not UTF-8 text") from None
