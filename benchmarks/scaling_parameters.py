"""What the parts of a system of many hosts take: the figures of the model of scaling."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Origin(StrEnum):
    """Where a figure is from."""

    MEASURED = "measured"
    CHOICE = "choice"


def measured(value: float, unit: str, what: str) -> Any:
    """Return a field for what docs/performance.md tells, or ``benchmarks.bridge_costs``.

    ``what`` says from which of the loads.
    """
    return field(default=value, metadata={"unit": unit, "what": what, "origin": Origin.MEASURED})


def chosen(value: float, unit: str, what: str) -> Any:
    """Return a field for what depends on who uses it, or on the place."""
    return field(default=value, metadata={"unit": unit, "what": what, "origin": Origin.CHOICE})


@dataclass(frozen=True)
class Parameters:
    """What everything takes. The metadata of each field tell unit, meaning and origin."""

    message_bytes: float = measured(216, "B", "a message: header and one TLV")
    burst_messages: float = chosen(4, "", "messages that are published at once, mean")
    moments_per_second: float = chosen(1, "1/s", "events to which all hosts react")
    moment_share: float = chosen(0.1, "", "part of all messages that are such reactions")
    moment_spread_seconds: float = chosen(0.01, "s", "time in which all hosts react to one")

    relay_latency_seconds: float = measured(85e-6, "s", "p50 at 1,000 a second, to 1")
    relay_run_seconds: float = measured(
        10e-6, "s", "CPU per chunk, less that of its deliveries, at 10,000 a second, to 3"
    )
    relay_message_seconds: float = measured(
        0.2e-6, "s", "CPU per message with a journal, 64 KiB per write, to 1"
    )
    relay_deliver_seconds_per_run: float = measured(
        2.6e-6, "s", "CPU per delivery at 20 a second, to 1,000"
    )
    relay_deliver_seconds_per_byte: float = measured(
        0.28e-9, "s/B", "CPU per delivery, 64 KiB per write, to 10"
    )
    relay_ack_seconds: float = measured(
        130e-6, "s", "from a bridge's send to the Ack for it, less the CPU of both"
    )

    bridge_outward_seconds_per_run: float = measured(
        340e-6, "s", "CPU of a bridge for a run of one message outward"
    )
    bridge_outward_seconds_per_byte: float = measured(
        1.9e-9, "s/B", "CPU of a bridge outward per byte of large runs"
    )
    bridge_inward_seconds_per_batch: float = measured(
        410e-6, "s", "CPU of a bridge inward for a run of one message, less what a run takes"
    )
    bridge_inward_seconds_per_run: float = measured(
        46e-6, "s", "CPU of a bridge inward per run of one message, where many wait"
    )
    bridge_inward_seconds_per_byte: float = measured(
        2.4e-9, "s/B", "CPU of a bridge inward per byte of large runs"
    )

    batch_bytes: float = chosen(4 * 2**20, "B", "most that a bridge sends its relay at once")
    run_header_bytes: float = measured(360, "B", "a message's size in the stream, less the run")
    max_payload_bytes: float = chosen(2**20, "B", "largest message of the servers: their default")
    publish_round_trip_seconds: float = measured(
        290e-6,
        "s",
        "from publish to acknowledgement less the bridge's CPU, and a round trip of the LAN",
    )
    replicas: int = chosen(3, "", "servers that hold each stream")
    nats_store_seconds_per_run: float = measured(
        10e-6, "s", "CPU of a server per message stored; a stream's leader stores one at a time"
    )
    nats_store_seconds_per_byte: float = measured(2.0e-9, "s/B", "the same per byte of large runs")
    nats_deliver_seconds_per_run: float = measured(
        10e-6, "s", "CPU of a server per message delivered"
    )
    nats_deliver_seconds_per_byte: float = measured(
        0.5e-9, "s/B", "the same per byte of large runs"
    )
    nats_cores: float = chosen(8, "", "cores of a NATS server")

    lan_bytes_per_second: float = chosen(1.25e9, "B/s", "link of a host, or of a server: 10 Gbit/s")
    wan_bytes_per_second: float = chosen(125e6, "B/s", "link of a site, or of a region: 1 Gbit/s")
    lan_round_trip_seconds: float = chosen(0.2e-3, "s", "within a site")
    region_round_trip_seconds: float = chosen(5e-3, "s", "within a region")
    wan_round_trip_seconds: float = chosen(80e-3, "s", "between sites, or regions")
    hosts_per_site: int = chosen(32, "", "hosts that share the servers of a leaf node")
    regions: int = chosen(4, "", "clusters of the super-cluster")

    types: int = chosen(20, "", "types of signals that there are")
    types_published: int = chosen(3, "", "types that a host publishes")
    types_wanted: int = chosen(4, "", "types that a host takes, where split by type")
    types_per_message: float = chosen(
        1.5, "", "mean; so often it is stored, with `--split-by-type`"
    )

    full: float = chosen(0.8, "", "part of its capacity from which on something counts as full")

    def relay_seconds(self, messages: float, peers: int) -> float:
        """Return the CPU time of the hub for a run that goes to so many peers."""
        delivery = (
            self.relay_deliver_seconds_per_run
            + messages * self.message_bytes * self.relay_deliver_seconds_per_byte
        )
        return self.relay_run_seconds + messages * self.relay_message_seconds + peers * delivery

    def run_bytes(self, messages: float) -> float:
        """Return the size of a run as a message of NATS."""
        return self.run_header_bytes + messages * self.message_bytes

    def outward_seconds(self, run_bytes: float) -> float:
        """Return the CPU time of a bridge for a run from its relay to NATS."""
        return (
            self.bridge_outward_seconds_per_run + run_bytes * self.bridge_outward_seconds_per_byte
        )

    def inward_seconds(self, run_bytes: float) -> float:
        """Return the CPU time of a bridge for a run that it takes with others."""
        return self.bridge_inward_seconds_per_run + run_bytes * self.bridge_inward_seconds_per_byte

    def batch_seconds(self, peers: int) -> float:
        """Return for how long a batch inward occupies its bridge, without what is in it."""
        return (
            self.bridge_inward_seconds_per_batch
            + self.relay_ack_seconds
            + self.relay_seconds(0, peers)
        )

    def taken_seconds(self, messages: float, peers: int) -> float:
        """Return for how much longer a run occupies the bridge in whose batch it is."""
        relay = self.relay_seconds(messages, peers) - self.relay_seconds(0, peers)
        return self.inward_seconds(self.run_bytes(messages)) + relay

    def store_seconds(self, run_bytes: float) -> float:
        """Return for how long a run occupies the leader of a stream."""
        return self.nats_store_seconds_per_run + run_bytes * self.nats_store_seconds_per_byte

    @property
    def run_messages(self) -> float:
        """How many messages fit into one run."""
        return (self.max_payload_bytes - self.run_header_bytes) // self.message_bytes
