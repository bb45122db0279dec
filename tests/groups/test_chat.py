"""chat: a message and its answer, and chats from templates."""

import base64
import io
import json

import pytest

import xeroctl
from conftest import environment, every_case
from helpers import asked_paths as asked, encoded, pretty, sent

NOW = 1770000000
HI = "chat", "send", "--endpoint", "demo", "-m", "Hi"
BODY = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}],
        "stream": False}
ANSWER = ('Hello! You said: "Hi". I am the demo endpoint of the reference'
          " router; I repeat what I am told.\n")
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
         "prompt_tokens_details": {"cached_tokens": 4},
         "completion_tokens_details": {"reasoning_tokens": 2}}
NEW = "chat", "new", "--workspace", "ws_kube_prod", "--template"
TEMPLATES = "/workspaces/ws_kube_prod/chat-templates"


def answer(*messages, finish_reason="stop", **more):
    """A chat.completion with one choice for each message."""
    return dict({
        "id": "chatcmpl-7", "object": "chat.completion", "created": NOW,
        "model": "m", "choices": [
            {"index": index, "message": dict({"role": "assistant"},
                                             **message),
             "finish_reason": finish_reason}
            for index, message in enumerate(messages)]}, **more)


def chunk(delta, index=0, finish_reason=None, **more):
    return dict({
        "id": "chatcmpl-7", "object": "chat.completion.chunk",
        "created": NOW, "model": "m", "choices": [
            {"index": index, "delta": delta,
             "finish_reason": finish_reason}]}, **more)


def usage_chunk(usage):
    return dict(chunk({}), choices=[], usage=usage)


def frames(*payloads, end=(b"data: [DONE]\n\n",)):
    """A stream of these payloads, one event each."""
    return [b"data: %b\n\n" % encoded(p) for p in payloads] + list(end)


def says(router, reply):
    """Order an answer, at once or as a stream, and return its flags."""
    if isinstance(reply, dict):
        router.order("POST /chat/completions", body=encoded(reply))
        return ()
    router.order("POST /chat/completions", frames=reply)
    return ("--stream",)


# == send: what is asked =====================================================

def test_a_message_gets_its_answer(run, router):
    shown = run(*HI)
    assert shown == ANSWER and shown.stderr == ""
    assert shown.exit_status == 0
    seen, = router.requests
    assert seen.method == "POST"
    assert seen.path == "/proj_demo/demo/v1/chat/completions"
    assert seen.json == BODY


def test_send_is_the_default_verb(run, router):
    assert run("chat", "--endpoint", "demo", "-m", "Hi") == ANSWER
    assert sent(router) == BODY


@pytest.mark.parametrize("flags, fields", [
    (["--model", "llama-3"], {"model": "llama-3"}),
    (["--max-tokens", "700"], {"max_tokens": 700}),
    (["--temperature", "0.5"], {"temperature": 0.5}),
    (["--top-p", "0.9"], {"top_p": 0.9}),
    (["--frequency-penalty", "-1.5"], {"frequency_penalty": -1.5}),
    (["--presence-penalty", "1.25"], {"presence_penalty": 1.25}),
    (["--seed", "42"], {"seed": 42}),
    (["--seed", "-7"], {"seed": -7}),
    (["--stop", "END"], {"stop": ["END"]}),
    (["--stop", "a", "--stop", "b"], {"stop": ["a", "b"]}),
    (["--store"], {"store": True}),
    (["--agentic"], {"web_search_options": {"x_agentic": True}}),
    (["--enrich"], {}),
    (["--show-usage"], {}),
    (["--stream"], {"stream": True,
                    "stream_options": {"include_usage": True}}),
])
def test_each_flag_sends_its_field_and_no_other(run, router, flags, fields):
    assert run(*HI, *flags).exit_status == 0
    assert sent(router) == dict(BODY, **fields)


def test_bounds_belong_to_their_ranges(run, router):
    low = run(*HI, "--temperature", "0", "--top-p", "0", "--max-tokens", "1",
              "--frequency-penalty", "-2", "--presence-penalty", "-2")
    high = run(*HI, "--temperature", "2", "--top-p", "1",
               "--frequency-penalty", "2", "--presence-penalty", "2")
    assert (low.exit_status, high.exit_status) == (0, 0)
    assert [seen.json["temperature"] for seen in router.requests] == [0, 2]


@pytest.mark.parametrize("flag, value", [
    ("--temperature", "-0.1"), ("--temperature", "2.1"),
    ("--temperature", "nan"), ("--temperature", "warm"),
    ("--top-p", "-0.1"), ("--top-p", "1.1"),
    ("--frequency-penalty", "-2.1"), ("--frequency-penalty", "2.1"),
    ("--presence-penalty", "-2.1"), ("--presence-penalty", "inf"),
    ("--max-tokens", "0"), ("--max-tokens", "1.5"),
    ("--seed", "often"), ("--seed", "1.5"),
])
def test_what_is_out_of_range_is_not_sent(run, router, flag, value):
    shown = run(*HI, flag, value)
    assert shown.exit_status == 2
    assert flag in shown.stderr and repr(value) in shown.stderr
    assert shown == "" and router.requests == []


