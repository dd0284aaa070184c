"""Many hosts: joins a relay to a stream of NATS JetStream, and so to the others that are in it.

A process of its own, and a client of its relay: knows the wire and the client, not the hub.
"""
