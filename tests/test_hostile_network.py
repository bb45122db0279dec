"""Floor 6, against everybody: servers, proxies, resolvers and TLS that fail
or attack, in each family of commands.

A family of commands meets a fault that lasts: one error, of the right layer,
with the flag that helps, an exit code of the table, and no secret anywhere.
The plain run takes a sample, --full every family with every fault.
"""

import collections
import contextlib
import gzip
import itertools
import json
import random
import re
import socket
import struct
import subprocess
import sys
import time

import pytest

import test_network
import xeroctl
from conftest import IS_FULL, STARTED, costly, every_case, sampled
from router import DEMO_KEY
from test_network import (
    NO_HOST, WANTS_PASSWORD, WRONG_SCHEME, Door, Server, end_politely,
    error_of, frame, hint_of, page, server_context, wait_for_leave)

ssl = pytest.importorskip("ssl")
files = test_network.files
TLSVersion = getattr(ssl, "TLSVersion", None)

SEED, LIMIT_S = 7, 2
PASSWORD = "s3same-91"
SECRET = DEMO_KEY.rpartition("_")[2]
SECRETS = SECRET[:8], SECRET[8:], PASSWORD, "bWU6czNzYW1l"
COMPLETION = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "model": "demo",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "TEXT"}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1,
              "total_tokens": 2}})


# -- who is called ----------------------------------------------------------

def head(*lines, status="200 OK", media="application/json"):
    """The head of an answer."""
    return "\r\n".join((f"HTTP/1.1 {status}", f"Content-Type: {media}")
                       + lines + ("", "")).encode("latin-1")


def whole_answer(body=b"{}", media="application/json", status="200 OK"):
    return head(f"Content-Length: {len(body)}", media=media,
                status=status) + body


def completion(text):
    return whole_answer(COMPLETION.replace("TEXT", text).encode())