def test_only_enrich_adds_a_header(run, router):
    run(*HI)
    run(*HI, "--enrich")
    plain, enriched = [dict(seen.headers) for seen in router.requests]
    assert enriched.pop("X-Xerotier-Vendor-Events") == "1"
    assert plain == enriched


def test_a_stream_is_asked_for_as_one(run, router):
    run(*HI, "--stream")
    assert router.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("stdin, message", [
    (b"one", "one"),
    (b"one\n", "one"),
    (b"one\n\n", "one\n"),
    (b"one\r\ntwo\r\n", "one\r\ntwo"),
    (b"\n  indented\n", "\n  indented"),
    (b"\xef\xbb\xbfcaf\xc3\xa9\n", "café"),
    ("café".encode("utf-16"), "café"),
])
def test_a_dash_reads_the_message_without_its_last_line_end(
        run, router, stdin, message):
    assert run(*HI[:-1], "-", stdin=stdin).exit_status == 0
    assert sent(router)["messages"][0]["content"] == message


@pytest.mark.parametrize("stdin, byte", [
    (b"caf\xe9", 4), (b"\xff\n", 1), ("café".encode("utf-16")[:-1], 9)])
def test_a_message_that_is_no_text_is_refused(run, router, stdin, byte):
    shown = run(*HI[:-1], "-", stdin=stdin)
    assert shown.exit_status == 2 and router.requests == []
    assert (f"standard input is no UTF-8 text (byte {byte})"
            in shown.stderr)


def test_a_file_that_is_no_text_is_refused_or_told(run, router, tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"caf\xe9\n")
    shown = run(*HI, "--from-file", str(path))
    assert shown.exit_status == 2 and f"{path} is no UTF-8" in shown.stderr
    shown = run(*HI, "--attach", str(path), "-q")
    assert shown.exit_status == 0 and f"{path} is no UTF-8" in shown.stderr
    assert "caf\ufffd" in sent(router)["messages"][0]["content"]


# == images ==================================================================

@pytest.mark.parametrize("data, kind", [
    (b"\x89PNG\r\n\x1a\n....", "png"), (b"\xff\xd8\xff\xe0....", "jpeg"),
    (b"GIF89a....", "gif"), (b"RIFF\x0a\0\0\x0aWEBPVP8 ", "webp"),
    (b"BM\x0a\0\0\0\0\0\0\0....", "bmp"), (b"II*\0....", "tiff"),
    (b"MM\0*....", "tiff"), (b"\0\0\0\x20ftypavif....", "avif"),
    (b"\0\0\0\x20ftypheic....", "heic")])
@pytest.mark.parametrize("name", ["photo.jpg", "photo", "-"])
def test_bytes_tell_the_type_of_an_image(run, router, tmp_path, monkeypatch,
                                         data, kind, name):
    (tmp_path / "photo").write_bytes(data)
    (tmp_path / "photo.jpg").write_bytes(data)
    monkeypatch.chdir(str(tmp_path))
    assert run(*HI, "--image", name, stdin=data).exit_status == 0
    part = sent(router)["messages"][0]["content"][1]
    assert part["image_url"]["url"] == (
        f"data:image/{kind};base64," + base64.b64encode(data).decode())


@pytest.mark.parametrize("data, told", [
    (b"", "is empty"), (b"<html>login</html>", "is no image"),
    (b"BMW is a car.", "is no image"), (b"GIF", "is no image")])
def test_what_is_no_image_is_refused(run, router, tmp_path, data, told):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    shown = run(*HI, "--image", str(path))
    assert shown.exit_status == 2 and router.requests == []
    assert f"a.png {told}" in shown.stderr


# == style openai ============================================================

def test_what_only_the_platform_takes_is_refused(run, openai_router):
    shown = run(*HI, "--agentic", "--style", "openai", against=openai_router)
    assert shown.exit_status == 2 and openai_router.requests == []
    assert "--agentic is Xerotier's" in shown.stderr


@pytest.mark.parametrize("message, content", [
    ("@notes.txt", "@notes.txt"),
    ("-5 degrees", "-5 degrees"),
    ("two\nlines\n", "two\nlines\n"),
    ("\udcc3\udca9", "é"),
    ("\udcff", "\ufffd"),
])
def test_a_message_is_sent_as_it_is(run, router, message, content):
    assert run(*HI[:-1], message).exit_status == 0
    assert sent(router)["messages"][0]["content"] == content


@pytest.mark.parametrize("words, stdin", [
    (["-m", ""], b""), (["-m", "-"], b""), (["-m", "-"], b"\n")])
def test_an_empty_message_is_not_sent(run, router, words, stdin):
    shown = run("chat", "--endpoint", "demo", *words, stdin=stdin)
    assert shown.exit_status == 2 and "message is empty" in shown.stderr
    assert router.requests == []


def test_a_message_must_be_given(run, router):
    shown = run("chat", "--endpoint", "demo", stdin=b"not asked for")
    assert shown.exit_status == 2 and "--message" in shown.stderr
    assert router.requests == []


class Untouched:
    """A standard input that nobody may read from."""

    def __getattr__(self, name):
        if name in ("read", "readline", "buffer"):
            raise AssertionError("standard input was read")
        return getattr(io.StringIO(), name)


def test_standard_input_is_read_only_where_a_dash_says_so(router, clock):
    streams = xeroctl.Streams(Untouched(), io.StringIO(), io.StringIO())
    assert xeroctl.main(HI, environment(router), streams, clock) == 0
    assert streams.stdout.getvalue() == ANSWER


