"""responses: created, streamed, kept, waited for, and talked with in turns.

The events of a stream are told apart by what they bring; a stream that is
ordered here has just the events that a case is about.
"""

import io
import json
import threading

import pytest

import xeroctl
from conftest import at_both_ends, environment, text_stream
from test_session import Keyboard, StoppedAt
from helpers import ACME, answer_to, asked_paths as asked, pretty, sent
from router import as_frame, as_json

ENDPOINT = "--endpoint", "demo"
CREATE = ("responses", "create") + ENDPOINT
HI = CREATE + ("-m", "Hi")
TALK = CREATE + ("--interactive",)
BODY = {"model": "demo", "input": "Hi", "stream": False}
POST = "POST /responses"
STATES = ("queued", "in_progress", "completed", "failed", "cancelled",
          "incomplete")


ANSWER = answer_to("Hi") + "\n"
CALLED = '[tool call] get_weather({"city": "Paris", "unit": "celsius"})\n'
REFUSED = "I'm sorry, but I must refuse this.\n"
THOUGHT = "I think before I speak. Then I say it."


@pytest.fixture
def made(run, router):
    """made("Hi", "--background") is the id of a new response."""
    def maker(text="Hi", *flags):
        made_id = run(*CREATE, "-m", text, "-o", "id", *flags).strip()
        router.requests.clear()
        return made_id
    return maker


@pytest.fixture
def talk(run):
    """talk("one", "two") is a session whose lines come through a pipe."""
    def talker(*lines, more=(), **options):
        text = "".join(line + "\n" for line in lines)
        return run(*TALK, *more, stdin=text.encode(), **options)
    return talker


def compact(value):
    return json.dumps(value, separators=(",", ":")) + "\n"


# == streams that are made here ==============================================

def event(kind, **fields):
    return dict({"type": kind}, **fields)


def response(*output, **more):
    return dict({"id": "resp_9", "object": "response", "model": "m",
                 "status": "completed", "output": list(output)}, **more)


def message(text, kind="output_text"):
    key = "refusal" if kind == "refusal" else "text"
    return {"id": "msg_1", "type": "message", "role": "assistant",
            "status": "completed", "content": [{"type": kind, key: text}]}


def call_of(name):
    return {"type": "function_call", "name": name, "arguments": "{}"}


CREATED = event("response.created", response=response(status="in_progress"))
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def delta(text, kind="output_text", **place):
    return event(f"response.{kind}.delta", delta=text, **dict(PLACE, **place))


def done(text, kind="output_text", key="text", **place):
    return event(f"response.{kind}.done", **dict(PLACE, **place,
                                                 **{key: text}))


def item_done(item, index=0):
    return event("response.output_item.done", output_index=index, item=item)


def completed(*output, **more):
    return event("response.completed", response=response(*output, **more))


FAILED = event("response.failed", response=response(
    status="failed", error={"code": "server_error", "message": "no luck"}))
DONE = b"data: [DONE]\n\n"


def frames(*events, end=()):
    """A stream of these events, each with its name beside it."""
    return [as_frame(each, each["type"]) for each in events] + list(end)


def streams(router, *events, end=()):
    router.order(POST, frames=frames(*events, end=end))


# == create: what is asked ===================================================

def test_an_input_gets_its_answer(run, router):
    shown = run(*HI)
    assert shown == ANSWER
    assert (shown.stderr, shown.exit_status) == ("", 0)
    seen, = router.requests
    assert (seen.method, seen.path) == ("POST",
                                        "/proj_demo/demo/v1/responses")
    assert seen.json == BODY


@pytest.mark.parametrize("flags, fields", [
    (["--model", "llama-3"], {"model": "llama-3"}),
    (["--instructions", "Be brief."], {"instructions": "Be brief."}),
    (["--instructions", "-5"], {"instructions": "-5"}),
    (["--max-output-tokens", "700"], {"max_output_tokens": 700}),
    (["--temperature", "0.5"], {"temperature": 0.5}),
    (["--temperature", "0"], {"temperature": 0}),
    (["--top-p", "0.9"], {"top_p": 0.9}),
    (["--store"], {"store": True}),
    (["--no-store"], {"store": False}),
    (["--store", "--no-store"], {"store": False}),
    (["--no-store", "--store"], {"store": True}),
    (["--background"], {"background": True}),
    (["--metadata", "a=1"], {"metadata": {"a": "1"}}),
    (["--metadata", "a=1", "b=x=y", "--metadata", "c="],
     {"metadata": {"a": "1", "b": "x=y", "c": ""}}),
    (["--reasoning-effort", "low"], {"reasoning": {"effort": "low"}}),
    (["--param", 'tools=[{"name":"now"}]'], {"tools": [{"name": "now"}]}),
    (["--temperature", "1", "--param", "temperature=0.25", "--param",
      "truncation=\"auto\""], {"temperature": 0.25, "truncation": "auto"}),
    (["--enrich"], {}),
    (["--slo-ttft-ms", "300", "--slo-tpot-ms", "20"], {}),
    (["--show-usage"], {}),
    (["--stream"], {"stream": True}),
])
def test_each_flag_sends_its_field_and_no_other(run, router, flags, fields):
    shown = run(*HI, *flags)
    assert shown.exit_status == 0, shown
    assert sent(router) == dict(BODY, **fields)


def test_a_response_follows_another_one(run, router, made):
    first = made()
    shown = run(*HI, "--previous-response-id", first)
    assert sent(router) == dict(BODY, previous_response_id=first)
    assert shown == ANSWER[:-1] + " I know 1 turns before this.\n"


