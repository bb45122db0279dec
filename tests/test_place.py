"""A direct run tells a fault of the place from one of a line.

A login page, a redirect, a 502, a model that is gone or a connection that
is closed for every line stops the run with the code of that failure, and
what was not answered is sent by the same command; what 400, 413 or 422 say
of a line, or an answer that is none, is that line's failure alone.
"""

import collections
import json

import pytest

from test_runs import Job, read_lines

SAY = "POST /chat/completions"
IDS = [f"{number:02}" for number in range(30)]

# name: (what meets every request, exit code)
PLACES = {
    "a login page": ({"odd": "a login page"}, 1),
    "a redirect": ({"redirect": "https://sso.example/login?x=1"}, 1),
    "a bad gateway": ({"status": 502}, 1),
    "a model that is gone": ({"status": 404}, 4),
    "a closed connection": ({"drop": "after"}, 5),
}


@pytest.fixture
def job(tmp_path):
    job = Job(tmp_path)
    job.fill(IDS)
    return job


def sent(router):
    return collections.Counter(
        request.json["messages"][0]["content"].split()[-1]
        for request in router.requests
        if request.path.endswith("/chat/completions"))


@pytest.mark.parametrize("fault, code", PLACES.values(), ids=PLACES)
def test_a_fault_of_the_place_stops_the_run(run, router, job, fault, code):
    for _ in range(3):
        router.order(SAY)  # the first three are answered
    router.order(SAY, times=None, **fault)
    argv = job.argv("--direct", "--concurrency", "1")
    shown = run(*argv)
    assert (shown.exit_status, shown) == (code, ""), shown
    assert "20 requests in a row failed" in shown.stderr
    assert "the same command goes on" in shown.stderr
    assert {"out.jsonl.state.json", "out.jsonl.journal.jsonl"} <= job.names()
    assert not {"out.jsonl", "out.jsonl.errors.jsonl"} & job.names()
    answered = set(list(sent(router))[:3])
    del router.orders[:], router.requests[:]
    assert run(*argv).exit_status == 0
    assert [each["custom_id"] for each in read_lines(job.output)] == IDS
    assert set(sent(router)) == set(IDS) - answered
    assert set(sent(router).values()) == {1}


def test_what_stopped_the_run_is_told_in_json_too(run, router, job):
    """Though the server's error has a shape of the API's own."""
    router.order(SAY, times=None, status=500, message="out of memory")
    shown = run(*job.argv("--direct", "--concurrency", "1", "-q",
                          "-o", "json"))
    error = json.loads(shown.stderr)["error"]
    assert error["message"] == "HTTP 500 out of memory"
    assert "20 requests in a row failed" in error["details"][0]
    assert "the same command goes on" in error["hint"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_fault_of_each_line_is_no_fault_of_the_place(run, router, job,
                                                       status):
    router.order(SAY, times=None, status=status)
    shown = run(*job.argv("--direct"))
    assert shown.exit_status == 1 and "in a row" not in shown.stderr
    assert len(read_lines(job.errors)) == len(IDS)


def test_an_answer_between_them_begins_the_row_anew(run, router, job):
    for number in range(len(IDS)):
        router.order(SAY, **({} if number == 15 else {"odd": "a login page"}))
    shown = run(*job.argv("--direct", "--concurrency", "1"))
    assert shown.exit_status == 1 and "in a row" not in shown.stderr
    assert [each["custom_id"] for each in read_lines(job.output)] == ["15"]
    assert len(read_lines(job.errors)) == len(IDS) - 1


def test_an_answer_that_cannot_be_kept_is_that_lines_failure(run, router,
                                                             job):
    """987 levels deep: what can be read can not always be written."""
    for depth in (950, 987, 993, 999, 1200, 100000):
        deep = b"[" * depth + b"]" * depth
        router.order(SAY, raw=b'{"choices":[{"message":{"content":"x"},'
                              b'"deep":' + deep + b"}]}")
    shown = run(*job.argv("--direct", "--concurrency", "1"))
    assert "internal error" not in shown.stderr, shown
    failed = [each["custom_id"] for each in read_lines(job.errors)]
    done = [json.loads(line.split(b'"response"')[0].rstrip(b",") + b"}")
            ["custom_id"] for line in job.read().splitlines()]
    assert sorted(failed + done) == IDS and "05" in failed
