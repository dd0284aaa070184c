"""The command line: tools that look at a relay from outside, as any peer does.

Knows the wire, click and rich; neither the hub, nor the web, nor Twisted.
"""