def test_a_response_is_added_to_a_conversation(run, router):
    held = run("conversations", "create", *ENDPOINT, "-o", "id").strip()
    run(*HI, "--conversation", held)
    assert router.requests[-1].json == dict(BODY, conversation=held)
    items = run("conversations", "list-items", held, *ENDPOINT, "-o", "json")
    assert [item["role"] for item in json.loads(items)["data"]] == [
        "assistant", "user"]


@pytest.mark.parametrize("flags, headers", [
    ([], {}),
    (["--enrich"], {"X-Xerotier-Vendor-Events": "1"}),
    (["--slo-ttft-ms", "300"], {"X-SLO-TTFT-Ms": "300"}),
    (["--slo-tpot-ms", "20"], {"X-SLO-TPOT-Ms": "20"}),
])
def test_only_some_flags_add_a_header(run, router, flags, headers):
    run(*HI)
    run(*HI, *flags)
    plain, more = [dict(seen.headers) for seen in router.requests]
    assert more == dict(plain, **headers)


def test_a_stream_is_asked_for_as_one(run, router):
    run(*HI, "--stream")
    assert router.requests[0].headers["Accept"] == "text/event-stream"


@pytest.mark.parametrize("stdin, text", [
    (b"one\ntwo\n", "one\ntwo"), (b"\xef\xbb\xbfcaf\xc3\xa9", "café")])
def test_a_dash_reads_the_input(run, router, stdin, text):
    assert run(*CREATE, "-m", "-", stdin=stdin).exit_status == 0
    assert sent(router)["input"] == text


def test_an_input_that_is_no_text_is_refused(run, router):
    shown = run(*CREATE, "-m", "-", stdin=b"caf\xe9\n")
    assert shown.exit_status == 2 and router.requests == []
    assert "standard input is no UTF-8" in shown.stderr


