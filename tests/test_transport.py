"""Floor 6: what is sent, when it is sent again, and what a failure says."""

import email.utils
import gzip
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest

import xeroctl
from helpers import error_of, facts_of
from router import DEMO_KEY

CHAT = "chat", "--endpoint", "demo", "-m", "hi"
NOW = 1770000000
METHODS = ALL = "GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"
SAFE = "GET", "HEAD", "PUT", "DELETE"
NONE = ()

# A name that no resolver is asked for: a label has 63 letters at most.
NO_HOST = "a" * 64 + ".example"


class Sayer:
    """A server that says the same bytes to whoever calls, and hangs up."""

    def __init__(self, said):
        self.said, self.calls = said, 0
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.base_url = "http://127.0.0.1:{}/p/v1".format(
            self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.said = None
        socket.create_connection(self.listener.getsockname()).close()
        self.thread.join()
        self.listener.close()

    def serve(self):
        while True:
            client, _ = self.listener.accept()
            with client:
                if self.said is None:
                    return
                self.calls += 1
                client.recv(65536)
                client.sendall(self.said)


def attempts(shown):
    """How often a request was made, as -v tells it."""
    return len(re.findall(r" attempt \d+$", shown.stderr, re.M))


# -- retries: who, and how often --------------------------------------------

# status: (the methods that are tried again, the exit code in the end)
STATUSES = {
    300: (NONE, 1), 304: (NONE, 1), 400: (NONE, 1), 401: (NONE, 3),
    402: (NONE, 1), 403: (NONE, 3), 404: (NONE, 4), 405: (NONE, 1),
    408: (SAFE, 1), 409: (NONE, 1), 413: (NONE, 1), 422: (NONE, 1),
    429: (ALL, 6), 500: (SAFE, 1), 501: (NONE, 1), 502: (SAFE, 1),
    503: (ALL, 6), 504: (SAFE, 1), 529: (ALL, 6), 599: (NONE, 1),
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_decides_on_retries_and_exit_code(
        run, router, clock, status):
    repeated, code = STATUSES[status]
    router.order("*", times=None, status=status)
    for method in METHODS:
        clock.slept, router.requests = [], []
        shown = run("api", method, "/things")
        assert (method, shown.exit_status) == (method, code), shown
        assert error_of(shown).startswith(f"error: HTTP {status}")
        often = 3 if method in repeated else 1
        assert len(router.seen(method, "/v1/things")) == often
        assert len(router.requests) == often
        assert clock.slept == [0.5, 1.0][:often - 1]


# What is done to a request, and which methods are tried again.
LOST = {
    "dropped after it was read": ({"drop": "after"}, SAFE),
    "reset after it was read": ({"drop": "after", "reset": True}, SAFE),
    "reset while it was read": ({"drop": "before"}, SAFE),
}


@pytest.mark.parametrize("fault, repeated", LOST.values(), ids=LOST)
def test_a_lost_answer_is_asked_for_again_only_where_it_is_safe(
        run, router, clock, fault, repeated):
    router.order("*", times=None, **fault)
    for method in METHODS:
        clock.slept = []
        shown = run("api", method, "/things", "-v")
        assert shown.exit_status == 5, shown
        often = 3 if method in repeated else 1
        assert (method, attempts(shown)) == (method, often)
        assert clock.slept == [0.5, 1.0][:often - 1]


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_connection_is_tried_again(run, clock, closed_port,
                                             method):
    url = f"http://127.0.0.1:{closed_port}/p/v1"
    shown = run("api", method, "/things", XEROTIER_BASE_URL=url)
    assert shown.exit_status == 5, shown
    assert f"connect: 127.0.0.1:{closed_port}: " in error_of(shown)
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_failed_look_up_is_tried_again(run, clock, method):
    shown = run("api", method, "/things",
                XEROTIER_BASE_URL=f"https://{NO_HOST}/p/v1")
    assert shown.exit_status == 5, shown
    assert error_of(shown).startswith("error: DNS: ")
    assert NO_HOST in error_of(shown)
    assert clock.slept == [0.5, 1.0]


CUT_LISTS = {"api": ("api", "/models"),
             "api --all": ("api", "/models", "--all"),
             "a name that is looked up": (
                 "chat", "new", "--workspace", "ws_kube_prod", "--template",
                 "restart-deployment")}


@pytest.mark.parametrize("argv", CUT_LISTS.values(), ids=CUT_LISTS)
def test_half_a_list_is_asked_for_again(run, router, clock, argv):
    router.order("GET *", cut=20)
    shown = run(*argv)
    assert shown.exit_status == 0, shown
    assert clock.slept == [0.5]
    whole, half = run(*argv), shown
    assert len(half) == len(whole)


def test_a_retry_sends_the_same_and_says_so_in_a_line(run, router, clock):
    router.order("POST *", status=503, message="starting")
    shown = run(*CHAT)
    assert shown.exit_status == 0 and shown.startswith("Hello!")
    first, second = router.requests
    assert first.body == second.body != b""
    line, = shown.stderr.splitlines()
    assert "HTTP 503 starting" in line and "0.5 s" in line


def test_quiet_retries_in_silence(run, router, clock):
    router.order("POST *", status=503)
    assert run(*CHAT, "-q").stderr == ""
    assert clock.slept == [0.5]


@pytest.mark.parametrize("retries, waits", [
    ("0", []), ("1", [0.5]),
    ("8", [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0])])
def test_the_number_of_retries_can_be_set(run, router, clock, retries,
                                          waits):
    router.order("*", times=None, status=503)
    assert run(*CHAT, "--retries", retries).exit_status == 6
    assert clock.slept == waits
    assert len(router.requests) == len(waits) + 1


def test_waits_are_jittered(run, router, clock):
    clock.jitter = lambda: 1.0
    router.order("*", times=None, status=503)
    run(*CHAT)
    first, second = clock.slept
    assert 0.5 < first <= 1.0 < second <= 2.0


# -- retries: when ----------------------------------------------------------

def error_body(**error):
    return json.dumps({"error": error}).encode()


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


STRATEGY = {"type": "exponential_backoff", "initial_delay_ms": 2000,
            "max_delay_ms": 5000, "multiplier": 2.0, "jitter": True}

# What comes with a 429, and the waits that it leads to.
WAITS = {
    "nothing": ({}, [0.5, 1.0]),
    "seconds, in both places": ({"retry_after": 7}, [7, 7]),
    "seconds, in the header": ({"retry_after": "7"}, [7, 7]),
    "seconds, in the body": (
        {"body": error_body(message="no", retry_after=7)}, [7, 7]),
    "a greater header": (
        {"body": error_body(retry_after=2), "retry_after": "5"}, [5, 5]),
    "a greater body": (
        {"body": error_body(retry_after=5), "retry_after": "2"}, [5, 5]),
    "less than the backoff": ({"retry_after": 0}, [0.5, 1.0]),
    # The clock gets there in the first wait.
    "a date": ({"retry_after": http_date(NOW + 9)}, [9, 1.0]),
    "a date that is past": ({"retry_after": http_date(NOW - 9)}, [0.5, 1.0]),
    "an old form of date": (
        {"retry_after": "Monday, 02-Feb-26 02:40:09 GMT"}, [9, 1.0]),
    "no date": ({"retry_after": "Mon, 99 Foo 2026 02:40:09"}, [0.5, 1.0]),
    "words": ({"retry_after": "later"}, [0.5, 1.0]),
    "less than nothing": ({"retry_after": "-9"}, [0.5, 1.0]),
    "no number": ({"body": error_body(retry_after=True)}, [0.5, 1.0]),
    "a minute": ({"retry_after": 60}, [60, 60]),
    "a strategy": ({"retry_strategy": STRATEGY}, [2.0, 4.0]),
    "a strategy, to its limit": (
        {"retry_strategy": dict(STRATEGY, multiplier=3)}, [2.0, 5.0]),
    "a strategy and seconds": (
        {"retry_strategy": STRATEGY, "retry_after": 3}, [3, 4.0]),
    "half a strategy": (
        {"retry_strategy": {"multiplier": 3}}, [0.5, 1.5]),
    "no strategy": ({"retry_strategy": [1]}, [0.5, 1.0]),
    "a strategy of nonsense": (
        {"retry_strategy": {"initial_delay_ms": "x", "max_delay_ms": None,
                            "multiplier": -1, "jitter": "y"}}, [0.5, 1.0]),
}


@pytest.mark.parametrize("fault, waits", WAITS.values(), ids=WAITS)
def test_the_server_has_a_say_in_the_wait(run, router, clock, fault, waits):
    router.order("*", times=None, status=429, **fault)
    shown = run(*CHAT)
    assert shown.exit_status == 6, shown
    assert clock.slept == waits
    assert len(router.requests) == 3


@pytest.mark.parametrize("strategy, is_exact", [(STRATEGY, False), (
    dict(STRATEGY, jitter=False), True)])
def test_a_strategy_may_do_without_jitter(run, router, clock, strategy,
                                          is_exact):
    clock.jitter = lambda: 1.0
    router.order("*", times=None, status=503, retry_strategy=strategy)
    run(*CHAT, "--retries", "1")
    assert (clock.slept == [2.0]) == is_exact


@pytest.mark.parametrize("fault", [
    {"retry_after": 61}, {"retry_after": "99999999999999999999"},
    {"retry_after": http_date(NOW + 90)},
    {"body": b'{"error":{"retry_after":1e99}}'},
    {"retry_strategy": dict(STRATEGY, initial_delay_ms=90000,
                            max_delay_ms=90000)}])
def test_a_long_wait_is_told_and_not_slept_through(run, router, clock,
                                                   fault):
    router.order("*", status=503, **fault)
    shown = run(*CHAT)
    assert shown.exit_status == 6, shown
    assert clock.slept == [] and len(router.requests) == 1
    if fault == {"retry_after": 61}:
        assert "61 s" in facts_of(shown)["hint"]


@pytest.mark.parametrize("code", [None, 429, "capacity_exceeded", ["x"]])
def test_any_other_code_is_waited_for(run, router, clock, code):
    router.order("*", status=429, code=code)
    assert run(*CHAT).exit_status == 0
    assert clock.slept == [0.5]


def test_no_wait_goes_over_the_limit_of_the_call(run, router, clock):
    router.order("*", times=None, status=503, retry_after=3)
    assert run(*CHAT, "--max-time", "5").exit_status == 6
    assert clock.slept == [3] and len(router.requests) == 2


# -- a DELETE that is repeated ----------------------------------------------

DELETES = xeroctl.Group("things", "Things.", "/conversations",
                        verbs=(xeroctl.deletes(),))


@pytest.mark.parametrize("argv", [
    ("api", "DELETE", "/conversations/conv_9"),
    ("things", "delete", "conv_9", "--force"),
    ("things", "delete", "conv_9", "--force", "-o", "json")],
    ids=["api", "a group", "a group in JSON"])
@pytest.mark.parametrize("fault, code", [
    ({"status": 500}, 0), ({"drop": "after"}, 0), ({"status": 404}, 4)],
    ids=["failed", "lost", "answered"])
def test_what_a_repeated_delete_does_not_find_is_gone(
        run, router, argv, fault, code):
    router.order("DELETE *", **fault)
    shown = run(*argv, groups=(DELETES,) + xeroctl.GROUPS)
    assert shown.exit_status == code, shown
    assert "internal error" not in shown.stderr
    assert len(router.requests) == (2 if code == 0 else 1)


# -- redirects --------------------------------------------------------------

REDIRECTS = 301, 302, 303, 307, 308
TARGET = "/proj_demo/v1/models?limit=1"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_on_the_same_origin_is_followed(run, router, status,
                                                   method):
    for target in (TARGET, router.origin + TARGET, "models?limit=1"):
        router.order("*", status=status, redirect=target)
        router.requests = []
        shown = run("api", method, "/old")
        assert shown.exit_status == 0, shown
        first, second = router.requests
        assert second.target == TARGET and second.method == method
        assert second.headers["Authorization"] == "Bearer " + DEMO_KEY


@pytest.mark.parametrize("location, target", [
    (TARGET + "#top", TARGET), ("?limit=1", "/proj_demo/v1/old?limit=1"),
    ("{}?a=1", "/?a=1"), ("{}", "/"), ("{}#top", "/")])
def test_a_redirect_leads_to_what_it_says(run, router, location, target):
    router.order("*", redirect=location.format(router.origin))
    run("api", "/old")
    assert router.requests[1].target == target


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", REDIRECTS)
def test_a_redirect_to_another_origin_is_refused(run, router, other, status,
                                                 method):
    target = other.base_url + "/models"
    router.order("*", status=status, redirect=target)
    shown = run("api", method, "/models")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert target in error_of(shown)
    assert len(router.requests) == 1 and other.requests == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
@pytest.mark.parametrize("status", REDIRECTS)
def test_what_changes_something_follows_no_redirect(run, router, status,
                                                    method):
    router.order("*", status=status, redirect=TARGET)
    shown = run("api", method, "/things")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert TARGET.partition("?")[0] in error_of(shown)
    assert "?" not in error_of(shown)  # a signature may stand there
    assert len(router.requests) == 1


def test_redirects_in_a_circle_come_to_an_end(run, router):
    router.order("*", times=None, redirect="/proj_demo/v1/round?sig=s3cret")
    shown = run("api", "/round")
    assert shown.exit_status == 1 and "s3cret" not in shown.stderr, shown
    assert "/proj_demo/v1/round" in error_of(shown)
    assert 2 < len(router.requests) <= 20


@pytest.mark.parametrize("target", [
    "https://127.0.0.1/v1", "//elsewhere.example/v1", "file:///etc/passwd",
    "data:,hello", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/",
    "http://[oops/"])
def test_no_redirect_leads_out_of_http(run, router, target):
    router.order("*", redirect=target)
    shown = run("api", "/models")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert target in error_of(shown)
    assert "internal error" not in shown.stderr
    assert len(router.requests) == 1


@pytest.mark.parametrize("target", ["/proj_demo/v1/m\xf6dels",
                                    "/proj_demo/v1/my models"])
def test_a_redirect_in_need_of_quoting_is_no_internal_error(
        run, router, clock, target):
    router.order("*", redirect=target)
    shown = run("api", "/models")
    assert shown.exit_status in (1, 4), shown
    assert "internal error" not in shown.stderr
    assert clock.slept == []


@pytest.mark.parametrize("location", [None, ""])
def test_a_redirect_to_nowhere_is_an_error(run, router, location):
    router.order("*", status=302, headers={"Location": location})
    shown = run("api", "/models")
    assert shown.exit_status == 1 and "HTTP 302" in error_of(shown), shown


# -- what an error says -----------------------------------------------------

@pytest.mark.parametrize("body, message", [
    (b"no\r\n json \x1b[31m at all", "no json \\x1b[31m at all"),
    (b"x" * 999, "x" * 300),
    ("é€😀".encode(), "é€😀"),
    (b"\xff\xfe", None), (b"[" * 99999, "[" * 300),
    (b'{"a":' + b"9" * 5000 + b"}", None)])
def test_a_body_that_is_no_json_is_shown_in_short(run, router, body,
                                                  message):
    router.order("*", status=400, body=body)
    shown = run(*CHAT)
    assert shown.exit_status == 1, shown
    assert "internal error" not in shown.stderr
    assert len(error_of(shown)) <= len("error: HTTP 400 ") + 300
    if message is not None:
        assert error_of(shown) == f"error: HTTP 400 {message}"


@pytest.mark.parametrize("status", [404, 502, 200])
def test_a_page_of_a_proxy_is_told_in_short(run, router, status):
    router.order("*", html=True, status=status)
    shown = run(*CHAT)
    assert shown.exit_status == {404: 4}.get(status, 1), shown
    assert "502 Bad Gateway" in error_of(shown)
    assert "<" not in shown.stderr and "hr" not in error_of(shown).split()


@pytest.mark.parametrize("reason, said", [
    ("", "HTTP 418"), ("Tea", "HTTP 418 Tea")])
def test_an_error_without_a_body_says_its_reason(run, router, reason, said):
    router.order("*", status=418, body=b"", reason=reason)
    shown = run(*CHAT)
    assert shown.exit_status == 1
    assert error_of(shown) == "error: " + said


def test_a_message_beats_the_reason(run, router):
    router.order("*", status=400, message="No.", reason="")
    assert error_of(run(*CHAT)) == "error: HTTP 400 No."


# (status, code of the error): a word of the hint
HINTS = {
    (401, None): "--api-key", (403, "scope_insufficient"): "scope",
    (404, "endpoint_not_found"): "--endpoint", (404, None): "base URL",
    (429, "quota_exceeded"): "quota", (503, None): "again",
    (503, "endpoint_inactive"): "not active yet",
}


@pytest.mark.parametrize("status, code", HINTS)
def test_an_error_names_the_next_thing_to_try(run, router, status, code):
    router.order("*", times=None, status=status, code=code)
    shown = run(*CHAT, "--retries", "0")
    hint = facts_of(shown)["hint"]
    assert HINTS[status, code] in hint and hint.count("again") < 2
    quiet = run(*CHAT, "--retries", "0", "-q")
    assert error_of(quiet) == error_of(shown)
    assert "hint" not in facts_of(quiet)


def test_the_error_of_a_wrong_slug_is_the_routers_own(run, router):
    shown = run("chat", "--endpoint", "demmo", "-m", "hi")
    assert shown.exit_status == 4
    assert error_of(shown) == "error: HTTP 404 Endpoint 'demmo' not found."
    assert facts_of(shown)["code"] == "endpoint_not_found"


def test_the_envelope_is_shown_as_it_came_where_json_is_due(run, router):
    envelope = {"error": {"message": "Nö.", "type": "t", "code": 7,
                          "extra": {"z": 1, "a": None}}, "more": []}
    router.order("*", status=400, body=json.dumps(envelope).encode())
    shown = run(*CHAT, "-o", "json")
    assert (shown.exit_status, shown) == (1, "")
    assert shown.stderr == json.dumps(envelope, ensure_ascii=False,
                                      indent=2) + "\n"


@pytest.mark.parametrize("argv, environ", [
    (CHAT, {"XEROTIER_BASE_URL": "http://127.0.0.1/p"}),
    (CHAT + ("--retries", "x"), {}),
    (CHAT + ("--retries=0",), {"XEROTIER_BASE_URL": "closed"})])
def test_an_error_of_ours_is_an_envelope_too(run, closed_port, argv,
                                             environ):
    if environ.get("XEROTIER_BASE_URL") == "closed":
        environ = {"XEROTIER_BASE_URL": f"http://127.0.0.1:{closed_port}/v1"}
    plain, shown = run(*argv, **environ), run(*argv, "-o", "json", **environ)
    assert plain.exit_status == shown.exit_status != 0
    about = json.loads(shown.stderr)["error"]
    assert "error: " + about["message"] == error_of(plain)
    assert {"message", "type", "code", "param"} <= set(about)


# -- answers that are not what HTTP promises --------------------------------

@pytest.mark.parametrize("said", [
    b"\r\n", b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}"])
def test_a_server_that_speaks_no_http_is_told(run, clock, said):
    with Sayer(said) as server:
        shown = run("api", "POST", "/x", against=None, XEROTIER_API_KEY="k",
                    XEROTIER_BASE_URL=server.base_url)
        assert server.calls == 1
    assert (shown.exit_status, shown) == (5, ""), shown
    assert error_of(shown).startswith("error: HTTP: ")
    assert clock.slept == []


def test_an_answer_cut_anywhere_is_no_success(run):
    whole = (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
             b"Content-Length: 8\r\n\r\n" + b'{"a": 1}')
    with Sayer(whole) as server:
        environ = {"XEROTIER_BASE_URL": server.base_url,
                   "XEROTIER_API_KEY": "k"}
        for count in range(len(whole)):
            server.said = whole[:count]
            shown = run("api", "POST", "/x", against=None, **environ)
            assert (count, shown.exit_status) == (count, 5), shown
            assert shown == "" and error_of(shown)
        server.said = whole
        assert run("api", "POST", "/x", against=None, **environ) == (
            '{\n  "a": 1\n}\n')


def test_an_interim_answer_is_not_the_answer(run):
    said = (b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nNo.")
    with Sayer(said) as server:
        shown = run("api", "/x", against=None, XEROTIER_API_KEY="k",
                    XEROTIER_BASE_URL=server.base_url)
        assert server.calls == 1
    assert shown.exit_status == 4, shown
    assert error_of(shown) == "error: HTTP 404 No."


LISTS = b'{"object":"list","data":[],"has_more":false}'


# A gateway may compress whatever was asked for, have undone that and say so
# all the same, or name what codes no bytes (utf-8, aws-chunked).
@pytest.mark.parametrize("coding", ["gzip", "X-Gzip", "aws-chunked, gzip"])
@pytest.mark.parametrize("status, text", [
    (200, b'{"data": [{"id": "m1"}]}'), (400, b'{"error": "m1 is gone"}')])
def test_an_answer_in_gzip_is_read(run, router, coding, status, text):
    router.order("*", status=status, body=gzip.compress(text),
                 headers={"Content-Encoding": coding})
    shown = run("models", "-o", "id")
    assert shown.exit_status == (status == 400)
    assert "m1" in (shown.stderr if status == 400 else shown)


@pytest.mark.parametrize("coding", ["", "gzip", "utf-8", "none", "Identity",
                                    "aws-chunked"])
@pytest.mark.parametrize("body", [b'{"data": [{"id": "m1"}]}', b"1", b""])
def test_a_body_that_is_not_coded_is_read_as_it_is(run, router, coding, body):
    router.order("*", body=body, headers={"Content-Encoding": coding})
    shown = run("api", "/models", "-o", "json")
    assert shown.exit_status == 0, shown.stderr
    assert json.loads(shown or "{}") == json.loads(body.decode() or "{}")


def test_a_stream_in_gzip_is_shown(run, router):
    frames = (b'data: {"choices":[{"delta":{"content":"Hey"}}]}\n\n'
              b"data: [DONE]\n\n")
    router.order("*", body=gzip.compress(frames), headers={
        "Content-Encoding": "gzip", "Content-Type": "text/event-stream"})
    assert run(*CHAT, "--stream", "-q") == "Hey\n"


def test_a_body_longer_than_its_length_ends_there(run, router):
    router.order("*", raw=LISTS + b"HTTP/1.1 500 Oops", lie=-17)
    shown = run("api", "/models")
    assert shown.exit_status == 0, shown
    assert json.loads(shown) == json.loads(LISTS)


@pytest.mark.parametrize("fault", [
    {"frames": [b"a", b"b"]}, {"raw": b"{}"}, {"status": 204}])
def test_an_answer_to_head_has_no_body(run, router, clock, fault):
    router.order("HEAD *", **fault)
    shown = run("api", "HEAD", "/models")
    assert (shown.exit_status, clock.slept) == (0, []), shown


def test_an_answer_without_content_is_a_success(run, router):
    router.order("DELETE *", status=204)
    assert run("api", "DELETE", "/things/1").exit_status == 0


# -- time -------------------------------------------------------------------

# What is silent for too long speaks after two seconds: a client that waits
# on fails its test, and does not hang it.

class Patience:
    """An event that comes by itself after a while."""

    def __init__(self, seconds):
        self.ends = time.monotonic() + seconds

    def wait(self, seconds):
        time.sleep(seconds)
        return time.monotonic() > self.ends


@pytest.mark.parametrize("method, often", [("GET", 3), ("POST", 1)])
def test_silence_is_a_lost_answer(run, router, method, often):
    router.order("*", times=None, delay=2)
    shown = run("api", method, "/x", "--timeout", "0.03", "-v")
    assert (shown.exit_status, attempts(shown)) == (5, often), shown
    assert "--timeout" in facts_of(shown)["hint"]


def test_silence_within_a_stream_ends_it(run, router):
    frame = b'data: {"choices":[{"delta":{"content":"He"}}]}\n\n'
    router.order("*", frames=[frame, frame], gate=(1, Patience(2)))
    shown = run(*CHAT, "--stream", "--timeout", "0.2")
    assert (shown.exit_status, shown) == (7, "He\n"), shown


def test_a_slow_answer_is_not_silence(run, router):
    router.order("*", raw=b'{"a":"0123456789"}', drip=True, drip_delay=0.012)
    shown = run("api", "/x", "--timeout", "0.2")
    assert shown.exit_status == 0, shown


def test_the_whole_call_has_a_limit(run, router, clock):
    clock.monotonic = time.monotonic
    router.order("*", raw=b" " * 999, drip=True, drip_delay=0.01)
    started = time.monotonic()
    shown = run("api", "/x", "--max-time", "0.1", "-v")
    assert time.monotonic() - started < 5
    assert shown.exit_status == 5 and "--max-time" in error_of(shown), shown
    assert attempts(shown) == 1


# -- base URLs --------------------------------------------------------------

@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "data:,hello/v1", "ftp://127.0.0.1/p/v1",
    "127.0.0.1/p/v1", "http:///p/v1", "http://", "https:/p/v1",
    "http://h:port/p/v1", "http://h:99999/p/v1", "http://h:0/p/v1",
    "http://[::1/p/v1", "http://h/p?a=/v1", "http://h/p#/v1",
    "http://h/p /v1", "http://h/p\n/v1", "http://h/\xe9/v1",
    "http://h/\udcff/v1"])
def test_what_is_no_base_url_is_refused(run, router, url):
    for more in (("--base-url", url), ("--base-url", url, "--curl")):
        shown = run("api", "/models", *more)
        assert (shown.exit_status, shown) == (3, ""), shown
        assert "--base-url" in error_of(shown)
        assert "internal error" not in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("url", [
    "http://joe:s3same@h/p/v1", "https://s3same@h/p/v1",
    "http://joe:s3same@h:port/p/v1", "ftp://joe:s3same@h/p/v1",
    "http://joe:s3same@h/p/v1?x", "http://joe:s3same@[::1/p/v1"])
def test_credentials_in_a_base_url_are_refused_unseen(run, router, url):
    shown = run("api", "/models", XEROTIER_BASE_URL=url)
    assert (shown.exit_status, shown) == (3, ""), shown
    assert "s3same" not in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("path", ["", "/proj_demo", "/proj_demo/v2",
                                  "/proj_demo/v1/chat", "/proj_demo/xv1"])
def test_a_base_url_without_v1_is_told(run, router, path):
    shown = run(*CHAT, XEROTIER_BASE_URL=router.origin + path)
    assert shown.exit_status == 3, shown
    assert "/v1" in shown.stderr and router.requests == []


@pytest.mark.parametrize("slashes", ["", "/", "///"])
def test_the_slug_goes_before_v1_and_slashes_do_not_matter(run, router,
                                                           slashes):
    more = ("--base-url", router.base_url + slashes)
    assert run(*CHAT, *more).exit_status == 0
    assert run("api", "/models", *more).exit_status == 0
    assert run("api", "models", "--endpoint", "demo", *more).exit_status == 0
    assert [seen.target for seen in router.requests] == [
        "/proj_demo/demo/v1/chat/completions", "/proj_demo/v1/models",
        "/proj_demo/demo/v1/models"]


@pytest.mark.parametrize("slug, path", [
    ("a/b", "a%2Fb"), ("é ?#", "%C3%A9%20%3F%23"), ("a%2Fb", "a%252Fb")])
def test_a_slug_is_quoted_whole(run, router, slug, path):
    shown = run("chat", "--endpoint", slug, "-m", "hi")
    assert shown.exit_status == 4, shown
    seen, _ = router.requests  # then it looks for one that is like it
    assert seen.path == f"/proj_demo/{path}/v1/chat/completions"


@pytest.mark.parametrize("slug", [".", ".."])
def test_a_slug_of_dots_climbs_nowhere(run, router, slug):
    assert run("chat", "--endpoint", slug, "-m", "hi").exit_status == 2
    assert router.requests == []


def test_style_openai_takes_any_path_and_no_key(run, router):
    shown = run(*CHAT, against=None, XEROTIER_STYLE="openai",
                XEROTIER_BASE_URL=router.origin + "/proxy")
    assert shown.exit_status == 4 and "No route" in error_of(shown)
    seen, = router.requests
    assert seen.target == "/proxy/chat/completions"
    assert "Authorization" not in seen.headers


@pytest.mark.parametrize("environ, said", [
    ({"XEROTIER_BASE_URL": None}, "XEROTIER_BASE_URL"),
    ({"XEROTIER_BASE_URL": ""}, "XEROTIER_BASE_URL"),
    ({"XEROTIER_API_KEY": None}, "XEROTIER_API_KEY"),
    ({"XEROTIER_API_KEY": ""}, "XEROTIER_API_KEY")])
def test_what_is_not_configured_is_told_both_ways(run, router, environ,
                                                  said):
    environ = dict({"XEROTIER_BASE_URL": router.base_url,
                    "XEROTIER_API_KEY": router.key}, **environ)
    shown = run(*CHAT, against=None, **environ)
    assert shown.exit_status == 3, shown
    assert said in shown.stderr
    assert "--" + said[9:].lower().replace("_", "-") in shown.stderr
    assert router.requests == []


def test_an_empty_variable_counts_as_unset(run, router):
    assert run(*CHAT, XEROTIER_OUTPUT="", XEROTIER_STYLE="",
               XEROTIER_ENDPOINT="").exit_status == 0


def test_a_url_is_called_on_its_own_origin_only(run, router, other):
    assert run("api", router.base_url + "/models").exit_status == 0
    shown = run("api", other.base_url + "/models")
    assert shown.exit_status == 2, shown
    assert len(router.requests) == 1 and other.requests == []


# -- keys -------------------------------------------------------------------

@pytest.mark.parametrize("key", [
    "s3same\nX-Evil: 1", "s3same\r\nx", "s3same open", "s3sameé",
    "s3same\x00", "s3same\udcff", "s3same\x7f"])
def test_a_key_that_no_header_carries_is_refused_unseen(run, router, key,
                                                        tmp_path):
    path = tmp_path / "key"
    path.write_bytes(key.encode("utf-8", "surrogateescape"))
    for argv, environ in (
            ((), {"XEROTIER_API_KEY": key}), (("--api-key", key), {}),
            (("--api-key", f"@{path}"), {})):
        shown = run(*CHAT, "-vv", *argv, XEROTIER_DEBUG="1", **environ)
        assert (shown.exit_status, shown) == (3, ""), shown
        assert "key" in error_of(shown) and "s3same" not in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("form", ["{}", "{}\n", "{}\r\n", "  {}\n\n",
                                  "\ufeff{}\n"])
@pytest.mark.parametrize("place", ["@", "-"])
def test_a_key_is_read_from_a_file_or_standard_input(run, router, tmp_path,
                                                     place, form):
    text = form.format(DEMO_KEY).encode()
    path = tmp_path / "my key"
    path.write_bytes(text)
    given = "-" if place == "-" else f"@{path}"
    shown = run(*CHAT, "--api-key", given, stdin=text,
                XEROTIER_API_KEY="wrong")
    assert shown.exit_status == 0, shown
    seen, = router.requests
    assert seen.headers["Authorization"] == "Bearer " + DEMO_KEY


@pytest.mark.parametrize("name", ["missing", "", "empty"])
def test_a_key_that_is_not_to_be_had_is_told(run, router, tmp_path, name):
    (tmp_path / "empty").write_bytes(b"\n")
    shown = run(*CHAT, "--api-key", f"@{tmp_path / name}")
    assert shown.exit_status == 3, shown
    assert router.requests == []


def test_key_and_message_cannot_both_be_standard_input(run, router):
    shown = run("chat", "--endpoint", "demo", "-m", "-", "--api-key", "-",
                stdin=DEMO_KEY.encode())
    assert shown.exit_status == 2, shown
    assert "--message" in shown.stderr and "--api-key" in shown.stderr
    assert router.requests == []


@pytest.mark.parametrize("url, is_warned", [
    (f"http://{NO_HOST}/p/v1", True), (f"http://127.{NO_HOST}/p/v1", True),
    (f"http://localhost.{NO_HOST}/p/v1", True),
    (f"https://{NO_HOST}/p/v1", False),
    ("http://127.0.0.1:{port}/p/v1", False),
    ("http://127.8.9.1:{port}/p/v1", False),
    ("http://localhost:{port}/p/v1", False),
    ("http://LOCALHOST:{port}/p/v1", False),
    ("http://[::1]:{port}/p/v1", False)])
def test_a_key_in_the_clear_is_warned_of_off_the_loopback(
        run, closed_port, url, is_warned):
    url = url.format(port=closed_port)
    shown = run(*CHAT, "--retries", "0", XEROTIER_BASE_URL=url)
    assert shown.exit_status == 5, shown
    warnings = [line for line in shown.stderr.splitlines()
                if line.startswith("warning: ")]
    assert len(warnings) == is_warned
    assert NO_HOST in "".join(warnings) or not is_warned


def test_nothing_is_warned_of_without_a_key(run):
    shown = run(*CHAT, "--retries", "0", "--style", "openai", against=None,
                XEROTIER_BASE_URL=f"http://{NO_HOST}/v1")
    assert shown.exit_status == 5 and "warning" not in shown.stderr


@pytest.mark.parametrize("form", ["table", "json", "jsonl"])
@pytest.mark.parametrize("how", ["--dry-run", "--curl"])
@pytest.mark.parametrize("key", [DEMO_KEY, "sk-0123456789", "xero_a_b_c"])
def test_the_key_is_seen_in_no_plan(run, router, key, how, form):
    secret = ("--header", "X-Api-Key: s3same", "--header",
              f"X-Copy: {key}", "--header", "Cookie: a=s3same")
    shown = run(*CHAT, how, "-o", form, *secret, "-vv",
                XEROTIER_API_KEY=key)
    assert shown.exit_status == 0, shown
    assert key not in shown and key not in shown.stderr
    assert "s3same" not in shown + shown.stderr
    assert router.requests == []


# -- headers and bodies -----------------------------------------------------

def test_each_request_says_who_asks_for_what(run, router):
    run(*CHAT)
    run(*CHAT, "--stream")
    run("api", "/models")
    agent = "xeroctl/{} (Python {}.{}; {})".format(
        xeroctl.__version__, *sys.version_info[:2], platform.system())
    accepts = ["application/json", "text/event-stream", "*/*"]
    for seen, accept in zip(router.requests, accepts):
        assert seen.headers["User-Agent"] == agent
        assert seen.headers.get_all("Accept") == [accept]
        assert seen.headers["Authorization"] == "Bearer " + DEMO_KEY
        assert seen.headers["Content-Type"] == (
            "application/json" if seen.body else None)


def test_a_body_is_compact_utf8(run, router):
    run("chat", "--endpoint", "demo", "-m", "hé €")
    assert router.requests[0].body == (
        '{"model":"demo","messages":[{"role":"user","content":"hé €"}],'
        '"stream":false}').encode()


def test_a_stream_asks_for_its_usage(run, router):
    run(*CHAT, "--stream")
    seen, = router.requests
    assert seen.json == {
        "model": "demo", "messages": [{"role": "user", "content": "hi"}],
        "stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("given, sent", [
    ("h\udcc3\udca9", "hé"), ("a\udcffb", "a\ufffdb"),
    ("\udcff", "\ufffd"), ("😀", "😀")])
def test_bytes_that_python_smuggled_in_reach_the_wire_as_text(
        run, router, given, sent):
    shown = run("chat", "--endpoint", "demo", "-m", given)
    assert shown.exit_status == 0, shown
    seen, = router.requests
    assert json.loads(seen.body.decode())["messages"][0]["content"] == sent


def test_half_a_character_never_raises(run, router):
    shown = run("chat", "--endpoint", "demo", "-m", "a\ud83d",
                "--model", "\ud83d", "--header", "X-A: b")
    assert shown.exit_status == 0, shown
    router.requests[0].body.decode("utf-8")
    router.order("*", raw=b'{"a":"\\ud83d"}')
    assert json.loads(run("api", "/x"))["a"] == "\ud83d"


# (--header values, header name, what arrives)
GIVEN_HEADERS = [
    (["X-A: b"], "X-A", ["b"]), (["X-A:b"], "X-A", ["b"]),
    (["X-A:  b: c  "], "X-A", ["b: c"]), (["X-A:"], "X-A", [""]),
    (["accept: text/plain"], "Accept", ["text/plain"]),
    (["user-agent: me"], "User-Agent", ["me"]),
    (["content-type: x/y"], "Content-Type", ["x/y"]),
    (["AUTHORIZATION: Basic b"], "Authorization", ["Basic b"]),
    (["X-A: b", "X-C: d"], "X-C", ["d"]),
    (["X-A: b", "X-A: c"], "X-A", ["c"]),
    (["X-A: caf\xe9"], "X-A", ["caf\xe9"]),
]


@pytest.mark.parametrize("values, name, arrives", GIVEN_HEADERS)
def test_given_headers_beat_ours(run, router, values, name, arrives):
    words = [word for value in values for word in ("--header", value)]
    run(*CHAT, *words)
    seen, = router.requests
    assert seen.headers.get_all(name) == arrives


@pytest.mark.parametrize("value", [
    "X-A", "X-A b", ": b", "X A: b", "X-A : b", "X-\xe9: b", "X-A: b\nC: d",
    "X-A: b\r\nC: d", "X-A: b\x00", "X-A: €", "X-A: \udcff", "X\n: b", ""])
def test_a_header_that_cannot_be_sent_is_a_usage_error(run, router, value):
    shown = run(*CHAT, "--header", value)
    assert (shown.exit_status, shown) == (2, ""), shown
    assert "--header" in error_of(shown)
    assert router.requests == []


# -- telling more -----------------------------------------------------------

def test_verbose_tells_each_request_in_a_line(run, router):
    router.order("*", status=503)
    shown = run(*CHAT, "-v", "-q")
    url = router.origin + "/proj_demo/demo/v1/chat/completions"
    assert shown.stderr.splitlines() == [
        f"POST {url} 503 0 ms req_1 attempt 1",
        f"POST {url} 200 0 ms req_2 attempt 2"]


def test_verbose_tells_what_failed(run, router, closed_port):
    router.order("*", drop="after")
    assert " failed 0 ms - attempt 1\n" in run(*CHAT, "-v").stderr
    url = f"http://127.0.0.1:{closed_port}/v1"
    shown = run("api", "/x", "-v", XEROTIER_BASE_URL=url)
    assert attempts(shown) == 3


def test_very_verbose_shows_heads_and_bodies_without_secrets(run, router):
    router.order("*", headers={"Set-Cookie": "a=s3same", "X-B": "c"})
    shown = run(*CHAT, "-vv", "--header", "X-Api-Key: s3same")
    lines = shown.stderr.splitlines()
    assert "> Authorization: Bearer xero_demo_…" in lines
    assert "> X-Api-Key: …" in lines and "< X-B: c" in lines
    assert "> " + router.requests[0].body.decode() in lines
    assert any(line.startswith('< {"id":"chatcmpl-1"') for line in lines)
    assert "s3same" not in shown.stderr
    assert shown == run(*CHAT)


def test_very_verbose_shows_the_body_of_an_error(run, router):
    body = b'{"error":{"message":"No.","inner":{"why":"because"}}}'
    router.order("*", status=400, body=body)
    shown = run(*CHAT, "-vv")
    assert [line for line in shown.stderr.splitlines()
            if line.startswith("< ") and "because" in line], shown


# -- plans: nothing is sent -------------------------------------------------

NEW_CHAT = ("chat", "new", "--workspace", "ws_kube_prod", "--template",
            "ctpl_01HDRAIN", "-m", "hi")


def test_curl_of_two_requests_is_an_array_in_json(run, router):
    shown = json.loads(run(*NEW_CHAT, "--curl", "-o", "json"))
    assert [list(each) for each in shown] == [["curl"], ["curl"]]
    assert "<chat id>" in shown[1]["curl"]
    one = json.loads(run(*CHAT, "--curl", "-o", "json"))
    assert one["curl"].startswith("curl ")
    assert router.requests == []


needs_curl = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("bash")),
    reason="curl or bash is not installed")

