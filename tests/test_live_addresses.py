"""Whom a call reaches over real sockets, from which address answers leave, and what is said when nobody can be reached.

All of it stays on loopback addresses.
"""

import errno
import json
import socket
import sys
import threading
import time

import pytest
from call_wire import SECRET
from click.testing import CliRunner
from live_world import transparent_codec

from streamcodec.cli import main
from streamcodec.errors import ConfigError, DeviceError
from streamcodec.live import endpoint
from streamcodec.live.endpoint import Place, UdpEndpoint
from streamcodec.live.file_devices import FileDevices
from streamcodec.live.handshake import pack_hello
from streamcodec.live.udp import UdpCall, parse_address

ASK = pack_hello(7, b"transpar", b"s" * 16, bytes(16), None)
whole_loopback = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 without set-up")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
            opened.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def codec():
    return transparent_codec()


@pytest.fixture
def udp(codec):
    """Makes `UdpCall`s with files in place of devices, and closes them."""
    made = []

    def make(**options):
        made.append(UdpCall(codec, FileDevices(codec, None, None), **options))
        return made[-1]

    yield make
    for call in made:
        call.close()


@pytest.fixture
def names(monkeypatch):
    """A table of names and the addresses that they resolve to."""
    real, table = socket.getaddrinfo, {}

    def getaddrinfo(host, port, *rest, **more):
        return [real(address, port, *rest, **more)[0] for address in table.get(host, (host,))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


def connects(caller, listener, seconds=6.0):
    for step in range(round(seconds / 0.02)):
        listener.pump(step * 0.02)
        caller.pump(step * 0.02)
        if caller.peer.connected and listener.peer.connected:
            return True
    return False


def answered_from(listener, address, family=socket.AF_INET):
    """The address that answers a greeting sent to `address`, on a socket that takes answers from anywhere."""
    with socket.socket(family, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        stranger.settimeout(5)
        stranger.sendto(ASK, (address, listener.port))
        time.sleep(0.05)
        listener.pump(0.0)
        return stranger.recvfrom(2048)[1][:2]


@whole_loopback
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.3", "127.200.1.9"])
@pytest.mark.parametrize("host", ["0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_an_answer_leaves_from_the_address_that_was_asked(udp, host, address):
    listener = udp(listen_port=0, listen_host=host)
    assert answered_from(listener, address) == (address, listener.port)


@needs_ipv6
def test_an_answer_over_ipv6_leaves_from_the_address_that_was_asked(udp):
    for host in ("::", "::1"):
        listener = udp(listen_port=0, listen_host=host)
        assert answered_from(listener, "::1", socket.AF_INET6) == ("::1", listener.port)


@whole_loopback
def test_where_the_platform_hides_the_address_asked_the_echo_makes_the_call(udp, monkeypatch):
    for name in ("_IP_PKTINFO", "_IPV6_RECVPKTINFO", "_IPV6_PKTINFO", "_IP_RECVERR", "_IPV6_RECVERR"):
        monkeypatch.setattr(endpoint, name, None)
    listener = udp(listen_port=0)
    assert answered_from(listener, "127.0.0.5")[0] == "127.0.0.1"
    caller = udp(to=("127.0.0.5", listener.port))
    assert connects(caller, listener)
    assert caller.peer.address.host == "127.0.0.1"


def test_a_platform_that_tells_nothing_about_datagrams_still_makes_calls(udp, monkeypatch):
    class Old(socket.socket):
        """As on Windows."""

        @property
        def recvmsg(self):
            raise AttributeError

        sendmsg = recvmsg

    for name in ("_IP_PKTINFO", "_IPV6_RECVPKTINFO", "_IPV6_PKTINFO", "_IP_RECVERR", "_IPV6_RECVERR"):
        monkeypatch.setattr(endpoint, name, None)
    monkeypatch.setattr(socket, "socket", Old)
    listener = udp(listen_port=0, listen_host="127.0.0.1")
    assert connects(udp(to=("127.0.0.1", listener.port)), listener)


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.9", "::1", "127.0.0.1"), ("127.0.0.1", "::1")])
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_every_address_of_a_name_is_tried(udp, names, addresses, host):
    names["host.example"] = addresses
    listener = udp(listen_port=0, listen_host=host)
    caller = udp(to=("host.example", listener.port))
    assert connects(caller, listener)
    assert caller.peer.address.host == host


@needs_ipv6
def test_a_listener_hears_at_every_address_of_its_name_and_leaves_out_those_that_are_not_here(udp, names):
    names["host.example"] = ("192.0.2.1", "127.0.0.1", "::1")
    listener = udp(listen_port=0, listen_host="host.example")
    for address in ("127.0.0.1", "::1"):
        listener.peer._renew()
        assert connects(udp(to=(address, listener.port)), listener)


@needs_ipv6
def test_a_listener_at_all_addresses_of_ipv6_hears_ipv4_too(udp):
    listener = udp(listen_port=0, listen_host="::")
    assert connects(udp(to=("127.0.0.1", listener.port)), listener)


@pytest.mark.parametrize(
    ("raises", "says"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label empty or too long"), "it is no name of a host"),
        (ValueError("embedded null character"), "it is no name of a host"),
    ],
)
def test_a_name_that_does_not_resolve_is_one_line(udp, monkeypatch, raises, says):
    def getaddrinfo(*_, **__):
        raise raises

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for options in ({"to": ("host.example", 5004)}, {"listen_port": 5004, "listen_host": "host.example"}):
        with pytest.raises(DeviceError, match=says) as caught:
            udp(**options)
        assert "\n" not in str(caught.value)
        assert "host.example:5004" in str(caught.value)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "a\0b"])
def test_what_can_be_no_name_is_one_line(udp, host):
    with pytest.raises(DeviceError, match="cannot be used"):
        udp(to=(host, 5004))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EACCES, "choose another port"),
        (errno.EADDRINUSE, "choose another port"),
        (errno.EADDRNOTAVAIL, "give --host an address of this machine"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_a_port_that_cannot_be_had_is_one_line_and_leaves_no_socket(udp, monkeypatch, code, says):
    opened = []

    class Refusing(socket.socket):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            opened.append(self)

        def bind(self, address):
            raise OSError(code, errno_text(code))

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(DeviceError, match=says):
        udp(listen_port=80, listen_host="127.0.0.1")
    assert [used.fileno() for used in opened] == [-1]


def errno_text(code):
    return {errno.EMFILE: "Too many open files"}.get(code, "refused")


def test_a_port_in_use_is_said(udp):
    listener = udp(listen_port=0, listen_host="127.0.0.1")
    with pytest.raises(DeviceError, match=f"cannot listen on 127.0.0.1:{listener.port}: .*; choose another port"):
        udp(listen_port=listener.port, listen_host="127.0.0.1")


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL])
def test_a_network_that_is_down_is_said_and_ends_nothing(udp, monkeypatch, code):
    class Down(socket.socket):
        def sendto(self, *_):
            raise OSError(code, "the network is down")

        def sendmsg(self, *_):
            raise OSError(code, "the network is down")

    listener = udp(listen_port=0, listen_host="127.0.0.1")
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Down)
        caller = udp(to=("127.0.0.1", listener.port))
    for step in range(100):
        caller.pump(step * 0.01)
    assert caller.trouble == f"127.0.0.1:{listener.port}: the network is down"
    assert caller.report()["send_errors"] == 4
    assert not caller.peer.ended


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not report it on such a socket")
@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_a_closed_port_is_said_and_a_listener_that_starts_later_still_gets_the_call(udp, host):
    first = udp(listen_port=0, listen_host=host)
    port = first.port
    caller = udp(to=(host, port))
    first.close()
    for step in range(60):
        caller.pump(step * 0.01)
        time.sleep(0.001)
    assert caller.trouble == f"{Place((host, port))}: Connection refused"
    assert connects(caller, udp(listen_port=port, listen_host=host))


