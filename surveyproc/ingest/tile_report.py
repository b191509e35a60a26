"""What an ingest of tiles reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from surveyproc.cutouts import ImageSpec


@dataclass(frozen=True)
class TileIngestReport:
    """What an ingest of tiles did: ``rows_in = rows_out + sum(rejects)``.

    Attributes
    ----------
    output : str
        The catalog.
    rows_in, rows_out : int
        Rows of the table of sources, and cutouts written.
    rejects : dict of str to int
        Rejects by reason; each is listed in ``<output>/rejects.parquet``.
    quality : dict of str to int
        Cutouts by quality bit.
    printed_ids : int
        Ids that were printed bytes (``b'...'``); they are stored as what was meant.
    tiles, tiles_used : int
        Tiles found, and those that gave cutouts.
    unusable_tiles : dict of str to str
        Why a tile could give none.
    partitions : int
        Files of the catalog.
    image : ImageSpec
        The pixels.
    bytes_read, bytes : int
        Moved from the files of the tiles; written.
    seconds : float
        Wall time of this call.
    nothing_to_do : bool
        Whether the catalog was finished before.
    """

    output: str
    rows_in: int
    rows_out: int
    rejects: dict[str, int]
    quality: dict[str, int]
    printed_ids: int
    tiles: int
    tiles_used: int
    unusable_tiles: dict[str, str]
    partitions: int
    image: ImageSpec
    bytes_read: int = 0
    bytes: int = 0
    seconds: float = 0.0
    nothing_to_do: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**self.__dict__, "image": json.loads(self.image.to_json())}

    @classmethod
    def of_catalog(cls, about: dict[str, Any], output: str, size: int) -> TileIngestReport:
        """Read what ``catalog.json`` of a finished catalog says."""
        names = set(cls.__dataclass_fields__) - {"output", "image", "bytes", "seconds", "nothing_to_do"}
        known = {name: about[name] for name in names if name in about}
        image = ImageSpec.from_json(json.dumps(about["image"]))
        return cls(output=output, image=image, bytes=size, nothing_to_do=True, **known)


@dataclass
class Totals:
    """What the commits of an ingest add up to."""

    rows: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    quality: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    printed: int = 0
    bytes_read: int = 0

    def add(self, rows: int, facts: dict[str, Any]) -> None:
        """Add a commit by its rows and facts."""
        self.rows += rows
        for reason, (count, _) in facts.get("reasons", {}).items():
            self.rejects[reason] = self.rejects.get(reason, 0) + count
        for bit, count in facts.get("quality", {}).items():
            self.quality[bit] = self.quality.get(bit, 0) + count
        if rows and "tile" in facts:
            self.used.add(facts["tile"])
        self.printed += facts.get("printed", 0)
        self.bytes_read += facts.get("bytes_read", 0)


def most_common_first(counts: dict[str, int]) -> dict[str, int]:
    """Sort counts, the largest first, equal ones by name."""
    items: Iterable[tuple[str, int]] = counts.items()
    return dict(sorted(items, key=lambda item: (-item[1], item[0])))
