"""Which files a source names, on this machine and in a bucket."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.errors import RefusedError
from stream.replay.files import digest_of, find_files, head_of
from stream.replay.log import LogSpec, open_log
from stream.settings import load_settings
from tests.test_stream.event_files import event, write


def names(source: str) -> list[str]:
    return [file.name for file in find_files(source)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As jobs write them."""
    for name in (
        "day=2/b.jsonl",
        "day=1/b.jsonl.gz",
        "day=1/_SUCCESS.csv",
        "day=1/.part.jsonl.crc",
        "a.csv",
        "notes.md",
        "_temporary/x.jsonl",
    ):
        (tmp_path / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "log" / name).touch()
    return tmp_path / "log"


class TestFindFiles:
    def test_of_a_folder(self, folder: Path) -> None:
        assert names(str(folder)) == ["a.csv", "day=1/b.jsonl.gz", "day=2/b.jsonl"]
        assert [file.parts for file in find_files(str(folder))] == [{}, {"day": "1"}, {"day": "2"}]

    def test_one_file_whatever_its_name(self, folder: Path) -> None:
        assert names(f"{folder}/notes.md") == ["notes.md"]

    def test_a_pattern(self, folder: Path) -> None:
        assert names(f"{folder}/day=*/b*") == ["b.jsonl.gz", "b.jsonl"]
        assert names(f"{folder}/da*") == ["b.jsonl.gz", "b.jsonl"]

    def test_standard_input(self) -> None:
        assert names("-") == ["standard input"]

    @pytest.mark.parametrize("source", ["nothing.jsonl", "nothing-*.jsonl", "_temporary"])
    def test_nothing(self, source: str, tmp_path: Path) -> None:
        (tmp_path / "_temporary").mkdir()
        (tmp_path / "_temporary" / "notes.md").touch()
        with pytest.raises(RefusedError, match=r"there is no such file\. Give|holds no file that can be read"):
            find_files(str(tmp_path / source))

    def test_an_address_of_no_store(self) -> None:
        with pytest.raises(RefusedError, match=r"cannot read nowhere://a/b: .*See to the address"):
            find_files("nowhere://a/b")


def test_heads(tmp_path: Path) -> None:
    def head(name: str, text: str) -> tuple[list[str], tuple[str, ...], str | None]:
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        found = head_of(find_files(str(tmp_path / name))[0])
        return found.lines, found.columns, found.kind

    assert head("a.csv", 'a,"b"\n\n1,2\n') == (['a,"b"', "1,2"], ("a", "b"), "csv")
    assert head("b.csv", '"user, id",x\n')[1] == ("user, id", "x")
    assert head("a.txt", '{"a": 1}') == (['{"a": 1}'], ("a",), "jsonl")
    assert head("b.jsonl", "{") == (["{"], (), "jsonl")
    assert head("b.txt", "") == ([], (), None)


def test_digests(tmp_path: Path) -> None:
    big = b"x" * 300_000
    contents = {"a": big, "b": big, "c": big + b"x", "d": big[:-1] + b"y", "e": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    a, b, *others = [digest_of(find_files(str(tmp_path / name))[0]) for name in contents]
    assert a == b
    assert len({a, *others}) == 4


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as reading asks for: files below `root` in one bucket."""

    root: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._object(body=False)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" not in query:
            self._object(body=True)
            return
        prefix = query.get("prefix", [""])[0]
        found = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
        keys = [(p.relative_to(self.root).as_posix(), p.stat().st_size) for p in found]
        entries = "".join(
            f"<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            "</Contents>"
            for key, size in keys
            if key.startswith(prefix)
        )
        self._answer(
            200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode(), {}
        )

    def _object(self, *, body: bool) -> None:
        path = self.root / unquote(urlsplit(self.path).path).removeprefix("/bucket").lstrip("/")
        if not path.is_file():
            self._answer(404, b"", {})
            return
        data, code, more = path.read_bytes(), 200, {}
        if "Range" in self.headers:
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            code, more = 206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            data = data[int(first) : int(last) + 1]
        self._answer(code, data, more, body=body)

    def _answer(self, code: int, data: bytes, more: dict[str, str], *, body: bool = True) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), "ETag": '"x"', **more}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder behind s3://bucket."""
    root = tmp_path / "bucket"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bucket", (_Bucket,), {"root": root}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield root
    server.shutdown()
    server.server_close()


class TestBucket:
    def test_files_of_all_kinds(self, bucket: Path) -> None:
        (bucket / "log/day=1").mkdir(parents=True)
        (bucket / "log/day=2").mkdir()
        write(bucket / "log/day=1/a.jsonl.gz", [event(n) for n in range(3000)])
        write(bucket / "log/day=1/b.csv", [event(n) for n in range(3000, 3100)])
        pq.write_table(pa.Table.from_pylist([event(n) for n in range(3100, 3200)]), bucket / "log/day=2/c.parquet")
        (bucket / "other.csv").touch()
        spec = LogSpec(("s3://bucket/log",), bad="stop")
        log = open_log(spec, load_settings(None, {}, {}))
        rows = [row for block in log.blocks() for row in block]
        assert [row.time_ms - rows[0].time_ms for row in rows] == list(range(3200))
        assert log.files == ["day=1/a.jsonl.gz", "day=1/b.csv", "day=2/c.parquet"]
        assert log.share_done == 1

    def test_one_object(self, bucket: Path) -> None:
        (bucket / "a.jsonl").write_bytes(gzip.compress(b'{"a": 1}'))
        [file] = find_files("s3://bucket/a.jsonl")
        assert (file.name, head_of(file).columns) == ("a.jsonl", ("a",))

    def test_nothing_there(self, bucket: Path) -> None:
        with pytest.raises(RefusedError, match="s3://bucket/nothing"):
            find_files("s3://bucket/nothing")
