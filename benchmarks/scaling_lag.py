"""Scenarios, simulated: bursts of messages, the runs they go in, and what these wait in line for.

Messages come in random bursts, and in moments in which all hosts publish at once. What came while a
bridge's last publish was under way is one *run*. Runs wait in line for the leader of a stream, for
a link between sites, and for the bridge of the host at which lag is looked at.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from benchmarks.scaling_model import ONE, Flow, Load, Scenario, Topology, load
from benchmarks.scaling_parameters import Parameters

FLOW_MESSAGES = 20_000
"""Messages of one host from which the rate of its runs is learnt."""
LAG_MESSAGES = 40_000
"""Messages in a simulation of lag: 400 of them are beyond the 99th percentile."""
SHORTEST = 5.0
"""Seconds of a simulation at least: it takes some moments to tell what they do."""


@dataclass(slots=True)
class Run:
    """Messages on their way: when they are at the next place, and since when each burst waits.

    ``bursts`` are pairs of seconds and how many messages; ``messages`` counts those that it
    carries, which are fewer where a part of them goes elsewhere.
    """

    time: float
    messages: float
    bursts: Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Lag:
    """Seconds from a publisher's send on one host to a peer's receipt on another."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Result:
    """What became of a scenario; there is no lag where something is full."""

    scenario: Scenario
    load: Load
    lag: Lag | None


def simulate(scenario: Scenario, p: Parameters, seed: int) -> Result:
    """Return the load of a scenario, and its lag if it fits."""
    flow = simulate_flow(scenario.topology, scenario.rate, p, seed)
    found = load(scenario, flow, p)
    return Result(scenario, found, simulate_lag(scenario, flow, p, seed) if found.fits(p) else None)


def series(
    topology: Topology, hosts: Iterable[int], rate: float, p: Parameters, seed: int
) -> list[Result]:
    """Return the results for growing numbers of hosts; the first with something full ends them.

    Numbers with which a topology of groups has only one are left out.
    """
    if topology is ONE:
        return [simulate(Scenario(ONE, 1, rate), p, seed)]
    found: list[Result] = []
    for number in hosts:
        if topology.grouped and topology.count_groups(number, p) == 1:
            continue
        found.append(simulate(Scenario(topology, number, rate), p, seed))
        if found[-1].lag is None:
            break
    return found


@cache
def simulate_flow(topology: Topology, rate: float, p: Parameters, seed: int) -> Flow:
    """Return what a host publishes per second, in a topology."""
    random = Random(f"{seed} flow {rate}")  # noqa: S311 - not for secrets
    seconds = max(SHORTEST, FLOW_MESSAGES / rate)
    bursts = _bursts(rate, seconds, _moments(seconds, p, random), p, random)
    runs = _publish(bursts, topology, p, random)
    seconds = max(seconds, runs[-1].time)
    messages = sum(run.messages for run in runs)
    return Flow(len(bursts) / seconds, len(runs) / seconds, messages / seconds)


def simulate_lag(scenario: Scenario, flow: Flow, p: Parameters, seed: int) -> Lag:
    """Return the lag at one host. Nothing of what the scenario loads may be full."""
    random = Random(f"{seed} lag {scenario.hosts} {scenario.rate}")  # noqa: S311 - not for secrets
    others = max(scenario.hosts - 1, 1)
    seconds = max(SHORTEST, LAG_MESSAGES / (scenario.rate * others))
    moments = _moments(seconds, p, random)
    sent = [_bursts(scenario.rate, seconds, moments, p, random) for _ in range(others)]
    arrived = _across(scenario, sent, p, random) if scenario.topology.bridged else _plain(sent)
    if scenario.topology.bridged:
        _serve_batches(arrived, scenario, flow, p)
    else:
        _serve(arrived, lambda run: p.relay_seconds(run.messages, scenario.peers))
    after = p.relay_latency_seconds
    return _percentiles(
        [(run.time + after - since, count) for run in arrived for since, count in run.bursts]
    )


def _moments(seconds: float, p: Parameters, random: Random) -> list[float]:
    """Return when all hosts have something to react to: evenly, from a random beginning."""
    between = 1 / p.moments_per_second
    first = random.random() * between
    return [first + number * between for number in range(int((seconds - first) / between) + 1)]


def _bursts(
    rate: float, seconds: float, moments: Sequence[float], p: Parameters, random: Random
) -> list[tuple[float, int]]:
    """Return when a host publishes, and how many messages at once; none is too large for a run."""
    found = []
    often = rate * (1 - p.moment_share) / p.burst_messages
    time = random.expovariate(often)
    while time < seconds:
        found.append((time, _geometric(p.burst_messages, random)))
        time += random.expovariate(often)
    in_moment = rate * p.moment_share / p.moments_per_second
    for moment in moments:
        left = int(in_moment + random.random())
        time = moment + random.random() * p.moment_spread_seconds
        while left:
            found.append((time, min(left, int(p.run_messages))))
            left -= found[-1][1]
    return sorted(found)


