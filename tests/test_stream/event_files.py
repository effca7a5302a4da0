"""Events, and files of them, for tests."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AT_MS = 1_767_323_045_123


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "view",
        "occurred_at": AT_MS + number,
        "user_id": f"u{number % 5}",
        "item_id": "milk",
        **more,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of the kind that its name says."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    text = io.StringIO()
    if kind == "csv":
        table = csv.DictWriter(text, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    else:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
