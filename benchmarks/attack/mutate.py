"""Damages a file. The same random numbers give the same damage."""

import io
import random
import re
import struct
import zipfile
import zlib

__all__ = ["mutated"]

# Numbers at which lengths, sizes and counts go wrong.
_EDGES = (0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
# Values of text formats.
_VALUES = (
    b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b'"\\ud800"', b'"\\u0000"', b"1.5",
    b"9" * 30, b"9" * 5000, b"[" * 300 + b"]" * 300, b"[" * 5000, b'{"a":' * 300 + b"1" + b"}" * 300,
    b"2024-99-99", b"!!python/object:os.system", b"&a [*a]", b"../../x", b"/etc/passwd", b"A" * 100_000,
    b" " * 100_000, "é\u0301\u202e".encode(), b"\xff\xfe",
)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
_TOKEN = re.compile(rb'"[^"\n]{0,80}"|-?\d+(?:\.\d+)?|true|false|null|\w+')


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Returns `content` with one to four changes.

    Bits flip, bytes take edge values, pieces are removed, repeated, exchanged or taken from `other`, the end
    is cut off; in text, a value takes another one.
    """
    if content[:4] == b"PK\x03\x04" and chance.random() < 0.8:
        return _in_archive(content, other, chance)
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not data:
            break
        if chance.random() < 0.7 and _is_text(data):
            data = _changed_value(data, chance)
        else:
            chance.choice(_CHANGES)(data, other, chance)
    if data[:8] == _PNG and chance.random() < 0.8:
        return _with_checksums(data)
    return bytes(data)


def _in_archive(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Damages one member of a ZIP archive, whose checksums then fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(stream, "w") as changed:
        members = whole.infolist()
        unlucky = chance.choice(members)
        for member in members:
            data = whole.read(member)
            changed.writestr(member, mutated(data, other, chance) if member is unlucky else data)
    return stream.getvalue()


def _with_checksums(data: bytearray) -> bytes:
    """Repairs the checksums of a PNG file's chunks, as far as its lengths lead."""
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 8 + length
        if end + 4 > len(data):
            break
        struct.pack_into(">I", data, end, zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)


def _is_text(data: bytearray) -> bool:
    return 0 not in data[:200] and max(data[:200], default=0) < 128


def _changed_value(data: bytearray, chance: random.Random) -> bytearray:
    found = list(_TOKEN.finditer(data[:20_000]))
    if not found:
        return data
    token = chance.choice(found)
    value = chance.choice((*_VALUES, chance.choice(found)[0]))
    return data[: token.start()] + value + data[token.end() :]


def _flip(data: bytearray, _: bytes, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 3, 20))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _edge(data: bytearray, _: bytes, chance: random.Random) -> None:
    size = chance.choice((1, 2, 4))
    place = _place(data, chance)
    number = chance.choice(_EDGES) & ((1 << 8 * size) - 1)
    data[place : place + size] = number.to_bytes(size, chance.choice(("little", "big")))


def _remove(data: bytearray, _: bytes, chance: random.Random) -> None:
    start = _place(data, chance)
    del data[start : start + chance.choice((1, 2, 8, 64, 1000))]


def _repeat(data: bytearray, _: bytes, chance: random.Random) -> None:
    start = _place(data, chance)
    piece = data[start : start + chance.choice((1, 4, 32, 256))]
    data[start:start] = piece * chance.choice((1, 2, 50))


def _exchange(data: bytearray, _: bytes, chance: random.Random) -> None:
    one, two = _place(data, chance), _place(data, chance)
    size = chance.choice((1, 4, 16))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]


def _splice(data: bytearray, other: bytes, chance: random.Random) -> None:
    start, place = chance.randrange(len(other)) if other else 0, _place(data, chance)
    piece = other[start : start + chance.choice((4, 32, 256, 4096))]
    data[place : place + chance.choice((0, len(piece)))] = piece


def _cut(data: bytearray, _: bytes, chance: random.Random) -> None:
    del data[_place(data, chance) :]


_CHANGES = (_flip, _flip, _edge, _edge, _remove, _repeat, _exchange, _splice, _cut)


def _place(data: bytearray, chance: random.Random) -> int:
    """A position: more often near the beginning, where headers are."""
    return chance.randrange(min(len(data), chance.choice((64, 512, len(data)))))
