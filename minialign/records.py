"""The records of a text file, each with its line: JSON lines, a JSON array, or a table; plain or gzipped."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

BINARY = {  # how files begin that often hold records, but not as text
    b"PAR1": "a Parquet",
    b"ARROW1": "an Arrow",
    b"\xff\xff\xff\xff": "an Arrow",
    b"PK\x03\x04": "a zip or Excel",
    b"\xfd7zXZ": "an xz",
    b"\x28\xb5\x2f\xfd": "a zstd",
    b"BZh": "a bzip2",
}
BETWEEN = re.compile(r"[\s,]*")


def read_text(path: str | Path) -> str:
    """The text of a file, unpacked if it is gzipped. Raises ValueError when it holds no UTF-8 text."""
    content = Path(path).read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}): get it again") from None
    for start, kind in BINARY.items():
        if content.startswith(start):
            raise ValueError(f"{path} is {kind} file: unpack it, or export it as JSON lines or CSV")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None


def records(content: str, columns: Sequence[str], faults: list[str]) -> Iterator[tuple[int, object]]:
    """One (line, record) after another; what cannot be read is appended to `faults`, with its line.

    A table is known by its header: some of the `columns`, each once, between commas, semicolons or tabs.
    """
    lines = enumerate(content.split("\n"), 1)
    number, first = next(((number, line.strip()) for number, line in lines if line.strip()), (1, ""))
    if not first.startswith(("{", "[")):
        for delimiter in ",;\t":
            names = [name.strip('"') for name in first.split(delimiter)]
            if max(map(names.count, columns)) == 1:
                yield from _of_table(content, delimiter, faults)
                return
        if first:
            faults.append(
                f"line {number}: this is neither a JSON object nor a table's header with "
                f"{', '.join(columns)}, but {first[:60]!r}"
            )
        return
    start = len(content) - len(content.lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(content, start)
    except (ValueError, RecursionError) as error:
        if first.startswith("["):  # its lines mean nothing alone
            faults.append(f"line {getattr(error, 'lineno', number)}: {_told(error)}")
        else:
            yield from _of_lines(content, faults)
        return
    if isinstance(value, list) and not content[end:].strip():
        yield from _of_values(content[: end - 1], start + 1, faults)
    elif "\n" in content[start:end]:  # objects that take several lines each
        yield from _of_values(content, start, faults)
    else:
        yield from _of_lines(content, faults)


def _of_lines(content: str, faults: list[str]):
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                faults.append(f"line {number}: {_told(error)}")


def _of_values(content: str, at: int, faults: list[str]):
    """JSON values, one after another from `at` on, each with the line on which it begins."""
    number, counted = 1, 0
    while (at := BETWEEN.match(content, at).end()) < len(content):
        number, counted = number + content.count("\n", counted, at), at
        try:
            value, at = json.JSONDecoder().raw_decode(content, at)
        except (ValueError, RecursionError) as error:
            faults.append(f"line {getattr(error, 'lineno', number)}: {_told(error)}")
            return
        yield number, value


def _told(error: Exception) -> str:
    where = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    return f"this is not JSON ({getattr(error, 'msg', error)}{where})"


def _of_table(content: str, delimiter: str, faults: list[str]):
    """The rows below the header. An empty cell is a value that is missing."""
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header, following = None, 1
    try:
        for row in rows:
            number, following = following, rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = row
            elif len(row) != len(header):
                faults.append(f"line {number}: the row has {len(row)} cells, the header {len(header)}")
            else:
                yield number, {name: cell for name, cell in zip(header, row) if cell}
    except csv.Error as error:
        faults.append(f"line {following}: the row cannot be read ({error}): check its quotation marks")
