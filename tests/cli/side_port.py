"""A stand-in for a relay's side port, in a thread."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

Answer = tuple[int, bytes]


class SidePort:
    """Answers each request with what ``answer`` returns then."""

    def __init__(self, server: HTTPServer) -> None:
        self.port = server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths: list[str] = []


@contextmanager
def side_port(answer: Callable[[], Answer], port: int = 0) -> Iterator[SidePort]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.paths.append(self.path)
            status, body = answer()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", port), Handler) as server:
        served = SidePort(server)
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        try:
            yield served
        finally:
            server.shutdown()
            serving.join()


def document(seconds: float = 0.0, *, name: str = "publisher", peers: int = 2) -> dict[str, object]:
    """The status after so many seconds in which each peer sent 100 messages a second."""
    sent = int(100 * seconds)
    who = {"transport": "unix", "pid": 4000, "uid": 1000, "gid": 1000, "address": None}
    return {
        "version": "0.1.0",
        "pid": 77,
        "started_at": 1_756_166_400.5,
        "uptime_seconds": 10.0 + seconds,
        "ready": True,
        "counters": {
            "messages_received": peers * sent,
            "bytes_received": peers * sent * 200,
            "messages_delivered": 0,
            "bytes_delivered": 0,
            "dropped": {"magic": 0, "checksum": 3},
            "missed": {"overtaken": 0},
            "connections": {"accepted": 3, "refused": {}, "ended": {"closed": 1}},
            "tlv_messages": {"21": sent},
            "malformed": 0,
            "held_seconds": 0.0,
        },
        "log": {"head": 0, "tail": 0, "window": 1 << 26},
        "journal": {
            "directory": "/var/lib/relay/journal",
            "size": 1 << 30,
            "bytes": 1 << 26,
            "failure": None,
            "damages": 0,
        },
        "held": 0,
        "peers": [
            {
                **who,
                "number": number,
                "name": name,
                "client_name": None,
                "state": "live",
                "replaying": False,
                "connected_seconds": seconds,
                "messages_in": sent,
                "bytes_in": sent * 200,
                "messages_out": 0,
                "bytes_out": 0,
                "bytes_behind": 2_500_000,
            }
            for number in range(1, peers + 1)
        ],
        "departed": [
            {
                **who,
                "number": 9,
                "name": "gone",
                "reason": "overtaken",
                "at": 1_756_166_401.0,
                "messages_in": 5,
                "messages_out": 6,
            }
        ],
    }


def ok(content: object) -> Answer:
    return 200, json.dumps(content).encode()
