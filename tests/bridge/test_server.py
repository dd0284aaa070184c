"""The connection to NATS: who is let in, by what, and what is told of who is not."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nats")

import nats.errors

from alphapulse_relay.bridge import server as module
from alphapulse_relay.bridge.server import Server, describe, tls_context
from tests.authority import SERVER, Authority
from tests.bridge.bridges import settings
from tests.bridge.servers import NATS, Operator, connected, running, soon


def secret(directory: Path, text: str) -> str:
    file = directory / "secret"
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return str(file)


def connect(directory: Path, url: Any, **options: str) -> None:
    """Connect once."""

    async def once() -> None:
        async with connected(settings(directory, nats=url, **options)) as server:
            assert server.trouble is None
            assert server.is_connected
            await server.client.flush()

    asyncio.run(once())


def refusal(directory: Path, url: Any, **options: str) -> str:
    """Return why there is no connection."""

    async def tried() -> str:
        async with running(settings(directory, nats=url, **options)) as server:
            # Who is refused while it still speaks may be told by the kernel only; then not again.
            kernel = ("[Errno 104] Connection reset by peer", "[Errno 32] Broken pipe")
            passing = ("not connected yet", *kernel)
            await soon(lambda: server.trouble not in passing)
            assert not server.is_connected
            assert server.trouble is not None
            return server.trouble

    return asyncio.run(tried())


class TestWhoItIs:
    def test_user_and_password(self, tmp_path: Path) -> None:
        with NATS(tmp_path, "authorization { user: desk, password: good }") as server:
            given = {"user": "desk", "password_file": secret(tmp_path, "good")}
            connect(tmp_path, server.url, **given)
            secret(tmp_path, "bad")
            assert refusal(tmp_path, server.url, **given) == "Authorization Violation"
            assert refusal(tmp_path, server.url) == "Authorization Violation"

    def test_token(self, tmp_path: Path) -> None:
        with NATS(tmp_path, "authorization { token: good }") as server:
            given = {"token_file": secret(tmp_path, "good")}
            connect(tmp_path, server.url, **given)
            secret(tmp_path, "bad")
            assert refusal(tmp_path, server.url, **given) == "Authorization Violation"

    def test_credentials_that_end_and_are_renewed(self, tmp_path: Path) -> None:
        operator = Operator()
        file = operator.issue(tmp_path / "desk.creds", seconds=3)

        async def renewed(url: str) -> None:
            given = settings(tmp_path, nats=url, credentials=str(file))
            async with connected(given) as server:
                await soon(lambda: server.trouble is not None)
                file.write_text("")  # by a program that does not replace it as a whole
                await soon(lambda: "does not hold" in str(server.trouble))
                operator.issue(file)
                await soon(lambda: server.is_connected)
                assert server.reconnects == 1

        with NATS(tmp_path, operator.config, jetstream=False) as server:
            asyncio.run(renewed(server.url))

    def test_a_stranger_s_credentials(self, tmp_path: Path) -> None:
        file = Operator().issue(tmp_path / "desk.creds")
        with NATS(tmp_path, Operator().config, jetstream=False) as server:
            told = refusal(tmp_path, server.url, credentials=str(file))
            assert told == "Authorization Violation"

    def test_a_broken_key(self, tmp_path: Path) -> None:
        operator = Operator()
        file = operator.issue(tmp_path / "desk.creds")
        text = file.read_text()
        seed = text[text.index("SEED-----\n") + 10 :].split("\n")[0]
        file.write_text(text.replace(seed, "SUAB"))
        with NATS(tmp_path, operator.config, jetstream=False) as server:
            told = refusal(tmp_path, server.url, credentials=str(file))
            assert told == f"{file} does not hold the key of a user"

    def test_a_user_for_who_is_nobody_is_not_taken_by_who_is_somebody(self, tmp_path: Path) -> None:
        config = """accounts {
            A { users: [{user: desk, password: good}] }
            B { users: [{user: nobody, password: one}] }
        }
        no_auth_user: nobody"""
        with NATS(tmp_path, config, jetstream=False) as server:
            given = {"user": "desk", "password_file": secret(tmp_path, "bad")}
            connect(tmp_path, server.url)
            assert refusal(tmp_path, server.url, **given) == "Authorization Violation"


class TestTLS:
    @staticmethod
    def config(tmp_path: Path, authority: Authority, more: str = "") -> str:
        own = authority.issue("nats", "127.0.0.1", usage=SERVER)
        files = f'cert_file: "{own.certificate}", key_file: "{own.key}"'
        return f'tls {{ {files}, ca_file: "{authority.file}", {more} }}'

    @pytest.mark.parametrize("scheme", ["nats", "tls"])
    def test_an_authority_of_its_own(self, tmp_path: Path, scheme: str) -> None:
        authority = Authority(tmp_path)
        stranger = Authority(tmp_path, "stranger")
        with NATS(tmp_path, self.config(tmp_path, authority), scheme=scheme) as server:
            connect(tmp_path, server.url, tls_ca=str(authority.file))
            told = refusal(tmp_path, server.url, tls_ca=str(stranger.file))
            assert told.startswith("the server's certificate is not one to trust: ")
            assert refusal(tmp_path, server.url) == told

    def test_a_certificate_of_another_name(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        own = authority.issue("nats", "nats.example", usage=SERVER)
        config = f'tls {{ cert_file: "{own.certificate}", key_file: "{own.key}" }}'
        with NATS(tmp_path, config, scheme="tls") as server:
            told = refusal(tmp_path, server.url, tls_ca=str(authority.file))
            assert "IP address mismatch" in told

    def test_a_certificate_of_the_bridge(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        own = authority.issue("desk")
        given = {"tls_ca": str(authority.file)}
        shown = {"tls_cert": str(own.certificate), "tls_key": str(own.key)}
        with NATS(tmp_path, self.config(tmp_path, authority, "verify: true")) as server:
            connect(tmp_path, server.url, **given, **shown)
            told = refusal(tmp_path, server.url, **given)
            assert told == "TLS failed: tlsv13 alert certificate required"

    def test_a_server_that_need_not_but_can(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        config = self.config(tmp_path, authority) + "\nallow_non_tls: true"

        async def encrypted(url: str) -> None:
            async with connected(settings(tmp_path, nats=url, tls_ca=str(authority.file))) as one:
                writer = one.client._transport._io_writer  # type: ignore[union-attr]
                assert writer.get_extra_info("ssl_object") is not None

        with NATS(tmp_path, config, scheme="tls") as server:
            asyncio.run(encrypted(server.url))

    @pytest.mark.parametrize("by_url", [True, False])
    def test_nothing_is_said_to_a_server_that_cannot(self, tmp_path: Path, by_url: bool) -> None:
        heard = bytearray()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"auth_required": true, "max_payload": 1048576}\r\n')
            heard.extend(await reader.read())
            writer.close()

        async def tried() -> None:
            plain = await asyncio.start_server(listen, "127.0.0.1", 0)
            url = f"127.0.0.1:{plain.sockets[0].getsockname()[1]}"
            given = {"user": "desk", "password_file": secret(tmp_path, "good")}
            if by_url:
                given["nats"] = f"tls://{url}"
            else:
                given |= {"nats": f"nats://{url}", "tls_ca": str(Authority(tmp_path).file)}
            async with plain, running(settings(tmp_path, **given)) as server:
                await soon(lambda: "does not speak TLS" in str(server.trouble))

        asyncio.run(tried())
        assert not heard

    def test_nothing_is_asked_for(self, tmp_path: Path) -> None:
        assert tls_context(settings(tmp_path)) is None

    def test_a_file_that_has_gone(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        given = settings(tmp_path, tls_ca=str(authority.file))
        authority.file.unlink()
        with pytest.raises(FileNotFoundError):
            asyncio.run(Server(given).run())


class TestUpsAndDowns:
    def test_the_first_server_is_down(self, tmp_path: Path) -> None:
        with NATS(tmp_path, jetstream=False) as down, NATS(tmp_path, jetstream=False) as up:
            down.stop()
            connect(tmp_path, [down.url, up.url])

    def test_it_comes_later_and_again(self, tmp_path: Path) -> None:
        with NATS(tmp_path, jetstream=False) as nats_server:
            nats_server.stop()

            async def later() -> None:
                async with running(settings(tmp_path, nats=nats_server.url)) as server:
                    await soon(lambda: "Connect call failed" in str(server.trouble))
                    nats_server.start()
                    await server.connected()
                    for number in range(2):
                        nats_server.restart()
                        with pytest.raises(ConnectionError, match="was lost"):
                            await server.until_lost()
                        await server.connected()
                        assert server.is_connected
                        assert server.trouble is None
                        assert server.reconnects == number + 1

            asyncio.run(later())

    def test_each_trouble_is_told_once(self, tmp_path: Path, monkeypatch: Any) -> None:
        told: list[str] = []
        monkeypatch.setattr(module, "RECONNECT_SECONDS", 0.01)
        monkeypatch.setattr(module._log, "error", lambda _, error: told.append(error))
        with NATS(tmp_path, jetstream=False) as one, NATS(tmp_path, jetstream=False) as two:
            urls = [one.url, two.url]

        async def tried() -> None:
            async with running(settings(tmp_path, nats=urls)):
                await soon(lambda: len(told) >= 2)
                await asyncio.sleep(0.1)

        asyncio.run(tried())
        assert len(told) == 2

    def test_a_server_that_says_too_much(self, tmp_path: Path) -> None:
        async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"INFO " + bytes(100_000))
            writer.close()

        async def tried() -> None:
            strange = await asyncio.start_server(listen, "127.0.0.1", 0)
            url = f"nats://127.0.0.1:{strange.sockets[0].getsockname()[1]}"
            async with strange, running(settings(tmp_path, nats=url)) as server:
                await soon(lambda: server.trouble != "not connected yet")

        asyncio.run(tried())

    def test_what_may_not_be_done_is_kept(self, tmp_path: Path) -> None:
        config = 'authorization { users: [{user: a, password: b, permissions: {publish: "ok"}}] }'

        async def tried(url: str) -> None:
            given = {"user": "a", "password_file": secret(tmp_path, "b")}
            async with connected(settings(tmp_path, nats=url, **given)) as server:
                await server.client.publish("no")
                await soon(lambda: server.complaint is not None)
                assert server.complaint == 'permissions violation for publish to "no"'
                assert server.trouble is None

        with NATS(tmp_path, config, jetstream=False) as server:
            asyncio.run(tried(server.url))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (nats.errors.Error("nats: 'Authorization Violation'"), "Authorization Violation"),
        (nats.errors.TimeoutError(), "no answer"),
        (TimeoutError(), "no answer"),
        (OSError(), "OSError"),
        (ValueError("two\nlines"), "two lines"),
        (nats.js.errors.APIError(code=400, err_code=1, description="no room"), "no room"),
        (ssl.SSLError(1, "what"), "what"),
    ],
)
def test_words(error: Exception, words: str) -> None:
    assert describe(error) == words