def test_instructions_come_from_a_file_first(run, router, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_bytes("Sei höflich.\n".encode())
    run(*HI, "--from-file", str(path), "--instructions", "no")
    run(*HI, "--from-file", "-", stdin=b"From a pipe.\n")
    assert [seen.json["instructions"] for seen in router.requests] == [
        "Sei höflich.", "From a pipe."]


@pytest.mark.parametrize("words, told", [
    ([], "--input is missing"),
    (["-m", ""], "the input is empty"),
    (["-m", "-"], "the input is empty"),
    (["-m", "-", "--from-file", "-"], "standard input"),
    (["-m", "Hi", "--from-file", "/no/such"], "/no/such"),
    (["-m", "Hi", "--temperature", "2.1"], "--temperature"),
    (["-m", "Hi", "--top-p", "-0.1"], "--top-p"),
    (["-m", "Hi", "--max-output-tokens", "0"], "--max-output-tokens"),
    (["-m", "Hi", "--slo-ttft-ms", "0"], "--slo-ttft-ms"),
    (["-m", "Hi", "--metadata", "novalue"], "novalue"),
    (["-m", "Hi", "--param", "x={"], "--param"),
    (["--interactive", "-o", "json"], "--interactive"),
])
def test_what_cannot_be_meant_is_not_sent(run, router, words, told):
    shown = run(*CREATE, *words)
    assert shown.exit_status == 2 and told in shown.stderr
    assert shown == "" and router.requests == []


def test_the_input_may_be_given_as_items(run, router):
    items = [{"role": "user", "content": "as an item"}]
    given = "input=" + json.dumps(items)
    run(*CREATE, "--param", given)
    run(*HI, "--param", given)
    assert [seen.json["input"] for seen in router.requests] == [items] * 2


def test_style_openai_names_the_model_and_has_no_slug(run, openai_router):
    style = "--style", "openai"
    assert run(*HI, *style, against=openai_router) == ANSWER
    made_id = run("responses", "-o", "id", *style,
                  against=openai_router).strip()
    assert run("responses", made_id, "-o", "id", *style,
               against=openai_router) == made_id + "\n"
    assert [seen.path for seen in openai_router.requests] == [
        "/v1/responses", "/v1/responses", f"/v1/responses/{made_id}"]
    assert openai_router.requests[0].json == BODY
    shown = run("responses", "create", "-m", "Hi", *style,
                against=openai_router)
    assert shown.exit_status == 2 and "no endpoint" in shown.stderr


# == create: what is shown ===================================================

BOTH_WAYS = pytest.mark.parametrize("more", [[], ["--stream"]])


@BOTH_WAYS
@pytest.mark.parametrize("text, shown_as, told", [
    ("call the tool", CALLED, ""),
    ("refuse this", REFUSED, ""),
    ("think first", answer_to("think first") + "\n", THOUGHT + "\n"),
    ("think first, then call the tool", CALLED, THOUGHT + "\n"),
])
def test_a_person_sees_all_that_a_response_says(run, text, shown_as, told,
                                                more):
    shown = run(*CREATE, "-m", text, "--show-reasoning", *more)
    assert shown == shown_as and shown.exit_status == 0
    said = [line for line in shown.stderr.splitlines(True)
            if not line.startswith("-- ")]
    assert "".join(said) == told


@pytest.mark.parametrize("output, text", [
    ([message("a"), message("b")], "ab\n"),
    ([message(""), call_of("f")], "[tool call] f({})\n"),
    ([message("Hi\n"), call_of("f"), call_of("g")],
     "Hi\n[tool call] f({})\n[tool call] g({})\n"),
    ([{"type": "x_new", "content": 5}, None, message("Hi")], "Hi\n"),
    ([{"type": "message", "content": None}], ""),
])
def test_a_whole_answer_shows_its_texts_and_calls(run, router, output, text):
    router.order(POST, body=as_json(response(*output)))
    shown = run(*HI)
    assert shown == text and shown.exit_status == 0


def test_a_server_may_tell_the_text_alone(run, router):
    router.order(POST, body=as_json(response(output_text="Hi")))
    assert run(*HI) == "Hi\n"


@pytest.mark.parametrize("events, text", [
    ([delta("Hel"), delta("lo"), done("Hello")], "Hello\n"),
    ([done("Hello")], "Hello\n"),
    ([delta("a"), done("a"), done("b", content_index=1)], "ab\n"),
    ([delta("No", "refusal"), done("No", "refusal", "refusal")], "No\n"),
    ([done("No", "refusal", "refusal")], "No\n"),
    ([item_done(call_of("f"))], "[tool call] f({})\n"),
    ([delta("Hi"), item_done(message("Hi")), item_done(call_of("f"), 1)],
     "Hi\n[tool call] f({})\n"),
    ([event("response.x_new.delta", delta="?"), delta("Hi")], "Hi\n"),
    ([delta(None), delta(""), delta("Hi")], "Hi\n"),
])
def test_a_stream_shows_each_text_once(run, router, events, text):
    streams(router, CREATED, *events, completed())
    shown = run(*HI, "--stream")
    assert shown == text and shown.exit_status == 0


@pytest.mark.parametrize("events", [
    [item_done(message("Hello")), completed()],
    [item_done(message("Hello")), completed(message("Hello"))],
    [completed(message("Hello"))],
    [completed(message("Hello", "refusal"))],
])
def test_no_text_is_lost_wherever_the_stream_brings_it(run, router, events):
    streams(router, CREATED, *events)
    assert run(*HI, "--stream") == "Hello\n"


def test_thoughts_of_a_stream_go_to_stderr(run, router):
    streams(router, CREATED, delta("Hm", "reasoning_text"),
            delta("m.", "reasoning_text"), delta("Hi"), completed())
    shown = run(*HI, "--stream", "-q", "--show-reasoning")
    assert (shown, shown.stderr) == ("Hi\n", "Hmm.\n")


def test_thoughts_are_shown_where_they_are_asked_for(run, talk):
    think = *CREATE, "-m", "think first"
    for more in ([], ["-q"], ["--stream"], ["--stream", "-q"]):
        assert THOUGHT not in run(*think, *more).stderr
    assert THOUGHT not in talk("think first").stderr


@BOTH_WAYS
@pytest.mark.parametrize("form", ["json", "csv", "id"])
def test_reasoning_has_a_line_of_its_own(run, form, more):
    shown = run(*CREATE, "-m", "think first", "-o", form,
                "--show-reasoning", *more)
    assert shown.stderr.startswith(THOUGHT)
    assert shown.stderr[len(THOUGHT):][:1] == "\n"


@BOTH_WAYS
def test_what_was_cut_says_which_flag_lets_it_go_on(run, more):
    shown = run(*HI, "--max-output-tokens", "2", *more)
    assert shown == "Hello! You\n" and shown.exit_status == 0
    hint = shown.stderr.splitlines()[-1]
    assert hint.startswith("hint: ") and "--max-output-tokens" in hint


def test_what_a_filter_cut_says_so(run, router):
    streams(router, CREATED, delta("Hi"), event(
        "response.incomplete", response=response(
            status="incomplete",
            incomplete_details={"reason": "content_filter"})))
    shown = run(*HI, "--stream")
    assert (shown, shown.exit_status) == ("Hi\n", 0)
    assert "content filter" in shown.stderr


@BOTH_WAYS
@pytest.mark.parametrize("form", ["table", "json"])
def test_usage_and_id_are_told_on_stderr(run, form, more):
    shown = run(*CREATE, "-m", "think first", "--show-usage", "-q",
                "-o", form, *more)
    assert shown.stderr.endswith(
        "usage: prompt 2, completion 29, total 31, cached 0, reasoning 9\n"
        "id: resp_000000000000000000000001\n")


@pytest.mark.parametrize("quiet, lines", [([], 1), (["-q"], 0)])
def test_vendor_events_are_notes(run, quiet, lines):
    shown = run(*HI, "--stream", "--enrich", *quiet)
    assert shown == ANSWER
    assert shown.stderr.count("x_research.progress {") == lines


# == create: forms of output =================================================

ODD = response(message("Grüße\u2028"), zeta=1, created_at=1e2,
               alpha={"big": 12345678901234567890, "none": None})


@BOTH_WAYS
@pytest.mark.parametrize("reply", [ODD, response(output_text="Hi")])
def test_json_is_the_object_as_it_was_received(run, router, reply, more):
    router.order(POST, body=json.dumps(reply).encode())
    assert run(*HI, "-o", "json", *more) == pretty(reply)


def test_a_streamed_json_is_the_one_response_of_the_end(run, router):
    streams(router, CREATED, delta("Grüße"), event("response.completed",
                                                   response=ODD))
    shown = run(*HI, "-o", "json", "--stream")
    assert json.loads(shown) == ODD and shown.exit_status == 0


def test_a_final_event_without_output_gets_its_items(run, router):
    items = [message("Hello"), call_of("f")]
    streams(router, CREATED, delta("Hello"), item_done(items[0]),
            item_done(items[1], 1), completed(x_new=1))
    shown = run(*HI, "-o", "json", "--stream")
    assert json.loads(shown) == response(*items, x_new=1)


def test_items_keep_their_order_beyond_ten(run, router):
    streams(router, CREATED, *(item_done(call_of(f"f{n}"), n)
                               for n in range(12)), completed())
    assert run(*HI, "--stream") == "".join(
        f"[tool call] f{n}({{}})\n" for n in range(12))


@pytest.mark.parametrize("events, end", [
    ([delta("Hel"), delta("lo"), completed()], ()),
    ([delta("Hel"), delta("lo")], [DONE]),
    ([event("response.output_item.added", output_index=0,
            item=dict(message(""), content=[])),
      delta("Hello"), done("Hello"), completed()], ()),
])
def test_json_holds_the_text_of_deltas_alone(run, router, events, end):
    streams(router, CREATED, *events, end=end)
    shown = json.loads(run(*HI, "-o", "json", "--stream"))
    text, = [part["text"] for item in shown["output"]
             for part in item["content"]]
    assert text == "Hello"


def test_jsonl_is_each_event_as_it_came(run, router):
    events = [CREATED, event("x_research.progress", step=1),
              event("response.x_new.thing", x=[1.0]), delta("Hi"),
              completed(message("Hi"))]
    streams(router, *events)
    shown = run(*HI, "-o", "jsonl", "--stream")
    assert shown == "".join(map(compact, events))


def test_jsonl_of_a_whole_answer_is_one_line(run, router):
    router.order(POST, body=as_json(response(message("Hi"))))
    assert run(*HI, "-o", "jsonl") == compact(response(message("Hi")))


@BOTH_WAYS
def test_csv_and_id_are_those_of_the_response(run, more):
    assert run(*HI, "-o", "id", *more) == "resp_000000000000000000000001\n"
    head, row = run(*HI, "-o", "csv", *more).splitlines()
    assert head.startswith("ID,Model,Status,Created,Completed,Input tokens")
    assert row.startswith("resp_000000000000000000000002,demo,completed,"
                          "1770000000,1770000000,1,19,20,default,")


def test_a_whole_answer_in_place_of_a_stream_is_taken(run, router):
    router.order(POST, body=as_json(ODD))
    assert run(*HI, "--stream") == "Grüße\u2028\n"


def test_a_stream_may_come_byte_by_byte(run, router):
    router.order(POST, drip=True,
                 frames=frames(CREATED, delta("Grüße"), completed()))
    assert run(*HI, "--stream") == "Grüße\n"


def test_done_in_place_of_a_terminal_event_ends_the_answer(run, router):
    streams(router, CREATED, delta("Hi"), end=[DONE])
    shown = run(*HI, "--stream")
    assert (shown, shown.exit_status) == ("Hi\n", 0)
    assert "--wait" not in shown.stderr


def test_nothing_is_read_after_the_terminal_event(run, router):
    streams(router, CREATED, delta("Hi"), completed(), delta("?"), FAILED,
            end=[DONE])
    shown = run(*HI, "--stream")
    assert (shown, shown.exit_status) == ("Hi\n", 0)


@at_both_ends
@pytest.mark.parametrize("form, first, second", [
    ("table", "first ", "second\n"),
    ("jsonl", compact(CREATED) + compact(delta("first ")),
     compact(delta("second")) + compact(completed())),
])
def test_the_first_delta_is_there_before_the_second_is_made(start, router,
                                                            form, first,
                                                            second):
    gate = threading.Event()
    router.order(POST, gate=(2, gate), frames=frames(
        CREATED, delta("first "), delta("second"), completed()))
    process = start(*HI, "--stream", "-o", form, "--timeout", "5")
    assert process.stdout.read(len(first)) == first.encode()
    gate.set()
    assert process.stdout.read() == second.encode()
    assert process.wait(20) == 0


# == create: what goes wrong =================================================

ERROR = event("error", code="server_error", message="no luck", param=None,
              sequence_number=3)
TOLD = event("error", error={"message": "no luck", "code": "server_error"})
BEGUN = delta("Hel")
BROKEN = [
    ([CREATED], (), 5),
    ([CREATED, delta("")], (), 5),
    ([], (), 5),
    ([CREATED, FAILED], (), 1),
    ([CREATED, ERROR], (), 1),
    ([CREATED, TOLD], (), 1),
    ([CREATED], [b"data: {oops\n\n"], 1),
    ([CREATED, BEGUN], (), 7),
    ([CREATED, BEGUN, FAILED], (), 7),
    ([CREATED, BEGUN, ERROR], (), 7),
    ([CREATED, BEGUN, TOLD], (), 7),
    ([CREATED, BEGUN], [b"event: response.output_text.delta\ndata: {\n\n"],
     7),
    ([CREATED, BEGUN], [b"data: {oo"], 7),
]


@pytest.mark.parametrize("events, end, code", BROKEN)
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_broken_stream_keeps_its_text_but_no_json(run, router, events, end,
                                                    code, form):
    streams(router, *events, end=end)
    shown = run(*HI, "--stream", "-o", form)
    assert shown.exit_status == code, shown
    assert shown == ("Hel\n" if code == 7 and form == "table" else "")
    if form == "json":
        assert json.loads(shown.stderr)["error"]["message"]
    if {FAILED["type"], "error"} & {each["type"] for each in events}:
        assert "no luck" in shown.stderr and "server_error" in shown.stderr
    assert len(router.requests) == 1


@pytest.mark.parametrize("events", [
    [event("response.function_call_arguments.delta", delta="{")],
    [item_done(call_of("f"))],
    [delta("Hm", "reasoning_summary_text")],
    [delta("No", "refusal")],
])
def test_whatever_arrived_makes_a_cut_worse(run, router, events):
    streams(router, CREATED, *events)
    assert run(*HI, "--stream").exit_status == 7


@pytest.mark.parametrize("more, code", [([], 1), (["--stream"], 1)])
def test_a_failure_before_any_text_is_told(run, more, code):
    shown = run(*CREATE, "-m", "fail now", *more)
    assert (shown, shown.exit_status) == ("", code)
    who = "server broke off the stream" if more else "answer broke off"
    assert shown.stderr.startswith(f"error: the {who}: The model failed")


def test_a_failure_after_some_text_keeps_it(run):
    shown = run(*CREATE, "-m", "fail later", "--stream")
    assert (shown, shown.exit_status) == ("Hello! You\n", 7)
    assert "The model failed" in shown.stderr


@pytest.mark.parametrize("more", [{}, {"status": "in_progress"}])
def test_a_failure_is_one_by_its_event_too(run, router, more):
    failed = dict(response(error={"message": "no luck"}), **more)
    if not more:
        del failed["status"]
    streams(router, CREATED, event("response.failed", response=failed))
    shown = run(*HI, "--stream")
    assert shown.exit_status == 1 and "no luck" in shown.stderr


@BOTH_WAYS
@pytest.mark.parametrize("reply", [{}, [], {"choices": []},
                                   {"object": "list", "data": []}])
def test_what_is_no_response_is_an_error(run, router, reply, more):
    router.order(POST, body=as_json(reply))
    shown = run(*HI, *more)
    assert (shown, shown.exit_status) == ("", 1)


def test_a_stream_of_nothing_is_no_answer(run, router):
    router.order(POST, frames=[DONE])
    shown = run(*HI, "--stream")
    assert (shown, shown.exit_status) == ("", 1)


# == background, and waiting =================================================

def test_a_background_response_is_named_with_the_way_to_wait(run):
    shown = run(*HI, "--background")
    assert (shown, shown.exit_status) == ("", 0)
    assert shown.stderr == (
        "resp_000000000000000000000001 is queued: xeroctl responses"
        " resp_000000000000000000000001 --endpoint demo --wait waits for it\n"
    )
    assert run(*HI, "--background", "-o", "id") == (
        "resp_000000000000000000000002\n")


def test_a_background_response_streams_too(run, router):
    shown = run(*HI, "--background", "--stream")
    assert shown == ANSWER and "--wait" not in shown.stderr
    assert sent(router) == dict(BODY, background=True, stream=True)


def test_a_wait_ends_with_the_response(run, router, clock, made):
    router.response_polls = 3
    made_id = made("Hi", "--background")
    shown = run("responses", made_id, "--wait", *ENDPOINT)
    assert shown.exit_status == 0
    assert f"ID:                {made_id}\n" in shown
    assert "Status:            completed\n" in shown
    assert asked(router) == [f"GET /responses/{made_id}"] * len(clock.slept
                                                                + [0])
    assert set(clock.slept) == {2} and len(clock.slept) >= 2
    assert shown.stderr.startswith(f"2026-02-02T02:40:00Z {made_id} queued\n")


def test_a_wait_for_what_has_ended_asks_once(run, router, clock, made):
    made_id = made()
    shown = run("responses", made_id, "--wait", "-o", "id", *ENDPOINT)
    assert (shown, shown.exit_status) == (made_id + "\n", 0)
    assert len(router.requests) == 1 and clock.slept == []


@pytest.mark.parametrize("form", ["table", "json"])
def test_a_wait_for_a_failure_shows_it_and_fails(run, made, form):
    made_id = made("fail now", "--background")
    shown = run("responses", made_id, "--wait", "-o", form, *ENDPOINT)
    assert shown.exit_status == 1
    assert "failed" in shown and "The model failed, as was wished." in shown
    assert f"response {made_id}: failed" in shown.stderr


def test_a_wait_for_what_was_cancelled_fails(run, made):
    made_id = made("Hi", "--background")
    shown = run("responses", made_id, "--cancel", *ENDPOINT)
    assert shown.exit_status == 0 and "cancelled" in shown
    shown = run("responses", made_id, "--wait", *ENDPOINT)
    assert shown.exit_status == 1 and "cancelled" in shown.stderr


def test_what_was_cut_has_ended_as_it_does_without_a_wait(run, made):
    made_id = made("be cut", "--background")
    shown = run("responses", made_id, "--wait", *ENDPOINT)
    assert shown.exit_status == 0
    assert "Incomplete:        max_output_tokens\n" in shown


def test_a_wait_that_is_too_long_names_the_way_on(run, router, clock, made):
    router.response_polls = 9
    made_id = made("Hi", "--background")
    shown = run("responses", made_id, "--wait", "--wait-timeout", "3",
                *ENDPOINT)
    assert (shown, shown.exit_status) == ("", 8)
    assert f"xeroctl responses {made_id} --endpoint demo --wait resumes" in (
        shown.stderr)
    assert sum(clock.slept) == 3


def test_the_way_on_leads_to_the_same_deployment(run, router, made, tmp_path):
    router.response_polls = 9
    made_id = made("Hi", "--background")
    (tmp_path / "config").write_text(
        f'[deployment."a b"]\nbase_url = "{router.base_url}"\n'
        f'api_key = "{router.key}"\nendpoint = "demo"\n')
    shown = run("--context", "a b", "responses", made_id, "--wait",
                "--wait-timeout", "3", against=None,
                XEROTIER_CONFIG=str(tmp_path / "config"))
    assert f"xeroctl responses {made_id} --context 'a b' --wait resumes" in (
        shown.stderr)


def test_a_wait_bears_failures_that_pass(run, router, made):
    made_id = made("Hi", "--background")
    router.order(f"GET /{made_id}", status=500, times=4)
    router.order(f"GET /{made_id}", drop="after", times=4)
    assert run("responses", made_id, "--wait", *ENDPOINT).exit_status == 0


def test_a_wait_for_what_is_not_there_ends_at_once(run, router, clock):
    shown = run("responses", "resp_0", "--wait", *ENDPOINT)
    assert (shown, shown.exit_status) == ("", 4)
    assert len(router.requests) == 1 and clock.slept == []


@pytest.mark.parametrize("reply", [{}, [], {"id": "x", "status": None}])
def test_what_is_no_response_is_not_waited_for(run, router, reply):
    router.order("GET /resp_9", body=as_json(reply))
    shown = run("responses", "resp_9", "--wait", *ENDPOINT)
    assert (shown, shown.exit_status) == ("", 1)
    assert len(router.requests) == 1


# == list, show, and the other actions =======================================

LIST = ("responses",) + ENDPOINT


@pytest.mark.parametrize("status", STATES)
def test_a_list_knows_each_status(run, router, status):
    shown = run(*LIST, "--status", status)
    assert shown.exit_status == 0
    assert "No responses found." in shown.stderr
    seen, = router.requests
    assert seen.target == f"/proj_demo/demo/v1/responses?status={status}"


def test_a_list_is_by_status(run, made):
    first, _ = made("Hi"), made("fail now", "--background")
    waiting = made("Hi", "--background")
    assert run(*LIST, "--status", "completed", "-o", "id") == first + "\n"
    queued = run(*LIST, "--status", "queued", "-o", "id").splitlines()
    assert queued[0] == waiting and len(queued) == 2


def test_a_list_shows_ages_and_no_tokens_yet(run, made):
    made_id = made("Hi", "--background")
    assert run(*LIST) == (
        "ID                             Model  Status  Input tokens"
        "  Output tokens  Created\n"
        f"{made_id}  demo   queued  -             -              0s ago\n")


def test_a_response_is_shown_as_it_is(run, router, made):
    made_id = made("Hi", "--metadata", "a=1", "b=2")
    shown = run("responses", made_id, *ENDPOINT)
    assert "Metadata:          a=1, b=2\n" in shown
    assert "Service tier:      default\n" in shown
    assert "Store:             yes\n" in shown
    assert asked(router) == [f"GET /responses/{made_id}"]
    router.order(f"GET /{made_id}", body=json.dumps(ODD).encode())
    assert run("responses", made_id, "-o", "json", *ENDPOINT) == pretty(ODD)


@pytest.mark.parametrize("output, lines", [
    ([{"type": "message", "content": [
        {"type": "output_text", "text": "one\ntwo"}]}], ["", "one", "two"]),
    ([{"type": "reasoning", "summary": [{"text": "hm"}]},
      {"type": "message", "content": [{"type": "refusal", "refusal": "No"}]},
      {"type": "function_call", "name": "f", "arguments": "{}"}],
     ["", "No", "[tool call] f({})"]),
    ([], ["            -"]), ("odd", ["            odd"]),
    ([{"type": "message", "content": "a"}, "b", None],
     ["", "a", "b", "-"])])
def test_a_response_is_shown_with_its_text(run, router, output, lines):
    router.order("GET /r", times=None, body=as_json(
        {"id": "r", "status": "completed", "output": output}))
    shown = run("responses", "r", *ENDPOINT)
    assert shown.partition("Answer:")[2].split("\n") == lines + [""]
    shown = run("responses", "r", "--wait", *ENDPOINT)
    assert shown.partition("Answer:")[2].strip() == (
        "\\n".join(lines).strip("\\n ") + "\n").strip()


def test_a_response_may_hold_its_text_alone(run, router):
    router.order("GET /r", body=b'{"id": "r", "output_text": "Hello"}')
    assert "Answer:            Hello\n" in run("responses", "r", *ENDPOINT)


def test_what_was_not_stored_is_not_there(run, made):
    made_id = made("Hi", "--no-store")
    assert run("responses", made_id, *ENDPOINT).exit_status == 4


def test_input_items_are_listed(run, router, made):
    made_id = made()
    shown = run("responses", made_id, "--input-items", "--limit", "5",
                *ENDPOINT)
    head, row = shown.splitlines()
    assert head.split() == ["ID", "Type", "Role", "Content"]
    assert row.split()[1:] == ["message", "user", "Hi"]
    seen, = router.requests
    assert seen.target == (f"/proj_demo/demo/v1/responses/{made_id}"
                           "/input_items?limit=5")


def test_only_what_runs_in_the_background_is_cancelled(run, router, made):
    made_id = made()
    shown = run("responses", made_id, "--cancel", *ENDPOINT)
    assert (shown, shown.exit_status) == ("", 1)
    assert shown.stderr.startswith("error: HTTP 409 ")
    assert asked(router) == [f"POST /responses/{made_id}/cancel"]
    assert router.requests[0].body == b""


# == a session: each response follows the last one ===========================

def bodies(router):
    """What each message of a session was sent with, model and all aside."""
    return [{name: value for name, value in seen.json.items()
             if name not in ("model", "stream")} for seen in router.requests]


def made_ids(router):
    return [record["id"] for record in router.store.responses.of(None)]


def test_a_session_does_not_send_its_history_again(talk, router):
    shown = talk("one", "two", "three")
    assert shown.exit_status == 0
    assert shown.splitlines() == [
        answer_to("one"),
        answer_to("two") + " I know 1 turns before this.",
        answer_to("three") + " I know 2 turns before this."]
    first, second, _ = made_ids(router)
    assert bodies(router) == [
        {"input": "one"}, {"input": "two", "previous_response_id": first},
        {"input": "three", "previous_response_id": second}]
    assert all(seen.json["stream"] is True for seen in router.requests)
    assert shown.stderr.endswith("output tokens, 6 messages\n")


def test_a_session_takes_up_an_earlier_response(talk, router, made):
    earlier = made()
    shown = talk("one", more=["--previous-response-id", earlier])
    assert "I know 1 turns before this." in shown
    assert bodies(router) == [
        {"input": "one", "previous_response_id": earlier}]


def test_flags_of_a_session_go_with_every_message(talk, router):
    talk("one", "two", more=["--instructions", "Be brief.", "--temperature",
                             "0.5", "--metadata", "a=1", "--enrich"])
    for body in bodies(router):
        assert body["instructions"] == "Be brief."
        assert body["temperature"] == 0.5 and body["metadata"] == {"a": "1"}
    assert [seen.headers["X-Xerotier-Vendor-Events"]
            for seen in router.requests] == ["1", "1"]


def test_the_first_message_may_be_a_flag(talk, router):
    talk("two", more=["-m", "one"])
    assert [body["input"] for body in bodies(router)] == ["one", "two"]


def said(role, content):
    """A turn as an item: llama.cpp takes none of the model's without type."""
    return {"type": "message", "role": role, "content": content}


def test_a_session_without_store_sends_what_was_said(talk, router):
    talk("one", "two", more=["--no-store"])
    assert bodies(router) == [
        {"input": "one", "store": False},
        {"store": False, "input": [
            said("user", "one"), said("assistant", answer_to("one")),
            said("user", "two")]}]


def test_a_session_in_a_conversation_is_not_chained(talk, run, router):
    held = run("conversations", "create", *ENDPOINT, "-o", "id").strip()
    router.requests.clear()
    shown = talk("one", "two", more=["--conversation", held])
    assert shown.exit_status == 0
    assert bodies(router) == [{"conversation": held, "input": "one"},
                              {"conversation": held, "input": "two"}]
    assert "I know 1 turns before this." in shown


def test_a_conversation_holds_what_is_not_stored(talk, run, router):
    held = run("conversations", "create", *ENDPOINT, "-o", "id").strip()
    talk("one", "two", more=["--conversation", held, "--no-store"])
    assert router.requests[-1].json["input"] == "two"


def test_a_tool_call_is_a_turn_like_another(talk, router):
    shown = talk("call the tool", "two")
    assert shown.startswith(CALLED)
    first, _ = made_ids(router)
    assert bodies(router)[1] == {"input": "two",
                                 "previous_response_id": first}


@pytest.mark.parametrize("lines, inputs, previous", [
    (["one", "two", "/undo", "three"], ["one", "two", "three"], 0),
    (["one", "/undo", "two"], ["one", "two"], None),
    (["one", "two", "/retry"], ["one", "two", "two"], 0),
    (["one", "/retry"], ["one", "one"], None),
    (["one", "two", "/retry", "three"], ["one", "two", "two", "three"], 2),
    (["one", "/clear", "two"], ["one", "two"], None),
])
def test_what_is_taken_back_is_not_followed(talk, router, lines, inputs,
                                            previous):
    assert talk(*lines).exit_status == 0
    assert [body["input"] for body in bodies(router)] == inputs
    followed = bodies(router)[-1].get("previous_response_id")
    ids = made_ids(router)
    assert followed == (None if previous is None else ids[previous])


def test_a_system_message_is_sent_as_instructions(talk, router):
    talk("one", "/system Be brief.", "two", "/system Sing.", "three",
         "/clear", "four")
    assert [body.get("instructions") for body in bodies(router)] == [
        None, "Be brief.", "Sing.", "Sing."]
    assert "previous_response_id" not in bodies(router)[-1]
    assert all(isinstance(body["input"], str) for body in bodies(router))


def test_a_saved_session_is_followed_later(talk, router, tmp_path):
    path = str(tmp_path / "kept.json")
    talk("one", f"/save {path}")
    first, = made_ids(router)
    saved = json.loads((tmp_path / "kept.json").read_text("utf-8"))
    assert saved["version"] == 1 and saved["messages"] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": answer_to("one"),
         "response_id": first}]
    talk(f"/load {path}", "two")
    assert bodies(router)[-1] == {"input": "two",
                                  "previous_response_id": first}