def test_a_system_message_comes_first(run, router):
    run(*HI, "--system", "Be brief.")
    assert sent(router)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("more", [[], ["--system", "Be loud."]])
def test_a_file_beats_the_system_flag(run, router, tmp_path, more):
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(b"Be\nbrief.\n")
    run(*HI, *more, "--from-file", str(prompt))
    assert sent(router)["messages"] == [
        {"role": "system", "content": "Be\nbrief."},
        {"role": "user", "content": "Hi"}]


def test_the_system_message_can_come_from_standard_input(run, router):
    run(*HI, "--from-file", "-", stdin=b"Be brief.\n")
    assert sent(router)["messages"][0]["content"] == "Be brief."


def test_a_missing_file_is_named_and_nothing_sent(run, router, tmp_path):
    missing = str(tmp_path / "none.txt")
    shown = run(*HI, "--from-file", missing)
    assert shown.exit_status == 2 and missing in shown.stderr
    assert router.requests == []


def test_two_readers_of_standard_input_are_refused(run, router):
    shown = run("chat", "--endpoint", "demo", "-m", "-", "--from-file", "-",
                stdin=b"whose?")
    assert shown.exit_status == 2
    assert "--message" in shown.stderr and "--from-file" in shown.stderr
    assert router.requests == []


# == send: where it goes =====================================================

@pytest.mark.parametrize("words, variable, slug", [
    ([], "endpoint-dev", "endpoint-dev"),
    (["--endpoint", "demo"], "endpoint-dev", "demo"),
    (["--endpoint", "demo"], "", "demo"),
])
def test_the_endpoint_comes_from_flag_or_variable(run, router, words,
                                                  variable, slug):
    assert run("chat", "-m", "Hi", *words,
               XEROTIER_ENDPOINT=variable).exit_status == 0
    seen, = router.requests
    assert seen.path == f"/proj_demo/{slug}/v1/chat/completions"
    assert seen.json["model"] == slug


def test_a_slug_is_one_segment_of_the_path(run, router):
    shown = run("chat", "--endpoint", "a/b ?", "-m", "Hi")
    assert shown.exit_status == 4
    seen, _ = router.requests  # then it looks for one that is like it
    assert seen.target == "/proj_demo/a%2Fb%20%3F/v1/chat/completions"


@pytest.mark.parametrize("words, model", [
    (["--endpoint", "demo"], "demo"),
    (["--model", "demo"], "demo"),
    (["--endpoint", "other", "--model", "demo"], "demo"),
])
def test_style_openai_has_a_model_and_no_slug(run, openai_router, words,
                                              model):
    shown = run("chat", "-m", "Hi", "--style", "openai", *words,
                against=openai_router)
    assert shown == ANSWER
    seen, = openai_router.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.json == dict(BODY, model=model)


def test_style_openai_needs_a_model_too(run, openai_router):
    shown = run("chat", "-m", "Hi", against=openai_router,
                XEROTIER_STYLE="openai")
    assert shown.exit_status == 2 and "--endpoint" in shown.stderr
    assert openai_router.requests == []


# == send: what is shown =====================================================

@pytest.mark.parametrize("more", [[], ["-o", "wide"]])
def test_a_stream_reads_as_the_answer_at_once_does(run, more):
    assert run(*HI, *more) == run(*HI, "--stream", *more) == ANSWER


