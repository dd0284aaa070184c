"""A scripted relay behind TLS, on a real TCP port."""

import socket
import ssl
import threading
from pathlib import Path
from typing import Self

from tests.authority import SERVER, Authority
from tests.client.scripted import PATIENCE, Connection, Script


class TLSRelay:
    """Serves one connection after the other, each with its script, as "relay.example".

    A handshake that fails takes a script, too. ``shown`` is what it proves to be.
    """

    def __init__(self, directory: Path, *scripts: Script) -> None:
        self.authority = Authority(directory)
        self.shown = self.authority.issue("relay", "relay.example", "127.0.0.1", usage=SERVER)
        self.desk = self.authority.issue("desk")
        self.met: list[bytes | None] = []
        """The certificates that it was shown (DER)."""
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = self._listener.getsockname()[1]

    def address(self, *, ca: Path | None = None, name: str = "relay.example") -> str:
        return (
            f"tls:127.0.0.1:{self.port}:name={name}:ca={ca or self.authority.file}"
            f":cert={self.desk.certificate}:key={self.desk.key}"
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the relay was not asked for all that it had to say"

    def _run(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.shown.certificate, self.shown.key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 1  # so when it is there nothing more comes by itself
        context.load_verify_locations(self.authority.file)
        with self._listener:
            for script in self._scripts:
                plain = self._listener.accept()[0]
                plain.settimeout(PATIENCE)
                with plain:
                    try:
                        wrapped = context.wrap_socket(plain, server_side=True)
                    except OSError:
                        continue
                    with wrapped:
                        self.met.append(wrapped.getpeercert(True))
                        script(Connection(wrapped))