NASTY = "it's \"$HOME\" `id` $(id) \\ !x\n@file {a,b} 'é' #*?~"

# Command lines, and what they read from standard input.
CURLED = {
    "a chat": (CHAT, b""),
    "a stream": (CHAT + ("--stream",), b""),
    "nasty text": (("chat", "--endpoint", "demo", "-m", NASTY), b""),
    "text like a file": (("api", "POST", "/x", "--input", "-"),
                         b"@/etc/hostname"),
    "bytes with line ends": (("api", "POST", "/x", "--input", "-"),
                             b'{"a":\r\n 1}\n\n'),
    "a nasty header": (CHAT + ("--header", "X-A: it's \"$HOME\" `id` \\ !x"),
                       b""),
    "a query": (("api", "/models?limit=2&offset=1"), b""),
    "brackets in a query": (("api", "/models?ids[]=[1-3]"), b""),
    "a slug to quote": (("chat", "--endpoint", "a/b é", "-m", "hi"), b""),
    "a DELETE": (("api", "DELETE", "/conversations/c_1"), b""),
    "a PUT of fields": (("api", "PUT", "/x", "--field", "a=[1]"), b""),
    "a POST of nothing": (("api", "POST", "/x"), b""),
    "a HEAD": (("api", "HEAD", "/models"), b""),
}