BARE = [{"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"}]


def test_a_loaded_list_is_sent_once(talk, router, tmp_path):
    path = tmp_path / "bare.json"
    path.write_text(json.dumps(BARE))
    shown = talk(f"/load {path}", "two", "three")
    assert shown.exit_status == 0, shown
    assert bodies(router) == [
        {"instructions": "Be brief.",
         "input": [said("user", "one"), said("assistant", "1"),
                   said("user", "two")]},
        {"instructions": "Be brief.", "input": "three",
         "previous_response_id": made_ids(router)[0]}]


def test_what_is_no_conversation_changes_nothing(talk, router, tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    shown = talk("one", f"/load {path}", "two")
    assert "other.json is no conversation" in shown.stderr
    assert bodies(router)[1] == {"input": "two", "previous_response_id":
                                 made_ids(router)[0]}


def test_an_answer_that_broke_off_is_no_turn(talk, router):
    router.order(POST, when=lambda seen: b'"input":"two"' in seen.body,
                 frames=frames(CREATED, delta("Half")))
    shown = talk("one", "two", "three")
    assert shown.splitlines()[1] == "Half" and shown.exit_status == 7
    assert bodies(router)[-1] == {
        "input": "three", "previous_response_id": made_ids(router)[0]}


@pytest.mark.parametrize("fault, code", [
    ({"status": 500}, 1), ({"status": 400}, 1), ({"drop": "after"}, 5),
    ({"frames": frames(CREATED, FAILED)}, 1),
    ({"frames": frames(CREATED)}, 5),
])
def test_a_failure_keeps_the_session(talk, router, fault, code):
    router.order(POST, when=lambda seen: b'"input":"two"' in seen.body,
                 **fault)
    shown = talk("one", "two", "three")
    assert shown.exit_status == code
    assert shown.stderr.count("error: ") == 1
    assert "I know 1 turns before this." in shown
    assert bodies(router)[-1] == {
        "input": "three", "previous_response_id": made_ids(router)[0]}


def test_a_retry_that_fails_forgets_nothing(talk, router):
    router.order(POST, status=200)
    router.order(POST, status=500)
    shown = talk("one", "/retry", "two")
    assert shown.exit_status == 1
    assert [body["input"] for body in bodies(router)] == ["one", "one", "two"]
    assert bodies(router)[-1]["previous_response_id"] == made_ids(router)[0]


def test_a_session_says_what_was_thought_and_cut(talk):
    shown = talk("think first", "be cut", more=["--show-reasoning"])
    assert THOUGHT + "\n" in shown.stderr
    assert "--max-output-tokens" in shown.stderr
    assert shown.splitlines()[1] == "Hello! You said:"


def test_a_session_tells_the_ids_of_its_answers(talk, router):
    shown = talk("one", "two", more=["--show-usage"])
    assert shown.stderr.count("usage: prompt 1") == 2
    for made_id in made_ids(router):
        assert f"id: {made_id}\n" in shown.stderr


def test_an_answer_that_was_stopped_is_sent_along(router, clock):
    streams(router, CREATED, delta("Half"), delta(" of it"), completed())
    stdout = io.TextIOWrapper(StoppedAt(b" of"), encoding="ascii")
    stderr = text_stream()
    status = xeroctl.main(TALK, environment(router), xeroctl.Streams(
        Keyboard(["one", "two"]), stdout, stderr), clock)
    assert status == 0
    body = bodies(router)[1]
    assert "previous_response_id" not in body
    assert [(item["role"], item["content"]) for item in body["input"]] == [
        ("user", "one"), ("assistant", "Half of it"), ("user", "two")]


def test_a_session_with_style_openai_is_chained(talk, openai_router):
    assert talk("one", "two", more=["--style", "openai"],
                against=openai_router).exit_status == 0
    assert openai_router.requests[1].json == {
        "model": "demo", "input": "two", "stream": True,
        "previous_response_id": made_ids(openai_router)[0]}


# == what a person sees ======================================================

FIRST = "resp_000000000000000000000001"
SHOW = ("responses", FIRST) + ENDPOINT
BACKGROUND = HI + ("--background",)
SEEN = {
    "responses-create": (HI,),
    "responses-usage": (CREATE + ("-m", "think first", "--show-usage"),),
    "responses-tool-call": (CREATE + ("-m", "call the tool"),),
    "responses-cut": (HI + ("--max-output-tokens", "3"),),
    "responses-failed": (CREATE + ("-m", "fail later", "--stream"),),
    "responses-failed-json": (CREATE + ("-m", "fail now", "-o", "json"),),
    "responses-background": (BACKGROUND,),
    "responses-list": (HI, BACKGROUND, LIST),
    "responses-list-csv": (HI, BACKGROUND, LIST + ("-o", "csv")),
    "responses-list-empty": (LIST + ("--status", "failed"),),
    "responses-show": (HI + ("--metadata", "team=blue"), SHOW),
    "responses-input-items": (HI, SHOW + ("--input-items",)),
    "responses-wait": (BACKGROUND, SHOW + ("--wait",)),
    "responses-delete": (HI, SHOW + ("--delete", "--force")),
    "responses-delete-unasked": (SHOW + ("--delete",),),
    "responses-no-cancel": (HI, SHOW + ("--cancel",)),
    "responses-no-input": (CREATE,),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(run, golden, name):
    *before, argv = SEEN[name]
    for each in before:
        run(*each)
    golden(name, *argv)


def test_what_a_person_sees_of_a_plan(golden):
    argv = HI + ("--instructions", "Grüße!", "--stream", "--dry-run")
    golden("responses-dry-run", *argv, **ACME)


def test_an_error_in_the_frame_of_a_stream_is_read(run, router):
    router.order(POST, status=400, body=b'data: {"error": {"message": "no '
                 b'such thing", "code": "x"}}\n\ndata: [DONE]\n\n')
    shown = run("responses", "create", "--endpoint", "demo", "-m", "hi",
                "--stream")
    assert (shown, shown.exit_status) == ("", 1)
    assert shown.stderr.startswith("error: HTTP 400 no such thing\n")
