"""What a server sends fills no memory, and no number of it is too long.

A JSON answer has 64 MB at most, a line of a stream 16 MB; what goes through
to standard output has no bound.
"""

import pytest

import xeroctl
from conftest import every_case
from test_runs import SAY

LARGE, FITTING = 65 * 10 ** 6, 63 * 10 ** 6
HUGE = "9" * 5000
CHAT = "chat", "--endpoint", "demo", "-m", "hi"


def text_of(size):
    return b'{"id": "x", "data": ["%b"]}' % (b"x" * size)


@every_case
@pytest.mark.parametrize("words, path, media, no_chunked", [
    (("models", "m"), "GET /models/m", None, False),
    (("models", "m"), "GET /models/m", None, True), (CHAT, SAY, None, False),
    (CHAT, SAY, "text/plain", True),
    (("api", "/m", "-o", "jsonl"), "GET /m", None, False)])
def test_an_answer_that_is_too_large_is_refused(run, router, words, path,
                                                media, no_chunked):
    router.order(path, body=text_of(LARGE), content_type=media,
                 no_chunked=no_chunked)
    shown = run(*words)
    assert shown.exit_status == 1 and shown == "", shown.stderr[:200]
    assert "larger than 64.0 MB" in shown.stderr


def test_one_that_fits_is_taken(run, router):
    router.order("GET /models/m", body=b'{"id": "x"}' + b" " * FITTING)
    assert run("models", "m").exit_status == 0


def test_what_goes_to_standard_output_has_no_bound(run, router):
    body = text_of(LARGE)
    router.order("GET /m", body=body)
    shown = run("api", "/m")
    assert shown.exit_status == 0 and shown == body.decode()


@pytest.mark.parametrize("before, code", [(b"", 1), (
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n', 7)])
def test_a_line_that_does_not_end_ends_the_stream(run, router, before, code):
    router.order(SAY, frames=[before + b"data: "] + 17 * [b"x" * 10 ** 6])
    shown = run(*CHAT, "--stream")
    assert shown.exit_status == code, shown.stderr[:200]
    assert "a line of the stream is larger than 16.0 MB" in shown.stderr


def test_lines_that_end_are_no_long_one(run, router):
    line = b": " + b"x" * 10 ** 6 + b"\n"
    router.order(SAY, frames=18 * [line] + [
        b'data: {"choices":[{"index":0,"delta":{"content":"hi"},'
        b'"finish_reason":"stop"}]}\n\n', b"data: [DONE]\n\n"])
    assert run(*CHAT, "--stream") == "hi\n"


def test_memory_that_is_used_up_is_told(run):
    def use_up(app, group, args):
        raise MemoryError
    groups = (xeroctl.Group("x", "X.", default="y", verbs=(
        xeroctl.Verb("y", "Y.", use_up),)),)
    shown = run("x", groups=groups)
    assert shown.exit_status == 1 and "internal" not in shown.stderr
    assert shown.stderr.startswith("error: there is not enough memory")


@every_case
@pytest.mark.parametrize("parts", [
    "5", '"x"', "[5]", "[null]", '[{"id":"p"}]'] + [
    '[{"part_number":%s,"id":"p"}]' % number for number in (
        "[1]", '"1"', "0", "-1", "1.5", "true", "null", "1e999", HUGE)])
def test_a_part_without_a_number_is_an_error(run, router, tmp_path, parts):
    (tmp_path / "m").write_bytes(b"x" * 100)
    router.order("GET /uploads/u", body=b'{"id": "u", "bytes": 100}')
    router.order("POST /resume", body=b'{"parts": %b}' % parts.encode())
    shown = run("upload", str(tmp_path / "m"), "m", "--resume", "u")
    assert shown.exit_status in (1, 4) and "internal" not in shown.stderr
    assert not router.seen("POST", "/parts") or parts.endswith(HUGE + "}]")


@pytest.mark.parametrize("text", [HUGE, f"Wed, 21 Oct {HUGE} 07:28:00 GMT",
                                  f"Wed, {HUGE} Oct 2020 07:28:00 GMT",
                                  f"Wed, 21 Oct 2020 07:28:00 +{HUGE}"])
def test_a_wait_of_any_length_is_told(run, router, text):
    router.order("GET /models", times=None, status=429,
                 headers={"Retry-After": text})
    shown = run("models")
    assert shown.exit_status == 6 and "internal" not in shown.stderr
