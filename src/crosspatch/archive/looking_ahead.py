"""What HDF5 will look up in a file, said ahead, so that it can be fetched many pieces at a time.

HDF5 reads its tables one after another, and each one names the next; over a network every one costs
a round trip. Here the addresses are followed for all series at once. Nothing is concluded from
what is found: HDF5 reads it again, and where this finds nothing it only takes longer. Old-style
groups and version 1 of the object header (sections III and IV.A.1.a of the HDF5 file format
specification) are followed, which is what pynwb and h5py write by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import h5py

_HEADER = 512  #: bytes of an object's header up to where it may go on elsewhere
#: Bytes of the node of a group's tree, of its heap, and of its list of members.
_NODE, _HEAP, _MEMBERS = 544, 512, 328
#: Bytes from the description of samples, with the table of where the first of them lie.
_SAMPLES = 3328
_CONTINUATION, _SYMBOL_TABLE = 0x10, 0x11
_Range = tuple[int, int]


class Announced(Protocol):
    """Bytes that can be told what will be looked up."""

    def read_at(self, offset: int, count: int) -> bytes:
        """Some bytes; fewer where the file ends."""

    def announce(self, ranges: Iterable[_Range]) -> None:
        """Say that there is something to be looked up in these (offset, count)."""


def announce_members(content: Announced, groups: Iterable[h5py.Group]) -> None:
    """The headers of all members of some groups."""
    groups = list(groups)
    trees = [tree for group in groups for tree, _ in _tables(content, _address(group))]
    content.announce([(child, _MEMBERS) for tree in trees for child in _children(content, tree)])
    members = [address for group in groups for address in _linked(group, group)]
    _announce_headers(content, members, _HEADER)
    # HDF5 looks at a group's tree when it opens the group.
    content.announce([(tree, _NODE) for member in members for tree, _ in _tables(content, member)])


def announce_samples(content: Announced, series: Sequence[h5py.Group]) -> None:
    """What says where the samples of some series, their ``data``, lie."""
    tables = [table for group in series for table in _tables(content, _address(group))]
    members = [(child, _MEMBERS) for tree, _ in tables for child in _children(content, tree)]
    content.announce([(heap, _HEAP) for _, heap in tables] + members)
    found = [address for group in series for address in _linked(group, ["data"])]
    _announce_headers(content, found, _SAMPLES)


def _linked(group: h5py.Group, names: Iterable[str]) -> list[int]:
    """Addresses of members of a group that lie in this file."""
    with suppress(Exception):  # what is damaged is found when it is read
        links = [group.id.links.get_info(name.encode()) for name in names]
        return [link.u for link in links if link.type == h5py.h5l.TYPE_HARD]
    return []


def _announce_headers(content: Announced, addresses: list[int], count: int) -> None:
    content.announce([(address, count) for address in addresses])
    content.announce([part for address in addresses for part in _parts(content, address)[1:]])


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def _number(text: bytes, at: int, count: int) -> int:
    return int.from_bytes(text[at : at + count], "little")


def _parts(content: Announced, address: int) -> list[_Range]:
    """The pieces an object's header lies in: (offset, count)."""
    head = content.read_at(address, _HEADER)
    if head[:1] != b"\x01":
        return []
    first = (address + 16, min(_number(head, 8, 4), _HEADER - 16))
    more = [
        (_number(body, 0, 8), min(_number(body, 8, 8), 4096))
        for kind, body in _messages(content, first)
        if kind == _CONTINUATION
    ]
    return [first, *more]


def _messages(content: Announced, part: _Range) -> Iterator[tuple[int, bytes]]:
    """Kind and body of the messages in a piece of a header."""
    text = content.read_at(*part)
    at = 0
    while at + 8 <= len(text):
        kind, size = _number(text, at, 2), _number(text, at + 2, 2)
        yield kind, text[at + 8 : at + 8 + size]
        at += 8 + size


def _tables(content: Announced, address: int) -> Iterator[_Range]:
    """Addresses of the tree and the heap that hold a group's members."""
    for part in _parts(content, address):
        for kind, body in _messages(content, part):
            if kind == _SYMBOL_TABLE:
                yield _number(body, 0, 8), _number(body, 8, 8)


def _children(content: Announced, tree: int) -> list[int]:
    """Addresses of the lists of members that a group's tree leads to, if it has one level."""
    node = content.read_at(tree, _NODE)
    if node[:4] != b"TREE" or node[5] != 0:
        return []
    return [_number(node, 32 + 16 * k, 8) for k in range(_number(node, 6, 2))]
