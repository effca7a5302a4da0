"""Layouts of published data sets: files that are not events under our names.

    recbole     .inter: a header `user_id:token  item_id:token  rating:float  timestamp:float`, tabs; the item names
                and categories of an .item file beside it are taken
    taobao      user,item,category,behaviour,seconds without a header; behaviour is pv, cart, fav or buy
    sequences   `user item item ...` or `user item` a line, whole numbers; the order of a user's items is that of the
                file, and there are no times
    lists       `item item ...` a line, whole numbers: the n-th line is user n; no times either

Each file may be packed with gzip. The layout of a file is told by its content (`find_layout`).
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv

from model.errors import DatasetError
from model.training.details import ItemDetails
from state.weights import TYPE_CODES

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

EVENT_LAYOUTS = ("jsonl", "csv", "parquet")
"""Events under our own names: see model.training.dataset."""
TABLE_LAYOUTS = ("recbole", "taobao", "sequences", "lists")
LAYOUTS = (*EVENT_LAYOUTS, *TABLE_LAYOUTS)

_ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".inter": "recbole",
}
_LOOKED_INTO = (".csv", ".txt", ".tsv")
ENDINGS = (*_ENDINGS, *_LOOKED_INTO)
"""Endings of files that are read, before a `.gz`."""

_GZIP = b"\x1f\x8b"
_BLOCK_BYTES = 16 << 20
_BEHAVIOURS = {
    "pv": TYPE_CODES["view"],
    "cart": TYPE_CODES["add_to_cart"],
    "fav": TYPE_CODES["like"],
    "buy": TYPE_CODES["purchase"],
}
_TAOBAO = ("user", "item", "category", "behaviour", "seconds")
_FIRST_MS, _END_MS = 100_000_000_000, 4_102_444_800_000
"""1973 and 2100: Taobao's log holds a few rows with times before and after, which are left out."""


class Rows(NamedTuple):
    """A stretch of a file: k rows in columns."""

    user: Any
    """pyarrow string array [k]."""
    item: Any
    """pyarrow string array [k]."""
    type: U8
    """u8[k]: index into state.weights.EVENT_TYPES."""
    time_ms: I64 | None
    """i64[k], UTC; None where the layout has no times."""
    category: Any | None = None
    """pyarrow string array [k], or None."""


def files_of(path: Path) -> list[Path]:
    """A file itself, or the files of a folder that can be read, by name. Raises DatasetError when there is none."""
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file; correct the path.")
    if not path.is_dir():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and _ending(file) in ENDINGS and not file.name.startswith((".", "_"))
    )
    if not found:
        raise DatasetError(f"{path}: holds no file that ends in {', '.join(ENDINGS)} (or these with .gz).")
    return found


def find_layout(file: Path) -> str:
    """The layout of a file, one of LAYOUTS. Raises DatasetError when it is none of them."""
    ending = _ending(file)
    known = _ENDINGS.get(ending)
    if known is not None:
        return known
    with opened(file) as stream:
        line = _first_line(stream)
    if line.startswith(b"PAR1"):
        return "parquet"
    if line.startswith(b"{"):
        return "jsonl"
    if b":token" in line:
        return "recbole"
    cells = line.decode("utf-8", "replace").strip().split(",")
    if len(cells) == len(_TAOBAO) and cells[3] in _BEHAVIOURS:
        return "taobao"
    if len(cells) == 1 and len(line.split()) > 1 and all(token.isdigit() for token in line.split()):
        with opened(file) as stream:
            return kind_of_lines(stream)
    if ending == ".csv":
        return "csv"
    raise DatasetError(
        f"{file}: unknown kind of file; give one that ends in {', '.join(ENDINGS)} (or these with .gz), or say with "
        f"--layout what it is: {', '.join(LAYOUTS)}."
    )


def _ending(file: Path) -> str:
    """The last ending that is not .gz, in small letters."""
    return (Path(file.stem) if file.suffix.lower() == ".gz" else file).suffix.lower()


