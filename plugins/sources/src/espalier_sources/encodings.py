"""Text from bytes: the encoding found, and lines that keep their number even where one cannot be decoded."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain

from espalier_sdk.errors import DataError

from espalier_sources.finding import FoundFile
from espalier_sources.streams import Bytes

SAMPLE_BYTES = 2**20
_MARKS = (  # longest first: the mark of UTF-32-LE begins with that of UTF-16-LE
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def detect_encoding(sample: bytes, file: FoundFile) -> str:
    """Returns the encoding of a text's first bytes: by its mark, else UTF-8 where that fits, else the likeliest.

    A few broken lines in a text that is otherwise UTF-8 leave it UTF-8. DataError where nothing fits.
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    if _mostly_utf8(sample):
        return "utf-8"
    import charset_normalizer

    best = charset_normalizer.from_bytes(sample[: 2**17]).best()
    if best is None:
        place = _first_failure(sample, "utf-8")
        raise DataError(
            f"no encoding fits; as UTF-8 it fails at byte {place}",
            code="encoding",
            file=file.path,
            remedy="set `encoding`, or `format` if this is no text",
        )
    return str(best.encoding)


class Lines:
    """The lines of a text in order, without their ends.

    A line that cannot be decoded comes with U+FFFD in it; `broken` then holds its number (from 1) and why.
    """

    def __init__(self, source: Bytes, file: FoundFile, *, encoding: str | None) -> None:
        self._source, self._file = source, file
        self.sample = source.read(SAMPLE_BYTES)
        self.encoding = encoding or detect_encoding(self.sample, file)
        self.broken: dict[int, str] = {}
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self.blocks())

    def blocks(self) -> Iterator[list[str]]:
        """Yields the lines of one block of bytes after the other, in lists: line by line would cost as much again."""
        for text in self._wide() if _is_wide(self.encoding) else self._narrow():
            lines = (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")
            if lines[-1] == "":
                lines.pop()
            self._number += len(lines)
            yield lines

    def _blocks(self) -> Iterator[bytes]:
        block = self.sample
        while block:
            yield block
            block = self._source.read()

    def _narrow(self) -> Iterator[str]:
        """Yields whole lines of an encoding in which a line end is one byte."""
        carry, offset = [], 0
        for block in self._blocks():
            if offset == 0 and block.startswith(codecs.BOM_UTF8):
                block, offset = block[3:], 3
            cut = block.rfind(b"\n") + 1
            if not cut:  # a line longer than a block: kept as a list, because joining each time would be quadratic
                carry.append(block)
                continue
            whole = b"".join((*carry, block[:cut]))
            yield self._decode(whole, offset)
            offset += len(whole)
            carry = [block[cut:]]
        if last := b"".join(carry):
            yield self._decode(last, offset)

    def _decode(self, block: bytes, offset: int) -> str:
        try:
            return block.decode(self.encoding)
        except UnicodeDecodeError:
            return "\n".join(self._decode_lines(block, offset))

    def _decode_lines(self, block: bytes, offset: int) -> Iterator[str]:
        for number, line in enumerate(block.split(b"\n")):
            try:
                yield line.decode(self.encoding)
            except UnicodeDecodeError as error:
                place = f"byte {offset + error.start} is no {self.encoding} ({error.reason})"
                self.broken[self._number + 1 + number] = f"{place}; set `encoding` if it is another"
                yield line.decode(self.encoding, errors="replace")
            offset += len(line) + 1

    def _wide(self) -> Iterator[str]:
        decoder, carry, offset = codecs.getincrementaldecoder(self.encoding)(), "", 0
        for block in (*self._blocks(), b""):
            try:
                text = carry + decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"byte {offset + error.start} is no {self.encoding}: {error.reason}",
                    code="encoding",
                    file=self._file.path,
                    remedy="set `encoding`, or write the file again as UTF-8",
                ) from error
            text = text.removeprefix("\ufeff") if offset == 0 else text
            offset += len(block)
            cut = text.rfind("\n") + 1
            if cut:
                yield text[:cut]
            carry = text[cut:]
        if carry:
            yield carry


def decode_whole(content: bytes, file: FoundFile, *, encoding: str | None) -> str:
    """Returns a whole text; DataError with the byte that does not fit its encoding."""
    name = encoding or detect_encoding(content[:SAMPLE_BYTES], file)
    try:
        return content.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} is no {name}: {error.reason}",
            code="encoding",
            file=file.path,
            remedy="set `encoding`, or write the file again as UTF-8",
        ) from error


def _is_wide(encoding: str) -> bool:
    return len("\n".encode(encoding)) > 1


def _mostly_utf8(sample: bytes) -> bool:
    """Tells whether a text is UTF-8, its cut last character and a few broken lines aside.

    Text in an eight-bit encoding hardly ever holds a valid sequence of several bytes, so one good line weighs as
    much as a bad one.
    """
    if b"\0" in sample[:4096]:
        return False
    if _first_failure(sample, "utf-8") is None:
        return True
    good = bad = 0
    for line in sample.split(b"\n")[:-1]:
        if not line.isascii():
            if _first_failure(line, "utf-8") is None:
                good += 1
            else:
                bad += 1
    return good >= bad


def _first_failure(sample: bytes, encoding: str) -> int | None:
    try:
        codecs.getincrementaldecoder(encoding)().decode(sample, final=False)
    except UnicodeDecodeError as error:
        return error.start
    return None
