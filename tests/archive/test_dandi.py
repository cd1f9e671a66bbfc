"""What a dandiset holds is listed whole, in any number of pages, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crosspatch.archive.dandi import Archive, DandiPlace, is_dandi
from crosspatch.archive.web import Web, WebSettings, digests_of
from crosspatch.errors import NetworkError
from tests.archive_server import KINDS, ArchiveServer, Faults

MANY = 2345


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "cell.nwb"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    return path


@pytest.fixture(scope="module")
def shared_server(file) -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        few = {f"sub-{k}/sub-{k}_ses-{10 + k}_icephys.nwb": file for k in (1, 2, 3)}
        server.add_dandiset("000001", few | {"README.md": file, "sub-1/image.ome.zarr": file})
        server.add_dandiset(
            "000002", {f"sub-{k % 100:03d}/ses-{k:05d}.nwb": file for k in range(MANY)}
        )
        server.add_dandiset("000003", {"sub-1/old.nwb": file}, version="0.220101.0000")
        server.add_dandiset("000003", {"sub-1/new.nwb": file}, version="0.230101.0000")
        server.add_dandiset("000003", {"sub-1/draft.nwb": file}, version="draft")
        server.add_dandiset("000004", {"sub-1/never-published.nwb": file}, version="draft")
        server.add_dandiset("000005", {"sub-1/young.nwb": file}, digests=False)
        server.add_dandiset("000006", {"README.md": file})
        yield server


@pytest.fixture
def server(shared_server) -> ArchiveServer:
    shared_server.faults = None
    shared_server.settle()
    shared_server.clear_log()
    return shared_server


@pytest.fixture
def patient(quick) -> WebSettings:
    """A page of a thousand assets takes a while to make."""
    return replace(quick, timeout=10)


@pytest.fixture
def archive(server, patient) -> Archive:
    return Archive(server.api, Web(patient))


@pytest.fixture
def hurried(server, quick) -> Archive:
    return Archive(server.api, Web(quick))


def paths(archive: Archive, place: str) -> list[str]:
    return [asset.path for asset in archive.recordings(DandiPlace.parse(place))]


# How a place is written.


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dandi:000636", DandiPlace("000636")),
        (" DANDI:000636 ", DandiPlace("000636")),
        ("dandi:000636/", DandiPlace("000636")),
        ("dandi:000636@0.241120.0510", DandiPlace("000636", "0.241120.0510")),
        ("dandi:000636/0.241120.0510", DandiPlace("000636", "0.241120.0510")),
        ("dandi:000636@draft", DandiPlace("000636", "draft")),
        ("dandi:000636@DRAFT/sub-1", DandiPlace("000636", "draft", "sub-1")),
        ("dandi:000636/sub-1/", DandiPlace("000636", None, "sub-1")),
        ("dandi:000636/sub-1/a b.nwb", DandiPlace("000636", None, "sub-1/a b.nwb")),
        ("dandi:000636/drafts/a.nwb", DandiPlace("000636", None, "drafts/a.nwb")),
        ("dandi:000636@0.1.2/sub-1/a.nwb", DandiPlace("000636", "0.1.2", "sub-1/a.nwb")),
    ],
)
def test_a_place_is_read(text, place):
    assert DandiPlace.parse(text) == place


@pytest.mark.parametrize(
    "text",
    [
        *("dandi:636", "dandi:0006361", "000636", "dandi:", "dandi:000636@", "dandi:000636@new"),
        *("dandi:000636@0.1", "dandi:000636@0.1.2x", "dandi:000636 sub-1", "dandi:٠٠٠٦٣٦"),
    ],
)
def test_what_is_no_place_is_said_with_examples(text):
    with pytest.raises(NetworkError, match=r"is no dandiset; write dandi:000636, dandi:000636@"):
        DandiPlace.parse(text)


def test_the_archive_is_told_from_files():
    assert is_dandi("dandi:000636")
    assert is_dandi("DANDI:nonsense")
    assert not is_dandi("dandi/000636")
    assert not is_dandi(Path("dandi:000636"))


# What is listed.


def test_recordings_are_listed_with_all_that_is_needed(archive, file, server):
    assets = archive.recordings(DandiPlace("000001"))
    assert [asset.path for asset in assets] == [
        f"sub-{k}/sub-{k}_ses-{10 + k}_icephys.nwb" for k in (1, 2, 3)
    ]
    first = assets[0]
    assert (first.dandiset, first.version, first.size) == ("000001", "0.240101.0000", 1008)
    assert first.digests == digests_of(file, ["sha256", "dandi-etag"])
    assert first.digest == f"sha256:{first.digests['sha256']}"
    assert first.address == server.address + server.asset("000001", first.path).download_path
    assert str(first) == f"dandi:000001@0.240101.0000/{first.path}"
    assert (first.name, first.stem) == ("sub-1_ses-11_icephys.nwb", "sub-1_ses-11_icephys")
    assert len({*assets, replace(first)}) == 3


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("dandi:000001/sub-2", ["sub-2/sub-2_ses-12_icephys.nwb"]),
        ("dandi:000001/sub-2/", ["sub-2/sub-2_ses-12_icephys.nwb"]),
        ("dandi:000001/sub-2/sub-2_ses-12_icephys.nwb", ["sub-2/sub-2_ses-12_icephys.nwb"]),
        ("dandi:000003", ["sub-1/new.nwb"]),
        ("dandi:000003@0.220101.0000", ["sub-1/old.nwb"]),
        ("dandi:000003@draft", ["sub-1/draft.nwb"]),
        ("dandi:000004", ["sub-1/never-published.nwb"]),
    ],
)
def test_a_part_or_a_version_of_a_dandiset(place, found, archive):
    assert paths(archive, place) == found


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("dandi:999999", r"/dandisets/999999/: the server answered 404 Not Found; check the name"),
        ("dandi:000003@0.1.2", r"versions/0\.1\.2/assets/: the server answered 404"),
        ("dandi:000006", r"no NWB file in dandi:000006@0\.240101\.0000; check"),
        ("dandi:000001/sub-9", r"no NWB file in dandi:000001@0\.240101\.0000/sub-9; check"),
        ("dandi:000001/sub", "no NWB file"),  # a part of a name is no folder
        ("dandi:000001/SUB-1", "no NWB file"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(place, message, archive):
    with pytest.raises(NetworkError, match=message) as error:
        paths(archive, place)
    assert "\n" not in str(error.value)


def test_more_assets_than_a_page_holds(archive, server):
    listed = paths(archive, "dandi:000002")
    assert len(listed) == len(set(listed)) == MANY
    assert listed == sorted(listed)
    assert len(server.requests("/assets/")) == 3


def test_checksums_that_a_list_lacks_are_asked_for(archive, server, file):
    (listed,) = archive.recordings(DandiPlace("000005"))
    assert set(listed.digests) == {"dandi-etag"}
    assert archive.complete(listed) is listed
    bare = replace(listed, digests={})
    assert bare.digest == "size:1008"
    assert archive.complete(bare) == listed


def test_the_address_of_an_archive_may_be_the_users(server, quick, monkeypatch):
    monkeypatch.setenv("CROSSPATCH_DANDI", f"{server.api}/")
    assert Archive().version("000003") == "0.230101.0000"


# An archive that cannot be believed.


class Lying(Web):
    """Answers are changed before anybody sees them."""

    def __init__(self, settings, change: Callable[[Any], Any]):
        super().__init__(settings)
        self.change = change

    def json(self, address, parameters=None):
        answer = super().json(address, parameters)
        if not address.endswith("/assets/"):
            return answer
        changed = self.change(answer)
        return answer if changed is None else changed


def listing(server, patient, dandiset: str, change: Callable[[Any], Any]) -> list:
    return Archive(server.api, Lying(patient, change)).recordings(DandiPlace(dandiset))


def one_more(answer):
    answer["count"] += 1


def one_lost(answer):
    answer["results"] = answer["results"][1:]


def one_twice(answer):
    answer["results"][1] = answer["results"][0]


def a_page_lost(answer):
    answer["next"] = None


@pytest.mark.parametrize("change", [one_more, one_lost, one_twice, a_page_lost])
def test_a_list_that_does_not_add_up_is_no_list(change, server, patient):
    with pytest.raises(NetworkError, match=r"assets were listed; give the same command again"):
        listing(server, patient, "000002", change)


def test_a_file_that_goes_while_pages_are_read_hides_no_other(server, patient):
    """The rows behind it move up by one: the first of the next page is never seen."""
    pages = 0

    def change(answer):
        nonlocal pages
        pages += 1
        if pages > 1:
            answer["count"] -= 1
        if pages == 2:
            answer["results"] = answer["results"][1:]

    with pytest.raises(NetworkError, match=r"2,344 of 2,345 assets were listed"):
        listing(server, patient, "000002", change)


def test_pages_without_end(server, patient):
    def change(answer):
        answer |= {"next": "more", "results": []}

    with pytest.raises(NetworkError, match="page 1 is empty, but not the last"):
        listing(server, patient, "000001", change)


@pytest.mark.parametrize(
    "path",
    [
        *("../evil.nwb", "sub-1/../../evil.nwb", "/etc/evil.nwb", "..\\evil.nwb", "C:\\evil.nwb"),
        *("sub-1\0/evil.nwb", "sub-1/evil\n.nwb", "sub-1/\x1b[2Jevil.nwb", "//evil.nwb"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path, server, patient):
    def change(answer):
        answer["results"][0]["path"] = path

    with pytest.raises(NetworkError, match="has the path") as error:
        listing(server, patient, "000003", change)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "row",
    [
        *(None, "text", [], 7, {}, {"path": "a.nwb", "size": 1}),
        {"path": "a.nwb", "size": None, "asset_id": "a"},
        {"path": "a.nwb", "size": "large", "asset_id": "a"},
        {"path": "a.nwb", "size": float("inf"), "asset_id": "a"},
        {"path": "a.nwb", "size": -1, "asset_id": "a"},
        {"path": "a.nwb", "size": 1, "asset_id": "../../other"},
        {"path": "a.nwb", "size": 1, "asset_id": ""},
    ],
)
def test_a_row_that_is_no_asset_is_refused(row, server, patient):
    def change(answer):
        answer["results"][0] = row

    with pytest.raises(NetworkError, match=r"an asset of 000003|000003 has -1 bytes"):
        listing(server, patient, "000003", change)


@pytest.mark.parametrize("metadata", [None, "text", [1], {"digest": "text"}, {"digest": None}])
def test_metadata_that_are_none_are_no_checksums(metadata, server, patient):
    def change(answer):
        answer["results"][0]["metadata"] = metadata

    (asset,) = listing(server, patient, "000003", change)
    assert not asset.digests


@pytest.mark.parametrize("answer", [[], "text", 7, {}, {"results": 7}, {"results": None}])
def test_an_answer_that_is_no_list_of_assets(answer, server, patient):
    with pytest.raises(NetworkError, match=r"the answer (is no JSON object|has no list)"):
        listing(server, patient, "000003", lambda _: answer)


@pytest.mark.parametrize("published", [None, {}, "0.1.2", {"version": None}])
def test_a_dandiset_without_a_published_version_is_a_draft(published, server, patient, monkeypatch):
    archive = Archive(server.api, Web(patient))
    monkeypatch.setattr(
        archive.web, "json", lambda *_: {"most_recent_published_version": published}
    )
    assert archive.version("000003") == "draft"


# A network that cannot be trusted.


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_survives_what_passes(kind, hurried, server):
    right = hurried.recordings(DandiPlace("000001"))
    server.faults = Faults((kind,), times=1)
    started = time.monotonic()
    if kind in ("403", "404"):
        with pytest.raises(NetworkError, match=f"the server answered {kind}"):
            hurried.recordings(DandiPlace("000001"))
    else:
        assert hurried.recordings(DandiPlace("000001")) == right
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_ends_when_it_never_passes(kind, hurried, server):
    right = hurried.recordings(DandiPlace("000001"))
    server.faults = Faults((kind,))
    started = time.monotonic()
    try:
        assert hurried.recordings(DandiPlace("000001")) == right
    except NetworkError as error:
        assert "\n" not in str(error)
        assert kind not in ("changed", "ignore-range", "other-range")
    else:
        assert kind in ("changed", "ignore-range", "other-range")
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("seed", range(4))
def test_a_long_list_survives_many_faults(seed, server, patient):
    archive = Archive(server.api, Web(replace(patient, attempts=30)))
    right = archive.recordings(DandiPlace("000002"))
    kinds = ("drop", "cut", "short", "long", "wrong", "broken-json", "page", "429", "500", "503")
    server.faults = Faults((*kinds, "redirect-loop"), share=0.6, seed=seed, retry_after=0)
    assert archive.recordings(DandiPlace("000002")) == right