def _first_line(stream: IO[bytes]) -> bytes:
    for line in iter(lambda: stream.readline(1 << 20), b""):
        if line.strip():
            return line.removeprefix(b"\xef\xbb\xbf")
    return b""


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked if they are gzip's, whatever its name. Raises DatasetError."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            if not packed:
                yield raw
                return
            with gzip.open(raw) as unpacked:
                yield cast(IO[bytes], unpacked)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{file}: is broken inside ({error}); pack or copy it again.") from error
    except FileNotFoundError:
        raise DatasetError(f"{file}: there is no such file; correct the path.") from None
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error}); check its rights.") from error


def read_rows(file: Path, layout: str) -> Iterator[Rows]:
    """The rows of a file of one of TABLE_LAYOUTS, in its order, some megabytes at a time. Raises DatasetError."""
    readers: dict[str, Callable[[Path], Iterator[Rows]]] = {
        "recbole": _recbole,
        "taobao": _taobao,
        "sequences": _sequences,
        "lists": _lists,
    }
    return readers[layout](file)


# --- recbole -----------------------------------------------------------------------------------------------------


def _recbole(file: Path) -> Iterator[Rows]:
    with opened(file) as stream:
        header = _first_line(stream).decode("utf-8", "replace").rstrip("\r\n").split("\t")
    names = [cell.partition(":")[0] for cell in header]
    for wanted in ("user_id", "item_id"):
        if wanted not in names:
            raise DatasetError(f"{file}: has no column {wanted}:token (it has: {', '.join(header)}); rename it.")
    code = TYPE_CODES["rating" if "rating" in names else "view"]
    row = 2  # the header is line 1
    for table in _csv(file, names, "\t", has_header=True):
        user, item = _ids(file, row, table, "user_id"), _ids(file, row, table, "item_id")
        time_ms = None
        if "timestamp" in names:
            time_ms = _times_ms(_numbers(file, row, table, "timestamp", pa.float64()))
        yield Rows(user, item, np.full(len(user), code, np.uint8), time_ms)
        row += len(user)


def item_details(file: Path) -> dict[str, ItemDetails]:
    """Names and categories of items by id, from the .item file beside an .inter file; empty where there is none.

    The name is the column with `title` or `name` in its name; the category is the first word of `class`, `genre` or
    `categories`.
    """
    base = file.name.removesuffix(".gz").removesuffix(".inter")
    beside = [file.with_name(base + ending) for ending in (".item", ".item.gz")]
    found = next((path for path in beside if path.is_file()), None)
    if found is None:
        return {}
    with opened(found) as stream:
        text = stream.read().decode("utf-8", "replace")
    lines = [line.split("\t") for line in text.splitlines() if line]
    names = [cell.partition(":")[0] for cell in lines[0]] if lines else []
    if "item_id" not in names:
        raise DatasetError(f"{found}: has no column item_id:token; mend or remove the file.")
    at = names.index("item_id")
    name = next((k for k, column in enumerate(names) if "title" in column or "name" in column), None)
    kind = next((k for k, column in enumerate(names) if column in ("class", "genre", "genres", "categories")), None)
    rows = [line for line in lines[1:] if len(line) == len(names)]
    details = {}
    for line in rows:
        category = "" if kind is None else (line[kind].split() or [""])[0].strip(",")
        details[line[at]] = ItemDetails("" if name is None else line[name], category, category)
    return details


# --- taobao ------------------------------------------------------------------------------------------------------


def _taobao(file: Path) -> Iterator[Rows]:
    row = 1
    behaviours = pa.array(list(_BEHAVIOURS))
    codes = np.array(list(_BEHAVIOURS.values()), np.uint8)
    for table in _csv(file, list(_TAOBAO), ",", has_header=False):
        user, item = _ids(file, row, table, "user"), _ids(file, row, table, "item")
        kind = pc.index_in(_column(table, "behaviour"), value_set=behaviours)
        if kind.null_count:
            at = _first_null(kind)
            raise DatasetError(
                f"{file}, row {row + at}, column behaviour: {table['behaviour'][at].as_py()!r} is none of "
                f"{', '.join(_BEHAVIOURS)}; mend or remove the row."
            )
        time_ms = _numbers(file, row, table, "seconds", pa.int64()) * 1000
        known = (time_ms >= _FIRST_MS) & (time_ms < _END_MS)
        keep = pa.array(known)
        yield Rows(
            user.filter(keep),
            item.filter(keep),
            codes[kind.to_numpy()][known],
            time_ms[known],
            _column(table, "category").filter(keep),
        )
        row += len(user)