def read_request(sock):
    """One request, its body by its length: (head, body)."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(sock)
    about, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", about)
    while length and len(body) < int(length.group(1)):
        body += received(sock)
    return about, body


def received(sock):
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the client has left")
    return data


class Bare(Server):
    """Hands each caller to act(socket); then ends, unless act has."""

    def __init__(self, act, scheme="http"):
        super().__init__()
        self.act, self.scheme = act, scheme

    def serve(self, client, order):
        client.settimeout(LIMIT_S)
        self.act(client)
        end_politely(client)


class Peer(Server):
    """Reads requests, and has act(socket, head) answer each.

    act returns whether another request may follow on the connection.  With
    a context it speaks TLS; is_rude ends that without a close_notify.
    """

    def __init__(self, act, context=None, is_rude=False):
        super().__init__()
        self.act, self.context, self.is_rude = act, context, is_rude
        self.scheme = "https" if context else "http"
        self.requests = []

    def serve(self, client, order):
        client.settimeout(LIMIT_S)
        if self.context:
            client = self.context.wrap_socket(client, server_side=True,
                                              suppress_ragged_eofs=True)
        may_go_on = True
        while may_go_on:
            request = read_request(client)
            self.requests.append(request)
            may_go_on = self.act(client, request[0])
        if self.context and not self.is_rude:
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.unwrap()
        if self.context:
            client = socket.socket(fileno=client.detach())
            client.settimeout(LIMIT_S)
        with client:
            end_politely(client)

    def asked(self):
        """How often each request came: the method, the path and the body."""
        return collections.Counter(
            (about.split(b" HTTP/", 1)[0], body)
            for about, body in self.requests)


def says(data):
    """Answer each request with these bytes, and hang up, in one piece."""
    return lambda sock, *_: (corked(sock), sock.sendall(data))[1]


def corked(sock):
    """Have the end come in one piece with what is sent before it."""
    if hasattr(socket, "TCP_CORK"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)


def blurts(data):
    """Say these bytes once something has come, whatever it is."""
    def act(sock):
        received(sock)
        corked(sock)
        sock.sendall(data)
    return act


def hangs(sock, *_):
    wait_for_leave(sock)


def slams(sock, *_):
    """Reset the connection."""
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))
    sock.close()
    raise ConnectionError("closed")


def echoes(sock, about=b""):
    """Say wherever there is room what is secret in a request."""
    about = about or received(sock)
    said = b" ".join(re.findall(
        rb"(?i)authorization: (?:bearer|basic) (\S+)", about))
    if b"Basic" in about:
        said += b" " + PASSWORD.encode()
    corked(sock)
    sock.sendall(head(f"Content-Length: {len(said)}", media="text/plain",
                      status="400 " + said.decode()) + said)


def goes_on(data, count, end=b""):
    """Say the same again and again, then an end, if anyone listens."""
    def act(sock, *_):
        for _ in range(count):
            sock.sendall(data)
        sock.sendall(end)
    return act


# -- families of commands ---------------------------------------------------

BATCH = "batches", "run", "--endpoint", "demo", "--input", "IN",
CHAT = "chat", "--endpoint", "demo", "-m", "hi"

# The words of a command line, and what it reads.
FAMILIES = {
    "list": (("files",), b""),
    "call": (CHAT, b""),
    "stream": (CHAT + ("--stream",), b""),
    "upload": (("files", "--upload", "MODEL"), b""),
    "download": (("files", "file-1", "--download", "GOT"), b""),
    "batch": (BATCH + ("--output-file", "OUT"), b""),
    "direct": (BATCH + ("--output-file", "OUT", "--direct"), b""),
    "model": (("upload", "MODEL", "m"), b""),
    "session": (("chat", "send", "--endpoint", "demo", "--interactive"),
                b"hi\n"),
    "status": (("status",), b""),
}
PLACES = {"IN": "in.jsonl", "OUT": "out.jsonl", "MODEL": "model.bin",
          "GOT": "got"}


def fill(folder):
    """Make the files that the families read."""
    lines = [{"custom_id": name, "method": "POST",
              "url": "/v1/chat/completions",
              "body": {"model": "demo", "messages": [
                  {"role": "user", "content": f"say {name}"}]}}
             for name in "abcd"]
    (folder / "in.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines))
    (folder / "model.bin").write_bytes(b"x" * 2000)


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def attempt(run, folder, files):
    """attempt("direct", url, flags…) runs the command of a family."""
    def runner(family, url, *flags, file_id="file-1", **environ):
        words, stdin = FAMILIES[family]
        places = {word: str(folder / name) for word, name in PLACES.items()}
        places["file-1"] = file_id
        words = [places.get(word, word) for word in words]
        if url.startswith("https:"):
            flags = ("--cacert", files("ca.pem")) + flags
        return run(*words, *flags, stdin=stdin, XEROTIER_BASE_URL=url,
                   **environ)
    return runner


# -- faults -----------------------------------------------------------------

class Fault:
    """What goes wrong, and what is said of it.

    way tells who does it: a server of "http" or "https" that has read a
    request, whoever listens at the port of an https URL ("tcp"), a proxy of
    either scheme ("tunnel", "relay"), a "certificate", or "nowhere".
    is_lost: the request has left, so that each line of a direct run fails.
    """

    def __init__(self, way, act, words, hint="", code=5, is_lost=False,
                 is_slow=False, **more):
        self.way, self.act, self.words, self.hint = way, act, words, hint
        self.code, self.is_lost, self.is_slow = code, is_lost, is_slow
        self.more = more


def lost(act, *words, way="http", hint="--retries", **more):
    return Fault(way, act, ("HTTP: ",) + words, hint, is_lost=True, **more)


def at_proxy(act, *words, hint=r"--proxy.*NO_PROXY", **more):
    return Fault("tunnel", act, ("proxy: ", "HTTPS_PROXY") + words, hint,
                 **more)


def in_tls(act, *words, way="tcp", **more):
    return Fault(way, act, ("TLS: ",) + words, **more)


def alert(number):
    return blurts(b"\x15\x03\x03\0\2\2" + bytes([number]))


def redirects(location, status="307 Temporary Redirect"):
    return says(head("Location: " + location, "Content-Length: 0",
                     status=status))


def redirected(location):
    return Fault("http", redirects(location), ("redirects", location),
                 "base URL", code=1, is_lost=True)


def chunked(body):
    return says(head("Transfer-Encoding: chunked") + body)


LONG_LINE = b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70000 + b"\r\n\r\n"
MANY_LINES = b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100000 + b"\r\n"
BINARY = bytes(range(256)) * 4
# Python 3.6 tells no cause of a certificate that is refused.
REFUSED = "" if sys.version_info >= (3, 7) else "certificate verify failed"
IS_TLS = "is it a TLS server.* .*--retries"
BUSY, BUSIER = ("--timeout", "0.05"), ("--timeout", "0.2", "--retries", "0")

FAULTS = {
    # the resolver
    "a label too long": Fault(
        "nowhere", f"https://{NO_HOST}/p/v1", ("DNS: ", NO_HOST),
        "--base-url.*XEROTIER_BASE_URL"),
    "an empty label": Fault(
        "nowhere", "https://a..b/p/v1", ("DNS: ", "a[.][.]b"), "--base-url"),
    "a proxy of no name": Fault(
        "nowhere", "https://h.example/p/v1", ("proxy: .*DNS: ", NO_HOST),
        r"--proxy.*NO_PROXY",
        HTTPS_PROXY=f"http://me:{PASSWORD}@{NO_HOST}:9"),
    "a proxy with an empty label": Fault(
        "nowhere", "http://h.example/p/v1", ("proxy: .*DNS: ",),
        r"--proxy.*NO_PROXY", HTTP_PROXY=f"http://me:{PASSWORD}@a..b:9"),

    # connections
    "refused": Fault("nowhere", "http://127.0.0.1:{closed}/p/v1",
                     ("connect: .*:{closed}",), "--base-url"),
    "refused under TLS": Fault(
        "nowhere", "https://127.0.0.1:{closed}/p/v1",
        ("connect: .*:{closed}",), "--base-url"),
    "nobody accepts": Fault(
        "nowhere", "http://127.0.0.1:{full}/p/v1",
        ("connect: .*no answer in time",), "--base-url", is_slow=True),
    "a proxy refuses": Fault(
        "nowhere", "https://h.example/p/v1", ("proxy: .*connect: ",),
        r"--proxy.*NO_PROXY",
        HTTPS_PROXY=f"http://me:{PASSWORD}@127.0.0.1:{{closed}}"),
    "a proxy of another scheme": Fault(
        "nowhere", "https://h.example/p/v1", ("HTTPS_PROXY", "socks5"),
        "http://.*HOST:PORT", code=3,
        HTTPS_PROXY=f"socks5://me:{PASSWORD}@127.0.0.1:9"),
    "a proxy with TLS by URL": Fault(
        "nowhere", "https://h.example/p/v1", ("HTTPS_PROXY", "https://"),
        "http://.*HOST:PORT", code=3,
        HTTPS_PROXY=f"https://me:{PASSWORD}@127.0.0.1:9"),

    # a proxy and its tunnels
    "a proxy hangs": at_proxy(hangs, "no tunnel", is_slow=True,
                              hint="--proxy|--timeout"),
    "a proxy wants a password": at_proxy(
        blurts(WANTS_PASSWORD), "407", hint="http://USER:PASSWORD@"),
    "a proxy knows us not": at_proxy(
        blurts(page("401 Unauthorized")), "401",
        hint="http://USER:PASSWORD@"),
    "a proxy forbids": at_proxy(blurts(page("403 Filtered")), "403 Filtered"),
    "a proxy fails": at_proxy(blurts(page("502 Bad Gateway")), "HTTP 502"),
    "a proxy is busy": at_proxy(
        blurts(b"HTTP/1.1 429 Slow\r\nRetry-After: 5\r\n\r\n"), "429"),
    "a proxy redirects": at_proxy(
        blurts(b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1/\r\n\r\n"),
        "302"),
    "a proxy closes": at_proxy(blurts(b""), "no tunnel"),
    "a proxy resets": at_proxy(slams, "no tunnel"),
    "a proxy is cut in its head": at_proxy(
        blurts(b"HTTP/1.1 200 OK\r\nVia: x\r\n"), "no tunnel"),
    "a proxy speaks SSH": at_proxy(blurts(b"SSH-2.0-x\r\n"), "SSH-2.0-x"),
    "a proxy speaks SMTP": at_proxy(blurts(b"220 m ESMTP\r\n"), "no tunnel"),
    "a proxy speaks noise": at_proxy(blurts(BINARY), "no tunnel"),
    "a proxy speaks TLS": at_proxy(alert(80), "no tunnel"),
    "a proxy's head is long": at_proxy(blurts(LONG_LINE), "no tunnel"),
    "a proxy's head is longer": at_proxy(blurts(MANY_LINES), "no tunnel"),
    "a tunnel to nobody": in_tls(
        blurts(b"HTTP/1.1 200 OK\r\n\r\n"), "cut", way="tunnel"),
    "a tunnel to a page": in_tls(
        blurts(page("200 OK", b"<html>Log in!</html>")), "cut",
        way="tunnel"),
    "a tunnel with a body": in_tls(
        lambda sock: (received(sock), sock.sendall(b"HTTP/1.1 200 OK\r\n"
                                                   b"\r\n"),
                      received(sock), sock.sendall(b"evil bytes")),
        WRONG_SCHEME, way="tunnel", hint="--base-url"),
    "a relay wants a password": Fault(
        "relay", blurts(WANTS_PASSWORD), ("proxy: ", "407", "HTTP_PROXY"),
        "http://USER:PASSWORD@"),
    "a relay fails": Fault(
        "relay", blurts(page("502 Bad Gateway")), ("HTTP 502", "HTML page"),
        code=1, is_lost=True),
    "a relay forbids": Fault(
        "relay", blurts(page("403 Filtered")), ("HTTP 403", "HTML page"),
        code=3),
    "a relay echoes": Fault("relay", echoes, ("HTTP 400",), code=1,
                            is_lost=True),
    "a proxy echoes": at_proxy(echoes, "HTTP 400"),
    "a relay closes": lost(blurts(b""), way="relay"),
    "a relay resets": lost(slams, way="relay"),
    "a relay speaks noise": lost(blurts(BINARY), "not an HTTP answer",
                                 way="relay", hint="--base-url"),

    # TLS
    "self-signed": in_tls("alone.pem", REFUSED or "signed certificate",
                          way="certificate", hint="--cacert.*--insecure"),
    "expired": in_tls("expired.pem", REFUSED or "expired", way="certificate",
                      hint="expired" if REFUSED else "clock"),
    "of another host": in_tls(
        "elsewhere.pem", "hostname .* doesn't match" if REFUSED
        else "IP address mismatch", way="certificate", hint="base URL"),
    "no TLS but HTTP": in_tls(
        blurts(b"HTTP/1.1 400 Bad Request\r\n\r\n"), WRONG_SCHEME,
        hint="http://.*--base-url"),
    "no TLS but SSH": in_tls(lambda sock: sock.sendall(b"SSH-2.0-x\r\n"),
                             WRONG_SCHEME, hint="http://.*--base-url"),
    "a handshake is cut": in_tls(blurts(b""), hint=IS_TLS),
    "a handshake is reset": in_tls(slams, hint=IS_TLS),
    "a handshake is half": in_tls(blurts(b"\x16\x03\x03\x10\0abc"),
                                  hint=IS_TLS),
    "a handshake hangs": in_tls(hangs, hint="--timeout", is_slow=True),
    "a handshake of nonsense": in_tls(
        blurts(b"\x16\x03\x03\0\4\2\0\0\0")),
    "a handshake fails": in_tls(alert(40), "handshake failure",
                                hint="--cert"),
    "a certificate is wanted": in_tls(alert(116), "certificate required",
                                      hint="--cert"),
    "TLS under plain http": Fault(
        "http", says(b"\x15\x03\x01\0\2\2\x16"), ("HTTP: ",),
        "https://.*--base-url", is_lost=True),

    # answers
    "nothing": lost(says(b"")),
    "nothing under TLS": lost(says(b""), way="https"),
    "a reset": lost(slams),
    "silence": lost(hangs, is_slow=True, hint="--timeout"),
    "silence under TLS": lost(hangs, way="https", is_slow=True,
                              hint="--timeout"),
    "no HTTP": lost(says(b"SSH-2.0-x\r\n"), "SSH-2.0-x", hint="https://"),
    "noise": lost(says(BINARY), "not an HTTP answer", hint="--base-url"),
    "a head that is cut": lost(says(b"HTTP/1.1 200 OK\r\nA: b\r\n"),
                               "broke off"),
    "a line without end": lost(says(LONG_LINE), "65536 bytes",
                               hint="--base-url"),
    "100,000 headers": lost(says(MANY_LINES), "100 headers",
                            hint="--base-url"),
    "a body that is cut": lost(
        says(head("Content-Length: 100") + b"{"), "broke off"),
    "a body that is cut under TLS": lost(
        says(head("Content-Length: 100") + b"{"), "broke off", way="https"),
    "a chunk of no size": lost(chunked(b"zz\r\n{}\r\n0\r\n\r\n"),
                               "bad chunk", hint="--base-url"),
    "a chunk of less than nothing": lost(chunked(b"-2\r\n{}\r\n0\r\n\r\n"),
                                         "bad chunk", hint="--base-url"),
    "a chunk that is cut": lost(chunked(b"ff\r\n{"), "broke off"),
    "no last chunk": lost(chunked(b"2\r\n{}\r\n"), "broke off"),
    "a page": Fault("http", says(page("502 Bad Gateway")),
                    ("HTTP 502", "HTML page"), code=1, is_lost=True),
    "forbidden": Fault("http", says(page("403 No")),
                       ("HTTP 403", "HTML page"), code=3),
    "an echo": Fault("http", echoes, ("HTTP 400",), code=1, is_lost=True),
    "to another host": redirected("http://evil.example/x"),
    "to another scheme": redirected("https://127.0.0.1/x"),
    "to a file": redirected("file:///etc/passwd"),
    "to data": redirected("data:,hello"),
}
# What an error may begin with: one layer, and no second one behind it.
LAYER = re.compile(r"error: (DNS|connect|TLS|proxy|HTTP|timeout)\b")
WARNING = ("warning: the key travels unencrypted to a..b (http, not"
           " https)\n")
MODES = {"plainly": (), "at length": ("-vv",), "in JSON": ("-o", "json",
                                                           "-q")}


def is_told(fault, text):
    """Whether a text has all the words of a fault, silence its own."""
    if fault.is_slow and fault.is_lost:
        return "timeout: " in text
    return all(re.search(word, text, re.S) for word in fault.words)


def crowd(stack, port=0):
    """Listen, and have so many call that the next ones wait for ever."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", port))
    listener.listen(0)
    for _ in range(3):
        caller = stack.enter_context(socket.socket())
        caller.setblocking(False)
        caller.connect_ex(listener.getsockname())
    return listener.getsockname()[1]