def in_bash(command, key, home):
    """Run a command of --curl as a person would, with a home of its own."""
    environ = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home),
               "XEROTIER_API_KEY": key}
    return subprocess.run(
        ["bash", "-c", command], env=environ, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=9).returncode


@needs_curl
@pytest.mark.parametrize("argv, stdin", CURLED.values(), ids=CURLED)
def test_the_curl_command_asks_the_same(run, router, tmp_path, argv, stdin):
    run(*argv, stdin=stdin)
    shown = run(*argv, "--curl", stdin=stdin)
    assert in_bash(shown, router.key, tmp_path) == 0
    ours, *looked_up, curls = router.requests  # for the name of a 404
    assert all(each.target.endswith("/v1/endpoints") for each in looked_up)
    assert (ours.method, ours.target) == (curls.method, curls.target)
    assert ours.body == curls.body
    for name in ("Authorization", "Content-Type", "X-A"):
        assert ours.headers[name] == curls.headers[name], name


@needs_curl
def test_the_curl_command_of_style_openai_runs(run, openai_router, tmp_path):
    key = 'sk-"$HOME`\\\''
    openai_router.add_key(key, "inference")
    shown = run(*CHAT, "--style", "openai", "--curl", against=openai_router,
                XEROTIER_API_KEY=key)
    assert key not in shown
    assert in_bash(shown, key, tmp_path) == 0
    seen, = openai_router.requests
    assert seen.target == "/v1/chat/completions"
    assert seen.headers["Authorization"] == "Bearer " + key