# --- sequences ---------------------------------------------------------------------------------------------------


_LINES_LOOKED_AT = 100_000


def kind_of_lines(lines: Iterable[bytes]) -> str:
    """Whether lines of numbers begin with a user: then each line's is another, or each line has two numbers."""
    first, pairs = [], True
    for line in itertools.islice(lines, _LINES_LOOKED_AT):
        tokens = line.split(maxsplit=2)
        if tokens:
            first.append(tokens[0])
            pairs = pairs and len(tokens) == 2
    return "sequences" if pairs or len(set(first)) == len(first) else "lists"


def _sequences(file: Path, *, user_first: bool = True) -> Iterator[Rows]:
    code = TYPE_CODES["view"]
    number = 0
    with opened(file) as stream:
        while lines := stream.readlines(_BLOCK_BYTES):
            users: list[bytes] = []
            counts: list[int] = []
            items: list[bytes] = []
            for line in lines:
                number += 1
                tokens = line.split()
                if not tokens:
                    continue
                if len(tokens) <= user_first or not all(map(bytes.isdigit, tokens)):
                    form = "user item item ..." if user_first else "item item ..."
                    raise DatasetError(f"{file}, line {number}: is no `{form}` in whole numbers; mend or remove it.")
                users.append(tokens[0] if user_first else b"%d" % number)
                counts.append(len(tokens) - user_first)
                items += tokens[1:] if user_first else tokens
            line_of = pa.array(np.repeat(np.arange(len(users)), counts))
            user = pa.array(users, pa.binary()).cast(pa.string()).take(line_of)
            item = pa.array(items, pa.binary()).cast(pa.string())
            yield Rows(user, item, np.full(len(items), code, np.uint8), None)


def _lists(file: Path) -> Iterator[Rows]:
    return _sequences(file, user_first=False)


# --- tables ------------------------------------------------------------------------------------------------------


def _csv(file: Path, names: list[str], delimiter: str, *, has_header: bool) -> Iterator[Any]:
    """The file as pyarrow record batches, all columns as text. Raises DatasetError with the row of an error."""
    with opened(file) as stream:
        try:
            reader = pc_csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                # One thread: then an error names its row.
                read_options=pc_csv.ReadOptions(
                    column_names=names, skip_rows=int(has_header), use_threads=False, block_size=_BLOCK_BYTES
                ),
                parse_options=pc_csv.ParseOptions(delimiter=delimiter, quote_char=False),
                convert_options=pc_csv.ConvertOptions(
                    column_types={name: pa.string() for name in names}, strings_can_be_null=False
                ),
            )
            yield from reader
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            raise DatasetError(f"{file}: {error}; mend or remove the row.") from error


def _column(table: Any, name: str) -> Any:
    return table.column(table.schema.get_field_index(name))


def _ids(file: Path, row: int, table: Any, name: str) -> Any:
    column = _column(table, name)
    empty = pc.equal(column, "")
    if pc.any(empty).as_py():
        raise DatasetError(f"{file}, row {row + pc.index(empty, True).as_py()}, column {name}: is empty; fill it.")
    return column


def _numbers(file: Path, row: int, table: Any, name: str, kind: Any) -> npt.NDArray[Any]:
    column = _column(table, name)
    try:
        numbers: npt.NDArray[Any] = column.cast(kind).to_numpy()
    except pa.ArrowInvalid:
        for at, cell in enumerate(column.to_pylist()):
            try:
                pa.array([cell]).cast(kind)
            except pa.ArrowInvalid:
                raise DatasetError(
                    f"{file}, row {row + at}, column {name}: {cell!r} is no number; mend or remove the row."
                ) from None
        raise
    return numbers


def _first_null(column: Any) -> int:
    return int(pc.index(pc.is_null(column), True).as_py())


def _times_ms(value: npt.NDArray[np.float64]) -> I64:
    """Epoch ms of numbers since 1970, in seconds or, from 1e11 on, in ms."""
    return np.where(np.abs(value) < 1e11, value * 1000, value).astype(np.int64)