@pytest.fixture
def full_port():
    """A port that takes calls, and accepts none."""
    with contextlib.ExitStack() as stack:
        yield crowd(stack)


@pytest.fixture
def suffer(attempt, files, closed_port, full_port):
    """suffer("call", fault, flags…): (what was shown, who was called)."""
    proxied = f"http://me:{PASSWORD}@127.0.0.1:"

    def ports(text):
        return text.replace("{closed}", str(closed_port)).replace(
            "{full}", str(full_port))

    def runner(family, fault, *flags, **environ):
        environ.update({k: ports(v) for k, v in fault.more.items()})
        if fault.is_slow:
            flags += BUSIER if fault.is_lost else BUSY
        if fault.way == "nowhere":
            return attempt(family, ports(fault.act), *flags,
                           **environ), None
        with server_of(fault, files) as server:
            url = server.url()
            if fault.way in ("tunnel", "relay"):
                scheme = "https" if fault.way == "tunnel" else "http"
                environ[scheme.upper() + "_PROXY"] = proxied + str(
                    server.port)
                url = f"{scheme}://127.0.0.1:9/proj_demo/v1"
            return attempt(family, url, *flags, **environ), server
    runner.ports = ports
    return runner


def server_of(fault, files):
    if fault.way == "certificate":
        return Peer(says(b""), server_context(files, fault.act))
    if fault.way == "https":
        return Peer(fault.act, server_context(files))
    if fault.way == "http" and fault.act is not slams:
        return Peer(fault.act)
    return Bare(fault.act, "https" if fault.way == "tcp" else "http")


