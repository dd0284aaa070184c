"""Benchmarks: the relay beside other hubs and the least that a hub can do, in one run.

``script/benchmark`` runs them; ``docs/performance.md`` tells what is measured, and what came out.
"""
