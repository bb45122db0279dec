"""Floor 6: the way to a server, by addresses, proxies and TLS.

Who is called, who is told what, and what a failure on the way says.
"""

import base64
import contextlib
import functools
import io
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading

import pytest

import xeroctl
from conftest import (INTERPRETERS, STARTED, costly, environment,
                      python_name, sampled, version_of)
from helpers import Ear, error_of
from router import DEMO_KEY, PROXY_PAGE, TLS_HANDSHAKE

ssl = pytest.importorskip("ssl")

MODELS = "api", "/models"
CHAT = "chat", "--endpoint", "demo", "-m", "hi"

# A name that no resolver is asked for: a label has 63 letters at most.
NO_HOST = "a" * 64 + ".example"

# A proxy that nobody can call: to fail by it is to have chosen it.
DEAD = "socks5://dead.example:1080"

OLDEST = pytest.mark.parametrize("python", INTERPRETERS[:1], ids=python_name,
                                 indirect=True)


# -- certificates -----------------------------------------------------------

OPENSSL_CONFIG = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
[strict]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[here]
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
[elsewhere]
subjectAltName = DNS:elsewhere.example
[client]
extendedKeyUsage = clientAuth
[issuer]
database = issued
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
[any]
commonName = supplied
"""

# Two private CAs of one name and key, of which only one has a keyUsage; what
# they have signed: for this host, for another, expired, and for a client; one
# that nobody else has signed.  Each is for the same key, plain or encrypted.
OPENSSL_COMMANDS = """
ecparam -name prime256v1 -genkey -noout -out ca.key
ecparam -name prime256v1 -genkey -noout -out plain.key
pkcs8 -topk8 -in plain.key -out locked.key -passout pass:s3same-91
req -x509 -new -key ca.key -extensions ca -subj /CN=A -days 2 -out ca.pem
req -x509 -new -key ca.key -extensions strict -subj /CN=A -days 2 -out
 strict.pem
req -x509 -new -key plain.key -extensions here -subj /CN=B -days 2 -out
 alone.pem
req -new -key plain.key -subj /CN=somebody -out request
x509 -days 2 -extensions here -out here.pem
x509 -days 2 -extensions elsewhere -out elsewhere.pem
ca -startdate 200101000000Z -enddate 200102000000Z -extensions here -out
 expired.pem
x509 -days 2 -extensions client -out client.pem
"""
OPENSSL_OPTIONS = {
    "req": "-config config",
    "x509": "-req -in request -CA ca.pem -CAkey ca.key -set_serial 7"
            " -extfile config",
    "ca": "-config config -name issuer -batch -notext -create_serial"
          " -in request -cert ca.pem -keyfile ca.key",
}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The path of a certificate or a key; they are made once."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("certificates")
    (path / "config").write_text(OPENSSL_CONFIG)
    for name in ("empty", "issued"):
        (path / name).write_bytes(b"")
    (path / "broken").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")
    for line in OPENSSL_COMMANDS.replace("\n ", " ").split("\n")[1:-1]:
        words = line.split() + OPENSSL_OPTIONS.get(line.split()[0],
                                                   "").split()
        subprocess.check_output(["openssl"] + words, cwd=str(path),
                                stderr=subprocess.STDOUT)
    for whole, parts in (("chain.pem", ["here.pem", "ca.pem"]),
                         ("both.pem", ["client.pem", "plain.key"])):
        (path / whole).write_bytes(b"".join(
            (path / part).read_bytes() for part in parts))
    return functools.partial(os.path.join, str(path))


def server_context(files, certificate="here.pem", client_ca=None,
                   newest=True):
    """What a server shows, and whether it wants to see the like."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files(certificate), files("plain.key"))
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(files(client_ca))
    if not newest and hasattr(ssl, "TLSVersion"):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif not newest:                                    # Python 3.6
        context.options |= getattr(ssl, "OP_NO_TLSv1_3", 0)
    return context


# -- what stands on the way to the router -----------------------------------

CUT = object()          # close, once something has come
RESET = object()        # the same, with no more ado
HANG = object()         # say nothing until the client leaves


def cut(sock, is_reset):
    sock.recv(65536)
    if is_reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                        struct.pack("ii", 1, 0))


def wait_for_leave(sock):
    """Read until the other side has closed."""
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def end_politely(sock):
    """Close for the other side to hear all: what was not read resets."""
    sock.shutdown(socket.SHUT_WR)
    wait_for_leave(sock)


def pump(client, server, hears=len):
    """Carry bytes both ways until either side ends."""
    ways = {client: server, server: client}
    while True:
        ready = [end for end in ways if getattr(end, "pending", int)()]
        for end in ready or select.select(list(ways), [], [])[0]:
            data = end.recv(65536)
            if not data:
                return
            if end is client:
                hears(data)
            ways[end].sendall(data)