def told_of(shown, is_json):
    """(error, hint) of what was shown on standard error."""
    if is_json:
        warnings, brace, text = shown.stderr.partition("{")
        assert not warnings.replace(WARNING, ""), shown
        about = json.loads(brace + text)["error"]
        return "error: " + about["message"], about.get("hint", "")
    return error_of(shown), hint_of(shown)


def check_unseen(shown, folder):
    """No secret is on either stream, nor in any file."""
    texts = [shown, shown.stderr]
    for path in folder.iterdir():
        texts.append(path.read_bytes().decode("utf-8", "replace"))
    for text in texts:
        assert not [each for each in SECRETS if each in text], shown


def check_lines_failed(shown, fault, folder):
    """A direct run whose lines have failed, each with what it met."""
    assert shown.exit_status == 1, shown
    lines = (folder / "out.jsonl.errors.jsonl").read_text().splitlines()
    assert len(lines) == 4, shown
    for line in lines:
        assert is_told(fault, json.loads(line)["error"]["message"]), line


# Whose request is not sent again once it may have been acted on.
ACTING = "call", "stream", "upload", "model", "session"


def hint_for(fault, family):
    """What helps: who does not ask again in this call says what does."""
    if fault.is_lost and family in ACTING:
        return fault.hint.replace("--retries", "acted on; -v shows")
    return {"direct": fault.hint.replace("--retries", "the same command"),
            "status": fault.hint.partition(".*--retries")[0].rstrip("; ")}.get(
                family, fault.hint)


def check_suffered(shown, family, fault, folder, is_json, ports):
    """One error of the right layer, and what helps; no secret."""
    assert "Traceback" not in shown.stderr, shown
    assert "internal error" not in shown.stderr, shown
    check_unseen(shown, folder)
    if family == "direct" and fault.is_lost:
        return check_lines_failed(shown, fault, folder)
    assert shown.exit_status == fault.code, shown
    assert shown == "" or family == "status", shown
    error, hint = told_of(shown, is_json)
    words = Fault(fault.way, None, [ports(word) for word in fault.words],
                  is_lost=fault.is_lost, is_slow=fault.is_slow)
    assert is_told(words, error), shown
    assert len(LAYER.findall(error)) <= 1, shown
    if not is_json:
        assert re.search(hint_for(fault, family), hint), shown
    assert not (folder / "got").exists()


def check_asked_once(server):
    """Nothing that the server may have acted on was sent again."""
    for (what, body), often in getattr(server, "asked", dict)().items():
        assert often == 1 or what.startswith((b"GET ", b"HEAD ")), what


def modes_of(family):
    return [mode for mode in MODES
            if mode != "in JSON" or family != "session"]


