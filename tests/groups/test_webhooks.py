"""webhooks: what is told of to whom, and whether a delivery is genuine.

Signatures are made by hand here, so that what verify accepts is
what the product's page says, and not what the program itself would sign.
"""

import hashlib
import hmac
import json
import re
from shlex import split

import pytest

from helpers import asked, check_call

pty = pytest.importorskip("pty")

NOW = 1770000000
GROUP = ("webhooks",)
FIRST = "00000001-0000-4000-8004-000000000001"
HOOK = "https://example.com/hook"
MINE = "mine-and-nobody-elses"
NEW = ("webhooks", "--create", "--url", HOOK, "--events",
       "batch.completed,file.deleted")
HEADS = ["ID", "URL", "EVENTS", "ACTIVE", "CREATED"]


@pytest.fixture
def hook(run, router):
    """The id of a webhook that is there."""
    assert run(*NEW).exit_status == 0
    del router.requests[:]
    return FIRST


def column(shown):
    """The first word of each line below the heads of a table."""
    return [line.split()[0] for line in shown.splitlines()[1:]]


# == keeping webhooks ========================================================

def test_a_webhook_comes_and_goes(run, router):
    made = json.loads(run(*NEW, "--description", "ours", "-o", "json"))
    assert column(run("webhooks")) == [made["id"]] == [FIRST]
    changed = json.loads(run("webhooks", FIRST, "--update", "--inactive",
                             "--url", HOOK + "2", "-o", "json"))
    assert (changed["active"], changed["url"]) == (False, HOOK + "2")
    assert changed["description"] == "ours"
    assert run("webhooks", FIRST, "-o", "id") == FIRST + "\n"
    gone = run("webhooks", FIRST, "--delete", "--force")
    assert gone == f"deleted {FIRST}\n" and gone.exit_status == 0
    empty = run("webhooks")
    assert empty == "" and empty.stderr == "No webhooks found.\n"
    assert asked(router) == [
        "POST /webhooks", "GET /webhooks", f"PUT /webhooks/{FIRST}",
        f"GET /webhooks/{FIRST}", f"DELETE /webhooks/{FIRST}",
        "GET /webhooks"]
    assert run("webhooks", FIRST).exit_status == 4


def test_a_list_is_as_the_page_says(run, hook, golden):
    run(*NEW, "--inactive")
    shown = golden("webhooks-list", "webhooks")
    assert shown.splitlines()[0].split() == HEADS


def test_a_record_is_as_the_page_says(hook, golden):
    shown = golden("webhooks-show", "webhooks", hook)
    assert [line.split(":")[0] for line in shown.splitlines()] == (
        HEADS + ["UPDATED", "DESCRIPTION"])


SENT = [
    (f"--create --url {HOOK} --events batch.completed", "POST /webhooks",
     {"url": HOOK, "events": ["batch.completed"]}),
    ("--create --url http://localhost:80/ --events ' file.made , batch.done"
     f" ' --description -x --inactive --secret {MINE}", "POST /webhooks",
     {"url": "http://localhost:80/", "events": ["file.made", "batch.done"],
      "description": "-x", "active": False, "secret": MINE}),
    ("--create --url http://127.0.0.1:1/ --events ox.a --active",
     "POST /webhooks",
     {"url": "http://127.0.0.1:1/", "events": ["ox.a"], "active": True}),
    ("--create --url 'http://[::1]:1/' --events=ox.a", "POST /webhooks",
     {"url": "http://[::1]:1/", "events": ["ox.a"]}),
    (f"{FIRST} --update --url {HOOK}", f"PUT /webhooks/{FIRST}",
     {"url": HOOK}),
    (f"{FIRST} --update --events ox.a,ox.b", f"PUT /webhooks/{FIRST}",
     {"events": ["ox.a", "ox.b"]}),
    (f"--update --active {FIRST}", f"PUT /webhooks/{FIRST}", {"active": True}),
    (f"{FIRST} --update --inactive", f"PUT /webhooks/{FIRST}",
     {"active": False}),
    (f"{FIRST} --update --description ''", f"PUT /webhooks/{FIRST}",
     {"description": ""}),
]


