"""Errors: their message in any shape, what is asked again, what lasts.

An error keeps what the server says, wherever that stands; what no other
attempt can mend is not tried again, and a failure that lasts is told once,
with its URL, and ends with how to go on.
"""

import json
import re

import pytest

import xeroctl
from helpers import facts_of

CHAT = "chat", "--endpoint", "demo", "-m", "hi"
ALL = "GET", "PUT", "DELETE", "POST", "PATCH"
SAFE = "GET", "PUT", "DELETE"
LINE = {"method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "m",
                 "messages": [{"role": "user", "content": "hi"}]}}
RUN = "batches", "run", "--endpoint", "demo", "--input", "in.jsonl"


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """A folder with the input of a run, and the command for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text("".join(
        json.dumps(dict(LINE, custom_id=name)) + "\n" for name in "abc"))
    return RUN + ("--output-file", "out.jsonl")


def error_of(shown):
    line, = [line for line in shown.stderr.splitlines()
             if line.startswith("error: ")]
    return line[len("error: "):]


def remarks_of(shown):
    """What was said of failures before the error.

    How far the job is, is said beside them, as often as its pace asks for.
    """
    said = shown.stderr.partition("error: ")[0].splitlines()
    return [line for line in said if re.search("asked again|attempt", line)]


def say(router, body, status=400, **more):
    router.order("*", status=status, body=json.dumps(body).encode(), **more)


# -- shapes -----------------------------------------------------------------

# A body, the message in it, the code and the param.
SHAPES = {
    "Gemini": ([{"error": {"code": 404, "message": "No.",
                           "status": "NOT_FOUND"}}], "No.", "404", None),
    "a list of problems": ({"errors": [
        {"code": 7003, "message": "No."}, {"message": "Never."}],
        "messages": []}, "No.; Never.", "7003", None),
    "a list under error": (
        {"error": [{"message": "No.", "code": "c", "param": "p"}]}, "No.",
        "c", "p"),
    "texts under error": ({"error": ["No.", "Never."]}, "No.; Never.", None,
                          None),
    "a message around detail": (
        {"object": "error", "type": "invalid_request_error", "code": 3,
         "message": {"detail": [{"loc": ["body", "n"], "msg": "No."}]}},
        "body.n: No.", "3", None),
    "the same within error": ({"error": {"message": {"detail": "No."}}},
                              "No.", None, None),
    "vLLM": ({"object": "error", "message": "No.", "type": "BadRequestError",
              "param": "n", "code": 400}, "No.", "400", "n"),
    "code beside error": ({"error": {"message": "No."}, "code": "c",
                           "param": "p"}, "No.", "c", "p"),
    "an object under detail": (
        {"detail": {"message": "No.", "code": "c", "error": "e"}}, "No.",
        "c", None),
    "errors is a text": ({"errors": "No."}, "No.", None, None),
    "errors is texts": ({"errors": ["No.", None, "", "Never."]},
                        "No.; Never.", None, None),
    "errors by field": ({"title": "Bad", "errors": {"n": ["No.", "x"],
                                                    "m": "Never."}},
                        "n: No.; x; m: Never.", None, None),
    "problem details": ({"type": "about:blank", "title": "Bad Thing",
                         "status": 400}, "Bad Thing", None, None),
    "message beats detail": ({"error": {"detail": "x", "message": "No."}},
                             "No.", None, None),
    "blanks are no message": ({"error": {"message": " "}, "detail": "No."},
                              "No.", None, None),
    "an odd place": ({"detail": [{"loc": [["x"], {}, 5], "msg": "No."}]},
                     "5: No.", None, None),
    "a type that is none": ({"error": {"message": "No.", "type": {},
                                       "code": []}}, "No.", "[]", None),
    "only a number": ({"error": {"message": 5, "x": [1]}},
                      '{"error": {"message": 5, "x": [1]}}', None, None),
}


@pytest.mark.sampled(None)
@pytest.mark.parametrize("body, message, code, param", SHAPES.values(),
                         ids=SHAPES)
def test_a_message_is_found_in_any_shape(run, router, body, message, code,
                                         param):
    say(router, body, reason="")
    shown = run(*CHAT)
    assert shown.exit_status == 1, shown
    assert error_of(shown) == "HTTP 400 " + message
    facts = facts_of(shown)
    assert (facts.get("code"), facts.get("param")) == (code, param)


def nested(key, depth, end):
    for _ in range(depth):
        end = {key: end} if key else [end]
    return end


ODD = [None, 5, True, "No.", "", [], {}, [[]], [None], {"error": []},
       {"error": [[], {}, None]}, {"message": {}}, {"detail": 1e999},
       {"errors": {"": None}}, {"error": {"message": {"message": True}}},
       {"detail": [{"loc": None, "msg": 5}, {"loc": "x"}]},
       {1: 2}, [{"error": 5}, {"error": 6}], "\ud800"]
ODD += [nested(key, 5000, {"message": "No."}) for key in (
    "error", "detail", "message", "errors", "msg", None)]


@pytest.mark.sampled(None)
@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_no_message_is_found_where_there_is_none(body):
    assert xeroctl.error_message(body) is None


def test_a_list_of_very_many_problems_is_told_in_part():
    many = [{"msg": f"problem {number}"} for number in range(100000)]
    found = xeroctl.error_message({"detail": many})
    assert found.startswith("problem 0; problem 1") and len(found) < 1000


SEED = {"type": "authentication_error", "code": "scope_insufficient"}


@pytest.mark.parametrize("body", [SEED, {"error": SEED}, [{"error": SEED}]])
def test_type_and_code_without_a_message_make_a_sentence(run, router, body):
    say(router, body, 403)
    shown = run("models")
    assert shown.exit_status == 3, shown
    assert error_of(shown) == ("HTTP 403 without a message:"
                               " authentication_error, scope_insufficient")
    facts = facts_of(shown)
    assert facts["code"] == "scope_insufficient"
    assert "message" not in facts["hint"]
    say(router, body, 403)
    told = json.loads(run("models", "-o", "json").stderr)["error"]
    assert (told["type"], told["code"]) == tuple(SEED.values())
    assert "scope_insufficient" in told["message"]


def test_a_message_that_names_the_scope_is_pointed_at(run, router):
    say(router, {"error": dict(SEED, message="Scope x is missing.")}, 403)
    shown = run("models")
    assert error_of(shown) == "HTTP 403 Scope x is missing."
    assert "the scope that this call needs" in facts_of(shown)["hint"]


@pytest.mark.parametrize("body", [
    {"detail": "No."}, [{"error": {"message": "No.", "type": "t"}}],
    {"object": "error", "message": "No.", "type": "t"}, {"error": "No."}])
def test_an_envelope_of_another_shape_is_told_in_ours(run, router, body):
    say(router, body)
    told = json.loads(run(*CHAT, "-o", "json").stderr)["error"]
    assert told["message"] == "HTTP 400 No."
    assert told["type"] == ("t" if "t" in json.dumps(body).split('"')
                            else "api_error")


# -- what is asked again ----------------------------------------------------

QUOTAS = [{"code": "quota_exceeded"}, {"code": "insufficient_quota"},
          {"error_type": "quota_exceeded", "code": None},
          {"error_type": "insufficient_quota", "code": None}]


@pytest.mark.parametrize("fault", QUOTAS)
def test_a_quota_that_is_used_up_is_told_at_once(run, router, clock, fault):
    router.order("*", status=429, retry_after=3, **fault)
    shown = run(*CHAT)
    assert shown.exit_status == 6, shown
    assert clock.slept == [] and len(router.requests) == 1
    hint = facts_of(shown)["hint"]
    assert "quota" in hint and "retries" not in hint


@pytest.mark.parametrize("fault", QUOTAS)
def test_a_quota_that_is_used_up_ends_a_run(run, router, clock, batch,
                                            fault):
    router.order("*", times=None, status=429, **fault)
    shown = run(*batch, "--direct", "--concurrency", "1")
    assert shown.exit_status == 6, shown
    assert clock.slept == [] and len(router.requests) == 1


@pytest.mark.parametrize("status, repeated, code", [
    (408, SAFE, 1), (529, ALL, 6), (501, (), 1)])
def test_a_status_is_treated_as_its_kin(run, router, clock, status, repeated,
                                        code):
    router.order("*", times=None, status=status)
    for method in ALL:
        clock.slept, router.requests = [], []
        shown = run("api", method, "/things")
        assert (method, shown.exit_status) == (method, code), shown
        assert len(router.requests) == (3 if method in repeated else 1)


def test_a_run_waits_where_a_server_is_overloaded(run, router, clock, batch):
    router.order("*", times=2, status=529, retry_after=20)
    shown = run(*batch, "--direct", "--concurrency", "1")
    assert shown.exit_status == 0 and clock.at >= 40, shown


@pytest.mark.parametrize("status", [408, 429, 529])
def test_a_wait_bears_what_passes(run, router, clock, batch, status):
    router.order("GET /batches/batch_1", times=9, status=status)
    assert run(*batch).exit_status == 0


@pytest.mark.parametrize("fault", QUOTAS[::3] + [{"status": 501}])
def test_a_wait_does_not_bear_what_stays(run, router, clock, batch, fault):
    router.order("GET /batches/batch_1", times=None,
                 **dict({"status": 429}, **fault))
    assert run(*batch).exit_status == (1 if "status" in fault else 6)
    assert len(router.seen("GET", "/batches/batch_1")) == 1


@pytest.mark.parametrize("value, wait", [
    ("7000", 7), ("2500.5", 2.5005), ("1", 0.5), ("soon", 0.5),
    ("-9000", 0.5)])
def test_milliseconds_of_a_header_are_waited_for(run, router, clock, value,
                                                 wait):
    router.order("*", status=429, headers={"retry-after-ms": value})
    assert run(*CHAT).exit_status == 0
    assert clock.slept == [wait]


def test_the_greatest_of_all_waits_counts(run, router, clock):
    router.order("*", status=429, retry_after="3",
                 headers={"retry-after-ms": "4000"})
    router.order("*", status=529, retry_after="5",
                 headers={"retry-after-ms": "4000"})
    assert run(*CHAT).exit_status == 0
    assert clock.slept == [4, 5]


# -- what is said of it -----------------------------------------------------

@pytest.mark.parametrize("target, shown_as", [
    ("https://s3.example/b/k?X-Amz-Signature=s3cret#x",
     "https://s3.example/b/k"),
    ("https://me:s3cret@h.example/x", "https://h.example/x"),
    ("//me:s3cret@h.example/x?a@b", "http://h.example/x")])
@pytest.mark.parametrize("argv", [("models",), CHAT])
def test_a_redirect_is_refused_without_its_secrets(run, router, argv, target,
                                                   shown_as):
    router.order("*", redirect=target)
    shown = run(*argv)
    assert shown.exit_status == 1, shown
    assert shown_as + ", which is not followed" in error_of(shown)
    assert "s3cret" not in shown.stderr


def test_a_circle_of_redirects_hides_its_query(run, router):
    router.order("*", times=None, redirect="/proj_demo/v1/x?sig=s3cret")
    shown = run("models")
    assert "/proj_demo/v1/x" in error_of(shown)
    assert "s3cret" not in shown.stderr


# (what is asked, what happens): whether more attempts would help
HELPS = [
    (CHAT, {"drop": "after"}, False), (("models",), {"drop": "after"}, True),
    (CHAT, {"status": 503}, True), (CHAT, {"status": 429}, True),
    (CHAT, {"status": 529}, True), (CHAT, {"status": 502}, False),
    (("models",), {"status": 502}, True),
    (("models",), {"status": 404}, False),
    (CHAT + ("--stream",), {"cut": 9}, False),
]


@pytest.mark.sampled(None)
@pytest.mark.parametrize("argv, fault, helps", HELPS)
def test_retries_are_hinted_at_where_they_help(run, router, argv, fault,
                                               helps):
    router.order("*", times=None, **fault)
    shown = run(*argv, "--retries", "1")
    assert shown.exit_status != 0
    assert ("--retries" in facts_of(shown).get("hint", "")) == helps, shown


def test_what_else_to_try_stands_behind_a_question(run, closed_port):
    shown = run("models", "--retries", "0", against=None,
                XEROTIER_BASE_URL=f"http://127.0.0.1:{closed_port}/p/v1",
                XEROTIER_API_KEY="xero_p_1")
    assert "(XEROTIER_BASE_URL) right? try again" in facts_of(shown)["hint"]


def test_an_answer_that_is_empty_is_told_as_that(run, router):
    router.order("POST /chat/completions", body=b"")
    assert error_of(run(*CHAT)).endswith(
        " answered with no JSON: it is empty")


# -- what lasts -------------------------------------------------------------

def test_a_download_that_keeps_failing_is_told_once(run, router, clock,
                                                    batch):
    router.order("GET /content", cut=50)
    router.order("GET /content", times=99, status=503)
    router.order("GET /content", times=None, status=502)
    shown = run(*batch)
    assert shown.exit_status == 1 and 300 <= clock.at, shown
    content, = {seen.path for seen in router.seen("GET", "/content")}
    cut, busy, bad = remarks_of(shown)
    for told, word in (cut, "broke off"), (busy, "503"), (bad, "502"):
        assert told.count(router.origin + content) == 1 and word in told
    facts = facts_of(shown)
    assert facts["url"] == router.origin + content
    assert facts["kept"].startswith("50 bytes in out.jsonl.")
    assert facts["hint"] == "the same command goes on"
    router.orders.clear()
    assert run(*batch).exit_status == 0
    assert router.seen("GET", "/content")[-1].headers["Range"] == "bytes=50-"


def test_each_retry_of_a_download_is_told(run, router, clock, tmp_path):
    record = router.add_file("served", b"x" * 2000)
    router.order("GET /content", cut=1000)
    router.order("GET /content", times=None, status=503)
    path = str(tmp_path / "out")
    shown = run("files", record["id"], "--download", path, "--retries", "40")
    assert shown.exit_status == 6, shown
    assert len(router.seen("GET", "/content")) == 41
    cut, *busy = remarks_of(shown)
    assert "broke off" in cut and len(busy) == 39, shown
    assert all("HTTP 503" in each for each in busy), shown
    facts = facts_of(shown)
    assert facts["kept"] == f"1000 bytes in {path}.part"
    assert "the same command goes on" in facts["hint"]
    router.orders.clear()
    router.order("GET /content", status=401)
    shown = run("files", record["id"], "--download", path)
    assert facts_of(shown)["kept"] == f"1000 bytes in {path}.part"
    assert "key" in facts_of(shown)["hint"]


@pytest.mark.parametrize("retries", ["0", "2"])
def test_an_outage_of_polls_is_told_once_per_change(run, router, clock,
                                                    batch, retries):
    router.order("GET /batches/batch_1", times=20, status=503)
    router.order("GET /batches/batch_1", times=20, drop="after")
    router.order("GET /batches/batch_1", times=20, status=503)
    shown = run(*batch, "--retries", retries)
    assert shown.exit_status == 0, shown
    told = [line for line in shown.stderr.splitlines() if "asked" in line]
    assert len(told) == 3
    assert all("/batches/batch_1: HTTP" in line for line in told)


def test_a_run_that_ends_in_an_outage_says_how_to_go_on(run, router, clock,
                                                        batch):
    router.order("*", times=None, status=503)
    shown = run(*batch, "--direct", "--concurrency", "1")
    assert shown.exit_status == 6 and 300 <= clock.at, shown
    assert "the same command goes on" in facts_of(shown)["hint"]
