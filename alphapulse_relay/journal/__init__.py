"""THE JOURNAL ON DISK: what its files hold, how they are read and mended.

Knows the wire and files; neither Twisted nor the hub.
"""