def matrix():
    """(family, name of a fault, mode): all, or one for each second fault.

    The sample takes the families in turn, and is always the same.
    """
    cells = [(family, name, mode) for name in FAULTS for family in FAMILIES
             for mode in modes_of(family)]
    if IS_FULL:
        return cells
    chosen, families, cells = random.Random(SEED), [], []
    for name in chosen.sample(sorted(FAULTS), len(FAULTS) // 2):
        families = families or chosen.sample(sorted(FAMILIES),
                                             len(FAMILIES))
        family = "stream" if FAULTS[name].is_slow else families.pop()
        cells.append((family, name, chosen.choice(modes_of(family))))
    return cells


@pytest.mark.parametrize("family, name, mode", matrix())
def test_a_fault_that_lasts_is_one_error_of_its_layer(
        suffer, folder, family, name, mode):
    fault, started = FAULTS[name], time.monotonic()
    shown, server = suffer(family, fault, *MODES[mode])
    assert time.monotonic() - started < 15
    check_suffered(shown, family, fault, folder, mode == "in JSON",
                   suffer.ports)
    check_asked_once(server)


# -- a fault that passes ----------------------------------------------------

@pytest.fixture
def stocked(router):
    """A router with the one file that is downloaded."""
    record = router.add_file("served", b"x" * 1000)
    return record["id"]


def acts_once(router):
    """No POST was made twice over: what the router has, it has once."""
    inputs = [record for record in router.files.values()
              if record["purpose"] == "batch"]
    assert len(inputs) <= 2 and len(router.batches) <= 1
    sent = [seen.json["messages"][-1]["content"]
            for seen in router.seen("POST", "/chat/completions")]
    assert len(sent) == len(set(sent)), sent
    assert len(router.seen("POST", "/uploads")) <= 1
    assert len(router.seen("POST", "/complete")) <= 1


def lose(router, number, **fault):
    """Let the router act on a request, from 0, and lose its answer."""
    count = iter(range(1000))
    router.order("*", times=1, when=lambda seen: next(count) == number,
                 after_acting=True, **fault)


MOVES = [family for family in FAMILIES if family not in ("status", "list")]
PLAIN_MOVES = {("batch", 0, True), ("batch", 1, False), ("model", 1, True),
               ("call", 0, True), ("upload", 0, False)}


@pytest.mark.parametrize("family, number, reset", [
    pytest.param(*move, marks=[] if move in PLAIN_MOVES else [costly])
    for move in itertools.product(MOVES, range(6), (False, True))])
def test_an_answer_that_is_lost_makes_nothing_happen_twice(
        attempt, router, stocked, folder, family, number, reset):
    lose(router, number, drop="after", reset=reset)
    shown = attempt(family, router.base_url, file_id=stocked)
    assert shown.exit_status in (0, 1, 5), shown
    assert len(re.findall("^error: ", shown.stderr, re.M)) == (
        shown.exit_status != 0), shown
    acts_once(router)
    check_unseen(shown, folder)


# The name of two addresses, for a process that sees this as /etc/hosts.
HOSTS = b"127.0.0.1 two.example\n127.0.0.2 two.example\n"
IN_A_ROOM = ("unshare", "-m", "sh", "-c",
             'mount --bind "$0" /etc/hosts && exec "$@"')


@pytest.fixture
def in_room(tmp_path):
    """in_room(words…): run a command to which two.example has addresses."""
    (tmp_path / "hosts").write_bytes(HOSTS)
    room = IN_A_ROOM + (str(tmp_path / "hosts"),)

    def runner(*words, **environ):
        return subprocess.run(room + words, env=environ, timeout=30,
                              stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        looked_up = runner(sys.executable, "-c", "import socket as s; print("
                           "s.getaddrinfo('two.example', 1)[0][4][0])").stdout
    except OSError:
        looked_up = b""
    if looked_up.strip() != b"127.0.0.1":
        pytest.skip("no process can be given other hosts here")
    return runner


def door_beside_a_crowd(stack, router, is_silent):
    """A door at the second address, and maybe a crowd at the first."""
    for _ in range(20):
        door = stack.enter_context(Door(router, "127.0.0.2"))
        try:
            if is_silent:
                crowd(stack, door.port)
            return door
        except OSError:
            pass                # the port is taken there
    return pytest.skip("no port is free at both addresses")


@costly
@pytest.mark.parametrize("is_silent", [False, True],
                         ids=["refuses", "is silent"])
@pytest.mark.parametrize("argv", [CHAT, ("api", "/models")],
                         ids=["POST", "GET"])
def test_the_next_address_is_called_where_the_first_one(
        in_room, router, python, argv, is_silent):
    with contextlib.ExitStack() as stack:
        door = door_beside_a_crowd(stack, router, is_silent)
        shown = in_room(
            python, STARTED, *argv, "--timeout", "0.5", "-q",
            XEROTIER_API_KEY=DEMO_KEY,
            XEROTIER_BASE_URL=door.url("two.example"))
        assert shown.returncode == 0, shown.stderr
        assert (door.calls, len(router.requests)) == (1, 1)


@pytest.mark.parametrize("act", ["full", hangs], ids=["connect", "TLS"])
def test_the_limit_of_the_whole_call_names_itself_wherever_it_strikes(
        attempt, clock, full_port, act):
    clock.monotonic = time.monotonic
    started = time.monotonic()
    if act == "full":
        url = f"http://127.0.0.1:{full_port}/p/v1"
        shown = attempt("call", url, "--max-time", "0.1")
    else:
        with Bare(act, "https") as server:
            shown = attempt("call", server.url(), "--max-time", "0.1")
    assert time.monotonic() - started < 3
    assert (shown.exit_status, shown) == (5, ""), shown
    assert "--max-time" in error_of(shown) + hint_of(shown), shown


# -- where a key goes -------------------------------------------------------

# How a redirect may name a server at {evil}, our own being at {own}.
LURES = [
    "http://127.0.0.1:{evil}/x", "//127.0.0.1:{evil}/x",
    "http://127.0.0.1:{own}@127.0.0.1:{evil}/", "http:127.0.0.1:{evil}/x",
    "\\\\127.0.0.1:{evil}/x", "/\\127.0.0.1:{evil}/x",
    "http:/\\127.0.0.1:{evil}/x", "\t//127.0.0.1:{evil}/x",
    "http://localhost:{evil}/x", "http://localhost:{own}/x",
    "https://127.0.0.1:{own}/x", "HTTP://127.0.0.1:{evil}/x",
    "http://127.0.0.1:{own}#@127.0.0.1:{evil}/",
    "http://127.0.0.1:{own}\\@127.0.0.1:{evil}/",
    "http://127.0.0.1:{own}%40127.0.0.1:{evil}/", "ftp://127.0.0.1:{evil}/",
    "///127.0.0.1:{evil}/x", "http://127.0.0.1:{evil}\x00/x"]
GETS = "list", "download"


@contextlib.contextmanager
def trap(lure, hops):
    """Two servers: one leads on, after some hops of its own; one listens."""
    def lead(sock, about):
        here = about.count(b"/hop") and int(about.split(b"/hop")[1][:1])
        goal = f"/hop{here + 1}" if here < hops else lure.format(
            evil=evil.port, own=own.port)
        if len(own.requests) > hops + 1:
            return sock.sendall(whole_answer())
        sock.sendall(head("Location: " + goal, "Content-Length: 0",
                          status="302 Found"))
    with Peer(says(whole_answer())) as evil, Peer(lead) as own:
        yield own, evil


@pytest.mark.parametrize("family, lure, hops", [
    pytest.param(family, lure, hops, marks=[] if (
        hops == 0 and family == GETS[number % 2])
        else [costly])
    for number, lure in enumerate(LURES) for family in MOVES + ["list"]
    for hops in (0, 1)])
def test_a_key_is_never_led_to_another_server(attempt, folder, family, lure,
                                              hops):
    with trap(lure, hops) as (own, evil):
        shown = attempt(family, own.url(), "-vv")
        assert evil.calls == 0, shown
    assert "internal error" not in shown.stderr, shown
    for about, _ in own.requests:
        assert about.count(b"\r\nAuthorization: Bearer ") == 1
    if family in GETS:  # a download asks first how long the file is
        assert len(own.requests) <= 2 + hops + (family == "download")
    check_asked_once(own)
    check_unseen(shown, folder)


# -- kept connections -------------------------------------------------------

def results(folder):
    """{id: text} of the lines that a direct run has answered."""
    lines = (folder / "out.jsonl").read_text().splitlines()
    answers = map(json.loads, lines)
    return {each["custom_id"]: each["response"]["body"]["choices"][0]
            ["message"]["content"] for each in answers}


def line_in(body):
    return json.loads(body.decode())["messages"][-1]["content"][-1:]


class Echo(Peer):
    """Answers each line of a direct run with its own id, and tricks."""

    def __init__(self, trick, context=None):
        super().__init__(None, context)
        self.act, self.trick = self.answer_line, trick

    def answer_line(self, sock, _):
        name = line_in(self.requests[-1][1])
        return self.trick(sock, name, completion("to " + name))

    def check(self, shown, folder, names="abcd"):
        """All lines have their own answer, and each was asked for once."""
        assert results(folder) == {name: "to " + name for name in names}
        assert sorted(line_in(body) for _, body in self.requests) == list(
            "abcd"), shown


STALE = completion("stale")
ONE_AT_A_TIME = "--concurrency", "1"
with_and_without_tls = pytest.mark.parametrize("scheme", [
    "https", pytest.param("http", marks=costly)])


def glued(sock, name, answer):
    """A second answer comes in one piece with the first."""
    sock.sendall(answer + STALE)
    return True


def behind(sock, name, answer):
    """It comes in one piece with the body, the head being out."""
    about, end, body = answer.partition(b"\r\n\r\n")
    sock.sendall(about + end)
    time.sleep(0.02)
    sock.sendall(body + STALE)
    return True


def half(sock, name, answer):
    """Only some bytes of it come."""
    sock.sendall(answer + STALE[:20])
    return True


def tricks(*chosen):
    """(trick, scheme), the plain command without one or other."""
    return pytest.mark.parametrize("trick, scheme", chosen)


@tricks((glued, "http"), (behind, "https"),
        pytest.param(half, "http", marks=costly),
        pytest.param(half, "https", marks=costly),
        pytest.param(glued, "https", marks=costly),
        pytest.param(behind, "http", marks=costly))
def test_stale_bytes_are_never_the_next_answer(attempt, folder, files,
                                               scheme, trick):
    context = server_context(files) if scheme == "https" else None
    with Echo(trick, context) as server:
        shown = attempt("direct", server.url(), *ONE_AT_A_TIME)
        assert shown.exit_status == 0, shown
        server.check(shown, folder)


def stays(sock, name, answer):
    sock.sendall(answer)
    return True


def closes(sock, name, answer):
    """The connection ends with each answer, though nothing said so.

    In one piece with it: a client cannot know of what comes later.
    """
    corked(sock)
    sock.sendall(answer)
    return False


def says_close(sock, name, answer):
    sock.sendall(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    return False


def is_old(sock, name, answer):
    """HTTP/1.0 ends its connections."""
    sock.sendall(answer.replace(b"HTTP/1.1", b"HTTP/1.0"))
    return False


@tricks((closes, "http"), pytest.param(is_old, "http", marks=costly),
        pytest.param(says_close, "http", marks=costly),
        pytest.param(closes, "https", marks=costly),
        pytest.param(says_close, "https", marks=costly),
        pytest.param(is_old, "https", marks=costly))
def test_a_connection_that_has_ended_is_opened_anew(attempt, folder, files,
                                                    scheme, trick):
    context = server_context(files) if scheme == "https" else None
    with Echo(trick, context) as server:
        shown = attempt("direct", server.url(), *ONE_AT_A_TIME)
        assert server.calls == 4
        server.check(shown, folder)
    assert shown.exit_status == 0, shown


@with_and_without_tls
def test_a_good_connection_is_used_again(attempt, folder, files, scheme):
    context = server_context(files) if scheme == "https" else None
    with Echo(stays, context) as server:
        shown = attempt("direct", server.url(), *ONE_AT_A_TIME)
        assert server.calls == 1
        server.check(shown, folder)


@with_and_without_tls
def test_a_request_lost_on_a_kept_connection_is_not_sent_twice(
        attempt, folder, files, scheme):
    def trick(sock, name, answer):
        return name != "c" and stays(sock, name, answer)
    context = server_context(files) if scheme == "https" else None
    with Echo(trick, context) as server:
        shown = attempt("direct", server.url(), *ONE_AT_A_TIME)
        assert shown.exit_status == 1, shown
        server.check(shown, folder, "abd")
    error, = (folder / "out.jsonl.errors.jsonl").read_text().splitlines()
    assert json.loads(error)["custom_id"] == "c"


def test_no_connection_outlives_a_direct_run(attempt):
    """A server that waits for the client to leave does not wait long."""
    with Peer(says(page("403 No"))) as server:
        attempt("direct", server.url())
        started = time.monotonic()
    assert time.monotonic() - started < LIMIT_S / 2


@pytest.mark.parametrize("said", [whole_answer(), b"HTTP/1.1 204 No\r\n\r\n"],
                         ids=["an empty object", "no content"])
@pytest.mark.parametrize("family", ["upload", "batch", "model"])
def test_an_upload_that_nothing_came_of_is_no_success(attempt, family, said):
    with Peer(says(said)) as server:
        shown = attempt(family, server.url())
        check_asked_once(server)
    assert (shown.exit_status, shown) == (1, ""), shown


# -- answers that attack ----------------------------------------------------

def fetched(attempt, server, folder, *flags):
    """(what was shown, the bytes that were written, or None)."""
    shown = attempt("download", server.url(), "--retries", "0", *flags)
    path = folder / "got"
    return shown, path.read_bytes() if path.exists() else None


DOUBTFUL = {
    "words": head("Content-Length: x") + b"{}",
    "less than nothing": head("Content-Length: -5") + b"{}",
    "5000 digits": head("Content-Length: " + "9" * 5000) + b"{}",
    "a plus": head("Content-Length: +2") + b"{}",
    "two": head("Content-Length: 2", "Content-Length: 5") + b"{}abc",
    "two in a line": head("Content-Length: 2, 5") + b"{}abc",
    "behind a line that is none": head("no colon", "Content-Length: 9")
    + b"{}",
    "behind a bare CR": head("A: b\rno colon", "Content-Length: 9") + b"{}",
    "another coding": head("Transfer-Encoding: gzip, chunked")
    + b"2\r\n{}\r\n0\r\n\r\n",
    "two codings": head("Transfer-Encoding: chunked",
                        "Transfer-Encoding: gzip") + b"2\r\n{}\r\n0\r\n\r\n",
    "a chunk of 0x2": head("Transfer-Encoding: chunked")
    + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk of +2": head("Transfer-Encoding: chunked")
    + b"+2\r\n{}\r\n0\r\n\r\n",
    "a chunk of 0_2": head("Transfer-Encoding: chunked")
    + b"0_2\r\n{}\r\n0\r\n\r\n",
    "a chunk of -0": head("Transfer-Encoding: chunked") + b"-0\r\n\r\n",
    "a chunk without an end": head("Transfer-Encoding: chunked")
    + b"2\r\n{}0\r\n\r\n",
    "a chunk that is longer": head("Transfer-Encoding: chunked")
    + b"2\r\n{}{}\r\n0\r\n\r\n",
    "blank lines for chunks": head("Transfer-Encoding: chunked")
    + b"\r\n" * 9 + b"2\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("said", DOUBTFUL.values(), ids=DOUBTFUL)
def test_a_head_that_leaves_the_length_in_doubt_is_refused(
        attempt, folder, said):
    with Peer(says(said)) as server:
        shown, got = fetched(attempt, server, folder)
        assert (shown.exit_status, shown, got) == (5, "", None), shown
        assert error_of(shown).startswith("error: HTTP: ")
        shown = attempt("upload", server.url())
        assert (shown.exit_status, shown) == (5, ""), shown
        check_asked_once(server)


@sampled(1, 2, 3)
@pytest.mark.parametrize("said", [
    head("Content-Length: 2", "Content-Length: 2") + b"{}",
    head("Content-Length: 2, 2") + b"{}", head("Content-Length:  2 ") + b"{}",
    head("Content-Length: 9", "Transfer-Encoding: chunked")
    + b"2;a=b\r\n{}\r\n0\r\nA: b\r\n\r\n",
    head("Transfer-Encoding: Chunked") + b"002 \r\n{}\r\n000\r\n\r\n"],
    ids=["twice", "twice in a line", "spaces", "both", "zeros"])
def test_a_head_that_is_only_odd_is_taken(attempt, folder, said):
    with Peer(says(said)) as server:
        shown, got = fetched(attempt, server, folder)
    assert (shown.exit_status, got) == (0, b"{}"), shown


@pytest.mark.parametrize("cut", ["rude", "polite"])
def test_a_body_that_ends_with_the_connection_needs_the_goodbye_of_tls(
        attempt, folder, files, cut):
    with Peer(says(head() + b'{"half":'), server_context(files),
              is_rude=cut == "rude") as server:
        shown, got = fetched(attempt, server, folder)
    if cut == "rude":
        assert (shown.exit_status, got) == (5, None), shown
        assert error_of(shown).startswith("error: HTTP: ")
    else:
        assert (shown.exit_status, got) == (0, b'{"half":'), shown


@costly
def test_every_interpreter_needs_the_goodbye_of_tls(run_process, folder,
                                                    files):
    """Some set OP_IGNORE_UNEXPECTED_EOF by themselves."""
    with Peer(says(head() + b'{"half":'), server_context(files),
              is_rude=True) as server:
        shown = run_process(
            "files", "file-1", "--download", str(folder / "got"), "--cacert",
            files("ca.pem"), "--retries", "0", XEROTIER_BASE_URL=server.url())
    assert shown.exit_status == 5, shown
    assert error_of(shown).startswith("error: HTTP: ")
    assert not (folder / "got").exists()


# A good answer comes in the end, for whoever is still listening then.
STORMS = {
    "hints": (b"HTTP/1.1 100 Continue\r\n\r\n" * 400, b""),
    "early hints": (b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 300, b""),
    "an extension": (b"x" * 10000, head("Transfer-Encoding: chunked")
                     + b"2;"),
    "blank lines": (b"\r\n" * 5000, head("Transfer-Encoding: chunked")),
    "a size": (b"0" * 10000, head("Transfer-Encoding: chunked")),
}
STORM_END = {"an extension": b"\r\n{}\r\n0\r\n\r\n",
             "blank lines": b"2\r\n{}\r\n0\r\n\r\n",
             "a size": b"2\r\n{}\r\n0\r\n\r\n"}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=costly if "hints" in name else [])
    for name in STORMS])
def test_a_storm_of_bytes_that_say_nothing_is_not_sat_out(attempt, folder,
                                                          name):
    again, first = STORMS[name]
    end = STORM_END.get(name, whole_answer())

    def act(sock, _):
        sock.sendall(first)
        goes_on(again, 300, end)(sock)
    with Peer(act) as server:
        shown, got = fetched(attempt, server, folder)
    assert (shown.exit_status, got) == (5, None), shown
    assert error_of(shown).startswith("error: HTTP: ")


@costly
def test_a_storm_in_place_of_a_tunnel_is_not_sat_out(attempt):
    def act(sock):
        received(sock)
        goes_on(b"HTTP/1.1 100 Continue\r\n\r\n" * 400, 300)(sock)
    with Bare(act) as proxy:
        shown = attempt("call", "https://h.example/p/v1", "--retries", "0",
                        "--proxy", f"127.0.0.1:{proxy.port}")
    assert (shown.exit_status, shown) == (5, ""), shown
    assert "proxy: " in error_of(shown) and "broke" not in error_of(shown)


MEMBERS = [gzip.compress(text) for text in (b"one\n", b"two\n")]
GZIP = "Content-Encoding: gzip"


@pytest.mark.parametrize("family", ["call", "stream", "upload", "list",
                                    "direct", "batch", "model", "session"])
def test_a_coding_that_is_not_undone_is_named(attempt, folder, family):
    with Peer(says(head("Content-Encoding: br", "Content-Length: 2")
                   + b"{}")) as server:
        shown = attempt(family, server.url())
    text = shown.stderr
    if family == "direct":
        text = (folder / "out.jsonl.errors.jsonl").read_text()
    assert shown.exit_status == 1 and "encoded as br" in text, shown


@pytest.mark.parametrize("body, got", [
    (b"".join(MEMBERS), b"one\ntwo\n"), (MEMBERS[0], b"one\n"),
    (MEMBERS[0] + MEMBERS[1][:-3], None), (MEMBERS[0] + b"junk", None)],
    ids=["two members", "one", "cut", "junk"])
def test_a_download_in_gzip_is_whole_or_not_at_all(attempt, folder, body,
                                                   got):
    with Peer(says(head(GZIP, f"Content-Length: {len(body)}")
                   + body)) as server:
        shown, there = fetched(attempt, server, folder)
    assert there == got, shown
    assert shown.exit_status == (0 if got else 1), shown


@sampled(0)
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified",
                                    "205 Reset Content"])
