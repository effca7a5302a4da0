"""Rows get the places that producing them would have given them."""

from stream.engine.partitioner import partition_of
from stream.replay.places import Places
from stream.replay.rows import Row

NAMES = ["a.jsonl", "b.jsonl"]


def a_row(user: bytes, number: int, **more: object) -> Row:
    return Row(b"{}", user, 1_000, number)._replace(**more)


def test_rows_of_files_are_counted_by_partition() -> None:
    places = Places(3, 0, keeps_places=False, now_ms=77)
    users = [f"u{n}".encode() for n in range(30)]
    seen = dict.fromkeys(range(3), 0)
    for block in (users[:11], users[11:]):
        rows = [a_row(user, n + 1) for n, user in enumerate(block)]
        for number, records in places.records(rows, NAMES, range(3)).items():
            for record in records:
                assert record.place == (number, seen[number])
                assert partition_of(record.user or b"", 3) == number
                seen[number] += 1
    assert places.next_offset == list(seen.values())
    assert sum(seen.values()) == 30
    assert all(seen.values())


def test_rows_of_others_partitions_take_their_place_all_the_same() -> None:
    rows = [a_row(f"u{n}".encode(), n + 1) for n in range(30)]
    every = Places(3, 0, keeps_places=False, now_ms=77).records(rows, NAMES, range(3))
    places = Places(3, 0, keeps_places=False, now_ms=77)
    assert dict(places.records(rows, NAMES, {2})) == {2: every[2]}
    assert places.next_offset == [len(every[number]) for number in range(3)]


def test_offsets_begin_where_they_are_told_to() -> None:
    places = Places(1, -500, keeps_places=False, now_ms=77)
    (records,) = places.records([a_row(b"u", 1), a_row(b"u", 2)], NAMES, {0}).values()
    assert [record.offset() for record in records] == [-500, -499]


def test_rows_of_one_topic_stay_where_they_are() -> None:
    places = Places(4, 0, keeps_places=True, now_ms=77)
    rows = [a_row(b"u", 8, partition=3, offset=8), a_row(b"u", 12, partition=3, offset=12)]
    found = places.records(rows, NAMES, range(4))
    assert [record.place for record in found[3]] == [(3, 8), (3, 12)]
    assert places.next_offset == [0, 0, 0, 13]


def test_a_row_without_a_timestamp_came_when_the_replay_began() -> None:
    rows = [a_row(b"u", 1), a_row(b"u", 2, record_ms=5, file=1, headers=(("h", b"1"),))]
    (records,) = Places(1, 0, keeps_places=False, now_ms=77).records(rows, NAMES, {0}).values()
    assert [(record.record_ms, record.log, record.number, record.more) for record in records] == [
        (77, "a.jsonl", 1, None),
        (5, "b.jsonl", 2, [("h", b"1")]),
    ]
