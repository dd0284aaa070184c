"""The simulation of many hosts: its sums, its lines, its tables, and that the page has them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from benchmarks import report, scaling, scaling_lag, scaling_picture
from benchmarks.picture import can_draw
from benchmarks.scaling_lag import Run, series, simulate, simulate_flow, simulate_lag
from benchmarks.scaling_model import (
    LEAF,
    MESH,
    MOST_HOSTS,
    ONE,
    REGIONS,
    SPLIT,
    TOPOLOGIES,
    Flow,
    Part,
    Scenario,
    Topology,
    load,
    most_hosts,
)
from benchmarks.scaling_parameters import Parameters

P = Parameters()
SEED = 1
BRIDGED = [topology for topology in TOPOLOGIES if topology.bridged]
PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Simulate less than for the page, and keep nothing of that."""
    monkeypatch.setattr(scaling_lag, "FLOW_MESSAGES", 1_000)
    monkeypatch.setattr(scaling_lag, "LAG_MESSAGES", 2_000)
    monkeypatch.setattr(scaling_lag, "SHORTEST", 1.0)
    simulate_flow.cache_clear()
    yield
    simulate_flow.cache_clear()


def flow_of(topology: Topology, rate: float, p: Parameters = P) -> Flow:
    return simulate_flow(topology, rate, p, SEED)


def lag_of(scenario: Scenario, p: Parameters = P, seed: int = SEED) -> scaling_lag.Lag:
    found = simulate(scenario, p, seed).lag
    assert found is not None
    return found


# Runs


def published(bursts: list[tuple[float, int]], topology: Topology = MESH) -> list[Run]:
    return scaling_lag._publish(bursts, topology, P, Random(0))


def test_what_came_while_a_publish_was_under_way_is_one_run() -> None:
    first, second = published([(0.0, 1), (0.0002, 2), (0.0004, 3)])
    assert first.bursts == [(0.0, 1)]
    assert second.bursts == [(0.0002, 2), (0.0004, 3)]
    assert second.messages == 5
    took = MESH.publish_seconds(P.run_bytes(1), P) + MESH.publish_seconds(P.run_bytes(5), P)
    assert second.time == pytest.approx(
        P.relay_latency_seconds + took - P.lan_round_trip_seconds / 2
    )


def test_a_run_is_never_larger_than_a_message_of_nats_may_be() -> None:
    most = int(P.run_messages)
    assert P.run_bytes(most) <= P.max_payload_bytes < P.run_bytes(most + 1)
    assert [run.messages for run in published([(0.0, most), (0.0, 1), (0.0, most)])] == [
        most,
        1,
        most,
    ]


def test_a_moment_that_is_too_large_for_one_run_is_several() -> None:
    p = replace(P, moment_share=1 - 1e-9, moment_spread_seconds=0)
    rate = 2.5 * P.run_messages
    bursts = scaling_lag._bursts(rate, 1, [0.5], p, Random(0))
    assert sorted(count for _, count in bursts)[-2:] == [P.run_messages] * 2
    assert sum(count for _, count in bursts) == pytest.approx(rate, abs=1)


@pytest.mark.parametrize("rate", [10, 1_000, 10_000])
def test_a_host_publishes_what_it_gets_one_run_at_a_time(rate: float) -> None:
    flow = flow_of(MESH, rate)
    assert flow.messages == pytest.approx(rate, rel=0.15)
    assert flow.runs <= min(flow.bursts, 1 / MESH.publish_seconds(P.run_bytes(1), P))


def test_split_by_type_a_message_is_stored_once_for_each_of_its_types() -> None:
    whole, split = flow_of(MESH, 100), flow_of(SPLIT, 100)
    assert split.messages == pytest.approx(whole.messages * P.types_per_message)
    assert whole.runs < split.runs <= whole.runs * P.types_published


# Lines


def test_runs_are_served_one_after_the_other_as_they_come() -> None:
    runs = [Run(5.0, 1, []), Run(0.5, 1, []), Run(0.0, 1, [])]
    scaling_lag._serve(runs, lambda run: 1.0)
    assert [run.time for run in runs] == [1.0, 2.0, 6.0]


def test_a_bridge_takes_all_that_waits_at_once() -> None:
    p = replace(P, batch_bytes=2 * P.run_bytes(1))
    runs = [Run(time, 1, []) for time in (0.0, 1e-5, 2e-5, 3e-5)]
    flow = Flow(1e-9, 1e-9, 1e-9)
    scaling_lag._serve_batches(runs, Scenario(MESH, 5, 1), flow, p)
    batch, run = p.batch_seconds(10), p.taken_seconds(1, 10)
    first, second, third, fourth = (each.time for each in runs)
    assert first == pytest.approx(batch + run)
    assert second == third == pytest.approx(first + batch + 2 * run)
    assert fourth == pytest.approx(second + batch + run)