@pytest.mark.parametrize("words, call, body", SENT)
def test_flags_are_sent_and_no_others(run, router, hook, words, call, body):
    check_call(run(*GROUP, *split(words)), router, call, body)


@pytest.mark.parametrize("words, said", [
    ("--create --url http://example.com/ --events ox.a", "https"),
    ("--create --url http://127.0.0.1.example.com/ --events ox.a", "https"),
    (f"--create --url {HOOK} --events a,,b", "--events"),
    (f"--create --url {HOOK} --events ''", "--events"),
    ("--create --url file:///etc/passwd --events ox.a", "file"),
    ("--create --url https:// --events ox.a", "https://"),
    ("--create --url https://a:b@example.com/ --events ox.a", "credentials"),
    (f"{FIRST} --update", "nothing to update"),
    (f"{FIRST} --update --url http://example.com/", "https"),
])
def test_wrong_words_are_refused_before_anything_is_sent(refused, words,
                                                         said):
    assert said in refused(*split(words))


@pytest.mark.parametrize("words", [("--active", "--inactive"),
                                   ("--inactive", "--active")])
def test_of_active_and_inactive_the_last_one_counts(run, router, hook, words):
    assert run("webhooks", hook, "--update", *words).exit_status == 0
    assert router.requests[-1].json == {"active": words[-1] == "--active"}


def test_a_test_event_is_sent_and_seen_among_the_deliveries(run, hook):
    assert run("webhooks", hook, "--test") == "a test event is on its way\n"
    shown = run("webhooks", hook, "--deliveries")
    heads, row = shown.splitlines()
    assert heads.split() == ["ID", "EVENT", "STATUS", "ATTEMPTS", "RESPONSE",
                             "CREATED"]
    assert row.split()[1:] == ["webhook.test", "delivered", "1", "200",
                               "2026-02-02", "02:40", "UTC"]


def test_too_many_tests_are_told_of_and_not_slept_through(run, clock, hook):
    for _ in range(10):
        assert run("webhooks", hook, "--test").exit_status == 0
    shown = run("webhooks", hook, "--test")
    assert shown.exit_status == 6 and "HTTP 429" in shown.stderr
    assert clock.slept == []


# == the secret ==============================================================

@pytest.mark.parametrize("words, secret", [
    ([], r"whsec_[0-9a-f]{32}"), (["--secret", MINE], MINE)])
def test_the_secret_is_shown_once(run, words, secret):
    shown = run(*NEW, *words, "-o", "id", "-vv")
    assert re.match(secret + r"\n\Z", shown)
    assert shown.strip() not in shown.stderr
    assert "warning: keep the secret" in shown.stderr
    for later in (), ("-o", "json"), ("-vv",):
        listed = run("webhooks", FIRST, *later)
        assert shown.strip() not in listed + listed.stderr


def test_the_secret_stands_in_a_table_and_in_json(run):
    assert re.search(r"^secret: +whsec_\w+$", run(*NEW), re.M)
    assert json.loads(run(*NEW, "-o", "json"))["secret"].startswith("whsec_")


def test_no_error_quotes_the_secret(run, router):
    for words in ["-vv"], ["-o", "json"]:
        router.order("POST /webhooks", status=400,
                     message=f"the secret {MINE} is too short")
        shown = run(*NEW, "--secret", MINE, *words)
        assert shown.exit_status == 1 and "too short" in shown.stderr
        assert MINE not in shown + shown.stderr


# == verify ==================================================================

SECRET, BODY = b"whsec_1", b'{"id":"evt_1"}\n'


def signed(timestamp, body=BODY, secret=SECRET):
    message = str(timestamp).encode() + b"." + body
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


