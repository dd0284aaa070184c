"""The command line: tools that look at a relay from outside, as any peer does.

Knows the wire, click and rich; neither the hub, nor the web, nor Twisted. Only ``relay_options``
and the commands that use it know the relay's options, and load them when they run.
"""