def test_a_download_of_nothing_replaces_no_file(attempt, folder, status):
    (folder / "got").write_bytes(b"old")
    with Peer(says(b"HTTP/1.1 " + status.encode() + b"\r\nContent-Length: 0"
                   b"\r\n\r\n")) as server:
        shown, got = fetched(attempt, server, folder, "--force")
    assert shown.exit_status == 1 and got == b"old", shown


@pytest.mark.parametrize("family, scheme", [
    ("upload", "http"), ("direct", "http"),
    pytest.param("batch", "http", marks=costly),
    pytest.param("model", "http", marks=costly),
    pytest.param("model", "https", marks=costly),
    pytest.param("upload", "https", marks=costly),
    pytest.param("direct", "https", marks=costly)])
def test_an_answer_that_comes_before_the_body_is_heard(
        attempt, folder, files, family, scheme):
    """The rest of the body meets a reset; what was said is told."""
    (folder / "model.bin").write_bytes(b"x" * 3000000)
    line = (folder / "in.jsonl").read_text().splitlines()[0]
    (folder / "in.jsonl").write_text(line.replace("say", "x" * 3000000))
    early = whole_answer(b'{"error":{"message":"Too big."}}',
                         status="413 Too Large")

    def act(sock):
        if scheme == "https":
            sock = context.wrap_socket(sock, server_side=True)
        received(sock)
        sock.sendall(early)
        sock.close()
        raise ConnectionError("closed")
    context = server_context(files)
    with Bare(act, scheme) as server:
        # The reset may overtake what was said: over TLS now and then.
        for _ in range(30 if scheme == "https" else 1):
            shown = attempt(family, server.url(), *(
                ["--force"] if family in ("batch", "direct") else []))
            text = shown.stderr
            if family == "direct":
                text = (folder / "out.jsonl.errors.jsonl").read_text()
            if "Too big." in text:
                break
    assert shown.exit_status == 1 and "Too big." in text, shown


