"""The whole stream on a real Kafka: CPU time an event, latency, recovery. Prints, and writes build/bench.json.

    python -m tests.bench.bench_stream [--quick] [--only full,latency] [--bootstrap-servers HOST:PORT]

| part | what |
|---|---|
| full | one worker, model, ranking, lists of 20 with reasons; every event a new user in its chunk |
| latency | the same worker, from produce to a reader of committed lists |
| new_users | as `full`, but of users nobody knows yet (in `full` each did 5 to 80 things before) |
| without_model | the job of `job` on our engine: JSON in, 600 B of state, a list out |
| quix | the same job, log and partitions on Quix Streams (pip install 'driftline[bench]') |
| recovery | an empty disk filled from a changelog |
| recommender | state, model and ranking alone, without Kafka |
| state | a user's state alone; whole events and states in stores of 10,000 to 1,000,000 users, without Kafka |

Figures are CPU time of the worker's process, all its threads: they say what an event costs on any number of cores and
suffer less than wall-clock times from whatever else runs here. The load average is in the result.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import confluent_kafka
import torch

from model.artifact import Artifact, save_artifact
from stream.brokers import Broker, GivenBroker, find_broker
from stream.brokers.local import kafka_folder
from tests.bench import bench_state, cpu, latency, recovery
from tests.bench.cpu import AGENT_PARTS, ENGINE_PARTS, CpuFigures
from tests.bench.job import job_log
from tests.bench.place import ROOT, Place, module, said, until, worker
from tests.bench.shop import known_states, send_all, shop_log, shop_model

PARTS = ("full", "latency", "new_users", "without_model", "quix", "recovery", "recommender", "state")
RESULT = ROOT / "build" / "bench.json"


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    events: int = 200_000
    users: int = 50_000
    partitions: int = 8
    items: int = 3_400
    quix_events: int = 100_000
    alternations: int = 2
    rates: tuple[int, ...] = (1_000, 5_000)
    latency_s: int = 20
    recovery_states: int = 200_000
    recovery_repeats: int = 3
    recommender_users: int = 20_000
    store_users: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    store_events: int = 150_000


QUICK = Sizes(
    events=30_000,
    users=20_000,
    quix_events=20_000,
    alternations=1,
    rates=(1_000,),
    latency_s=5,
    recovery_states=40_000,
    recovery_repeats=2,
    recommender_users=5_000,
    store_users=(5_000, 20_000),
    store_events=20_000,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 2 without a Kafka."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers", help="a Kafka (default: one is looked for, or started)")
    parser.add_argument("--quick", action="store_true", help="small counts: to try it")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by comma")
    parser.add_argument("--json", type=Path, default=RESULT, help="where the result goes")
    given = parser.parse_args(arguments)
    wanted = [part.strip() for part in given.only.split(",")]
    unknown = set(wanted) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    broker, source = _broker(given.bootstrap_servers)
    if broker is None:
        print(f"no Kafka: {source}", file=sys.stderr)
        return 2
    sizes = QUICK if given.quick else Sizes()
    result: dict[str, Any] = {"machine": _machine(source), "settings": {**asdict(sizes), "quick": given.quick}}
    with broker, Place(broker.bootstrap_servers, sizes.partitions) as place:
        _run(place, sizes, wanted, result)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    print(f"\nwritten to {given.json}")
    return 0


def _broker(servers: str | None) -> tuple[Broker | None, str]:
    """A broker and where it is from; or none, and why."""
    if servers:
        return GivenBroker(servers), "given"
    found = find_broker()
    return found.broker, found.source if found.broker else "; ".join(found.reasons)


def _run(place: Place, sizes: Sizes, wanted: list[str], result: dict[str, Any]) -> None:
    costs: dict[str, Any] = result.setdefault("cpu_us_per_event", {})
    model = place.folder / "model"
    artifact = shop_model(sizes.items)
    save_artifact(model, artifact)
    if "full" in wanted or "latency" in wanted:
        _full(place, sizes, model, artifact, wanted, result)
    if "new_users" in wanted:
        figures = _worker_cpu(place, sizes, model, "full, new users")
        costs["total_new_users"] = round(figures.total_us, 2)
        result["new_users"] = _details(figures)
    if "without_model" in wanted or "quix" in wanted:
        _same_job(place, sizes, wanted, result)
    if "recovery" in wanted:
        settings, _ = place.settings(model)
        with said(f"recovery of {sizes.recovery_states:,} states, {sizes.recovery_repeats} times"):
            states = known_states(artifact, range(sizes.recovery_states))
            figures_of = recovery.measure(place, settings.topics.changelog, states, sizes.recovery_repeats)
        place.forget(list(settings.topics.names().values()))
        result["recovery"] = figures_of
        result["recovery_records_per_s"] = figures_of["records_per_s"]
        result["recovery_cpu_us_per_record"] = figures_of["cpu_us_per_record"]
    if "recommender" in wanted:
        _recommender(place, sizes, result)
    if "state" in wanted:
        with said("states of " + ", ".join(f"{users:,}" for users in sizes.store_users) + " users"):
            figures = bench_state.measure(sizes.store_users, sizes.store_events)
        result["state"] = figures
        result |= {name: figures[name] for name in ("state_us", "flat_ratio", "state_flat_ratio")}
        result["state_bytes_on_disk"] = {users: one["bytes_on_disk"] for users, one in figures["stores"].items()}


# --- the worker -----------------------------------------------------------------------------------


def _full(
    place: Place, sizes: Sizes, model: Path, artifact: Artifact, wanted: list[str], result: dict[str, Any]
) -> None:
    """CPU and latency of one worker; its users have states of some history."""
    settings, flags = place.settings(model)
    topics = settings.topics
    properties = settings.client_properties()
    with said("writing events and states"):
        # The states stand in the changelog as if the worker had made them: it begins by reading them.
        send_all(properties, topics.changelog, known_states(artifact, range(sizes.users)))
        if "full" in wanted:
            send_all(properties, topics.events, shop_log(sizes.events, sizes.users, sizes.items))
    with worker(place.folder, flags) as program:
        if "full" in wanted:
            with said("full"):
                figures = cpu.measure(program, topics.events, sizes.events, 300)
            costs = result["cpu_us_per_event"]
            costs["total"] = round(figures.total_us, 2)
            costs |= {part: round(figures.parts_us.get(part, 0.0), 2) for part in (*ENGINE_PARTS, *AGENT_PARTS)}
            costs["other"] = round(figures.other_us, 2)
            result["full"] = _details(figures)
        if "latency" in wanted:
            until("the worker is ready", lambda: bool(_recovered(program.figures())), 120, [program])
            delays: dict[str, Any] = result.setdefault("latency_ms", {})
            for rate in sizes.rates:
                with said(f"latency at {rate:,} events a second"):
                    delays[str(rate)] = latency.measure(
                        place,
                        program,
                        topics.events,
                        topics.recommendations,
                        rate,
                        sizes.latency_s,
                        sizes.users,
                        sizes.items,
                    )
    place.forget(list(topics.names().values()))


def _recovered(figures: dict[str, float]) -> bool:
    """Whether a worker has its partitions, and so their states."""
    return any(name.startswith("driftline_consumer_lag_records") for name in figures)


def _worker_cpu(place: Place, sizes: Sizes, model: Path, what: str) -> CpuFigures:
    settings, flags = place.settings(model)
    with said(f"writing events; {what}"):
        send_all(settings.client_properties(), settings.topics.events, shop_log(sizes.events, sizes.users, sizes.items))
        with worker(place.folder, flags) as program:
            figures = cpu.measure(program, settings.topics.events, sizes.events, 300)
    place.forget(list(settings.topics.names().values()))
    return figures


def _details(figures: CpuFigures) -> dict[str, float]:
    return {
        "records": figures.records,
        "records_per_s": round(figures.records / figures.wall_s),
        "records_per_cycle": round(figures.records / figures.cycles),
        "records_per_chunk": round(figures.records / figures.chunks),
        "lists_per_event": round(figures.lists / figures.records, 4),
    }


# --- the same job with and without Quix Streams ---------------------------------------------------


def _same_job(place: Place, sizes: Sizes, wanted: list[str], result: dict[str, Any]) -> None:
    """Our engine and Quix Streams in turn, so that both meet the same noise; of each the best run counts."""
    has_quix = importlib.util.find_spec("quixstreams") is not None
    if "quix" in wanted and not has_quix:
        result["quix"] = {"left_out": "quixstreams is not installed: pip install 'driftline[bench]'"}
    log = place.topic("job")
    with said("writing the job's events"):
        send_all({"bootstrap.servers": place.servers}, log, job_log(sizes.events, sizes.users))
    ours: list[CpuFigures] = []
    theirs: list[float] = []
    for turn in range(sizes.alternations):
        if "without_model" in wanted:
            with said(f"without model, run {turn + 1}"):
                ours.append(_engine_job(place, log, sizes.events))
        if "quix" in wanted and has_quix:
            with said(f"Quix Streams, run {turn + 1}"):
                theirs.append(_quix_job(place, log, sizes.quix_events, sizes.users))
    costs = result["cpu_us_per_event"]
    if ours:
        best = min(ours, key=lambda figures: figures.total_us)
        costs["without_model"] = round(best.total_us, 2)
        result["without_model"] = {
            **_details(best),
            "parts_us": {part: round(us, 2) for part, us in best.parts_us.items()} | {"other": round(best.other_us, 2)},
            "runs": [round(figures.total_us, 2) for figures in ours],
        }
    if theirs:
        result["quix_cpu_us_per_event"] = round(min(theirs), 2)
        result["quix"] = {
            "runs": [round(us, 2) for us in theirs],
            "events": sizes.quix_events,
            "version": importlib.metadata.version("quixstreams"),
        }
    if ours and theirs:
        result["ratio_to"] = {"quix": round(costs["without_model"] / min(theirs), 4)}


def _engine_job(place: Place, log: str, events: int) -> CpuFigures:
    out, changelog = place.topic("out"), place.topic("changelog")
    arguments = (place.servers, log, out, changelog, out, str(place.folder / out), "{port}")
    with module(place.folder, "engine_job", *arguments) as program:
        figures = cpu.measure(program, log, events, 120)
    place.forget([out, changelog])
    return figures


def _quix_job(place: Place, log: str, events: int, users: int) -> float:
    out = place.topic("out")
    told = place.folder / f"{out}.json"
    arguments = (place.servers, log, out, out, str(place.folder / f"{out}.state"), str(events), str(told))
    with module(place.folder, "quix_job", *arguments) as program:
        program.wait(240)
    changelog = f"changelog__{out}--{log}--default"
    sizes = place.size(out), place.size(changelog)
    place.forget([out, changelog])
    if sizes[0] != events or sizes[1] < min(events, users):
        raise RuntimeError(f"Quix Streams wrote {sizes} lists and states for {events} events: it did not do the job")
    run = json.loads(told.read_text())
    return float(run["cpu_s"] * 1e6 / run["records"])


# --- without Kafka --------------------------------------------------------------------------------


def _recommender(place: Place, sizes: Sizes, result: dict[str, Any]) -> None:
    told = place.folder / "recommender.json"
    with (
        said("recommender alone"),
        module(
            place.folder,
            "bench_recommender",
            f"--json={told}",
            f"--users={sizes.recommender_users}",
            f"--items={sizes.items}",
            "--events=12800",
            "--repeats=2",
        ) as program,
    ):
        program.wait(300)
    figures = json.loads(told.read_text())
    result["recommender"] = figures


# --- telling --------------------------------------------------------------------------------------


def _machine(source: str) -> dict[str, Any]:
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "confluent_kafka": confluent_kafka.__version__,
        "librdkafka": confluent_kafka.libversion()[0],
        "kafka": ElementTree.parse(kafka_folder() / "pom.xml").getroot().findtext(".//{*}kafka.version")
        if source == "local"
        else f"{source}: version not known",
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def _print(result: dict[str, Any]) -> None:
    costs = result["cpu_us_per_event"]
    machine = result["machine"]
    print(f"\n{machine['cpu']}, {machine['cores']} cores, load average at start {machine['load_average']}")
    if costs:
        print("\nCPU us an event")
    for name, us in costs.items():
        print(f"  {name:<16} {us:8.2f}")
    if "quix_cpu_us_per_event" in result:
        print(f"  {'quix':<16} {result['quix_cpu_us_per_event']:8.2f}")
    for name, ratio in result.get("ratio_to", {}).items():
        print(f"  {'without/' + name:<16} {ratio:8.3f}")
    if "left_out" in result.get("quix", {}):
        print(f"  quix left out: {result['quix']['left_out']}")
    if "latency_ms" in result:
        print("\nlatency, produce to committed list, ms\n  events/s      p50      p90      p99      max   lists/event")
    for rate, delays in result.get("latency_ms", {}).items():
        row = "".join(f"{delays[name]:9.1f}" for name in ("p50", "p90", "p99", "max"))
        print(f"  {rate:>8}{row}   {delays['lists_per_event']:11.3f}")
    if "recovery" in result:
        figures = result["recovery"]
        print(
            f"\nrecovery: {figures['records_per_s']:,} records/s (best {figures['records_per_s_best']:,}) of "
            f"{figures['mean_value_bytes']} B, {figures['cpu_us_per_record']} CPU us a record"
        )
    if "state_us" in result:
        figures = result["state"]
        print(f"\na full state alone (decode, apply, encode): {result['state_us']} us; {figures['state_bytes']}")
        for users, one in figures["stores"].items():
            print(
                f"  in a store of {int(users):9,} users: {one['us']:6.2f} us, a whole event {one['whole_us']:6.2f} us; "
                f"{one['bytes_on_disk'] / 1e6:8.1f} MB on disk, {one['memory_mb']:6.1f} MB of memory"
            )
        print(f"  dearest by cheapest: {result['state_flat_ratio']}, of whole events {result['flat_ratio']}")


if __name__ == "__main__":
    sys.exit(main())
