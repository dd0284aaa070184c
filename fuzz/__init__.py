"""Fuzzing: what strangers can send, or a disk can lose, tried out by the million.

Each target is a module with one function, :func:`run`, that takes any bytes, makes of them what the
relay would be given, and raises if what must always hold did not. What must hold stands at its top.
``python -m fuzz TARGET`` runs one under libFuzzer (atheris); as plain functions they need neither.
"""
