"""What the bridge's options take, and in which words they refuse the rest."""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from alphapulse_relay.bridge import option_values as read
from alphapulse_relay.bridge.compression import When
from tests.authority import Authority

ADDRESS = "is not the address of a relay"
NAME = "is not a name of 1 to 64 of the characters A-Z a-z 0-9 _ -, other than all"
URL = "is not a URL such as nats://nats.example:4222, or tls:// for an encrypted one"
STREAM = "is not the name of a stream: up to 255 characters, no blank nor any of .*>/\\"
SUBJECT = "is not a subject such as signals or desk.signals: no blank, no *, > or $"
SECRET = "does not hold one line of printable characters"


def write(path: Path, content: bytes, mode: int = 0o640) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (read.relay_address, "/a/b.sock", "/a/b.sock"),
        (read.relay_address, "unix:/a", "/a"),
        (read.relay_address, "unix:a", f"{Path.cwd()}/a"),
        (read.relay_address, "@relay", "@relay"),
        (read.relay_address, "unix:@relay", "@relay"),
        (read.relay_address, "tcp:10.0.0.1:7000", "tcp:10.0.0.1:7000"),
        (read.relay_address, "tls:[::1]:7443:name=relay", "tls:[::1]:7443:name=relay"),
        (read.relay_name, "a", "a"),
        (read.relay_name, "Desk_1-" + "x" * 57, "Desk_1-" + "x" * 57),
        (read.relay_or_all, "all", "all"),
        (read.relay_or_all, "desk", "desk"),
        (read.nats_url, "nats://a.example", "nats://a.example:4222"),
        (read.nats_url, "tls://10.0.0.1:1", "tls://10.0.0.1:1"),
        (read.nats_url, "nats://[::1]:65535", "nats://[::1]:65535"),
        (read.nats_url, "nats://[::1]", "nats://[::1]:4222"),
        (read.stream_name, "SIGNALS", "SIGNALS"),
        (read.stream_name, "x" * 255, "x" * 255),
        (read.subject, "signals", "signals"),
        (read.subject, "desk.eu-1.signals", "desk.eu-1.signals"),
        (read.replicas, "1", 1),
        (read.replicas, "5", 5),
        (read.niceness, "0", 0),
        (read.niceness, "19", 19),
        (read.when_to_compress, "always", When.ALWAYS),
        (read.stream_size, "1", 1),
        (read.stream_size, "10g", 10 << 30),
        (read.byte_list_or_all, "all", frozenset()),
        (read.byte_list_or_all, "20-21,255", frozenset({20, 21, 255})),
        (read.user, "none", None),
        (read.user, "desk one", "desk one"),
        (read.secret_file, "none", None),
        (read.credentials_file, "none", None),
        (read.certificates_file, "none", None),
        (read.key_file, "none", None),
        (read.key_file, "a.key", Path.cwd() / "a.key"),
    ],
)
def test_right(reader: Callable[[str], object], text: str, value: object) -> None:
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text", "what"),
    [
        (read.relay_address, "", "is not a path of printable characters"),
        (read.relay_address, "unix:", "is not a path of printable characters"),
        (read.relay_address, "a\nb", "is not a path of printable characters"),
        (read.relay_address, "@", "is not an abstract name of printable characters, such as "
         "@relay, nor /"),
        (read.relay_address, "tcp:a", f"{ADDRESS}: 'tcp:a' is not such as tcp:HOST:PORT or "
         "tls:HOST:PORT:ca=FILE"),
        (read.relay_address, "tls:a:1:ca=b.pem", f"{ADDRESS}: its files are to be absolute paths"),
        (read.relay_address, "tls:a:1:ca=/none/b", "cannot be used: /none/b cannot be read: No "
         "such file or directory"),
        *[(read.relay_name, text, NAME)
          for text in ("", "all", "a.b", "a b", "x" * 65, "ä", "*", "a\n")],
        (read.relay_or_all, "a.b", NAME),
        *[(read.nats_url, text, URL)
          for text in ("", "a", "a:4222", "nats://", "http://a", "ws://a", "nats://a:0", "nats://a:",
                       "nats://a:65536", "nats://a/", "nats://a?b", "nats://::1", "nats://a b",
                       "nats://a:1\n", "NATS://a", "nats://a:-1", "nats://a,nats://b")],
        *[(read.stream_name, text, STREAM)
          for text in ("", "a.b", "a b", "a*", ">", "a/b", "a\\b", "x" * 256, "a\t", "ä", "a\n")],
        *[(read.subject, text, SUBJECT)
          for text in ("", ".", "a.", ".a", "a..b", "a.*", ">", "a b", "$JS", "a\n", "ä")],
        *[(read.replicas, text, "is not a number from 1 to 5") for text in ("0", "6", "", "11")],
        *[(read.niceness, text, "is not a number from 0 to 19") for text in ("-1", "20", "", "x")],
        (read.when_to_compress, "zstd", "is not one of auto, always, never"),
        (read.stream_size, "0", "leaves no room"),
        (read.stream_size, "1T", "is not a size in bytes, or with K, M or G, such as 64M"),
        *[(read.byte_list_or_all, text, "is not a list of numbers and ranges from 0 to 255, such "
           "as 20-39,50") for text in ("", "ALL", "all,1", "256")],
        *[(read.user, text, "is not a name of printable characters") for text in ("", "a\n")],
        *[(reader, "/none/x", "cannot be read: No such file or directory")
          for reader in (read.secret_file, read.credentials_file)],
        (read.certificates_file, "/none/x", "cannot be used: /none/x cannot be read: No such file "
         "or directory"),
    ],
)  # fmt: skip
def test_wrong(reader: Callable[[str], object], text: str, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(what)}$"):
        reader(text)