def test_percentiles_count_messages() -> None:
    assert scaling_lag._percentiles([(3.0, 2), (1.0, 49), (2.0, 49)]) == scaling_lag.Lag(2.0, 3.0)


def test_at_a_low_rate_lag_is_the_sum_of_the_way() -> None:
    p = replace(P, burst_messages=1, moment_share=0)
    size = p.run_bytes(1)
    inward = p.batch_seconds(10) + p.taken_seconds(1, 10)
    way = 2 * p.relay_latency_seconds + MESH.publish_seconds(size, p) + p.store_seconds(size)
    assert lag_of(Scenario(MESH, 2, 1), p).p50 == pytest.approx(way + inward, rel=0.01)
    alone = p.relay_latency_seconds + p.relay_seconds(1, 10)
    assert lag_of(Scenario(ONE, 1, 1), p).p50 == pytest.approx(alone)


@pytest.mark.parametrize(
    ("topology", "least"), [(LEAF, P.wan_round_trip_seconds / 2), (REGIONS, 0.04 + 0.005)]
)
def test_most_of_what_a_host_gets_is_from_afar(topology: Topology, least: float) -> None:
    assert lag_of(Scenario(topology, 128, 1)).p50 > least > lag_of(Scenario(MESH, 128, 1)).p99


def test_lag_grows_with_hosts() -> None:
    found = [lag_of(Scenario(MESH, hosts, 10)).p99 for hosts in (2, 32, 512)]
    assert found == sorted(found)
    assert found[-1] > 10 * found[0]


def test_the_same_seed_gives_the_same_and_another_one_does_not() -> None:
    scenario = Scenario(SPLIT, 16, 100)
    flow = flow_of(SPLIT, 100)
    same = simulate_lag(scenario, flow, P, SEED)
    assert simulate_lag(scenario, flow, P, SEED) == same
    assert simulate_lag(scenario, flow, P, SEED + 1) != same


# Loads

FLOW = Flow(bursts=10, runs=10, messages=40)
SENT = FLOW.bytes(P)


def test_one_host_needs_no_server_and_no_link() -> None:
    found = load(Scenario(ONE, 1, 40), FLOW, P)
    assert (found.servers, found.links, found.busiest_link) == (0, {}, None)
    assert found.fullest is Part.RELAY


def test_every_host_takes_what_all_others_publish() -> None:
    found = load(Scenario(MESH, 11, 40), FLOW, P)
    assert found.links[Part.HOST_LINK] == pytest.approx(10 * SENT)
    assert Part.WAN_LINK not in found.links
    copies = 2 * 11 * SENT
    assert found.links[Part.SERVER_LINK] == pytest.approx(copies + 11 * 10 * SENT / 3)
    assert found.servers == 3


def test_split_by_type_a_host_takes_its_part() -> None:
    found = load(Scenario(SPLIT, 11, 40), FLOW, P)
    assert found.links[Part.HOST_LINK] == pytest.approx(10 * SENT * P.types_wanted / P.types)


def test_a_site_sends_its_traffic_once_and_takes_that_of_the_others_once() -> None:
    found = load(Scenario(LEAF, 4 * P.hosts_per_site, 40), FLOW, P)
    assert found.links[Part.WAN_LINK] == pytest.approx(3 * P.hosts_per_site * SENT)
    assert found.servers == (4 + 1) * P.replicas


def test_a_region_sends_its_traffic_to_each_of_the_others() -> None:
    found = load(Scenario(REGIONS, 100, 40), FLOW, P)
    assert found.links[Part.WAN_LINK] == pytest.approx(3 * 25 * SENT)
    assert found.servers == 4 * 2 * P.replicas


def test_groups_with_hosts_of_one_only_are_like_one_cluster() -> None:
    assert load(Scenario(LEAF, 8, 40), FLOW, P) == load(Scenario(MESH, 8, 40), FLOW, P)


def test_more_servers_where_three_cannot_deliver_it() -> None:
    found = load(Scenario(MESH, 2_000, 40), FLOW, P)
    assert found.servers > P.replicas
    assert found.server_cores < P.nats_cores


