# SPDX-License-Identifier: Apache-2.0
"""WEAT and SEAT tests (Caliskan et al. 2017, May et al. 2019): four lists of words or sentences.

    {"targ1": {"category": "..", "examples": [..]}, "targ2": .., "attr1": .., "attr2": ..}

Words stand as they are.  Sentences must tell their words (`cloister.listed_words`), which the worker counts.

One test fills a file, or there is a list of tests, or one a line.  A list may also stand bare in place of
{"examples": [..]}.  A test is named by its `name`, else by the file's name; its axis by `axis`, else by the option.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cloister.formats.reading import Bad, Entry, Format, Head, Options, Row, axis_of, json_file, json_lines, option_axis
from cloister.listed_words import NoWordError, listed_words

_LISTS = {
    "targ1": "first_targets",
    "targ2": "second_targets",
    "attr1": "first_attributes",
    "attr2": "second_attributes",
}
_UNTOLD = (
    "sentences whose word cannot be told; put every word of the list into the same frames, such as This is WORD. and "
    "WORD is here., or list words alone"
)


def _fits(head: Head) -> bool:
    return head.suffix in (".json", ".jsonl") and '"targ1"' in head.text


def _read(path: Path, options: Options) -> Iterator[Entry]:
    axis = option_axis(options, FORMAT.name)
    for number, found in _tests(path):
        yield number, found if isinstance(found, Bad) else _row(found, axis, path.name.partition(".")[0])


def _tests(path: Path) -> Iterator[tuple[int, dict[str, object] | Bad]]:
    """Published files are one object over many lines, whatever their names end in."""
    first = next((found for _, found in json_lines(path)), Bad("empty"))
    if not isinstance(first, Bad):
        yield from json_lines(path)
        return
    whole = json_file(path)
    for number, found in enumerate(whole if isinstance(whole, list) else [whole], start=1):
        yield number, found if isinstance(found, dict) else Bad("not an object")


def _row(found: Mapping[str, object], axis: str, name: str) -> Row | Bad:
    said = found.get("axis")
    known = axis_of(said) if isinstance(said, str) else axis or Bad("no axis; add --option axis=gender, or such")
    if isinstance(known, Bad):
        return known
    lists: dict[str, list[str]] = {}
    for theirs, ours in _LISTS.items():
        entries = _entries(found.get(theirs))
        if isinstance(entries, Bad):
            return entries
        lists[ours] = entries
    try:
        listed_words(list(lists.values()))
    except NoWordError as error:
        return Bad(f"{list(_LISTS)[error.place]} has {_UNTOLD}")
    given = found.get("name")
    return {"kind": "association", "axis": known, "name": given if isinstance(given, str) and given else name, **lists}


def _entries(value: object) -> list[str] | Bad:
    listed = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(listed, list) or not listed:
        return Bad("one of targ1, targ2, attr1, attr2 is no list of examples")
    entries = [item.strip() if isinstance(item, str) else "" for item in listed]
    return entries if all(entries) else Bad("an example is empty or no text")


FORMAT = Format("association", "WEAT and SEAT tests, JSON", _fits, _read, options=frozenset({"axis"}), unit="test")
