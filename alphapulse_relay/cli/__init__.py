"""The command line: tools that look at a relay from outside, as any peer does.

Knows the wire, click and rich; neither the hub, nor the web, nor Twisted. Only ``relay_options``,
``bridge`` and the commands that use them know a program's options, and load them when they run.
"""
