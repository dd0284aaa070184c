"""How load and cost grow with hosts: a model of relays that bridges join by NATS JetStream.

What is full, what is carried and what it costs are sums over the figures of one host; those are
simulated (``scaling_lag.py``). This knows how hosts are joined, and what passes where.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from benchmarks.scaling_parameters import Parameters

MOST_HOSTS = 100_000
"""Where the search for the most hosts ends: beyond it the model has nothing to say."""


@dataclass(frozen=True)
class Topology:
    """How hosts are joined. Hosts of one *group* share a cluster of NATS servers with one stream.

    ``groups`` is the name of the parameter that says how many groups there are, ``group_hosts`` of
    that which says how many hosts a group has; with neither there is one. ``distant``: hosts are
    not in one LAN with their servers. ``through_hub``: a group sends its traffic once, to a cluster
    in the middle; otherwise each has a cluster beside it that sends to those of all others.
    ``split``: one subject for each type.
    """

    key: str
    label: str
    bridged: bool = True
    groups: str = ""
    group_hosts: str = ""
    distant: bool = False
    through_hub: bool = False
    split: bool = False

    @property
    def grouped(self) -> bool:
        """Whether it is about several groups."""
        return bool(self.groups or self.group_hosts)

    def count_groups(self, hosts: int, p: Parameters) -> int:
        """Return how many groups so many hosts make."""
        if self.groups:
            return min(hosts, int(getattr(p, self.groups)))
        return math.ceil(hosts / getattr(p, self.group_hosts)) if self.group_hosts else 1

    def server_round_trip(self, p: Parameters) -> float:
        """Return the seconds from a host to its NATS server and back."""
        return p.region_round_trip_seconds if self.distant else p.lan_round_trip_seconds

    def publish_seconds(self, run_bytes: float, p: Parameters) -> float:
        """Return for how long a run occupies its bridge: until it is acknowledged."""
        return (
            p.outward_seconds(run_bytes)
            + p.publish_round_trip_seconds
            + self.server_round_trip(p)
            - p.lan_round_trip_seconds
            + run_bytes / p.lan_bytes_per_second
            + run_bytes * p.nats_store_seconds_per_byte
        )

    def wanted(self, p: Parameters) -> float:
        """Return which part of what is in the stream a host takes."""
        return p.types_wanted / p.types if self.split else 1.0


ONE = Topology("one", "one host", bridged=False)
MESH = Topology("mesh", "one cluster")
SPLIT = Topology("split", "one cluster, split by type", split=True)
LEAF = Topology(
    "leaf", "leaf nodes, one for each site", group_hosts="hosts_per_site", through_hub=True
)
REGIONS = Topology("regions", "regions, super-cluster", groups="regions", distant=True)
TOPOLOGIES = (ONE, MESH, SPLIT, LEAF, REGIONS)


@dataclass(frozen=True)
class Scenario:
    """Hosts, each with ``peers`` on its relay, that publish ``rate`` messages a second together."""

    topology: Topology
    hosts: int
    rate: float
    peers: int = 10


@dataclass(frozen=True)
class Flow:
    """What one host publishes, per second: ``runs`` of NATS with ``messages`` in them (copies too).

    ``bursts`` are what its relay receives from its publishers.
    """

    bursts: float
    runs: float
    messages: float

    def bytes(self, p: Parameters) -> float:
        """Return the bytes per second, with headers."""
        return self.runs * p.run_header_bytes + self.messages * p.message_bytes


class Part(StrEnum):
    """What can be full."""

    RELAY = "relay"
    OUTWARD = "bridge outward"
    INWARD = "bridge inward"
    STREAM = "stream's leader"
    SERVER_LINK = "server's link"
    HOST_LINK = "host's link"
    WAN_LINK = "link between sites"


@dataclass(frozen=True)
class Cluster:
    """NATS servers of one place: how many, busy cores of each, bytes a second out of each."""

    servers: int
    cores: float
    link_bytes: float


@dataclass(frozen=True)
class Load:
    """How a scenario loads its parts.

    ``used`` is the part of its capacity that each part uses; ``links`` are bytes a second on the
    busiest of each kind; ``servers`` counts those of NATS, ``server_cores`` are busy on the
    busiest, ``host_cores`` on each host.
    """

    used: dict[Part, float]
    links: dict[Part, float]
    host_cores: float
    server_cores: float
    servers: int

    @property
    def fullest(self) -> Part:
        """The part that is nearest to its capacity, or furthest beyond."""
        return max(self.used, key=lambda part: self.used[part])

    @property
    def busiest_link(self) -> Part | None:
        """The kind of link that is nearest to its capacity; None where there is none."""
        return max(self.links, key=lambda part: self.used[part], default=None)

    def fits(self, p: Parameters) -> bool:
        """Return whether no part is full."""
        return self.used[self.fullest] <= p.full


def load(scenario: Scenario, flow: Flow, p: Parameters) -> Load:
    """Return how a scenario loads its parts, where each host publishes ``flow``."""
    own = flow.bursts * p.relay_seconds(scenario.rate / flow.bursts, scenario.peers)
    if not scenario.topology.bridged:
        return Load({Part.RELAY: own}, {}, own, 0.0, 0)
    cpu, used = _host(scenario, flow, p)
    relay = own + cpu.relay
    links = _host_and_wan_links(scenario, flow, p)
    clusters, servers = _clusters(scenario, flow, p)
    links[Part.SERVER_LINK] = max(each.link_bytes for each in clusters)
    stored = scenario.hosts * flow.runs
    used |= {
        Part.RELAY: relay,
        Part.STREAM: stored * p.store_seconds(flow.bytes(p) / flow.runs),
        Part.HOST_LINK: links[Part.HOST_LINK] / p.lan_bytes_per_second,
        Part.SERVER_LINK: links[Part.SERVER_LINK] / p.lan_bytes_per_second,
        Part.WAN_LINK: links.get(Part.WAN_LINK, 0) / p.wan_bytes_per_second,
    }
    busiest = max(each.cores for each in clusters)
    return Load(used, links, relay + cpu.bridge, busiest, servers)


@dataclass(frozen=True)
class HostCPU:
    """Busy cores of a host for what comes from others, and of its bridge for both ways."""

    relay: float
    bridge: float


def _host(scenario: Scenario, flow: Flow, p: Parameters) -> tuple[HostCPU, dict[Part, float]]:
    """Return what a host takes for its bridge, and how full both ways of it are.

    One batch at a time goes inward, with all runs that wait; both ways share one core.
    """
    topology, peers = scenario.topology, scenario.peers
    run_messages, run_bytes = flow.messages / flow.runs, flow.bytes(p) / flow.runs
    taken = (scenario.hosts - 1) * flow.runs * topology.wanted(p)
    outward = flow.runs * p.outward_seconds(run_bytes)
    runs = taken * p.taken_seconds(run_messages, peers)
    least_batches = taken * run_bytes / p.batch_bytes
    most_batches = (1 - outward - runs) / p.batch_seconds(peers)
    batches = max(least_batches, min(taken, most_batches))
    inward = taken * p.inward_seconds(run_bytes) + batches * p.bridge_inward_seconds_per_batch
    relay = runs - taken * p.inward_seconds(run_bytes) + batches * p.relay_seconds(0, peers)
    most = p.run_messages / topology.publish_seconds(p.max_payload_bytes, p)
    used = {
        Part.OUTWARD: flow.messages / most,
        Part.INWARD: (runs + least_batches * p.batch_seconds(peers)) / max(1 - outward, 1e-9),
    }
    return HostCPU(relay, outward + inward), used


def _host_and_wan_links(scenario: Scenario, flow: Flow, p: Parameters) -> dict[Part, float]:
    """Return the bytes a second of the busier direction of both."""
    topology, hosts, sent = scenario.topology, scenario.hosts, flow.bytes(p)
    links = {Part.HOST_LINK: max(sent, (hosts - 1) * sent * topology.wanted(p))}
    groups = topology.count_groups(hosts, p)
    if groups > 1:
        own = hosts / groups * sent
        outgoing = own if topology.through_hub else own * (groups - 1)
        links[Part.WAN_LINK] = max(outgoing, hosts * sent - own)
    return links


def _clusters(scenario: Scenario, flow: Flow, p: Parameters) -> tuple[list[Cluster], int]:
    """Return the kinds of clusters that there are, and the servers of all of them together.

    Groups take what is from others, and are taken from, by a cluster in the middle or by one each.
    Those store what they pass on.
    """
    topology, hosts = scenario.topology, scenario.hosts
    groups = topology.count_groups(hosts, p)
    members, taken = hosts / groups, (hosts - 1) * topology.wanted(p)
    if groups == 1:
        alone = _cluster(hosts, members * taken, flow, p)
        return [alone], alone.servers
    group = _cluster(hosts, members * taken + members, flow, p)
    others = hosts - members
    if topology.through_hub:
        middle = _cluster(hosts, groups * others, flow, p)
        return [group, middle], groups * group.servers + middle.servers
    gateway = _cluster(members + hosts, members * (groups - 1) + others, flow, p)
    return [group, gateway], groups * (group.servers + gateway.servers)


def _cluster(stored: float, delivered: float, flow: Flow, p: Parameters) -> Cluster:
    """Return the servers that store and deliver as much as so many hosts publish.

    Where those that hold the stream do not suffice, others hold a copy of it.
    """
    run_bytes = flow.bytes(p) / flow.runs
    store = stored * flow.runs * p.store_seconds(run_bytes)
    deliver = (
        delivered
        * flow.runs
        * (p.nats_deliver_seconds_per_run + run_bytes * p.nats_deliver_seconds_per_byte)
    )
    copies = stored * flow.bytes(p) * (p.replicas - 1)
    sent = delivered * flow.bytes(p)
    servers = max(
        p.replicas,
        math.ceil(sent / (p.lan_bytes_per_second * p.full)),
        math.ceil(deliver / (p.nats_cores * p.full)),
    )
    return Cluster(servers, store + deliver / servers, copies + sent / servers)


def most_hosts(scenario: Scenario, flow: Flow, p: Parameters) -> tuple[int, Part]:
    """Return with how many hosts nothing is full, 0 if none, and what is full with more.

    How many hosts ``scenario`` itself has does not matter.
    """

    def loaded(hosts: int) -> Load:
        return load(replace(scenario, hosts=hosts), flow, p)

    low, high = 0, MOST_HOSTS
    while high - low > 1:
        middle = (low + high) // 2
        if loaded(middle).fits(p):
            low = middle
        else:
            high = middle
    return low, loaded(high).fullest