class Server:
    """Listens on the loopback, with a thread for each caller.

    orders are used up, one by a caller; what they mean, a subclass says.
    """

    scheme = "http"

    def __init__(self, host="127.0.0.1"):
        self.host, self.orders, self.threads = host, [], []
        self.listener = self.bound()
        self.listener.listen(8)
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.probe_port, self.is_over = None, False

    def bound(self):
        """A socket that has a port, and is nobody's yet."""
        sock = socket.socket(socket.AF_INET6 if ":" in self.host
                             else socket.AF_INET)
        try:
            sock.bind((self.host, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def __enter__(self):
        self.acceptor.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.probe()
        self.acceptor.join()
        self.listener.close()
        for thread in self.threads:
            thread.join()

    def probe(self):
        """Call, to see all those accepted that have called before."""
        with self.bound() as sock:
            self.probe_port = sock.getsockname()[1]
            sock.connect((self.host, self.port))
            sock.recv(1)

    @property
    def calls(self):
        """How many have called."""
        if not self.is_over:
            self.probe()
        return len(self.threads)

    def accept(self):
        while True:
            client, address = self.listener.accept()
            if address[1] == self.probe_port:
                is_last = self.is_over      # before the probe goes on
                client.close()
                if is_last:
                    return
                continue
            self.threads.append(threading.Thread(
                target=self.answer, args=(client,), daemon=True))
            self.threads[-1].start()

    def answer(self, client):
        order = self.orders.pop(0) if self.orders else None
        try:
            if order is HANG:
                wait_for_leave(client)
            elif order in (CUT, RESET):
                cut(client, order is RESET)
            else:
                self.serve(client, order)
        except OSError:
            pass                # clients leave as they please
        finally:
            client.close()

    def url(self, host=None, scheme=None):
        """The base URL of the router behind this server."""
        host = host or self.host
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme or self.scheme}://{host}:{self.port}/proj_demo/v1"


class Door(Server):
    """The router's door, at another address: TCP in, TCP out."""

    def __init__(self, router, host="127.0.0.1"):
        super().__init__(host)
        self.router = router

    def serve(self, client, order):
        with socket.create_connection(("127.0.0.1", self.router.port)) as to:
            pump(client, to)


class Front(Door):
    """TLS in front of the router.

    peers are the names of the clients that have shown a certificate; is_rude
    closes without the close_notify of TLS.
    """

    scheme = "https"

    def __init__(self, router, context, host="127.0.0.1"):
        super().__init__(router, host)
        self.context, self.peers, self.is_rude = context, [], False

    def serve(self, client, order):
        with self.context.wrap_socket(
                client, server_side=True,
                do_handshake_on_connect=False) as secured:
            try:
                secured.do_handshake()
            except ssl.SSLError:
                with socket.socket(fileno=secured.detach()) as plain:
                    return end_politely(plain)      # the alert has to arrive
            self.peers += [value for part in (secured.getpeercert() or {})
                           .get("subject", ()) for _, value in part]
            super().serve(secured, order)
            self.say_goodbye(secured)

    def say_goodbye(self, secured):
        if self.is_rude:
            return
        secured.setblocking(False)
        try:
            secured.unwrap()    # sends, and would wait for the answer
        except OSError:
            pass


WANTS_PASSWORD = (b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                  b'Proxy-Authenticate: Basic realm="proxy"\r\n'
                  b"Content-Type: text/html\r\nContent-Length: 21\r\n\r\n"
                  b"<html>password</html>")


def page(status_line, body=PROXY_PAGE):
    """An answer of a proxy's own, as bytes."""
    return ("HTTP/1.1 {}\r\nContent-Type: text/html\r\nContent-Length: {}"
            "\r\n\r\n".format(status_line, len(body)).encode() + body)


class Proxy(Server):
    """Carries CONNECT and plain http to the loopback, whoever is named.

    An order is what it says instead.  It keeps the heads of all requests,
    and the bytes that went from clients through its tunnels.  goal is the
    port that stands for 80 and 443.
    """

    def __init__(self, credentials=None, host="127.0.0.1", goal=None):
        super().__init__(host)
        self.credentials, self.goal = credentials, goal
        self.heads, self.passed = [], b""

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def hear(self, data):
        self.passed += data

    def serve(self, client, order):
        head, rest = self.read_head(client)
        self.heads.append(head)
        if order is None and self.credentials is not None:
            code = base64.b64encode(self.credentials.encode()).decode()
            if f"\r\nProxy-Authorization: Basic {code}\r\n" not in head:
                order = WANTS_PASSWORD
        if order is not None:
            client.sendall(order)
            return end_politely(client)
        method, target, _ = head.split(" ", 2)
        port = re.search(r":(\d+)(/|$)", target)
        port = int(port.group(1)) if port else 80
        port = self.goal if port in (80, 443) else port
        with socket.create_connection(("127.0.0.1", port)) as server:
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                return pump(client, server, self.hear)
            server.sendall(self.carried(head).encode("latin-1") + rest)
            pump(client, server)

    @staticmethod
    def carried(head):
        """A head as it goes on: without the name, and what is for us."""
        head = re.sub(" http://[^/]*", " ", head, count=1)
        return re.sub("\r\nProxy-Authorization: .*", "", head)

    @staticmethod
    def read_head(client):
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(65536)
            data += more
            if not more or data.startswith(TLS_HANDSHAKE):
                raise ConnectionError("no head")
        head, end, rest = data.partition(b"\r\n\r\n")
        return (head + end).decode("latin-1"), rest


@pytest.fixture
def front(router, files):
    with Front(router, server_context(files)) as front:
        yield front


@pytest.fixture
def proxy():
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def secured(run, front, files):
    """Run against the router behind TLS, its CA trusted."""
    def runner(*argv, url=None, **environ):
        return run(*argv, "--cacert", files("ca.pem"),
                   XEROTIER_BASE_URL=url or front.url(), **environ)
    return runner


def hint_of(shown):
    return shown.stderr.partition("\n  hint: ")[2].rstrip("\n")


def check_failed(shown, *words, hint="", code=5):
    """An error with these words, and no answer."""
    assert (shown.exit_status, shown) == (code, ""), shown
    for word in words:
        assert word in error_of(shown), shown
    assert re.search(hint, hint_of(shown)), shown
    assert "internal error" not in shown.stderr, shown


# -- who is called directly -------------------------------------------------

# Host and port, and a NO_PROXY that names them, or does not.
HOST = "api.example", 443
FOUR = "10.1.2.3", 443
SIX = "fd00::1", 443
BYPASSED = [
    (HOST, "*"), (HOST, " * "), (HOST, "other.example, *"), (HOST, "*:443"),
    (HOST, "api.example"), (HOST, "API.Example"), (HOST, ".api.example"),
    (HOST, "example"), (HOST, ".example"), (HOST, "api.example:443"),
    (HOST, ".example:443"), (HOST, "a.example,api.example,b.example"),
    (HOST, " a.example , api.example "), (HOST, "a.example api.example"),
    (HOST, "a.example\tapi.example\n"), (HOST, ",,api.example,,"),
    (HOST, "api.example:80,api.example:443"),
    (FOUR, "10.1.2.3"), (FOUR, "10.1.2.3:443"), (FOUR, "10.0.0.0/8"),
    (FOUR, "10.1.2.3/8"), (FOUR, "10.1.2.3/32"), (FOUR, "0.0.0.0/0"),
    (FOUR, "::/0 10.0.0.0/8"), (FOUR, "*"),
    (SIX, "fd00::1"), (SIX, "[fd00::1]"), (SIX, "[fd00::1]:443"),
    (SIX, "FD00::1"), (SIX, "fd00:0:0::1"), (SIX, "fd00::/8"),
    (SIX, "::/0"), (SIX, "*"),
    (("::1", 443), "localhost,127.0.0.1,::1"),
]
NOT_BYPASSED = [
    (HOST, ""), (HOST, " "), (HOST, ","), (HOST, ":443"), (HOST, "."),
    (HOST, "api.example:80"), (HOST, "*:80"), (HOST, "pi.example"),
    (HOST, "api"), (HOST, "api.example.org"), (HOST, "other.api.example"),
    (HOST, "0.0.0.0/0"), (HOST, "::/0"), (HOST, "[]"), (HOST, "http://x"),
    (FOUR, "10.1.2.3:80"), (FOUR, "10.2.0.0/16"), (FOUR, "10.1.2.4"),
    (FOUR, "10.1.2.30"), (FOUR, "10.1.2"), (FOUR, "10.0.0.0/99"),
    (FOUR, "10.0.0.0/"), (FOUR, "::/0"), (FOUR, "example"),
    (SIX, "[fd00::1]:80"), (SIX, "fd00::2"), (SIX, "fe80::/10"),
    (SIX, "10.0.0.0/8"), (SIX, "fd00"), (SIX, "::1"),
    (("fd00::1", 1), "fd00::"),
]


@pytest.mark.parametrize("target, no_proxy", BYPASSED)
def test_no_proxy_names_a_target(target, no_proxy):
    assert xeroctl.bypasses_proxy(*target, no_proxy)


@pytest.mark.parametrize("target, no_proxy", NOT_BYPASSED)
def test_no_proxy_names_another_target(target, no_proxy):
    assert not xeroctl.bypasses_proxy(*target, no_proxy)


# -- which proxy is taken ---------------------------------------------------

# For plain http, and for https: flags, variables, whether the proxy is used.
# P is the proxy; a dead one must not be chosen.
CHOICES = {
    "none": ("http", [], {}, False),
    "HTTP_PROXY": ("http", [], {"HTTP_PROXY": "P"}, True),
    "http_proxy": ("http", [], {"http_proxy": "P"}, True),
    "HTTPS_PROXY": ("https", [], {"HTTPS_PROXY": "P"}, True),
    "https_proxy": ("https", [], {"https_proxy": "P"}, True),
    "without a scheme": ("http", [], {"HTTP_PROXY": "P without"}, True),
    "the other scheme's": ("http", [], {"HTTPS_PROXY": DEAD}, False),
    "the other scheme's, too": ("https", [], {"HTTP_PROXY": DEAD}, False),
    "lower case first": (
        "http", [], {"http_proxy": "P", "HTTP_PROXY": DEAD}, True),
    "lower case first, too": (
        "https", [], {"https_proxy": "P", "HTTPS_PROXY": DEAD}, True),
    "an empty one is unset": (
        "http", [], {"http_proxy": "", "HTTP_PROXY": "P"}, True),
    "all are empty": (
        "http", [], {"http_proxy": "", "HTTP_PROXY": ""}, False),
    "the flag": ("http", ["--proxy", "P"], {}, True),
    "the flag for https": ("https", ["--proxy", "P"], {}, True),
    "the flag first": (
        "http", ["--proxy", "P"], {"http_proxy": DEAD, "HTTP_PROXY": DEAD},
        True),
    "the flag, in spite of NO_PROXY": (
        "http", ["--proxy", "P"], {"NO_PROXY": "*"}, True),
    "none by flag": ("http", ["--proxy", ""], {"HTTP_PROXY": DEAD}, False),
    "none by flag for https": (
        "https", ["--proxy="], {"https_proxy": DEAD}, False),
    "NO_PROXY": (
        "http", [], {"HTTP_PROXY": DEAD, "NO_PROXY": "127.0.0.1"}, False),
    "no_proxy": (
        "https", [], {"HTTPS_PROXY": DEAD, "no_proxy": "127.0.0.0/8"},
        False),
    "no_proxy first": (
        "http", [], {"HTTP_PROXY": DEAD, "no_proxy": "*", "NO_PROXY": "x"},
        False),
    "NO_PROXY of another port": (
        "http", [], {"HTTP_PROXY": "P", "NO_PROXY": "127.0.0.1:1"}, True),
    "NO_PROXY of others": (
        "https", [], {"HTTPS_PROXY": "P", "NO_PROXY": "localhost, ::1"},
        True),
}


@pytest.mark.parametrize("scheme, flags, environ, is_used",
                         CHOICES.values(), ids=CHOICES)
def test_flag_and_variables_choose_the_proxy(
        run, router, files, front, proxy, scheme, flags, environ, is_used):
    def given(text):
        return {"P": "http://" + proxy.address,
                "P without": proxy.address}.get(text, text)
    environ = {name: given(value) for name, value in environ.items()}
    url = front.url() if scheme == "https" else router.base_url
    shown = run(*MODELS, *map(given, flags), "--cacert", files("ca.pem"),
                XEROTIER_BASE_URL=url, **environ)
    assert shown.exit_status == 0, shown
    assert proxy.calls == is_used and len(router.requests) == 1


def test_a_file_of_variables_may_leave_quotes_and_line_ends(run, proxy):
    assert run(*MODELS, HTTP_PROXY=f'"http://{proxy.address}"\r',
               NO_PROXY='"x.example"\r').exit_status == 0
    assert proxy.calls == 1


def test_no_proxy_may_name_the_port(run, router, proxy):
    environ = {"HTTP_PROXY": "http://" + proxy.address}
    here = f"127.0.0.1:{router.port}"
    assert run(*MODELS, NO_PROXY=here, **environ).exit_status == 0
    assert proxy.calls == 0 and len(router.requests) == 1


@pytest.mark.parametrize("url, said", [
    ("socks5://{}", "socks5://"), ("socks5h://{}", "socks5h://"),
    ("SOCKS4://{}", "socks4://"), ("https://{}", "https://"),
    ("ftp://me:s3same-91@{}", "ftp://"), ("http://", "no proxy URL"),
    ("http://me:s3same-91@", "no proxy URL"), (":1", "no proxy URL"),
    ("http://me:s3same-91@127.0.0.1:99999", "no proxy URL"),
    ("http://me:s3same-91@127.0.0.1:http", "no proxy URL"),
    ("http://me:s3same-91@[::1", "no proxy URL")])
@pytest.mark.parametrize("source", ["--proxy", "HTTP_PROXY"])
def test_a_proxy_that_we_cannot_use_is_refused_by_name(
        run, router, clock, proxy, url, said, source):
    url = url.format(proxy.address)
    flags, environ = (["--proxy", url], {}) if source == "--proxy" else (
        [], {source: url})
    shown = run(*MODELS, *flags, **environ)
    check_failed(shown, source, said, hint="http://.*HOST:PORT", code=3)
    assert "s3same-91" not in shown.stderr
    assert proxy.calls == 0 and router.requests == [] == clock.slept


# -- what a proxy gets to see -----------------------------------------------

def test_plain_http_goes_through_a_proxy_by_its_whole_url(run, router,
                                                          proxy):
    # Only the proxy knows where that host is: nobody looks it up here.
    url = f"http://{NO_HOST}:{router.port}/proj_demo/v1"
    shown = run("api", "POST", "/conversations", "--field", 'a="b"',
                "--proxy", proxy.address, XEROTIER_BASE_URL=url)
    assert shown.exit_status == 0, shown
    head, = proxy.heads
    assert head.startswith(f"POST {url}/conversations HTTP/1.1\r\n")
    assert f"\r\nHost: {NO_HOST}:{router.port}\r\n" in head
    assert router.requests[0].body == b'{"a":"b"}'


def test_without_a_proxy_the_target_is_a_path(run, router):
    run("api", "/models?limit=1")
    seen, = router.requests
    assert seen.target == "/proj_demo/v1/models?limit=1"
    assert seen.headers["Host"] == f"127.0.0.1:{router.port}"


def test_https_goes_through_a_tunnel_that_tells_the_proxy_nothing(
        secured, router, front, proxy):
    shown = secured(*CHAT, "--proxy", proxy.address)
    assert shown.exit_status == 0 and shown.startswith("Hello!"), shown
    assert proxy.heads == [
        "CONNECT 127.0.0.1:{0} HTTP/1.1\r\nHost: 127.0.0.1:{0}\r\n"
        "Accept-Encoding: identity\r\n\r\n".format(front.port)]
    assert len(proxy.passed) > 500
    for secret in (DEMO_KEY, "chat/completions", "Authorization"):
        assert secret.encode() not in proxy.passed
    seen, = router.requests
    assert seen.headers["Authorization"] == "Bearer " + DEMO_KEY
    assert seen.target == "/proj_demo/demo/v1/chat/completions"


def test_names_are_checked_at_the_end_of_a_tunnel(run, router, files, proxy):
    with Front(router, server_context(files, "elsewhere.pem")) as front:
        options = "--cacert", files("ca.pem"), "--proxy", proxy.address
        there = run(*MODELS, *options,
                    XEROTIER_BASE_URL=front.url("elsewhere.example"))
        assert there.exit_status == 0, there
        shown = run(*MODELS, *options, XEROTIER_BASE_URL=front.url())
    check_failed(shown, "error: TLS: 127.0.0.1: ", hint="base URL")
    assert len(router.requests) == 1


def test_the_usual_port_is_named_to_a_proxy_only(run, router, files):
    with Front(router, server_context(files, "elsewhere.pem")) as front:
        with Proxy(goal=front.port) as proxy:
            shown = run(*MODELS, "--cacert", files("ca.pem"), "--proxy",
                        proxy.address,
                        XEROTIER_BASE_URL="https://elsewhere.example/p/v1")
    assert shown.exit_status == 4, shown
    assert proxy.heads[0].startswith("CONNECT elsewhere.example:443 HTTP/1.1")
    assert router.requests[0].headers["Host"] == "elsewhere.example"


# User and password as in a URL, and as the proxy shall have them.
CREDENTIALS = [
    ("me:s3same-91", "me:s3same-91"), ("m%40e:s3%3Asa%25me", "m@e:s3:sa%me"),
    ("me:s3%C3%A9", "me:s3é"), ("me", "me:"), ("me:", "me:"),
    ("me:s3:same-91", "me:s3:same-91"), ("a%2Fb:s3%2F%23%3F", "a/b:s3/#?"),
    ("corp\\me:s3#1/2?3@4", "corp\\me:s3#1/2?3@4")]


@pytest.mark.parametrize("given, meant", CREDENTIALS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_user_and_password_are_for_the_proxy_alone(
        run, router, front, files, scheme, given, meant):
    url = front.url() if scheme == "https" else router.base_url
    code = base64.b64encode(meant.encode()).decode()
    with Proxy(meant) as proxy:
        shown = run(*MODELS, "-vv", "--cacert", files("ca.pem"), "--proxy",
                    f"http://{given}@{proxy.address}", XEROTIER_DEBUG="1",
                    XEROTIER_BASE_URL=url)
    assert shown.exit_status == 0, shown
    head, = proxy.heads
    assert head.count(f"\r\nProxy-Authorization: Basic {code}\r\n") == 1
    assert DEMO_KEY not in head or scheme == "http"
    seen, = router.requests
    assert "Proxy-Authorization" not in seen.headers
    assert code not in shown.stderr and "s3" not in shown.stderr


def test_a_target_that_is_called_directly_gets_no_word_for_the_proxy(
        run, router):
    run(*MODELS, HTTP_PROXY="http://me:s3same-91@127.0.0.1:9", NO_PROXY="*")
    seen, = router.requests
    assert "Proxy-Authorization" not in seen.headers


SECRETS = "m%40e:s3%3Asame-91", "m@e:s3:same-91"
SECRET_CODE = base64.b64encode(SECRETS[1].encode()).decode()

# What a proxy says that knows our credentials, or has none of its own.
TELLTALES = {
    "nothing": CUT, "that they are wrong": WANTS_PASSWORD,
    "no": page("403 Forbidden"), "no longer": page("502 Bad Gateway"),
    "no HTTP": b"SSH-2.0-x s3:same-91\r\n",
    "the password": page("400 for s3:same-91", b"s3:same-91"),
    "what it was sent": page(f"400 for {SECRET_CODE}", SECRET_CODE.encode()),
}


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("order", TELLTALES.values(), ids=TELLTALES)
def test_credentials_of_a_proxy_are_shown_nowhere(
        secured, router, proxy, order, scheme, form):
    proxy.orders = [order] * 3
    shown = secured(*MODELS, "-vv", "-o", form, "--proxy",
                    f"http://{SECRETS[0]}@{proxy.address}",
                    url=router.base_url if scheme == "http" else None,
                    XEROTIER_DEBUG="1")
    assert shown.exit_status in (1, 3, 5), shown
    for secret in ("s3:same-91", "s3%3Asame-91", SECRET_CODE):
        assert secret not in shown + shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", NO_HOST])
def test_credentials_of_a_proxy_that_is_not_there_are_not_shown(
        run, router, closed_port, host):
    shown = run(*MODELS, "-vv", XEROTIER_DEBUG="1",
                HTTP_PROXY=f"http://{SECRETS[0]}@{host}:{closed_port}")
    check_failed(shown, "proxy: ", host)
    assert "s3" not in shown.stderr and "m@e" not in shown.stderr


@pytest.mark.parametrize("server, proxy_host, is_warned", [
    ("127.0.0.1", NO_HOST, True), (NO_HOST, "127.0.0.1", True),
    (NO_HOST, NO_HOST, True), ("127.0.0.1", "127.0.0.1", False)])
def test_a_key_in_the_clear_is_warned_of_wherever_it_leaves_the_loopback(
        run, router, server, proxy_host, is_warned):
    with Proxy() as proxy:
        shown = run(*MODELS, "--retries", "0",
                    "--proxy", f"{proxy_host}:{proxy.port}",
                    XEROTIER_BASE_URL=f"http://{server}:{router.port}"
                                      "/proj_demo/v1")
    warnings = re.findall("^warning: .*", shown.stderr, re.M)
    assert len(warnings) == is_warned, shown
    assert NO_HOST in "".join(warnings) or not is_warned


# -- failures of a proxy ----------------------------------------------------

# What it does: words of the error, hint, and how often we ask.
BY_PROXY = r"--proxy.*NO_PROXY"
PROXY_FAILURES = {
    "wants a password": (WANTS_PASSWORD, ["407"],
                         "http://USER:PASSWORD@", 1),
    # tinyproxy's word for a wrong one
    "takes no such password": (page("401 Unauthorized"), ["HTTP 401"],
                               "http://USER:PASSWORD@", 1),
    "says no, on a page": (page("403 Filtered"), ["HTTP 403 Filtered"],
                           BY_PROXY, 1),
    "finds nothing": (page("404 Not Found"), ["HTTP 404"], BY_PROXY, 1),
    "sends elsewhere": (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n",
        ["HTTP 302"], BY_PROXY, 1),
    "fails, on a page": (page("502 Bad Gateway"), ["HTTP 502 Bad Gateway"],
                         BY_PROXY, 3),
    "fails without a reason": (b"HTTP/1.1 503\r\n\r\n", ["HTTP 503"],
                               BY_PROXY, 3),
    "closes": (CUT, ["no tunnel"], BY_PROXY, 3),
    "closes in its answer": (b"HTTP/1.1 200 Conn", ["no tunnel"], BY_PROXY,
                             3),
    "closes in its head": (b"HTTP/1.1 200 OK\r\nVia: x\r\n", ["no tunnel"],
                           BY_PROXY, 3),
    "speaks no HTTP": (b"SSH-2.0-x\r\n", ["no tunnel", "SSH-2.0-x"],
                       BY_PROXY, 3),
    "speaks no text": (b"\x15\x03\x01\0\2\2\x16\n", ["no tunnel"], BY_PROXY,
                       3),
    "hangs": (HANG, ["no tunnel", "0.2 s"], "--proxy|--timeout", 3),
}


@pytest.mark.parametrize("order, words, hint, often", [
    pytest.param(*case, marks=[costly] if name == "hangs" else [])
    for name, case in PROXY_FAILURES.items()], ids=list(PROXY_FAILURES))
def test_a_failure_of_a_proxy_is_told_as_its_own(
        secured, router, front, clock, proxy, order, words, hint, often):
    proxy.orders = [order] * 4
    limit = ("--timeout", "0.2") if order is HANG else ()
    shown = secured(*MODELS, *limit, HTTPS_PROXY=proxy.address)
    check_failed(shown, "error: proxy: ", proxy.address, "HTTPS_PROXY",
                 *words, hint=hint)
    assert "<" not in shown.stderr and "\x15" not in shown.stderr
    assert proxy.calls == often and len(clock.slept) == often - 1
    assert front.calls == 0 and router.requests == []
    for head in proxy.heads:
        assert head.startswith("CONNECT ") and DEMO_KEY not in head


@pytest.mark.parametrize("order", [page("502 Bad Gateway"), CUT],
                         ids=["502", "cut"])
def test_a_message_may_try_a_proxy_again(secured, router, clock, proxy,
                                         order):
    # Nothing of it has left: only a tunnel was asked for.
    proxy.orders = [order]
    shown = secured(*CHAT, "--proxy", proxy.address)
    assert shown.exit_status == 0 and shown.startswith("Hello!"), shown
    assert proxy.calls == 2 and clock.slept == [0.5]
    assert len(router.requests) == 1


@pytest.mark.parametrize("credentials", ["", "me:wrong@"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_password_that_is_wrong_or_missing_is_told(
        secured, router, clock, scheme, credentials):
    url = router.base_url if scheme == "http" else None
    with Proxy("me:s3same-91") as proxy:
        shown = secured(*CHAT, "--proxy", f"http://{credentials}"
                        + proxy.address, url=url)
    check_failed(shown, "error: proxy: " + proxy.address, "407", "--proxy",
                 hint="http://USER:PASSWORD@HOST")
    assert "wrong" not in shown.stderr and "<" not in shown.stderr
    assert proxy.calls == 1 and router.requests == [] == clock.slept


@pytest.mark.parametrize("host, words", [
    ("127.0.0.1", ["connect: "]), (NO_HOST, ["DNS: ", NO_HOST])])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_told(
        secured, router, clock, closed_port, scheme, host, words):
    name = scheme.upper() + "_PROXY"
    shown = secured(*CHAT, url=router.base_url if scheme == "http" else None,
                    **{name: f"{host}:{closed_port}"})
    check_failed(shown, "error: proxy: ", f"{host}:{closed_port}", name,
                 *words, hint=BY_PROXY)
    assert clock.slept == [0.5, 1.0] and router.requests == []


# As tinyproxy writes its pages.
XHTML = (b'<?xml version="1.0" encoding="UTF-8" ?>\n'
         b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" '
         b'"http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">\n\n'
         b"<html>\n<head><title>502 Bad Gateway</title></head>\n"
         b"<body>\n<p>Unable to connect.</p>\n</body>\n</html>\n")


@pytest.mark.parametrize("body", [PROXY_PAGE, XHTML, PROXY_PAGE.upper()],
                         ids=["HTML", "XHTML", "shouted"])
def test_a_page_in_place_of_an_answer_is_told_in_short(run, router, proxy,
                                                       body):
    proxy.orders = [page("502 Bad Gateway", body)]
    shown = run(*CHAT, "--proxy", proxy.address)
    check_failed(shown, "error: HTTP 502 an HTML page", code=1)
    assert "502 bad gateway" in error_of(shown).lower()
    assert "<" not in shown.stderr and router.requests == []


# -- whom we trust ----------------------------------------------------------

def config_file(path, **table):
    """Write a config of one deployment; return its path."""
    lines = [f'{key} = "{value}"' for key, value in table.items()]
    path.write_text("\n".join(['current = "x"', "[deployment.x]"] + lines))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("authority", ["ca.pem", "strict.pem"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_private_ca_is_trusted_by_flag(run, router, front, files, host,
                                         authority):
    shown = run(*MODELS, "--cacert", files(authority),
                XEROTIER_BASE_URL=front.url(host))
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    seen, = router.requests
    assert seen.headers["Host"] == f"{host}:{front.port}"


def test_a_private_ca_is_trusted_by_variable(run, router, front, files):
    shown = run(*MODELS, SSL_CERT_FILE=files("ca.pem"),
                XEROTIER_BASE_URL=front.url())
    assert shown.exit_status == 0, shown
    assert len(router.requests) == 1


def test_a_private_ca_is_trusted_by_deployment(run, router, front, files,
                                               tmp_path):
    path = config_file(tmp_path / "c", base_url=front.url(),
                       api_key=DEMO_KEY, cacert=files("ca.pem"))
    shown = run(*MODELS, against=None, XEROTIER_CONFIG=path)
    assert shown.exit_status == 0, shown
    assert len(router.requests) == 1


@pytest.mark.parametrize("flag, variable, deployment", [
    ("ca.pem", "alone.pem", "alone.pem"), (None, "ca.pem", "alone.pem")])
def test_flag_beats_variable_beats_deployment(
        run, router, front, files, tmp_path, flag, variable, deployment):
    path = config_file(tmp_path / "c", base_url=front.url(),
                       api_key=DEMO_KEY, cacert=files(deployment))
    flags = ["--cacert", files(flag)] if flag else []
    shown = run(*MODELS, *flags, against=None, XEROTIER_CONFIG=path,
                SSL_CERT_FILE=files(variable))
    assert shown.exit_status == 0, shown


def test_every_interpreter_trusts_a_private_ca(run_process, router, front,
                                               files):
    # From 3.13 on Python by itself refuses one without a keyUsage.
    shown = run_process(*MODELS, "--cacert", files("ca.pem"),
                        XEROTIER_BASE_URL=front.url())
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert len(router.requests) == 1


# What a server shows: words of the error, and of the hint.
CA_HINT = "--cacert.*--insecure"
TLS_FAILURES = {
    "here.pem": (["unable to get local issuer"], CA_HINT),
    "chain.pem": (["signed certificate in certificate chain"], CA_HINT),
    "alone.pem": (["signed certificate"], CA_HINT),
    "expired.pem": (["expired"], "clock"),
    "elsewhere.pem": (["IP address mismatch"], "base URL"),
    "elsewhere.pem by name": (["Hostname mismatch"], "base URL"),
}
UNTRUSTED = "here.pem", "chain.pem", "alone.pem"
ALL_CAUSES = "self-signed.*expired.*host name.*issuer.*" + CA_HINT


def told(cause, version):
    """Words of the error and of the hint, as a version of Python has it."""
    if version < (3, 7):
        return ((["doesn't match"], "base URL") if "elsewhere" in cause
                else (["verify failed"], ALL_CAUSES))
    return TLS_FAILURES[cause]


@pytest.fixture(params=TLS_FAILURES)
def failing(request, router, files):
    """(argv, URL, cause) of a call that must fail."""
    certificate, _, name = request.param.partition(" by ")
    argv = MODELS if certificate in UNTRUSTED else MODELS + (
        "--cacert", files("ca.pem"))
    with Front(router, server_context(files, certificate)) as front:
        url = front.url("localhost" if name else "127.0.0.1")
        yield argv, url, request.param


def test_a_certificate_that_will_not_do_is_told_with_its_cause(
        run, router, clock, failing):
    argv, url, cause = failing
    words, hint = told(cause, sys.version_info)
    shown = run(*argv, XEROTIER_BASE_URL=url)
    check_failed(shown, "error: TLS: ", *words, hint=hint)
    assert error_of(shown).split()[2].strip(":") in url
    assert router.requests == [] == clock.slept


@sampled(0, 3)
@OLDEST
def test_the_oldest_interpreter_tells_a_certificate_that_will_not_do(
        run_process, router, python, failing):
    argv, url, cause = failing
    words, hint = told(cause, version_of(python))
    shown = run_process(*argv, XEROTIER_BASE_URL=url)
    check_failed(shown, "error: TLS: ", *words, hint=hint)
    assert router.requests == []


@sampled(0, 2, 3, 4, 7, 11)
@pytest.mark.parametrize("quiet", [(), ("-q",)], ids=["", "quiet"])
def test_no_check_is_made_where_none_is_wanted_but_a_warning(
        run, router, failing, quiet):
    _, url, _ = failing
    for _ in range(2):
        shown = run(*MODELS, "--insecure", *quiet, XEROTIER_BASE_URL=url)
        assert shown.exit_status == 0, shown
        line, = shown.stderr.splitlines()
        assert line.startswith("warning: --insecure"), shown
    assert len(router.requests) == 2


def test_a_retry_does_not_warn_again(run, router, front, clock):
    router.order("*", status=503)
    shown = run(*MODELS, "--insecure", XEROTIER_BASE_URL=front.url())
    assert shown.exit_status == 0 and clock.slept == [0.5]
    assert shown.stderr.count("warning: ") == 1


# -- client certificates ----------------------------------------------------

@pytest.fixture(params=[True, False], ids=["TLS 1.3", "TLS 1.2"])
def picky(request, router, files):
    """A server that wants to see a certificate of its client."""
    context = server_context(files, client_ca="strict.pem",
                             newest=request.param)
    with Front(router, context) as front:
        yield front


@pytest.fixture
def show_id(run, picky, files):
    """Run against the picky server, with a certificate and more."""
    def runner(*flags, cert="client.pem", key=None, **environ):
        key = ["--cert-key", files(key)] if key else []
        return run(*MODELS, "--cacert", files("ca.pem"), "--cert",
                   files(cert), *key, *flags,
                   XEROTIER_BASE_URL=picky.url(), **environ)
    return runner


@pytest.mark.parametrize("cert, key, password", [
    ("client.pem", "plain.key", None), ("both.pem", None, None),
    ("client.pem", "locked.key", "s3same-91")])
def test_a_client_can_show_a_certificate(show_id, router, picky, cert, key,
                                         password):
    shown = show_id(cert=cert, key=key, XEROTIER_CERT_PASSWORD=password)
    assert shown.exit_status == 0, shown
    assert picky.peers == ["somebody"] and len(router.requests) == 1


def test_the_password_of_a_key_is_not_shown_whoever_knows_it(show_id,
                                                             router):
    router.order("*", status=400, message="is it s3same-91?")
    shown = show_id("-vv", key="locked.key",
                    XEROTIER_CERT_PASSWORD="s3same-91")
    check_failed(shown, "HTTP 400 is it …?", code=1)
    assert "s3same-91" not in shown.stderr


def test_a_server_that_wants_a_certificate_is_told(run, router, picky, files,
                                                   clock):
    shown = run(*MODELS, "--cacert", files("ca.pem"),
                XEROTIER_BASE_URL=picky.url())
    check_failed(shown, "error: TLS: 127.0.0.1: ", hint="--cert")
    assert picky.peers == [] == router.requests == clock.slept


def test_a_wrong_password_is_told_and_not_shown(show_id, router, picky):
    shown = show_id(key="locked.key", XEROTIER_CERT_PASSWORD="sw0rdf1sh")
    check_failed(shown, "password", code=2)
    assert "XEROTIER_CERT_PASSWORD" in shown.stderr
    assert "sw0rdf1sh" not in shown.stderr
    assert picky.calls == 0 and router.requests == []


@pytest.mark.parametrize("password", [None, ""])
def test_a_missing_password_is_not_asked_for_without_a_terminal(
        show_id, router, picky, password):
    shown = show_id(key="locked.key", XEROTIER_CERT_PASSWORD=password)
    check_failed(shown, "XEROTIER_CERT_PASSWORD", code=3)
    assert picky.calls == 0 and router.requests == []


@OLDEST
def test_the_oldest_interpreter_does_not_ask_for_a_password_either(
        run_process, front, files):
    shown = run_process(*MODELS, "--cacert", files("ca.pem"), "--cert",
                        files("client.pem"), "--cert-key",
                        files("locked.key"), XEROTIER_BASE_URL=front.url())
    check_failed(shown, "XEROTIER_CERT_PASSWORD", code=3)


# -- files that will not do -------------------------------------------------

# Flags and variables with {a bad file}, and what is said of it.
@pytest.mark.parametrize("bad", ["missing", "empty", "broken", "."])
@pytest.mark.parametrize("flags, variable", [
    (["--cacert", "{bad}"], None), ([], "{bad}"),
    (["--cert", "{bad}"], None),
    (["--cert", "{bad}", "--cert-key", "plain.key"], None),
    (["--cert", "client.pem", "--cert-key", "{bad}"], None)])
def test_a_file_that_will_not_do_is_named(run, router, front, files, flags,
                                          variable, bad):
    def path(word):
        return word if word.startswith("--") else files(
            word.format(bad=bad))
    more = {"SSL_CERT_FILE": path(variable or "ca.pem")}
    shown = run(*MODELS, *map(path, flags), XEROTIER_BASE_URL=front.url(),
                **more)
    check_failed(shown, files(bad), code=2)
    assert front.calls == 0 and router.requests == []


def test_a_file_of_a_deployment_is_named_too(run, router, front, files,
                                             tmp_path):
    path = config_file(tmp_path / "c", base_url=front.url(),
                       api_key=DEMO_KEY, cacert=files("missing"))
    shown = run(*MODELS, against=None, XEROTIER_CONFIG=path)
    check_failed(shown, files("missing"), code=2)
    assert router.requests == []


def test_a_key_that_is_not_the_certificates_is_told(run, router, front,
                                                    files):
    shown = run(*MODELS, "--cacert", files("ca.pem"), "--cert",
                files("client.pem"), "--cert-key", files("ca.key"),
                XEROTIER_BASE_URL=front.url())
    check_failed(shown, files("client.pem"), "mismatch", code=2)


def test_a_key_goes_with_a_certificate(run, router, front, files):
    shown = run(*MODELS, "--cert-key", files("plain.key"),
                XEROTIER_BASE_URL=front.url())
    check_failed(shown, "--cert-key", "--cert", code=2)
    assert router.requests == []


# -- the wrong scheme -------------------------------------------------------

WRONG_SCHEME = "wrong version number"


def test_a_server_without_tls_is_told(run, router, clock):
    url = router.base_url.replace("http:", "https:")
    shown = run(*CHAT, XEROTIER_BASE_URL=url)
    check_failed(shown, "error: TLS: 127.0.0.1: ", WRONG_SCHEME,
                 hint="http://.*--base-url")
    assert router.requests == [] == clock.slept


@OLDEST
def test_the_oldest_interpreter_tells_a_server_without_tls(run_process,
                                                           router):
    url = router.base_url.replace("http:", "https:")
    check_failed(run_process(*CHAT, XEROTIER_BASE_URL=url), WRONG_SCHEME,
                 hint="http://.*--base-url")


def test_a_server_with_tls_that_is_called_without_is_told(run, router,
                                                          front, clock):
    shown = run(*CHAT, XEROTIER_BASE_URL=front.url(scheme="http"))
    check_failed(shown, "error: HTTP: 127.0.0.1: ")
    assert router.requests == [] == clock.slept


def test_an_alert_of_tls_in_place_of_an_answer_is_told(run, proxy):
    proxy.orders = [b"\x15\x03\x01\0\2\2\x16"]     # unexpected_message
    shown = run(*CHAT, XEROTIER_BASE_URL=proxy.url())
    check_failed(shown, "error: HTTP: 127.0.0.1: ",
                 hint="https://.*--base-url")
    assert "\x15" not in shown.stderr


# -- a handshake or an answer that is lost ----------------------------------

cuts = pytest.mark.parametrize("order", [CUT, RESET], ids=["cut", "reset"])


@cuts
@pytest.mark.parametrize("argv", [MODELS, CHAT], ids=["GET", "POST"])
def test_a_handshake_that_was_cut_is_tried_again(secured, router, front,
                                                 clock, argv, order):
    front.orders = [order]
    shown = secured(*argv)
    assert shown.exit_status == 0, shown
    assert clock.slept == [0.5] and front.calls == 2
    assert len(router.requests) == 1


@cuts
def test_a_handshake_that_is_always_cut_is_told(secured, router, front,
                                                clock, order):
    front.orders = [order] * 3
    check_failed(secured(*CHAT), "error: TLS: 127.0.0.1: ")
    assert clock.slept == [0.5, 1.0] and router.requests == []


@costly
def test_every_interpreter_tries_a_cut_handshake_again(router, files):
    # Side by side, since each waits; each has words of its own for a cut.
    with contextlib.ExitStack() as stack:
        runs = []
        for python in INTERPRETERS:
            front = Front(router, server_context(files))
            stack.enter_context(front).orders = [CUT]
            runs.append(subprocess.Popen(
                [python, STARTED, *CHAT, "--retries", "1", "--cacert",
                 files("ca.pem")], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=environment(router, XEROTIER_BASE_URL=front.url())))
            stack.callback(runs[-1].kill)
        for python, process in zip(INTERPRETERS, runs):
            stdout, stderr = map(bytes.decode, process.communicate())
            name = python_name(python)
            assert (name, process.returncode) == (name, 0), stderr
            assert stdout.startswith("Hello!") and "KRB5" not in stderr
    assert len(router.requests) == len(INTERPRETERS)


def test_a_handshake_that_hangs_is_told(secured, router, front, clock):
    front.orders = [HANG] * 3
    shown = secured(*CHAT, "--timeout", "0.1")
    check_failed(shown, "error: TLS: 127.0.0.1: ", hint="--timeout")
    assert clock.slept == [0.5, 1.0] and router.requests == []


polite_or_rude = pytest.mark.parametrize("is_rude", [False, True],
                                         ids=["polite", "rude"])


@polite_or_rude
@pytest.mark.parametrize("argv, often", [(MODELS, 2), (CHAT, 1)],
                         ids=["GET", "POST"])
def test_a_lost_answer_is_no_cut_handshake(secured, router, front, clock,
                                           argv, often, is_rude):
    front.is_rude = is_rude
    router.order("*", drop="after")
    shown = secured(*argv)
    assert shown.exit_status == (0 if often == 2 else 5), shown
    assert len(router.requests) == often == len(clock.slept) + 1


@OLDEST
@pytest.mark.parametrize("fault", [{"drop": "after"}, {"lie": 5}],
                         ids=["lost", "cut"])
def test_the_oldest_interpreter_tells_a_lost_answer(
        run_process, router, front, files, fault):
    front.is_rude = True
    router.order("*", **fault)
    shown = run_process(*CHAT, "--cacert", files("ca.pem"),
                        XEROTIER_BASE_URL=front.url())
    check_failed(shown, "error: HTTP: ")
    assert len(router.requests) == 1


# -- streams ----------------------------------------------------------------

def frame(text):
    return (b'data: {"object":"chat.completion.chunk","choices":[{"index":0,'
            b'"delta":{"content":"' + text + b'"}}]}\n\n')


@pytest.mark.parametrize("way", ["http by proxy", "https",
                                 "https by proxy"])
def test_a_token_is_out_before_the_next_one_is_made(
        router, clock, front, files, proxy, way):
    ear = Ear(b"He")
    router.order("*", frames=[frame(b"He"), frame(b"llo"),
                              b"data: [DONE]\n\n"], gate=(1, ear.heard))
    stdout = io.TextIOWrapper(io.BufferedWriter(ear), encoding="ascii")
    streams = xeroctl.Streams(io.StringIO(), stdout, io.StringIO())
    url = front.url() if way.startswith("https") else router.base_url
    # Silence, the fate of a token that is held back, ends the test.
    argv = CHAT + ("--stream", "--timeout", "5", "--base-url", url,
                   "--cacert", files("ca.pem"))
    if way.endswith("proxy"):
        argv += "--proxy", proxy.address
    assert xeroctl.main(argv, {"XEROTIER_API_KEY": DEMO_KEY}, streams,
                        clock) == 0
    assert b"Hello" in ear.data
    assert proxy.calls == way.endswith("proxy")


@polite_or_rude
@pytest.mark.parametrize("by", [False, True], ids=["direct", "by proxy"])
def test_a_stream_that_is_cut_keeps_its_text(secured, router, front, clock,
                                             proxy, by, is_rude):
    front.is_rude = is_rude
    router.order("*", frames=[frame(b"He"), frame(b"llo")],
                 cut=len(frame(b"He")))
    shown = secured(*CHAT, "--stream",
                    *(["--proxy", proxy.address] if by else []))
    assert (shown.exit_status, shown) == (7, "He\n"), shown
    assert len(router.requests) == 1 and clock.slept == []


@OLDEST
@polite_or_rude
def test_the_oldest_interpreter_keeps_the_text_of_a_stream_that_is_cut(
        run_process, router, front, files, is_rude):
    front.is_rude = is_rude
    router.order("*", frames=[frame(b"He"), frame(b"llo")],
                 cut=len(frame(b"He")))
    shown = run_process(*CHAT, "--stream", "--cacert", files("ca.pem"),
                        XEROTIER_BASE_URL=front.url())
    assert (shown.exit_status, shown) == (7, "He\n"), shown


# -- addresses --------------------------------------------------------------

def can_bind(host):
    try:
        Server(host).listener.close()
    except OSError:
        return False
    return True


needs_six = pytest.mark.skipif(not can_bind("::1"),
                               reason="::1 cannot be bound here")


def addresses_of_localhost():
    return [address[4][0] for address in
            socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)]


@needs_six
def test_an_address_of_ipv6_is_called_and_named_in_brackets(run, router):
    with Door(router, "::1") as door:
        shown = run(*MODELS, XEROTIER_BASE_URL=door.url())
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    seen, = router.requests
    assert seen.headers["Host"] == f"[::1]:{door.port}"
    assert seen.target == "/proj_demo/v1/models"


@needs_six
def test_tls_with_an_address_of_ipv6(run, router, files):
    with Front(router, server_context(files), "::1") as front:
        shown = run(*MODELS, "--cacert", files("ca.pem"),
                    XEROTIER_BASE_URL=front.url())
    assert shown.exit_status == 0, shown
    assert router.requests[0].headers["Host"] == f"[::1]:{front.port}"


def test_a_tunnel_to_an_address_of_ipv6_names_it_in_brackets(
        secured, router, front, proxy):
    shown = secured(*MODELS, "--proxy", proxy.address, url=front.url("::1"))
    assert shown.exit_status == 0, shown
    head, = proxy.heads
    assert head.startswith(f"CONNECT [::1]:{front.port} HTTP/1.1\r\n"
                           f"Host: [::1]:{front.port}\r\n")
    assert router.requests[0].headers["Host"] == f"[::1]:{front.port}"


@needs_six
def test_a_proxy_may_have_an_address_of_ipv6(secured, router):
    with Proxy(host="::1") as proxy:
        shown = secured(*MODELS, "--proxy", f"http://[::1]:{proxy.port}")
    assert shown.exit_status == 0 and proxy.calls == 1, shown


@needs_six
@pytest.mark.skipif({"::1", "127.0.0.1"} - set(addresses_of_localhost()),
                    reason="localhost has not both addresses here")
@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_the_next_address_is_called_where_one_refuses(run, router, clock,
                                                      host):
    with Door(router, host) as door:
        shown = run(*MODELS, XEROTIER_BASE_URL=door.url("localhost"))
    assert (shown.exit_status, shown.stderr) == (0, ""), shown
    assert len(router.requests) == 1 and clock.slept == []
