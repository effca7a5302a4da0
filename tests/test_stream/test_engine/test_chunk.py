from stream.engine.chunk import Chunk
from tests.test_stream.test_agents.records import FakePartition, event


def test_the_last_chunk_of_a_fetch_has_all_of_them() -> None:
    finished: list[Chunk] = []
    first, second = FakePartition(), FakePartition()
    one = Chunk(first, [event("ann", "i1", 0)], finished.append, None)  # type: ignore[list-item]
    two = Chunk(second, [event("bob", "i1", 0)], finished.append, [one])  # type: ignore[list-item]
    assert [one.last, two.last] == [False, True]
    assert two.fetched == [one, two]
    with one:
        pass
    with two:
        one.put(b"ann", b"1")  # what belongs to the other partition goes into its chunk
    assert finished == [one, two]
    assert one.puts == [(b"ann", b"1")]
    assert two.puts == []


def test_a_chunk_by_itself_is_the_last_of_its_fetch() -> None:
    chunk = FakePartition().chunk([event("ann", "i1", 0)])
    assert chunk.last
    assert chunk.fetched == [chunk]
