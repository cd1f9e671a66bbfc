"""The DANDI archive: what a dandiset holds, and where its files are.

The archive's REST API is documented at https://api.dandiarchive.org/swagger/.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from crosspatch.errors import NetworkError

if TYPE_CHECKING:
    from crosspatch.archive.web import Web

#: Environment variable with the address of the archive's API.
DANDI_VARIABLE = "CROSSPATCH_DANDI"
DANDI_ADDRESS = "https://api.dandiarchive.org/api"

_PAGE = 1000  #: the archive's API gives at most so many assets at a time
#: An object of an answer, as JSON has it.
_Row = dict[str, Any]
_PLACE = re.compile(
    r"dandi:(?P<dandiset>\d{6})"
    r"(?:[@/](?P<version>draft|\d+\.\d+\.\d+))?"
    r"(?:/(?P<path>.*))?",
    re.IGNORECASE | re.ASCII,
)


def is_dandi(text: object) -> bool:
    """Whether a user means the archive and not a file."""
    return isinstance(text, str) and text.lower().startswith("dandi:")


@dataclass(frozen=True)
class DandiPlace:
    """A dandiset, or a part of it."""

    dandiset: str  #: six digits
    #: ``draft``, or a published version; None for the newest published one.
    version: str | None = None
    path: str = ""  #: a file or folder in it; empty for all

    @classmethod
    def parse(cls, text: str) -> DandiPlace:
        """Read ``dandi:000636``, maybe with ``@version`` and ``/path``; else a `NetworkError`."""
        match = _PLACE.fullmatch(text.strip())
        if not match:
            raise NetworkError(
                f"{text} is no dandiset; write dandi:000636, dandi:000636@0.241120.0510, or "
                "dandi:000636/sub-1203384279/"
            )
        version = match["version"] and match["version"].lower()
        return cls(match["dandiset"], version, (match["path"] or "").strip("/"))


@dataclass(frozen=True)
class Asset:
    """A file of a dandiset."""

    dandiset: str
    version: str
    asset_id: str
    path: str  #: in the dandiset, such as ``sub-1/sub-1_ses-2_icephys.nwb``
    size: int  #: bytes
    #: ``dandi-etag`` and, where the archive has computed it, ``sha256``.
    digests: Mapping[str, str] = field(hash=False)
    api: str  #: address of the archive's API

    @property
    def address(self) -> str:
        """Where it can be downloaded; leads to a store that gives parts."""
        return f"{self.api}/assets/{self.asset_id}/download/"

    def __str__(self) -> str:
        """What we call it: ``dandi:000636@version/path``."""
        return f"dandi:{self.dandiset}@{self.version}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of its path, as a `Path` has it."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """Its name without the ending."""
        return PurePosixPath(self.path).stem

    @property
    def digest(self) -> str:
        """What tells its content from any other."""
        for kind in ("sha256", "dandi-etag"):
            if kind in self.digests:
                return f"{kind}:{self.digests[kind]}"
        return f"size:{self.size}"


class Archive:
    """A DANDI archive, by the address of its API: ``CROSSPATCH_DANDI``, else the public one."""

    def __init__(self, address: str | None = None, web: Web | None = None):
        from crosspatch.archive.web import Web  # what is an asset is known without

        self.address = (address or os.environ.get(DANDI_VARIABLE) or DANDI_ADDRESS).rstrip("/")
        self.web = web or Web()

    def version(self, dandiset: str) -> str:
        """The newest published version of a dandiset, or ``draft`` if none is."""
        about = self._object(f"{self.address}/dandisets/{dandiset}/")
        published = about.get("most_recent_published_version")
        version = published.get("version") if isinstance(published, dict) else None
        return str(version or "draft")

    def recordings(self, place: DandiPlace) -> list[Asset]:
        """The NWB files of a dandiset or a part of it, in the order of their paths.

        A `NetworkError` if there are none, or the archive's answers do not fit together.
        """
        version = place.version or self.version(place.dandiset)
        found: dict[str, Asset] = {}
        for row in self._rows(place, version):
            asset = self._asset(place.dandiset, version, row)
            if asset is not None and _inside(asset.path, place.path):
                found[asset.asset_id] = asset
        if not found:
            where = f"{place.dandiset}@{version}" + (f"/{place.path}" if place.path else "")
            raise NetworkError(f"no NWB file in dandi:{where}; check the number and the path")
        return sorted(found.values(), key=lambda asset: asset.path)

    def complete(self, asset: Asset) -> Asset:
        """The asset with its checksums, which a list of assets may lack."""
        if asset.digests:
            return asset
        metadata = self._object(f"{self.address}/assets/{asset.asset_id}/")
        known = replace(asset, digests=_digests(metadata), api=self.address)
        if not known.digests:
            raise NetworkError(f"{asset}: the archive has no checksum of it")
        return known

    def _rows(self, place: DandiPlace, version: str) -> Iterator[_Row]:
        address = f"{self.address}/dandisets/{place.dandiset}/versions/{version}/assets/"
        options = {"page_size": str(_PAGE), "metadata": "true", "order": "path"}
        options |= {"path": place.path} if place.path else {}
        seen, counts = set[str](), list[object]()
        for page in itertools.count(1):
            answer = self._object(address, {"page": str(page)} | options)
            rows = answer.get("results")
            if not isinstance(rows, list):
                raise NetworkError(f"{address}: the answer has no list of results")
            yield from rows
            # While files come and go, rows move from page to page: twice, or never seen.
            seen |= {str(row.get("asset_id")) for row in rows if isinstance(row, dict)}
            counts.append(answer.get("count"))
            if not answer.get("next"):
                break
            if not rows:
                raise NetworkError(f"{address}: page {page:,} is empty, but not the last")
        _require_all(address, counts, len(seen))

    def _asset(self, dandiset: str, version: str, row: _Row) -> Asset | None:
        """A row of the archive's list; None for what is not an NWB file."""
        try:
            path, size, name = str(row["path"]), int(row["size"]), str(row["asset_id"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise NetworkError(
                f"{self.address}: an asset of {dandiset} lacks its path, size or id"
            ) from error
        if not path.lower().endswith(".nwb") or row.get("zarr"):
            return None
        parts = PurePosixPath(path).parts
        if path.startswith("/") or ".." in parts or "\\" in path or not path.isprintable():
            raise NetworkError(f"{self.address}: an asset of {dandiset} has the path {path!r}")
        if not re.fullmatch(r"[0-9A-Za-z-]+", name):
            raise NetworkError(f"{self.address}: an asset of {dandiset} has the id {name!r}")
        if size < 0:
            raise NetworkError(f"{self.address}: {path} of {dandiset} has {size} bytes")
        digests = _digests(row.get("metadata"))
        return Asset(dandiset, version, name, path, size, digests, self.address)

    def _object(self, address: str, parameters: dict[str, str] | None = None) -> _Row:
        answer = self.web.json(address, parameters)
        if not isinstance(answer, dict):
            raise NetworkError(f"{address}: the answer is no JSON object")
        return answer


def _require_all(address: str, counts: list[object], seen: int) -> None:
    """Raise if any of the answers counts other than so many assets."""
    for count in counts:
        if isinstance(count, int) and count != seen:
            raise NetworkError(
                f"{address}: {seen:,} of {count:,} assets were listed; give the same command again"
            )


def _digests(metadata: object) -> dict[str, str]:
    """The checksums that an asset's metadata name, as we call them."""
    found = metadata.get("digest") if isinstance(metadata, dict) else None
    found = found if isinstance(found, dict) else {}
    names = {"sha256": "dandi:sha2-256", "dandi-etag": "dandi:dandi-etag"}
    return {ours: str(found[its]).lower() for ours, its in names.items() if found.get(its)}


def _inside(path: str, place: str) -> bool:
    return not place or path == place or path.startswith(f"{place}/")