@sampled(0, 5)
@pytest.mark.parametrize("what", ["noise", "a record", "an alert"])
@pytest.mark.parametrize("family, code", [("call", 5), ("download", 5),
                                          ("stream", 7)])
def test_what_is_put_into_a_tls_connection_is_a_disturbance(
        attempt, folder, files, family, code, what):
    data = {"noise": b"garbage " * 9, "an alert": b"\x15\x03\x03\0\2\2\x50",
            "a record": b"\x17\x03\x03\0\x20" + b"a" * 32}[what]
    first, media = ((frame(b"He"), "text/event-stream")
                    if family == "stream" else (b"{", "application/json"))

    def act(sock):
        sock = server_context(files).wrap_socket(sock, server_side=True)
        read_request(sock)
        sock.sendall(head("Content-Length: 500", media=media) + first)
        with socket.socket(fileno=sock.detach()) as plain:
            plain.sendall(data)
            end_politely(plain)
        raise ConnectionError("closed")
    with Bare(act, "https") as server:
        shown = attempt(family, server.url(), "--retries", "0")
    assert shown.exit_status == code, shown
    assert shown == ("He\n" if family == "stream" else ""), shown
    assert "disturbed" in error_of(shown), shown
    assert "http://" not in hint_of(shown) and "--cert" not in hint_of(shown)


