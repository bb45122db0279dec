"""What many test files read of a request, a result or a process, once.

Fixtures stand in conftest.py; what is here is called by name.
"""

import contextlib
import io
import json
import os
import select
import stat
import threading
import time

import pytest

from conftest import Result, from_system

LIMIT_S = 20

# A plan shows the URL, which here has no port that changes.
ACME = {"XEROTIER_BASE_URL": "https://api.xerotier.ai/acme-prod/v1",
        "XEROTIER_API_KEY": "xero_acme-prod_0123456789abcdef"}


class TerminalStream(io.TextIOWrapper):
    """A text stream over bytes that says that it is a terminal."""

    def isatty(self):
        return True


def typed(data):
    """A terminal on which something is typed."""
    return TerminalStream(io.BytesIO(data), encoding="ascii", newline="")


class Ear(io.RawIOBase):
    """A standard output that tells when it has heard a word."""

    def __init__(self, word):
        super().__init__()
        self.word, self.heard, self.data = word, threading.Event(), b""

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        if self.word in self.data:
            self.heard.set()
        return len(data)


def caller(*before):
    """A fixture that is run, with a group's name and more before the words.
    """
    @pytest.fixture
    def fixture(run):
        return lambda *words, **more: run(*before, *map(str, words), **more)
    return fixture


def grow(root, files):
    """Make a folder of files: bytes by name, "a/b" in folders of its own."""
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        path = root / from_system(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@contextlib.contextmanager
def most_bytes(size):
    """No file of this process can grow beyond so many bytes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# == what a test hands over ==================================================

def encoded(value):
    return json.dumps(value).encode()


def pretty(value):
    """JSON as a person sees it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_frame(value):
    """A value as a frame of a stream; any character as an escape."""
    return b"data: " + encoded(value) + b"\n\n"


def chunk(text, finish_reason=None):
    return as_frame({"object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": {"content": text},
         "finish_reason": finish_reason}]})


def answer_to(text):
    """What the reference router says to a message."""
    return (f'Hello! You said: "{text}". I am the demo endpoint of the'
            " reference router; I repeat what I am told.")


# == what was asked of the router ============================================

def asked(router, below="/v1"):
    """METHOD and the target of each request, from behind `below` on."""
    return [f"{seen.method} {seen.target.partition(below)[2]}"
            for seen in router.requests]


def asked_whole(router):
    """METHOD and the whole target of each request."""
    return [f"{seen.method} {seen.target}" for seen in router.requests]


def asked_paths(router):
    """METHOD and the path of each request below /v1, without its query."""
    return [line.partition("?")[0] for line in asked(router)]


def sent(router):
    """The body of the only request that was made."""
    seen, = router.requests
    return seen.json


def keys_sent(router):
    return [seen.headers["Authorization"] for seen in router.requests]


def check_call(shown, router, call, body):
    """It went well, by one request alone: METHOD PATH, and this body."""
    assert shown.exit_status == 0 and asked(router) == [call]
    seen, = router.requests
    assert (seen.json if seen.body else None) == body


# == what came of a call =====================================================

def check_error(shown, code, *words):
    """Nothing on stdout, this exit code, and an error of so many words."""
    assert (shown.exit_status, shown) == (code, ""), shown
    assert shown.stderr.startswith(("error: ", "{")), shown
    assert "internal error" not in shown.stderr
    for word in words:
        assert word in shown.stderr, (word, shown)


def check_refused(shown, router, *words):
    """It is a usage error that names the words, and nothing was asked."""
    check_error(shown, 2, *words)
    assert router.requests == []


def mode_of(path):
    return stat.S_IMODE(os.stat(str(path)).st_mode)


def labelled(shown):
    """{label: value} of a record as a person sees it, in order."""
    return {label: value.strip() for label, _, value in (
        line.partition(":") for line in shown.splitlines())}


def error_of(shown):
    """The one error line on standard error."""
    line, = [line for line in shown.stderr.splitlines()
             if line.startswith("error: ")]
    return line


def facts_of(shown):
    """The lines below the error: {label: value}."""
    return dict(line.strip().split(": ", 1) for line
                in shown.stderr.partition("error: ")[2].splitlines()[1:])


def as_json(data):
    """What bytes say in JSON; None if they are none."""
    try:
        return json.loads(data.decode("utf-8"))
    except ValueError:
        return None


# == processes ===============================================================

def until(condition, seconds=LIMIT_S):
    """Wait until something is so, for what no event tells."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


def finished(process):
    """Wait for a process; return its Result."""
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    return Result((stdout or b"").decode("utf-8"),
                  (stderr or b"").decode("utf-8"), process.returncode)


def send(process, number):
    """Send a signal to a process that is about to wait, once it waits."""
    time.sleep(0.02)
    process.send_signal(number)


def read_until(stream, wanted):
    """Read a pipe as it comes until something has come; return all of it."""
    data = b""
    while wanted not in data:
        assert select.select([stream], [], [], LIMIT_S)[0], data
        block = os.read(stream.fileno(), 4096)
        assert block, data
        data += block
    return data
