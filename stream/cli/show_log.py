"""How `driftline replay inspect` shows what a log holds."""

from collections.abc import Mapping
from typing import Any

from stream.cli.common import Output, Run


def show(run: Run, found: Mapping[str, Any]) -> None:
    """What `stream.replay.inspect.inspect` found: tables, or one document."""
    if run.output is not Output.table:
        run.document(dict(found))
        return
    files = [
        {
            "file": file["file"],
            "kind": file.get("kind", "cannot be read"),
            "preset": file.get("preset"),
            "mapped": file.get("problem") or ", ".join(_mapped(file)),
            "left out": ", ".join(file.get("left_out", ())),
        }
        for file in found["files"]
    ]
    run.show(files)
    if found["files_in_all"] > len(files):
        print(f"and {found['files_in_all'] - len(files)} more files or topics")
    print()
    run.show([_event(event) for event in found["events"]], _columns(found["events"]))
    print()
    rows = found["rows"]
    span = f"{rows['first_time']} to {rows['last_time']}" if rows["first_time"] else "no time"
    more = f" (told apart up to {rows['counted_up_to']})" if rows["counted_up_to"] else ""
    print(f"{rows['events']} events of {rows['users']} users on {rows['items']} items{more}, {span}")
    print(f"{rows['read']} rows read, {rows['outside_bounds']} outside the bounds")
    run.show([{"type": name, "events": count} for name, count in rows["types"].items()])
    print()
    run.show(_troubles(found), ["found", "count", "for instance"])
    if found["unsorted"]["count"] and found["order"] != "sorted":
        print("\nRows are not in order of time: --order sorted puts those of files in order.")


def _mapped(file: Mapping[str, Any]) -> list[str]:
    pairs = [own if own == column else f"{own}={column}" for own, column in file["mapping"].items()]
    constants = {"event_type": file["event_type"], **file["constants"]}
    return pairs + [f"{own}: {value}" for own, value in constants.items() if value is not None]


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if value is not None}


def _columns(events: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for event in events for name, value in event.items() if value is not None))


def _troubles(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    late, unsorted = found["late"], found["unsorted"]
    kinds = [
        *[(f"rejected: {reason}", one["count"], one["first"]) for reason, one in found["rejected"].items()],
        (
            f"late: more than {late['grace_s']} s behind, by {late['by_at_most_s']:g} s at most "
            f"({late['partitions']} partitions; late_policy {late['policy']})",
            late["count"],
            late["first"],
        ),
        (
            f"older than the row before, by {unsorted['largest_step_back_s']:g} s at most",
            unsorted["count"],
            unsorted["first"],
        ),
        (
            f"ids that a user had before (of the first {found['duplicate_ids']['among_rows']} events)",
            found["duplicate_ids"]["count"],
            found["duplicate_ids"]["first"],
        ),
        ("files with times of mixed zones", found["mixed_zones"]["files"], found["mixed_zones"]["first"]),
        ("files that are there twice", found["duplicate_files"]["files"], found["duplicate_files"]["first"]),
    ]
    return [{"found": what, "count": count, "for instance": (first or [""])[0]} for what, count, first in kinds]
