"""What a network's outputs are called: label sets, AudioSet's 527 labels, and the ontology they hang in.

The data, its sources and licences are in `model/label_data` (see the README.md there).
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, overload

LABEL_DATA = Path(__file__).parent / "label_data"
ROW_KEYS = {"index", "mid", "name", "parents"}


@dataclass(frozen=True)
class Label:
    """One output of a network; `index` is its place among them.

    `mid` is AudioSet's machine id, or the name again where a class is not AudioSet's. `parents` are the mids directly
    above it in the ontology: several for some ("Bell" is a musical instrument and a thing), none for others.
    """

    index: int
    mid: str
    name: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """One place in AudioSet's ontology; `restrictions` may hold "abstract" (only groups others) or "blacklist"."""

    mid: str
    name: str
    children: tuple[str, ...]
    parents: tuple[str, ...]
    restrictions: tuple[str, ...]


class Ontology:
    """AudioSet's directed graph of sounds; every method raises KeyError for a mid it does not know."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.mid: node for node in nodes}

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, mid: object) -> bool:
        return mid in self._nodes

    def node(self, mid: str) -> Node:
        """Return all that is known about one mid."""
        try:
            return self._nodes[mid]
        except KeyError:
            raise KeyError(f"AudioSet's ontology has no node {mid!r}.") from None

    def name(self, mid: str) -> str:
        """Return the display name of one mid."""
        return self.node(mid).name

    def parents(self, mid: str) -> tuple[str, ...]:
        """Return the mids directly above, in the order of the published file; none for a root."""
        return self.node(mid).parents

    def children(self, mid: str) -> tuple[str, ...]:
        """Return the mids directly below, in the order of the published file."""
        return self.node(mid).children

    def ancestors(self, mid: str) -> tuple[str, ...]:
        """Return every mid above, nearest first, each once."""
        found: dict[str, None] = {}
        level = self.parents(mid)
        while level:
            found.update(dict.fromkeys(level))
            level = tuple(above for parent in level for above in self.parents(parent) if above not in found)
        return tuple(found)


@cache
def load_ontology() -> Ontology:
    """Return AudioSet's ontology, 632 nodes; read once per process."""
    published: list[dict[str, Any]] = json.loads((LABEL_DATA / "audioset_ontology.json").read_text(encoding="utf-8"))
    parents: dict[str, list[str]] = {}
    for entry in published:
        for child in entry["child_ids"]:
            parents.setdefault(child, []).append(entry["id"])
    return Ontology(
        Node(
            mid=entry["id"],
            name=entry["name"],
            children=tuple(entry["child_ids"]),
            parents=tuple(parents.get(entry["id"], ())),
            restrictions=tuple(entry["restrictions"]),
        )
        for entry in published
    )


@dataclass(frozen=True)
class LabelSet(Sequence[Label]):
    """The labels of a network in the order of its outputs; equal when all labels are.

    Raises: ValueError when the labels are not numbered 0, 1, 2, ... or a mid comes twice.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if [label.index for label in self.labels] != list(range(len(self.labels))):
            raise ValueError("Labels must be numbered 0, 1, 2, ... in the order of the network's outputs.")
        if repeated := sorted(mid for mid, times in Counter(self.mids).items() if times > 1):
            raise ValueError(f"Labels must have different mids; repeated: {', '.join(repeated)}.")

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Label, ...]: ...
    def __getitem__(self, index: int | slice) -> Label | tuple[Label, ...]:
        return self.labels[index]

    @cached_property
    def mids(self) -> tuple[str, ...]:
        """The mids, in order."""
        return tuple(label.mid for label in self.labels)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The display names, in order."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def _positions(self) -> dict[str, int]:
        by_name = {label.name: label.index for label in reversed(self.labels)}
        return by_name | {label.mid: label.index for label in self.labels}

    def index_of(self, mid_or_name: str) -> int:
        """Return the output that has this mid, else the first with this display name.

        Raises: KeyError when there is none.
        """
        try:
            return self._positions[mid_or_name]
        except KeyError:
            raise KeyError(f"No label has the mid or name {mid_or_name!r}.") from None

    @classmethod
    def from_mids(cls, mids: Sequence[str]) -> LabelSet:
        """Make a label set with AudioSet's names and parents; a mid it does not know is its own name, without parents.

        Raises: ValueError when a mid comes twice.
        """
        return cls(tuple(_label(index, mid) for index, mid in enumerate(mids)))

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> LabelSet:
        """Read what `to_rows` returned.

        Raises: ValueError naming the row that lacks a key, has an unknown one, or a value of the wrong type; or when
        the labels do not make a set (see the class).
        """
        return cls(tuple(_read_row(position, row) for position, row in enumerate(rows)))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary of index, mid, name and parents per label, as plain JSON values."""
        return [asdict(label) | {"parents": list(label.parents)} for label in self.labels]

    @classmethod
    def from_json(cls, path: str | Path) -> LabelSet:
        """Read a file that `to_json` wrote.

        Raises: OSError when the file cannot be read; ValueError when it does not hold a list of label rows.
        """
        try:
            rows = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # not JSON, or not UTF-8
            raise ValueError(f"{Path(path).name} is not a JSON file: {error}.") from error
        if not isinstance(rows, list):
            raise ValueError(f"{Path(path).name} must hold a list of labels.")
        return cls.from_rows(rows)

    def to_json(self, path: str | Path) -> None:
        """Write the rows to a file, one label per line, so that two label sets can be compared with diff.

        Raises: OSError when the file cannot be written.
        """
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.to_rows())
        Path(path).write_text(f"[\n{lines}\n]\n", encoding="utf-8")


@cache
def audioset_labels() -> LabelSet:
    """Return AudioSet's 527 labels in the published order, that of every AST, SSAST and AuM checkpoint's outputs."""
    with (LABEL_DATA / "audioset_labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    parents = load_ontology().parents
    return LabelSet(
        tuple(Label(int(row["index"]), row["mid"], row["display_name"], parents(row["mid"])) for row in rows)
    )


def _label(index: int, mid: str) -> Label:
    ontology = load_ontology()
    if mid not in ontology:
        return Label(index, mid, mid)
    return Label(index, mid, ontology.name(mid), ontology.parents(mid))


def _read_row(position: int, row: Mapping[str, Any]) -> Label:
    if not isinstance(row, Mapping) or set(row) != ROW_KEYS:
        raise ValueError(f"Label row {position} must have exactly the keys index, mid, name and parents.")
    index, mid, name, parents = row["index"], row["mid"], row["name"], row["parents"]
    if not isinstance(index, int) or isinstance(index, bool):
        raise ValueError(f"Label row {position} has the index {index!r}, which is not a whole number.")
    if not all(isinstance(text, str) and text for text in (mid, name)):
        raise ValueError(f"Label row {position} needs a mid and a name that are not empty.")
    if not isinstance(parents, list | tuple) or not all(isinstance(parent, str) for parent in parents):
        raise ValueError(f"Label row {position} needs a list of mids as parents.")
    return Label(index, mid, name, tuple(parents))
