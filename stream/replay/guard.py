"""What a replay may not touch: live topics and the live group, unless it says so.

| into | may write to | may commit |
|---|---|---|
| live | events | a group of its own |
| state | changelog and what workers send beside it | the live group |
| anything else | topics of its own | a group of its own |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stream.errors import RefusedError
from stream.settings import Settings

_MAY_WRITE = {
    "live": frozenset({"events"}),
    "state": frozenset({"changelog", "recommendations", "late", "dead_letters", "erasures", "features"}),
}
_MAY_COMMIT = frozenset({"state"})


def check(
    live: Settings, into: str, *, writes: Iterable[str] = (), commits: Iterable[str] = (), reads: Iterable[str] = ()
) -> None:
    """Refuse a replay that would touch what is live.

    Args:
        live: the settings of the live workers.
        into: what the replay said it goes into: live, state, or whatever it calls itself.
        writes: names of the topics that it would write to.
        commits: groups that it would commit offsets of.
        reads: names of the topics that it reads.

    Raises:
        RefusedError: it may not; says which topic or group, and what to do.
    """
    writes = list(writes)
    for role, name in live.topics.names().items():
        if name in writes and role not in _MAY_WRITE.get(into, ()):
            allowed = [target for target, roles in _MAY_WRITE.items() if role in roles]
            hint = f"say so with --into {allowed[0]}, or " if allowed else ""
            raise RefusedError(
                f"this replay would write to {name} (topics.{role}), which is live: {hint}give it a topic of its own."
            )
    if live.worker.group in commits and into not in _MAY_COMMIT:
        raise RefusedError(
            f"this replay would commit offsets of {live.worker.group} (worker.group), the group of the live workers: "
            "say so with --into state, or give it a group of its own."
        )
    twice = [name for name, count in Counter(writes).items() if count > 1]
    if twice:
        raise RefusedError(f"this replay would write two kinds of records to {twice[0]}: give each a topic of its own.")
    loop = sorted(set(reads) & set(writes))
    if loop:
        raise RefusedError(f"this replay would read what it writes to {loop[0]}, without end: give it another source.")