def _geometric(mean: float, random: Random) -> int:
    """Return a random number from 1 on."""
    if mean <= 1:
        return 1
    return 1 + int(math.log(1 - random.random()) / math.log(1 - 1 / mean))


def _publish(
    bursts: Sequence[tuple[float, int]], topology: Topology, p: Parameters, random: Random
) -> list[Run]:
    """Return the runs that a bridge makes of bursts, at the time at which NATS has them."""
    runs = []
    free, at = 0.0, 0
    while at < len(bursts):
        begin, count, start = at, 0, max(free, bursts[at][0] + p.relay_latency_seconds)
        while at < len(bursts) and bursts[at][0] + p.relay_latency_seconds <= start:
            if count and count + bursts[at][1] > p.run_messages:
                break
            count += bursts[at][1]
            at += 1
        free = start
        for messages in _split(count, topology, p, random):
            free += topology.publish_seconds(p.run_bytes(messages), p)
            known = free - topology.server_round_trip(p) / 2
            runs.append(Run(known, messages, bursts[begin:at]))
    return runs


def _split(count: int, topology: Topology, p: Parameters, random: Random) -> list[float]:
    """Return how many messages are in each of the runs that are published of so many messages."""
    if not topology.split:
        return [count]
    copies = count * p.types_per_message
    there = 1 - (1 - 1 / p.types_published) ** copies
    kinds = max(1, sum(random.random() < there for _ in range(p.types_published)))
    return [copies / kinds] * kinds


def _plain(sent: Sequence[Sequence[tuple[float, int]]]) -> list[Run]:
    """Return what a relay receives on one host, burst by burst."""
    return [Run(time, count, [(time, count)]) for bursts in sent for time, count in bursts]


def _across(
    scenario: Scenario,
    sent: Sequence[Sequence[tuple[float, int]]],
    p: Parameters,
    random: Random,
) -> list[Run]:
    """Return what arrives at the bridge of one host, which is in the first group."""
    topology = scenario.topology
    groups = topology.count_groups(scenario.hosts, p)
    streams: list[list[Run]] = [[] for _ in range(groups)]
    for host, bursts in enumerate(sent, 1):
        streams[host % groups] += _publish(bursts, topology, p, random)
    near, *far = streams
    for stream in far:
        _serve(stream, lambda run: p.store_seconds(p.run_bytes(run.messages)))
    from_far = [run for stream in far for run in stream]
    _serve(from_far, lambda run: p.run_bytes(run.messages) / p.wan_bytes_per_second)
    for run in from_far:
        run.time += p.wan_round_trip_seconds / 2
    arrived = near + from_far
    _serve(arrived, lambda run: p.store_seconds(p.run_bytes(run.messages)))
    wanted = topology.wanted(p)
    arrived = [run for run in arrived if wanted == 1 or random.random() < wanted]
    for run in arrived:
        run.time += topology.server_round_trip(p) / 2
    return arrived


def _serve(runs: list[Run], seconds: Callable[[Run], float]) -> None:
    """Let all runs wait in line for one part, and be served by it; sort them by time."""
    runs.sort(key=lambda run: run.time)
    free = 0.0
    for run in runs:
        free = max(free, run.time) + seconds(run)
        run.time = free


def _serve_batches(arrived: list[Run], scenario: Scenario, flow: Flow, p: Parameters) -> None:
    """Let the bridge take all that waits at once, again and again, as far as one batch goes.

    What goes outward takes its part of the bridge's time.
    """
    left = 1 - flow.runs * p.outward_seconds(flow.bytes(p) / flow.runs)
    arrived.sort(key=lambda run: run.time)
    free, at = 0.0, 0
    while at < len(arrived):
        begin, size = at, 0.0
        start = max(free, arrived[at].time)
        free = start + p.batch_seconds(scenario.peers) / left
        while at < len(arrived) and arrived[at].time <= start and size < p.batch_bytes:
            size += p.run_bytes(arrived[at].messages)
            free += p.taken_seconds(arrived[at].messages, scenario.peers) / left
            at += 1
        for run in arrived[begin:at]:
            run.time = free


def _percentiles(samples: list[tuple[float, int]]) -> Lag:
    """Return those of seconds, each for so many messages."""
    samples.sort()
    total = sum(count for _, count in samples)

    def percentile(part: float) -> float:
        seen = 0
        for seconds, count in samples:
            seen += count
            if seen >= part * total:
                return seconds
        return math.nan

    return Lag(percentile(0.50), percentile(0.99))