@pytest.mark.parametrize(
    ("host", "name"),
    [("desk1", "desk1"), ("desk1.example.com", "desk1-example-com"), ("x" * 65, "x" * 64)],
)
def test_the_host_names_the_relay(monkeypatch: pytest.MonkeyPatch, host: str, name: str) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert read.relay_name(read.HOST_NAME) == name


@pytest.mark.parametrize(
    ("content", "secret"), [(b"s\n", "s"), (b"a b\r\n", "a b"), ("pässwort".encode(), "pässwort")]
)
def test_a_secret_is_one_line(tmp_path: Path, content: bytes, secret: str) -> None:
    assert read.secret_file(write(tmp_path / "secret", content)) == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"\xff", b"a\0"])
def test_more_or_less_than_one_line_is_no_secret(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=SECRET):
        read.secret_file(write(tmp_path / "secret", content))


@pytest.mark.parametrize("reader", [read.secret_file, read.credentials_file])
def test_secrets_are_in_files_that_others_may_not_have(
    tmp_path: Path, reader: Callable[[str], object]
) -> None:
    for mode in (0o644, 0o602):
        path = write(tmp_path / f"{mode:o}", b"s", mode)
        with pytest.raises(ValueError, match=rf"its owner and group \(mode {mode:o}\): chmod 640"):
            reader(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="cannot be read: Not a regular file"):
        reader(str(tmp_path / "pipe"))
    long = write(tmp_path / "long", b"s" * (read.SECRET_FILE_MAX + 1))
    with pytest.raises(ValueError, match=f"cannot be read: More than {read.SECRET_FILE_MAX} bytes"):
        reader(long)


def test_credentials_are_those_of_a_user(tmp_path: Path) -> None:
    right = write(tmp_path / "a.creds", b"-----BEGIN NATS USER JWT-----\n...")
    assert read.credentials_file(right) == Path(right)
    with pytest.raises(ValueError, match="does not hold the credentials of a user of NATS"):
        read.credentials_file(write(tmp_path / "b.creds", b"user:password\n"))


def test_certificates_are_in_pem(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert read.certificates_file(str(authority.file)) == authority.file
    address = f"tls:relay:1:ca={authority.file}"
    assert read.relay_address(address) == address
    wrong = write(tmp_path / "wrong.pem", b"")
    with pytest.raises(ValueError, match=f"cannot be used: {wrong} holds no certificate in PEM"):
        read.certificates_file(wrong)