# What a server says to the first words of TLS: words of error and hint.
ALERTS = {
    70: ("protocol version", "no version of TLS"),
    112: ("unrecognized name", "base URL"),
    40: ("handshake failure", "--cert"), 80: ("internal error", "TLS"),
    116: ("certificate required", "--cert"), 48: ("unknown ca", "--cert"),
}


@pytest.mark.parametrize("number", ALERTS)
def test_an_alert_has_the_hint_that_helps(attempt, number):
    with Bare(alert(number), "https") as server:
        shown = attempt("call", server.url())
    word, hint = ALERTS[number]
    assert shown.exit_status == 5 and word in error_of(shown), shown
    assert re.search(hint, hint_of(shown)), shown
    assert ("--cert" in hint_of(shown)) == (hint == "--cert"), shown


def tls_problem(text, reason=None, kind=ssl.SSLError):
    """An error of ssl, as the Pythons make it."""
    problem = kind(1, text + " (_ssl.c:852)")
    problem.reason = reason
    return problem


NEW_ALERT = "[SSL] tlsv13 alert certificate required"

# What Pythons and OpenSSLs of all ages say in a handshake, by what is told.
HANDSHAKES = {
    ("tlsv13 alert certificate required", "--cert FILE"): [
        tls_problem(NEW_ALERT),
        tls_problem("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert"
                    " certificate required",
                    "TLSV13_ALERT_CERTIFICATE_REQUIRED")],
    ("ssl/tls alert handshake failure", "--cert FILE"): [
        tls_problem("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] ssl/tls alert"
                    " handshake failure", "SSLV3_ALERT_HANDSHAKE_FAILURE")],
    ("legacy sigalg disallowed or unsupported", "no version of TLS"): [
        tls_problem("[SSL] legacy sigalg disallowed or unsupported"),
        tls_problem("[SSL: BAD_MAC_LENGTH] legacy sigalg disallowed or"
                    " unsupported", "BAD_MAC_LENGTH")],
    ("unsupported protocol", "no version of TLS"): [
        tls_problem("[SSL: UNSUPPORTED_PROTOCOL] unsupported protocol",
                    "UNSUPPORTED_PROTOCOL")],
    ("wrong ssl version", "no version of TLS"): [
        tls_problem("[SSL] wrong ssl version")],
    ("wrong version number", "http://"): [
        tls_problem("[SSL: WRONG_VERSION_NUMBER] wrong version number",
                    "WRONG_VERSION_NUMBER"),
        tls_problem("wrong version number")],
    ("the server cut the connection", ""): [
        tls_problem("[SSL] unexpected eof while reading"),
        tls_problem("[SSL: KRB5_S_TKT_NYV] unexpected eof while reading",
                    "KRB5_S_TKT_NYV"),
        tls_problem("EOF occurred in violation of protocol",
                    kind=ssl.SSLEOFError)],
    ("certificate verify failed", "self-signed, expired"): [
        tls_problem("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify"
                    " failed", "CERTIFICATE_VERIFY_FAILED")],
    ("hostname 'a' doesn't match 'b'", "base URL"): [
        ValueError("hostname 'a' doesn't match 'b'")],
    ("no such name yet", "a TLS server"): [
        tls_problem("[SSL] no such name yet")],
}


@every_case
@pytest.mark.parametrize("reason, hint", HANDSHAKES)
def test_a_handshake_is_told_alike_in_whatever_form_it_fails(reason, hint):
    for problem in HANDSHAKES[reason, hint]:
        error = xeroctl.network_error(problem, "h", None, False, "TLS")
        assert str(error) == "TLS: h: " + reason, problem
        assert hint in (error.hint or ""), problem


@every_case
@pytest.mark.parametrize("problem, said", [
    (tls_problem("[SSL] bad record type"),
     "HTTP: h: the connection was disturbed (bad record type)"),
    (tls_problem("[SSL: X] bad record type", "X"),
     "HTTP: h: the connection was disturbed (bad record type)"),
    (tls_problem("[SSL] unexpected eof while reading"),
     "HTTP: h: the server cut the connection"),
    (tls_problem(NEW_ALERT), "TLS: h: tlsv13 alert certificate required")])
def test_an_answer_is_told_alike_in_whatever_form_tls_fails(problem, said):
    assert str(xeroctl.network_error(problem, "h", None, True)) == said


@pytest.mark.skipif(TLSVersion is None, reason="this Python cannot say so")
@pytest.mark.parametrize("name", ["TLSv1", "TLSv1_1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_server_of_old_tls_is_told_as_such(attempt, files, name):
    context = server_context(files)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = getattr(TLSVersion, name)
    context.maximum_version = getattr(TLSVersion, name)

    def act(sock):
        with contextlib.suppress(OSError):
            context.wrap_socket(sock, server_side=True)
        raise ConnectionError("closed")
    with Bare(act, "https") as server:
        shown = attempt("call", server.url())
    assert shown.exit_status == 5, shown
    assert "no version of TLS" in hint_of(shown), shown


def test_a_tls_failure_in_a_tunnel_names_the_proxy(attempt):
    with Bare(blurts(b"HTTP/1.1 200 OK\r\n\r\n")) as proxy:
        shown = attempt("call", "https://h.example/p/v1",
                        HTTPS_PROXY=f"http://me:{PASSWORD}@127.0.0.1:"
                                    f"{proxy.port}")
    assert error_of(shown).startswith("error: TLS: h.example: ")
    assert f"127.0.0.1:{proxy.port}" in shown.stderr.partition("error: ")[2]
    assert PASSWORD not in shown.stderr


@costly
@pytest.mark.parametrize("family", ["list", "call", "download", "direct"])
def test_a_body_that_comes_slowly_but_surely_is_waited_for(attempt, folder,
                                                           family):
    body = {"list": b'{"object":"list","data":[]}', "download": b"x" * 20}.get(
        family, COMPLETION.encode())

    def act(sock, _):
        sock.sendall(head(f"Content-Length: {len(body)}"))
        for start in range(0, len(body), -(-len(body) // 8)):
            time.sleep(0.08)
            sock.sendall(body[start:start + -(-len(body) // 8)])
    with Peer(act) as server:
        shown = attempt(family, server.url(), "--timeout", "0.5")
    assert shown.exit_status == 0, shown


@costly
@pytest.mark.parametrize("family", [family for family in MOVES
                                    if family != "batch"])
def test_a_body_that_never_ends_meets_the_limit_of_the_call(
        attempt, folder, clock, family):
    clock.monotonic = time.monotonic

    def act(sock, _):
        media = ("text/event-stream" if family in ("stream", "session")
                 else "application/json")
        sock.sendall(head(media=media))
        for _ in range(400):
            sock.sendall(b":")
            time.sleep(0.01)
    started = time.monotonic()
    with Peer(act) as server:
        shown = attempt(family, server.url(), "--max-time", "0.2")
    assert time.monotonic() - started < 3
    assert shown.exit_status in (1, 5), shown
    assert "--max-time" in shown.stderr or family == "direct", shown