def test_an_endpoint_survives_what_no_call_would_send():
    listener, stranger = UdpEndpoint("127.0.0.1", 0, listens=True), UdpEndpoint("127.0.0.1", 1, listens=False)
    place = Place(("127.0.0.1", listener.port))
    for size in (0, 1, 2048, 2049, 60_000):
        stranger.send(bytes(size), place)
        arrived = None
        while arrived is None:
            arrived = listener.receive()
        assert len(arrived[0]) == min(size, 2048)
    stranger.send(bytes(70_000), place)
    assert stranger.errors == 1
    assert listener.receive() is None
    listener.close()
    stranger.close()


@pytest.mark.parametrize("text", ["[]:5004", "host:" + "9" * 5000, "host:-1", "host: ", "", "[::1]"])
def test_what_is_no_host_and_port_is_refused(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(text)


@pytest.fixture
def command(codec, monkeypatch, tmp_path):
    """Runs `streamcodec call` with a codec that costs nothing and a file in place of devices."""
    monkeypatch.setattr("streamcodec.codec.Codec.load", lambda *_, **__: codec)
    return lambda *words: CliRunner().invoke(main, ["call", "--output", str(tmp_path / "heard.wav"), *map(str, words)])


@pytest.fixture
def background():
    """Lets a call run beside the command."""
    stop, threads = threading.Event(), []

    def run(call):
        def pump():
            while not stop.wait(0.005):
                call.pump(time.monotonic())

        threads.append(threading.Thread(target=pump))
        threads[-1].start()
        return call

    yield run
    stop.set()
    for thread in threads:
        thread.join()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.parametrize("listens", [False, True])
def test_the_command_says_that_keys_differ_at_once_and_in_the_end(command, udp, background, tmp_path, listens):
    pytest.importorskip("cryptography", reason="cryptography is not installed (pip install 'streamcodec[call]')")
    (tmp_path / "key").write_bytes(bytes(32))
    port = free_port()
    if listens:
        background(udp(to=("127.0.0.1", port), secret=SECRET))
        words = ["--listen", port, "--host", "127.0.0.1"]
    else:
        background(udp(listen_port=port, listen_host="127.0.0.1", secret=SECRET))
        words = ["--to", f"127.0.0.1:{port}"]
    result = command(*words, "--key", tmp_path / "key", "--seconds", 2)
    assert result.exit_code == 1, result.output
    said = "the other side uses another key; start both with the same --key FILE"
    assert [line for line in result.stderr.splitlines() if "other side" in line] == [
        said,
        f"CallError: nobody answered: {said}",
    ]
    assert "0 heard" in result.stdout


def test_the_command_ends_by_itself_with_its_report_when_the_other_side_died(command, udp, background, monkeypatch):
    monkeypatch.setattr("streamcodec.live.peer._GONE_AFTER_S", 0.5)
    listener = udp(listen_port=0, listen_host="127.0.0.1")
    listener.peer.sender.pump = lambda now_s: 0  # there at first, then never heard
    background(listener)
    result = command("--to", f"127.0.0.1:{listener.port}")
    assert result.exit_code == 0, result.output
    assert "the call ended: nothing came from the other side" in result.stdout
    assert "datagrams: media 0, hello 1" in result.stdout


def test_the_command_gives_up_when_nobody_answers_and_says_so_in_json_too(command, monkeypatch):
    monkeypatch.setattr("streamcodec.live.peer._ANSWER_WITHIN_S", 0.5)
    result = command("--to", f"127.0.0.1:{free_port()}", "--json")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("CallError: nobody answered")
    report = json.loads(result.stdout)
    assert report["calls"] == 0
    waited = command("--listen", 0, "--host", "127.0.0.1", "--seconds", 0.3)
    assert waited.exit_code == 1
    assert waited.stderr.splitlines()[-1] == "CallError: nobody answered"


def test_the_command_names_a_port_that_is_taken(command, udp):
    listener = udp(listen_port=0, listen_host="127.0.0.1")
    result = command("--listen", listener.port, "--host", "127.0.0.1")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"DeviceError: cannot listen on 127.0.0.1:{listener.port}: ")
    assert len(result.stderr.splitlines()) == 1