class SlowPipe(io.BytesIO):
    """A pipe whose reader takes its time over each piece of text."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def write(self, data):
        self.clock.at += self.seconds if data.strip() else 0
        return super().write(data)


def run_slowly(router, clock, *argv):
    """Run while standard output takes 2.1 s a write, and error 100 s."""
    pipes = SlowPipe(clock, 2.1), SlowPipe(clock, 100)
    streams = xeroctl.Streams(None, *[io.TextIOWrapper(p) for p in pipes])
    assert xeroctl.main(argv, environment(router), streams, clock) == 0
    return [pipe.getvalue().decode() for pipe in pipes]


@pytest.mark.parametrize("usage, footer", [
    ({"completion_tokens": 312}, "-- 312 tokens in 4.2s (74.3 tok/s)\n"),
    (None, "-- 2 tokens in 4.2s (0.5 tok/s)\n"),
    ({}, "-- 2 tokens in 4.2s (0.5 tok/s)\n"),
])
def test_the_footer_counts_from_the_first_token(router, clock, usage, footer):
    # The event takes 100 s to show; they are no part of the throughput.
    router.order("POST /chat/completions", frames=frames(
        {"type": "x_research.progress", "step": 1},
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hello"}), chunk({"content": " you"}),
        chunk({"reasoning": "Hm."}), chunk({}, finish_reason="stop"),
        usage_chunk(usage)))
    stdout, stderr = run_slowly(router, clock, *HI, "--stream")
    assert stdout == "Hello you\n"
    assert stderr == 'x_research.progress {"step":1}\n' + footer


def test_a_stream_takes_a_millisecond_at_least(run, router):
    shown = run(*HI, *says(router, frames(
        chunk({"content": "Hello"}), chunk({}, finish_reason="stop"))))
    assert shown.stderr == "-- 1 tokens in 0.0s (1000.0 tok/s)\n"


def test_only_a_stream_has_a_footer(run):
    assert run(*HI).stderr == ""


USAGE_LINE = ("usage: prompt 9, completion 3, total 12, cached 4,"
              " reasoning 2\n")


@pytest.mark.parametrize("more", [
    [], ["-q"], ["-o", "json"], ["-q", "-o", "json"], ["-o", "jsonl"],
    ["-o", "csv"]])
@pytest.mark.parametrize("reply", [
    answer({"content": "Hi"}, usage=USAGE),
    frames(chunk({"content": "Hi"}, finish_reason="stop"),
           usage_chunk(USAGE))])
def test_usage_is_shown_whenever_it_is_asked_for(run, router, reply, more):
    shown = run(*HI, "--show-usage", *more, *says(router, reply))
    assert shown.stderr.endswith(USAGE_LINE)
    assert "usage:" not in shown and shown.exit_status == 0


def test_usage_that_is_not_reported_is_a_dash(run, router):
    usage = {"prompt_tokens": 9, "completion_tokens": 0,
             "total_tokens": None}
    says(router, answer({"content": "Hi"}, usage=usage))
    assert run(*HI, "--show-usage").stderr == (
        "usage: prompt 9, completion 0, total -, cached -, reasoning -\n")


@pytest.mark.parametrize("usage", [None, "free", []])
def test_an_answer_without_usage_is_no_failure(run, router, usage):
    says(router, answer({"content": "Hi"}, usage=usage))
    shown = run(*HI, "--show-usage")
    assert shown == "Hi\n" and shown.exit_status == 0
    assert shown.stderr.startswith("usage:")


def test_usage_is_not_shown_unasked(run):
    assert "usage" not in run(*HI, "--stream").stderr


def test_quiet_leaves_nothing_but_the_answer(run, router):
    shown = run(*HI, "-q", "--stream", "--agentic", "--enrich",
                "--max-tokens", "2")
    assert shown == "Hello! You\n" and shown.stderr == ""


def test_quiet_keeps_errors(run, router):
    router.order("POST /chat/completions", status=400, message="No.")
    assert run(*HI, "-q").stderr.startswith("error: HTTP 400 No.\n")


@pytest.mark.parametrize("more", [[], ["--stream"], ["-o", "json"]])
def test_agentic_leaves_a_breadcrumb(run, more):
    shown = run(*HI, "--agentic", *more)
    assert shown.stderr.startswith("-> agentic mode\n")
    assert "agentic" not in shown


def test_vendor_events_are_dim_lines_beside_the_text(run):
    shown = run(*HI, "--enrich", "--stream", FORCE_COLOR="1")
    assert shown == ANSWER
    lines = shown.stderr.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("\033[2m") for line in lines)
    assert "x_research.progress" in lines[0] and "step" in lines[0]
    assert "x_artifact.created" in lines[2]


def test_events_of_others_are_ignored(run, router):
    shown = run(*HI, *says(router, frames(
        {"type": "ping"}, chunk({"content": "Hi"}, finish_reason="stop"))))
    assert shown == "Hi\n" and "ping" not in shown.stderr


def test_thoughts_in_parts_are_no_part_of_the_answer(run, router):
    thought = [{"type": "text", "text": text} for text in ("Hm. ", "So. ")]
    shown = run(*HI, "--show-reasoning", *says(router, frames(
        chunk({"reasoning_content": thought}),
        chunk({"content": "Hi"}, finish_reason="stop"))))
    assert shown == "Hi\n" and shown.stderr.startswith("Hm. So. ")


def test_reasoning_is_not_shown_unasked(run, router):
    shown = run(*HI, *says(router, frames(
        chunk({"reasoning_content": "Hm. "}), chunk({"reasoning": "So. "}),
        chunk({"content": "Hi"}, finish_reason="stop"))))
    assert shown == "Hi\n"
    assert "Hm" not in shown.stderr and "So" not in shown.stderr


CALL = {"id": "call_1", "type": "function", "function": {
    "name": "get_weather", "arguments": '{"city":"Paris"}'}}
TIME_CALL = {"id": "call_2", "type": "function", "function": {
    "name": "get_time", "arguments": "{}"}}


def call_delta(arguments, name=None, **more):
    return chunk({"tool_calls": [dict(
        more, function={"name": name, "arguments": arguments})]})


@pytest.mark.parametrize("reply, text", [
    (answer({"content": None, "refusal": "I won't."}), "I won't.\n"),
    (frames(chunk({"refusal": "I "}), chunk({"refusal": "won't."}),
            chunk({}, finish_reason="stop")), "I won't.\n"),
    (answer({"content": [{"type": "text", "text": "Part"},
                         {"type": "text", "text": "s."}]}), "Parts.\n"),
    (answer({"content": "One."}, {"content": "Two."}), "One.\n\nTwo.\n"),
    (answer({"content": "One."}, {"content": None, "refusal": "No."}),
     "One.\n\nNo.\n"),
    (frames(chunk({"content": "O"}), chunk({"content": "T"}, index=1),
            chunk({"content": "ne."}), chunk({"content": "wo."}, index=1),
            chunk({}, finish_reason="stop"),
            chunk({}, index=1, finish_reason="stop")), "One.\n\nTwo.\n"),
    (answer({"content": None, "tool_calls": [CALL, TIME_CALL]},
            finish_reason="tool_calls"),
     '[tool call] get_weather({"city":"Paris"})\n'
     "[tool call] get_time({})\n"),
    (answer({"content": "Let me see.", "tool_calls": [CALL]}),
     'Let me see.\n[tool call] get_weather({"city":"Paris"})\n'),
    (frames(chunk({"content": "Let me see."}),
            call_delta('{"city"', "get_weather", index=0, id="call_1"),
            call_delta(':"Paris"}', index=0),
            chunk({"tool_calls": [dict(TIME_CALL, index=1)]}),
            chunk({}, finish_reason="tool_calls")),
     'Let me see.\n[tool call] get_weather({"city":"Paris"})\n'
     "[tool call] get_time({})\n"),
    (frames(call_delta('{"city"', "get_weather", id="call_1"),
            call_delta(':"Paris"}'),
            chunk({}, finish_reason="tool_calls")),
     '[tool call] get_weather({"city":"Paris"})\n'),
    (frames(chunk(None), dict(chunk({}), choices=None),
            chunk({"content": None, "tool_calls": None}),
            chunk({"content": "Hi"}, finish_reason="stop")), "Hi\n"),
    (answer({"content": "Hi\n"}), "Hi\n"),
    (answer({"content": ""}), ""),
])
def test_a_person_sees_all_that_an_answer_says(run, router, reply, text):
    shown = run(*HI, *says(router, reply))
    assert shown.exit_status == 0, shown
    assert shown == text


@pytest.mark.parametrize("reason, words", [
    ("length", "--max-tokens"), ("content_filter", "filter")])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_was_stopped_says_why(run, router, reason, words,
                                             stream):
    reply = (frames(chunk({"content": "Hi"}, finish_reason=reason))
             if stream else answer({"content": "Hi"}, finish_reason=reason))
    shown = run(*HI, *says(router, reply))
    assert shown == "Hi\n" and shown.exit_status == 0
    hint = shown.stderr.splitlines()[-1]
    assert hint.startswith("hint: ") and words in hint


@pytest.mark.parametrize("reason", ["stop", "tool_calls"])
def test_an_answer_that_is_complete_has_no_hint(run, router, reason):
    says(router, answer({"content": "Hi"}, finish_reason=reason))
    assert run(*HI).stderr == ""


# == send: forms of output ===================================================

ODD = answer({"content": "Grüße\u2028", "x_new": [1.0, 1e2]}, usage=USAGE,
             zeta=1, alpha={"big": 12345678901234567890, "none": None})


@pytest.mark.parametrize("reply", [
    ODD,
    {k: v for k, v in ODD.items() if k != "object"},
    dict(ODD, object="text_completion"),
])
def test_json_is_the_object_as_it_was_received(run, router, reply):
    says(router, reply)
    assert run(*HI, "-o", "json") == pretty(reply)


def test_jsonl_is_the_object_on_one_line(run, router):
    says(router, ODD)
    shown = run(*HI, "-o", "jsonl")
    assert shown == json.dumps(ODD, separators=(",", ":"),
                               ensure_ascii=False) + "\n"


STREAM = [
    chunk({"role": "assistant", "content": ""}, service_tier="free"),
    chunk({"content": "Hel"}), chunk({"content": "lo"}),
    chunk({"content": "T"}, index=1),
    chunk({"tool_calls": [dict(CALL, index=0)]}, index=1),
    chunk({}, finish_reason="stop"),
    chunk({}, index=1, finish_reason="tool_calls"),
    usage_chunk(USAGE)]


def test_a_streamed_json_is_the_one_assembled_completion(run, router):
    shown = run(*HI, "-o", "json", *says(router, frames(*STREAM)))
    assert json.loads(shown) == {
        "id": "chatcmpl-7", "object": "chat.completion", "created": NOW,
        "model": "m", "service_tier": "free", "choices": [
            {"index": 0, "message": {"role": "assistant",
                                     "content": "Hello"},
             "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "T",
                                     "tool_calls": [CALL]},
             "finish_reason": "tool_calls"}],
        "usage": USAGE}


def test_a_streamed_jsonl_is_each_chunk_as_it_came(run, router):
    shown = run(*HI, "-o", "jsonl", *says(router, frames(
        {"type": "x_research.progress", "step": 1}, *STREAM)))
    lines = [json.loads(line) for line in shown.splitlines()]
    assert lines == [{"type": "x_research.progress", "step": 1}] + STREAM


@pytest.mark.parametrize("more", [[], ["--stream"]])
def test_csv_is_a_head_and_a_row_of_raw_values(run, more):
    assert run(*HI, "-o", "csv", *more) == (
        "ID,Model,Created,Finish,Prompt tokens,Completion tokens,Content\r\n"
        "chatcmpl-1,demo,1770000000,stop,1,19,"
        f'"{ANSWER.strip()}"\r\n'.replace('"Hi"', '""Hi""'))


@pytest.mark.parametrize("more", [[], ["--stream"]])
def test_id_is_the_id_of_the_completion(run, more):
    assert run(*HI, "-o", "id", *more) == "chatcmpl-1\n"


def test_a_whole_answer_in_place_of_a_stream_is_taken(run, router):
    says(router, ODD)
    says(router, ODD)
    assert run(*HI, "--stream") == "Grüße\u2028\n"
    assert run(*HI, "--stream", "-o", "json") == pretty(ODD)


BEGUN = chunk({"content": "Hel"})
TOLD = {"error": {"message": "worker lost", "code": "stream_error"}}


@pytest.mark.parametrize("events, code", [
    (frames(chunk({"role": "assistant", "content": ""}), end=()), 5),
    (frames(TOLD), 1),
    (frames(BEGUN, end=()), 7),
    (frames(BEGUN, TOLD), 7),
    (frames(BEGUN, end=[b"data: {oops\n\n"]), 7),
])
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_broken_stream_keeps_its_text_but_no_json(run, router, events,
                                                    code, form):
    shown = run(*HI, "-o", form, *says(router, events))
    assert shown.exit_status == code
    assert shown == ("Hel\n" if code == 7 and form == "table" else "")
    if form == "json":
        assert json.loads(shown.stderr)["error"]["message"]
    assert len(router.requests) == 1


def test_an_error_in_a_choice_counts_where_the_next_one_ends_well(run, router):
    last = chunk({})
    last["choices"][0].update(TOLD)
    last["choices"] += chunk({}, index=1, finish_reason="stop")["choices"]
    shown = run(*HI, "--param", "n=2", *says(router, frames(
        BEGUN, chunk({"content": "T"}, index=1), last)))
    assert shown.exit_status == 7 and "worker lost" in shown.stderr


def test_a_stream_may_end_with_its_finish_reason(run, router):
    shown = run(*HI, *says(router, frames(
        chunk({"content": "Hi"}, finish_reason="stop"), end=())))
    assert shown == "Hi\n" and shown.exit_status == 0


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": None},
                                   {"object": "list", "data": []}])
@pytest.mark.parametrize("more", [[], ["--stream"], ["-o", "json"]])
def test_what_is_no_completion_is_an_error(run, router, reply, more):
    says(router, reply)
    shown = run(*HI, *more)
    assert shown.exit_status == 1, shown
    assert shown == ""


# == new =====================================================================

def test_a_template_by_id_is_applied_at_once(run, router):
    shown = run(*NEW, "ctpl_01HROTATE")
    assert shown.exit_status == 0
    assert asked(router) == [f"POST {TEMPLATES}/ctpl_01HROTATE/apply"]
    chat, = router.chats.values()
    assert chat["template_version"] == 7 and chat["messages"] == []


@pytest.mark.parametrize("name, template, pages", [
    ("drain-kubernetes-node", "ctpl_01HDRAIN", 3),
    ("rotate-certificates", "ctpl_01HROTATE", 3),
])
def test_a_name_is_looked_up_over_all_pages(run, router, name, template,
                                            pages):
    assert run(*NEW, name).exit_status == 0
    assert asked(router) == [f"GET {TEMPLATES}"] * pages + [
        f"POST {TEMPLATES}/{template}/apply"]
    assert [seen.query for seen in router.requests[:pages]] == [
        [], [("after", "ctpl_01HRESTART")], [("after", "ctpl_01HTWIN1")]]


def test_a_name_of_two_templates_is_refused_with_their_ids(run, router):
    shown = run(*NEW, "duplicate-name")
    assert shown.exit_status == 2
    assert "ctpl_01HTWIN1, ctpl_01HTWIN2" in shown.stderr
    assert router.seen("POST", "*") == []


def test_an_unknown_name_is_answered_with_the_nearest(run, router):
    shown = run(*NEW, "restart-deploymnet")
    assert shown.exit_status == 4
    assert "restart-deployment" in shown.stderr
    assert "duplicate-name" not in shown.stderr
    assert router.seen("POST", "*") == []


@pytest.mark.parametrize("name, template", [
    ("write-release-notes", "ctpl_01HNOTES"),
    ("triage-incident", "ctpl_01HTRIAGE")])
def test_a_name_may_be_the_projects_or_the_platforms(run, router, name,
                                                     template):
    assert f"template_id: {template}\n" in run(*NEW, name)
    assert asked(router)[0] == f"GET {TEMPLATES}"
    assert "GET /chat-templates" in asked(router)


def test_a_template_of_another_workspace_is_none_here(run, router):
    other = router.store.templates.records["ctpl_01HROTATE"]
    other["workspace_id"] = "ws_0123456789abcdef"
    shown = run(*NEW, "rotate-certificates")
    assert shown.exit_status == 4 and router.seen("POST", "*") == []


def test_every_near_name_is_told_once(run, router):
    shown = run(*NEW, "duplicate-nme")
    assert shown.stderr.count("duplicate-name") == 1


def test_two_shared_templates_of_a_name_are_told_by_id(run, router):
    records = router.store.templates.records
    records["ctpl_01HNOTES"]["name"] = "triage-incident"
    shown = run(*NEW, "triage-incident")
    assert shown.exit_status == 2 and "ctpl_01HNOTES" in shown.stderr
    assert "ctpl_01HTRIAGE" in shown.stderr


@pytest.mark.parametrize("argv", [
    (*NEW, "ctpl_none", "-m", "Hi"),
    ("chat", "new", "--workspace", "ws_none", "--template", "triage"),
])
def test_what_is_not_there_gets_no_message(run, router, argv):
    shown = run(*argv)
    assert shown.exit_status == 4
    assert shown == "" and shown.stderr.startswith("error: HTTP 404 ")
    assert router.chats == {} and router.seen("POST", "/messages") == []


@pytest.mark.parametrize("words, stdin, content", [
    (["-m", "Drain worker-07"], b"", "Drain worker-07"),
    (["--message", "-"], b"Drain\nworker-07\n", "Drain\nworker-07"),
])
def test_a_first_message_is_posted_to_the_new_chat(run, router, words, stdin,
                                                   content):
    assert run(*NEW, "ctpl_01HDRAIN", *words, stdin=stdin).exit_status == 0
    chat, = router.chats.values()
    assert asked(router) == [f"POST {TEMPLATES}/ctpl_01HDRAIN/apply",
                             f"POST /chats/{chat['chat_id']}/messages"]
    assert router.requests[1].json == {"role": "user", "content": content}


def test_an_empty_first_message_starts_no_chat(run, router):
    shown = run(*NEW, "ctpl_01HDRAIN", "-m", "-", stdin=b"")
    assert shown.exit_status == 2 and router.requests == []


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 404}, {"status": 403}, {"drop": "after"},
    {"status": 503, "times": None}])
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_chat_whose_message_failed_is_kept_and_named(run, router, fault,
                                                       form):
    router.order("POST /messages", **fault)
    shown = run(*NEW, "ctpl_01HDRAIN", "-m", "Hi", "-o", form)
    chat_id, = router.chats
    assert shown.exit_status == 1
    assert shown == "" and f"the chat {chat_id} was created" in shown.stderr
    assert len(router.seen("POST", "/apply")) == 1
    assert router.seen("DELETE", "*") == []


@pytest.mark.parametrize("reply", [{}, {"chat_id": 5}, []])
def test_a_chat_without_an_id_gets_no_message(run, router, reply):
    router.order("POST /apply", body=encoded(reply))
    shown = run(*NEW, "ctpl_01HDRAIN", "-m", "Hi")
    assert shown.exit_status == 1 and "was created" in shown.stderr
    assert len(router.requests) == 1


def test_an_id_in_camel_case_gets_the_message(run, router):
    chat_id = json.loads(run(*NEW, "ctpl_01HDRAIN", "-o", "json"))["chat_id"]
    router.order("POST /apply", body=encoded({"chatId": chat_id}))
    shown = run(*NEW, "ctpl_01HDRAIN", "-m", "Hi", "-o", "id")
    assert (shown, shown.exit_status) == (chat_id + "\n", 0)
    assert len(router.seen("POST", f"/chats/{chat_id}/messages")) == 1


@pytest.mark.parametrize("argv, missing", [
    (["--template", "t"], "--workspace"), (["--workspace", "w"], "--template")
])
def test_new_needs_workspace_and_template(run, router, argv, missing):
    shown = run("chat", "new", *argv)
    assert shown.exit_status == 2 and missing in shown.stderr
    assert router.requests == []


def test_ids_of_a_path_are_encoded(run, router):
    run("chat", "new", "--workspace", "w/1", "--template", "ctpl_a?b")
    seen, = router.requests
    assert seen.target == ("/proj_demo/v1/workspaces/w%2F1/chat-templates/"
                           "ctpl_a%3Fb/apply")


CHAT_ID = "chat_01H0000000000000000000001"


def test_new_says_the_five_lines_of_the_page(run_process):
    # A process: str.format is not the same in every Python.
    assert run_process(*NEW, "drain-kubernetes-node") == (
        "chat created from template\n"
        f"chat_id: {CHAT_ID}\n"
        f"url: /chats/{CHAT_ID}\n"
        "template_id: ctpl_01HDRAIN\n"
        "template_version: 3\n")


APPLIED = {"workspace_id": "w", "chat_id": "chat_9", "x_new": {"b": [1]},
           "url": "/chats/chat_9", "template_id": "ctpl_1",
           "template_version": 3}


@pytest.mark.parametrize("form, text", [
    ("json", json.dumps(APPLIED, indent=2) + "\n"),
    ("jsonl", json.dumps(APPLIED, separators=(",", ":")) + "\n"),
    ("csv", "chat_id,url,template_id,template_version\r\n"
            "chat_9,/chats/chat_9,ctpl_1,3\r\n"),
    ("id", "chat_9\n"),
])
@pytest.mark.parametrize("more", [[], ["-m", "Hi"]])
def test_new_shows_the_answer_to_apply_in_each_form(run, router, form, text,
                                                    more):
    router.order("POST /apply", status=201, body=encoded(APPLIED))
    router.order("POST /messages", body=b"{}")
    assert run(*NEW, "ctpl_1", "-o", form, *more) == text


# == plans ===================================================================

def test_a_dry_run_of_send_sends_nothing(run, router):
    shown = run(*HI, "--stream", "--enrich", "--dry-run", "-o", "json")
    assert router.requests == [] and shown.exit_status == 0
    assert json.loads(shown) == {
        "method": "POST",
        "url": f"{router.origin}/proj_demo/demo/v1/chat/completions",
        "headers": {"Authorization": "Bearer xero_demo_…",
                    "Content-Type": "application/json",
                    "X-Xerotier-Vendor-Events": "1"},
        "body": dict(BODY, stream=True,
                     stream_options={"include_usage": True})}


@pytest.mark.parametrize("template, shown_as", [
    ("ctpl_01HDRAIN", "ctpl_01HDRAIN"),
    ("drain-kubernetes-node", "<id of drain-kubernetes-node>"),
    ("no-such-name", "<id of no-such-name>")])
def test_a_dry_run_of_new_sends_nothing_at_all(run, router, template,
                                               shown_as):
    shown = run(*NEW, template, "-m", "Hi", "--dry-run", "-o", "json")
    assert router.requests == [] and shown.exit_status == 0
    apply, message = json.loads(shown)
    below = router.base_url
    assert apply["url"] == f"{below}{TEMPLATES}/{shown_as}/apply"
    assert message["url"] == f"{below}/chats/<chat id>/messages"
    assert message["body"] == {"role": "user", "content": "Hi"}


# == the first block alone ===================================================

BLOCKS = [
    ("Here:\n```python\nx = 1\n```\nor\n```\ny\n```", "x = 1\n"),
    ("```\nx\n\n  y\n```", "x\n\n  y\n"),
    ("~~~sh\nls\n~~~ \n", "ls\n"),
    ("````md\n```\nx\n```\n````", "```\nx\n```\n"),
    ("1. do\n\n   ```sh\n   ls\n     -l\n   ```\n", "ls\n  -l\n"),
    ("```\r\nx\r\n```\r\n", "x\r\n"),
    ("a ```code``` b\n```\nx\n```", "x\n"),
    ("```not ``` a fence\n```\nx\n```", "x\n"),
    ("```\nx ```\n~~~\ny\n```", "x ```\n~~~\ny\n"),
    ("```\n```", "")]


@pytest.mark.parametrize("said, block", BLOCKS)
@pytest.mark.parametrize("is_stream", [True, False])
@every_case
def test_the_first_block_comes_alone(run, router, said, block, is_stream):
    more = says(router, frames(chunk({"content": said},
                                     finish_reason="stop"))
                if is_stream else answer({"content": said}))
    shown = run(*HI, *more, "--extract", "-q", XEROTIER_OUTPUT="json")
    assert (shown, shown.stderr, shown.exit_status) == (block, "", 0)


@pytest.mark.parametrize("said", ["", "no block", "a `word`", "```\nx",
                                  "```\nx\n ~~~", "x\n```", "````\nx\n```"])
def test_an_answer_without_a_block_is_a_failure(run, router, said):
    says(router, answer({"content": said}))
    shown = run(*HI, "--extract")
    assert (shown, shown.exit_status) == ("", 1)
    assert "has no fenced block" in shown.stderr


@pytest.mark.parametrize("more", [
    ["-o", "json"], ["-o", "csv"], ["--interactive"], ["--pick", "id"]])
def test_a_block_is_text(run, router, more):
    shown = run(*HI, "--extract", *more)
    assert (shown, shown.exit_status) == ("", 2)
    assert router.requests == []


def test_a_block_of_a_response_comes_alone(run):
    shown = run("responses", "create", "--endpoint", "demo", "-m",
                "\n```\nx\n```\n", "--extract")
    assert (shown, shown.exit_status) == ("x\n", 0)


# == what a person sees ======================================================

DEMO = "chat", "--endpoint", "demo"
SEEN = {
    "chat-send": HI,
    "chat-stream": HI + ("--stream",),
    "chat-show-usage": HI + ("--system", "Be brief.", "--show-usage"),
    "chat-agentic-enrich": HI + ("--agentic", "--enrich", "--stream"),
    "chat-cut-at-length": HI + ("--max-tokens", "2"),
    "chat-no-message": DEMO,
    "chat-no-endpoint": ("chat", "-m", "Hi"),
    "chat-bad-range": HI + ("--temperature", "2.5"),
    "chat-unknown-endpoint": ("chat", "--endpoint", "llama-3", "-m", "Hi"),
    "chat-json": HI + ("-o", "json"),
    "chat-new": NEW + ("drain-kubernetes-node", "-m", "Drain worker-07"),
    "chat-new-json": NEW + ("ctpl_01HDRAIN", "-o", "json"),
    "chat-new-unknown": NEW + ("drain-node",),
    "chat-new-ambiguous": NEW + ("duplicate-name",),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(run, golden, name):
    golden(name, SEEN[name], run(*SEEN[name]))


def test_what_a_person_sees_of_a_message_that_failed(run, router, golden):
    router.order("POST /messages", status=500)
    argv = NEW + ("ctpl_01HDRAIN", "-m", "Drain worker-07")
    golden("chat-new-not-posted", argv, run(*argv))


# A plan shows the URL, which here has no port that changes.
ACME = {"XEROTIER_BASE_URL": "https://api.xerotier.ai/acme-prod/v1",
        "XEROTIER_API_KEY": "xero_acme-prod_0123456789abcdef"}
PLANNED = {
    "chat-dry-run": HI + ("--system", "Grüße!", "--stream", "--dry-run"),
    "chat-curl": HI[:-1] + ("It's\n$HOME", "--stream", "--curl"),
    "chat-new-dry-run": NEW + ("drain-kubernetes-node", "-m", "Drain it",
                               "--dry-run"),
}


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_what_a_person_sees_of_a_plan(run, golden, name):
    golden(name, PLANNED[name], run(*PLANNED[name], **ACME))
