"""Errors in any shape are told in one line, and asked again where it helps.

Where servers put a message, what stands for one where there is none, which
statuses are asked again, and what a failure that lasts says while it lasts.
"""

import json

import pytest

from test_runs import Job

GET = "api", "/things"
POST = "api", "POST", "/things"

# What a body says: (body, the message)
SAID = [
    ({"error": {"message": "No."}}, "No."), ({"error": "No."}, "No."),
    ({"detail": "No."}, "No."), ({"message": "No."}, "No."),
    ({"errors": [{"message": "No."}]}, "No."),
    ({"error": [{"message": "No."}]}, "No."), ({"errors": "No."}, "No."),
    ([{"error": {"message": "No.", "status": "X"}}], "No."),
    ({"message": {"detail": "No."}}, "No."),
    ({"error": {"message": {"detail": "No."}}}, "No."),
    ({"detail": [{"loc": ["body", "n"], "msg": "No."}]}, "body.n: No."),
    ({"errors": ["No.", "Never."]}, "No.; Never."),
    ({"detail": {"error": "No."}}, "No."), ({"error": {"detail": "No."}},
                                            "No."),
    ({"type": "auth_error", "code": "out"}, "auth_error, out"),
    ({"error": {"type": "auth_error"}}, "auth_error"),
    ({"error": {"code": 17}}, "17"),
]


def first_line(shown):
    return shown.stderr.splitlines()[0]


@pytest.mark.parametrize("body, said", SAID)
def test_a_message_is_found_where_servers_put_it(run, router, body, said):
    router.order("*", times=None, status=403, body=json.dumps(body).encode())
    shown = run(*GET)
    assert shown.exit_status == 3
    line = first_line(shown)
    assert line.startswith("error: HTTP 403 ") and line.endswith(said), line


@pytest.mark.parametrize("body", [
    None, 5, [], {}, {"error": None}, {"error": {}}, {"error": [[]]},
    {"errors": {}}, [[[]]], {"detail": [None, 3]}, {"error": {"message": 1}},
    {"code": [1], "type": {}}, {"message": {"message": {"message": {}}}}])
def test_no_shape_of_an_error_is_too_odd(run, router, body):
    router.order("*", times=None, status=400, body=json.dumps(body).encode())
    shown = run(*GET)
    assert shown.exit_status == 1 and "internal" not in shown.stderr
    assert first_line(shown).startswith("error: HTTP 400")


def test_the_type_of_a_server_is_kept_and_no_message_is_made_up(run, router):
    """The 403 of the product's introduction has a type and a code alone."""
    router.order("*", times=None, status=403, body=json.dumps(
        {"type": "authentication_error", "code": "scope_insufficient"}
    ).encode())
    shown = run(*GET)
    assert "the message names" not in shown.stderr
    error = json.loads(run(*GET, "-o", "json").stderr)["error"]
    assert error["type"] == "authentication_error"
    assert error["code"] == "scope_insufficient"


@pytest.mark.parametrize("argv, status, attempts, code", [
    (GET, 529, 3, 6), (POST, 529, 3, 6), (GET, 408, 3, 1), (POST, 408, 1, 1),
    (GET, 503, 3, 6), (POST, 502, 1, 1)])
def test_what_is_asked_again(run, router, argv, status, attempts, code):
    router.order("*", times=None, status=status)
    assert run(*argv).exit_status == code
    assert len(router.requests) == attempts


@pytest.mark.parametrize("member", ["code", "type"])
@pytest.mark.parametrize("word", ["insufficient_quota", "quota_exceeded"])
def test_a_used_up_quota_is_not_asked_again(run, router, member, word):
    router.order("*", times=None, status=429, body=json.dumps(
        {"error": {"message": "No.", member: word}}).encode())
    shown = run(*GET)
    assert shown.exit_status == 6 and len(router.requests) == 1
    assert "quota" in shown.stderr and "--retries" not in shown.stderr


def test_milliseconds_to_wait_are_honoured(run, router, clock):
    router.order("*", status=429, headers={"retry-after-ms": "12500"})
    run(*GET)
    assert clock.slept == [12.5]


@pytest.mark.parametrize("argv, has_hint", [(GET, True), (POST, False)])
def test_more_retries_are_advised_where_they_help(run, router, argv,
                                                  has_hint):
    router.order("*", times=None, drop="after")
    shown = run(*argv, "--retries", "0")
    assert ("--retries" in shown.stderr) == has_hint


def test_a_failure_that_lasts_is_told_once_and_with_its_url(run, router,
                                                            tmp_path):
    job = Job(tmp_path)
    router.order("GET /content", times=None, status=503)
    shown = run(*job.argv())
    assert shown.exit_status == 6
    assert shown.stderr.count("asked again for up to 5 minutes") == 1
    assert shown.stderr.count("/content") == 2, shown.stderr
    assert "the same command goes on" in shown.stderr
    del router.orders[:]
    assert run(*job.argv()).exit_status == 0 and job.done() == "abcd"