@pytest.mark.parametrize(
    ("change", "rate", "full"),
    [
        ({}, 100, Part.INWARD),
        ({"relay_message_seconds": 1.0, "lan_bytes_per_second": 1e15}, 10, Part.INWARD),
        ({"publish_round_trip_seconds": 10.0, "max_payload_bytes": 2_000}, 10, Part.OUTWARD),
        ({"nats_store_seconds_per_run": 1.0}, 10, Part.STREAM),
        ({"lan_bytes_per_second": 10.0}, 1, Part.SERVER_LINK),
    ],
)
def test_what_is_full_is_named(change: dict[str, float], rate: float, full: Part) -> None:
    p = replace(P, **change)  # type: ignore[arg-type] # those here are float
    found = simulate(Scenario(MESH, 2_000, rate), p, SEED)
    assert (found.load.fullest, found.lag) == (full, None)


def test_the_link_between_sites_can_be_full() -> None:
    found = load(Scenario(LEAF, 128, 40), FLOW, replace(P, wan_bytes_per_second=1_000.0))
    assert (found.fullest, found.busiest_link) == (Part.WAN_LINK, Part.WAN_LINK)


@pytest.mark.parametrize("topology", BRIDGED, ids=lambda topology: topology.key)
def test_the_most_hosts_fit_and_one_more_does_not(topology: Topology) -> None:
    scenario, flow = Scenario(topology, 1, 100), flow_of(topology, 100)
    most, full = most_hosts(scenario, flow, P)
    assert load(replace(scenario, hosts=most), flow, P).fits(P)
    more = load(replace(scenario, hosts=most + 1), flow, P)
    assert (more.fits(P), more.fullest) == (False, full)


def test_the_search_for_the_most_hosts_ends() -> None:
    p = replace(P, full=1e12)
    assert most_hosts(Scenario(MESH, 1, 1), FLOW, p)[0] == MOST_HOSTS - 1
    assert most_hosts(Scenario(MESH, 1, 1), FLOW, replace(P, full=1e-12))[0] == 0


def test_a_series_ends_with_the_first_that_does_not_fit() -> None:
    found = series(MESH, (2, 32, 2_048, 8_192), 100, P, SEED)
    assert [result.scenario.hosts for result in found] == [2, 32, 2_048]
    assert [result.lag is None for result in found] == [False, False, True]


def test_a_series_of_sites_begins_with_the_second_site() -> None:
    found = series(LEAF, (2, 32, 33), 1, P, SEED)
    assert [result.scenario.hosts for result in found] == [33]


# What is written


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "HOSTS", (2, 64, 8_192))
    monkeypatch.setattr(scaling, "RATES", (10,))
    monkeypatch.setattr(scaling, "LOOKED_AT", (10,))
    monkeypatch.setattr(scaling, "PEERS", (1,))
    monkeypatch.setattr(scaling, "MATTERING_RATES", (10,))
    monkeypatch.setattr(scaling_picture, "HOSTS", (2, 64))
    monkeypatch.setattr(scaling_picture, "RATES", (10, 100))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(scaling.main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.usefixtures("few")
def test_the_command_writes_the_same_page_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "can_draw", lambda: False)
    first, second = tmp_path / "first", tmp_path / "second"
    assert f"written: {first / 'scaling.md'}" in run("--output", str(first))
    run("--output", str(second))
    page = (first / "scaling.md").read_text()
    assert "| one cluster | 10 | 8,192 | - | - |" in page
    assert "**full**: bridge inward" in page
    assert (second / "scaling.md").read_text() == page


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed")
@pytest.mark.usefixtures("few")
def test_the_command_draws(tmp_path: Path) -> None:
    run("--output", str(tmp_path))
    assert b"one cluster, split by type" in (tmp_path / "scaling.svg").read_bytes()


@pytest.mark.usefixtures("few")
def test_the_command_leaves_the_rest_of_the_page_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "can_draw", lambda: False)
    page = tmp_path / "scaling.md"
    page.write_text(f"before\n{report.BEGIN}\nstale results\n{report.END}\nafter\n")
    assert "no picture" in run("--output", str(tmp_path), "--seed", "7")
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n\nSimulated with seed 7.\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "stale results" not in text


def test_a_page_without_a_place_for_the_results_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "scaling.md"
    page.write_text("mine\n")
    result = CliRunner().invoke(scaling.main, ["--output", str(tmp_path)])
    assert (result.exit_code, page.read_text()) == (1, "mine\n")
    assert report.BEGIN in result.output


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0001, "< 0.001"), (0.0012345, "0.00123"), (99.94, "99.9"), (1234.5, "1,234")],
)
def test_numbers_have_no_exponent(value: float, shown: str) -> None:
    assert scaling._number(value) == shown


def test_the_page_was_made_with_these_figures() -> None:
    table = scaling.markdown([scaling._taken(P)], scaling.SEED).partition("\n\n")[2]
    assert table in PAGE.read_text(), "run: python -m benchmarks.scaling"