@pytest.fixture
def verify(run, router, tmp_path):
    """Verify BODY, signed as it should be unless told otherwise."""
    (tmp_path / "secret").write_bytes(SECRET + b"\r\n")
    (tmp_path / "body").write_bytes(BODY)

    def runner(*words, signature=None, timestamp=NOW, **more):
        shown = run("webhooks", "verify", "--secret-file",
                    str(tmp_path / "secret"), "--signature",
                    signature or signed(timestamp), "--timestamp",
                    str(timestamp), *words, **more)
        assert router.requests == []
        return shown
    return runner


@pytest.mark.parametrize("timestamp", [
    NOW, NOW - 300, NOW + 300, f"{NOW}.5", "2026-02-02T02:40:00Z",
    "2026-02-02T03:44:59+01:00"])
def test_a_good_signature_is_good(verify, tmp_path, timestamp):
    for words, more in [(["--body", str(tmp_path / "body")], {}),
                        (["--body", "-"], {"stdin": BODY})]:
        shown = verify(*words, timestamp=timestamp, **more)
        assert shown == "the signature is good\n" and shown.stderr == ""
        assert shown.exit_status == 0


@pytest.mark.parametrize("timestamp", [
    NOW - 301, NOW + 301, 0, "2026-02-02T02:34:59Z", "yesterday", "",
    "-1", "1" * 300, "nan", "1e9", "2026-02"])
def test_a_timestamp_of_another_time_is_refused(verify, timestamp):
    shown = verify("--body", "-", stdin=BODY, timestamp=timestamp)
    assert shown == "" and shown.exit_status == 1
    assert "within 5 minutes" in shown.stderr


@pytest.mark.parametrize("signature", [
    signed(NOW, secret=b"other"), signed(NOW, BODY.strip()), signed(NOW - 1),
    signed(NOW)[:-1], signed(NOW) + "0", "x", "é", "\udcff",
    "sha256=" + signed(NOW)])
def test_a_forged_signature_is_refused(verify, signature):
    shown = verify("--body", "-", stdin=BODY, signature=signature)
    assert shown == "" and shown.exit_status == 1
    assert "the signature is not that of this body" in shown.stderr


def test_another_body_is_refused(verify):
    for body in b"", BODY * 2, BODY[:-1], b"\xff":
        shown = verify("--body", "-", stdin=body)
        assert shown.exit_status == 1 and "signature" in shown.stderr


def test_bytes_that_are_no_text_are_signed_as_they_are(verify):
    body = b"\x00\xff\r\n\xe2\x80\xa8"
    assert verify("--body", "-", stdin=body,
                  signature=signed(NOW, body)).exit_status == 0


def test_a_verdict_is_json_for_a_program(verify):
    assert json.loads(verify("--body", "-", "-o", "json",
                             stdin=BODY)) == {"ok": True}


def test_no_word_of_the_secret_is_said(verify):
    for more in {}, {"signature": "bad"}, {"timestamp": 1}:
        shown = verify("--body", "-", "-vv", stdin=BODY, **more)
        assert SECRET.decode() not in shown + shown.stderr
        assert signed(NOW) not in shown + shown.stderr


@pytest.mark.parametrize("words", [
    ["--body", "-", "--secret-file", "no-such-file"],
    ["--body", "no-such-file"], ["--secret-file", "-", "--body", "-"]])
def test_what_cannot_be_read_is_a_wrong_argument(verify, words):
    shown = verify(*words, stdin=SECRET)
    assert shown.exit_status == 2 and shown == ""
    assert words[-1] in shown.stderr


def test_standard_input_is_read_only_where_it_is_named(verify):
    shown = verify(stdin=BODY)
    assert shown.exit_status == 2 and "--body is missing" in shown.stderr


def test_an_empty_secret_is_none(refused, tmp_path):
    (tmp_path / "none").write_bytes(b"\n")
    assert "no secret" in refused(
        "verify", "--secret-file", str(tmp_path / "none"), "--signature",
        signed(NOW, secret=b""), "--timestamp", str(NOW), "--body", "-",
        stdin=BODY)
