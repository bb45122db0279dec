"""Floor 7: a stream is read the same however it is split, shown as it comes,
and judged by what has come when it ends."""

import http.client
import io
import json
from types import SimpleNamespace

import pytest

from conftest import costly
import xeroctl
from helpers import Ear
from router import DEMO_KEY, Router, as_frame

CHAT = "chat", "--endpoint", "demo", "-m", "hi", "--stream"
DONE = b"data: [DONE]\n\n"


def chunk(delta=None, finish=None, **more):
    """A chunk as short as servers make them."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return dict({"object": "chat.completion.chunk", "choices": [choice]},
                **more)


def says(text):
    return as_frame(chunk({"content": text}))


ROLE = as_frame(chunk({"role": "assistant", "content": ""}))
HE, LLO = says("He"), says("llo")
STOP = as_frame(chunk({}, "stop"))
OVERLOADED = {"error": {"message": "overloaded", "code": "busy"}}
ERROR = as_frame(OVERLOADED)


def error_lines(shown):
    return [line for line in shown.stderr.splitlines()
            if line.startswith("error: ")]


def frames_of(shown):
    """The JSON of each line of standard output."""
    return [json.loads(line) for line in shown.splitlines()]


# -- lines and events: pure generators over bytes ---------------------------

def splits(body):
    """The body whole, in two at every byte, and byte by byte."""
    yield [body]
    for place in range(1, len(body)):
        yield [body[:place], body[place:]]
    yield [body[place:place + 1] for place in range(len(body))]


LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}

# The body with LF ends: the (event, data) that it stands for.
EVENTS = [
    (b"data: a\n\n", [("", "a")]),
    (b"data:a\n\n", [("", "a")]),
    (b"data:  a \n\n", [("", " a ")]),
    (b"data: a\ndata: b\n\ndata: c\n\n", [("", "a\nb"), ("", "c")]),
    (b"data: a\ndata:\ndata: b\n\n", [("", "a\n\nb")]),
    (b"data\n\n", [("", "")]),
    (b"data: a: b\n\n", [("", "a: b")]),
    (b"event: x\ndata: a\n\ndata: b\n\n", [("x", "a"), ("", "b")]),
    (b"event:x\ndata: a\n\n", [("x", "a")]),
    (b"event: x\nevent: y\ndata: a\n\n", [("y", "a")]),
    (b"event: x\n\ndata: a\n\n", [("", "a")]),
    (b": ping\n\n:\n\ndata: a\n: b\n\n", [("", "a")]),
    (b"id: 7\nretry: 9\nfoo: b\n data: c\ndata: a\n\n", [("", "a")]),
    (b"\n\n\ndata: a\n\n\n\n", [("", "a")]),
    (b"\xef\xbb\xbfdata: a\n\n", [("", "a")]),
    (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [("", "a")]),
    ("data: é€😀\n\n".encode(), [("", "é€😀")]),
    ("data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\n\n".encode(),
     [("", "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg")]),
    (b"data: \xff\xc3\n\n", [("", "\ufffd\ufffd")]),
    (b"data: a\n\ndata: b\n", [("", "a"), ("", "b")]),
    (b"data: a\n\ndata: b", [("", "a"), ("", "b")]),
    (b"", []),
    (b"\xef\xbb\xbf", []),
]


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
@pytest.mark.parametrize("body, events", EVENTS)
def test_events_do_not_depend_on_splits_or_line_ends(body, events, end):
    for blocks in splits(body.replace(b"\n", end)):
        found = list(xeroctl.sse_events(blocks))
        assert [each[:2] for each in found] == events, blocks


def test_kinds_of_line_ends_can_be_mixed():
    body = b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r\ndata: e\n\r"
    for blocks in splits(body):
        found = [each[:2] for each in xeroctl.sse_events(blocks)]
        assert found == [("", "a\nb\nc"), ("", "d"), ("", "e")], blocks


@pytest.mark.parametrize("body, is_whole", [
    (b"data: a\n\n", True), (b"data: a\n", True), (b"data: a\r", True),
    (b"data: a", False), (b"data: a\n: b", False)])
def test_an_event_tells_whether_its_last_line_was_whole(body, is_whole):
    event, = xeroctl.sse_events([body])
    assert event == ("", "a", is_whole)


def test_lines_do_not_depend_on_splits():
    body = b"a\nb\r\nc\rd\r\r\n\n\n\re\r\n\r\nf"
    for blocks in splits(body):
        lines = [line.rstrip(b"\r\n") for line in xeroctl.sse_lines(blocks)]
        assert lines == [b"a", b"b", b"c", b"d", b"", b"", b"", b"", b"e",
                         b"", b"f"], blocks


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_an_event_is_out_before_more_is_read(end):
    def blocks():
        yield b"data: a" + end + end
        pytest.fail("read on while an event was due")
    assert next(xeroctl.sse_events(blocks()))[:2] == ("", "a")


# (event, payload) frames: the kinds that they are told by.
KINDS = [
    (as_frame({"type": "a", "object": "b"}, event="c"), ["c"]),
    (as_frame({"type": "a", "object": "b"}, event="message"), ["a"]),
    (as_frame({"type": "a", "object": "b"}), ["a"]),
    (as_frame({"object": "b"}), ["b"]),
    (as_frame({}), [None]),
    (b": ping\n\n", []),
]


@pytest.mark.parametrize("frame, kinds", KINDS)
def test_an_event_is_told_by_its_name_else_its_type_or_object(frame, kinds):
    events = xeroctl.api_events([frame + DONE])
    assert [kind for kind, _ in events] == kinds


@pytest.mark.parametrize("name", [
    "response.completed", "response.incomplete", "response.cancelled"])
@pytest.mark.parametrize("event", [None, "message", "named"])
def test_a_terminal_event_ends_a_stream_of_responses(name, event):
    last = as_frame({"type": name}, event=name if event == "named" else event)
    delta = as_frame({"type": "response.output_text.delta", "delta": "a"})
    blocks = [delta, last, b"data: no JSON\n\n"]
    kinds = [kind for kind, _ in xeroctl.api_events(blocks)]
    assert kinds == ["response.output_text.delta", name]


# -- one chat, cut at every byte --------------------------------------------

def shortest(**choice):
    return as_frame({"choices": [choice]})


# (frame, the text that it adds, whether it tells the finish_reason)
CUT_FRAMES = [
    (shortest(delta={"content": ""}), "", False),
    (shortest(delta={"content": "Hé"}), "Hé", False),
    (shortest(delta={"content": "!"}), "!", False),
    (shortest(finish_reason="stop"), "", True),
    (as_frame({"choices": [], "usage": {"completion_tokens": 2}}), "", False),
    (DONE, "", False),
]
CUT_BODY = b"".join(frame for frame, _, _ in CUT_FRAMES)


def due_after(count, lacking):
    """(text, exit code) that the first bytes of CUT_BODY amount to.

    lacking is how many bytes the last frame may lack.
    """
    text, is_finished = "", False
    for frame, added, finishes in CUT_FRAMES:
        if len(frame) - lacking > count:
            break
        count -= len(frame)
        text += added
        is_finished = is_finished or finishes
    return text, 0 if is_finished else 7 if text else 5


# name: (the word that orders it, more words, what a last frame may lack).
# At a clean end that is its blank line; of a connection that broke no frame
# is taken that may be torn.
CUTS = {
    "a clean end": ("end", {}, len(b"\n\n")),
    "closed, of no known length": ("cut", {"no_chunked": True},
                                   len(b"\n\n")),
    "closed within the chunks": ("cut", {}, 0),
    "reset": ("cut", {"reset": True}, 0),
}


@pytest.mark.parametrize("word, more, lacking", [
    cut if name == "reset" else pytest.param(*cut, marks=costly)
    for name, cut in CUTS.items()], ids=list(CUTS))
def test_a_stream_cut_anywhere_keeps_its_text_and_tells(
        run, router, word, more, lacking):
    for count in range(len(CUT_BODY) + 1):
        router.order("POST /chat/completions", frames=[CUT_BODY],
                     **dict(more, **{word: count}))
        shown = run(*CHAT)
        text, code = due_after(count, lacking)
        assert (count, shown.exit_status) == (count, code), shown
        assert shown == (text and text + "\n"), count
        assert len(error_lines(shown)) == (code != 0), shown
    assert len(router.requests) == len(CUT_BODY) + 1


@pytest.mark.parametrize("word, more, lacking", CUTS.values(), ids=CUTS)
def test_a_stream_cut_anywhere_leaves_no_json_on_stdout(
        run, router, word, more, lacking):
    # In steps, since the way to the end is that of the test above.
    for count in range(0, len(CUT_BODY) + 1, 7):
        router.order("POST /chat/completions", frames=[CUT_BODY],
                     **dict(more, **{word: count}))
        shown = run(*CHAT, "-o", "json")
        text, code = due_after(count, lacking)
        assert (count, shown.exit_status) == (count, code), shown
        if code == 0:
            assert json.loads(shown)["choices"][0]["message"] == {
                "role": "assistant", "content": text}
        else:
            assert shown == "" and json.loads(shown.stderr)["error"], count


@pytest.mark.parametrize("how", [{}, {"no_chunked": True}],
                         ids=["a chunk", "a send"])
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_stream_may_come_a_byte_in(run, router, how, form):
    router.order("*", frames=[CUT_BODY], drip=True, **how)
    shown = run(*CHAT, "-o", form)
    assert shown.exit_status == 0, shown
    assert ("Hé!\n" if form == "table" else '"content": "Hé!"') in shown


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_line_ends_of_any_kind_come_through_a_chat(run, router, end):
    body = b"\xef\xbb\xbf: ping\n\n" + CUT_BODY
    router.order("*", frames=[body.replace(b"\n", end)], drip=True)
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (0, "Hé!\n"), shown


# -- every way to end -------------------------------------------------------

# name: (frames, exit code, text on stdout, what the error says)
ENDS = {
    "all in order": ([ROLE, HE, LLO, STOP, DONE], 0, "Hello", ""),
    "no [DONE]": ([ROLE, HE, LLO, STOP], 0, "Hello", ""),
    "no finish_reason": ([ROLE, HE, LLO, DONE], 0, "Hello", ""),
    "finish_reason with the last text": (
        [HE, as_frame(chunk({"content": "llo"}, "stop"))], 0, "Hello", ""),
    "no blank line at the end": (
        [HE, LLO, STOP.rstrip(b"\n")], 0, "Hello", ""),
    "half a frame after the end": ([HE, STOP, HE[:30]], 0, "He", ""),
    "more after [DONE]": (
        [HE, STOP, DONE, b"data: no JSON\n\n", ERROR, LLO], 0, "He", ""),
    "[DONE] without a space": ([HE, b"data:[DONE]\n\n"], 0, "He", ""),
    "error is null": (
        [as_frame(chunk({"content": "He"}, error=None)), STOP, DONE], 0,
        "He", ""),
    "neither": ([ROLE, HE, LLO], 7, "Hello", "ended"),
    "nothing": ([], 5, "", ""),
    "nothing but a comment": ([b": ping\n\n"], 5, "", ""),
    "nothing but [DONE]": ([DONE], 1, "", ""),
    "nothing but the role": ([ROLE], 5, "", "ended"),
    "error first": ([ERROR], 1, "", "overloaded"),
    "error after the role": ([ROLE, ERROR, DONE], 1, "", "overloaded"),
    "error after a delta": ([HE, ERROR], 7, "He", "overloaded"),
    "error, then [DONE]": ([HE, ERROR, DONE], 7, "He", "overloaded"),
    "error, then text": ([HE, ERROR, LLO, STOP, DONE], 7, "He",
                         "overloaded"),
    "error after finish_reason": ([HE, STOP, ERROR, DONE], 7, "He",
                                  "overloaded"),
    "error beside choices": (
        [HE, as_frame(chunk({"content": "x"}, **OVERLOADED)), DONE], 7, "He",
        "overloaded"),
    "error as a text": ([as_frame({"error": "overloaded"})], 1, "",
                        "overloaded"),
    "error event": (
        [as_frame({"message": "overloaded"}, event="error")], 1, "",
        "overloaded"),
    "error event with an envelope": (
        [HE, as_frame(OVERLOADED, event="error")], 7, "He", "overloaded"),
    "error by type": (
        [HE, as_frame({"type": "error", "message": "overloaded"})], 7, "He",
        "overloaded"),
    "no JSON first": ([b"data: oops\n\n", DONE], 1, "", "oops"),
    "no JSON after a delta": ([HE, b"data: {oops\n\n", STOP, DONE], 7, "He",
                              "oops"),
    "no JSON after finish_reason": ([HE, STOP, b"data: oops\n\n", DONE], 7,
                                    "He", "oops"),
    "NaN in a field that nobody reads": (
        [HE, b'data: {"choices":[],"a":NaN}\n\n', STOP, DONE], 0, "He", ""),
    "JSON too deep": ([HE, b"data: " + b"[" * 99999 + b"\n\n", STOP, DONE],
                      7, "He", ""),
    "an end for one choice of two": (
        [HE, as_frame(chunk({"content": "x"})).replace(
            b'"index":0', b'"index":1'), STOP], 7, "He", "ended"),
}


@pytest.mark.parametrize("frames, code, text, said", ENDS.values(), ids=ENDS)
def test_the_end_of_a_stream_decides(run, router, frames, code, text, said):
    router.order("*", frames=frames)
    shown = run(*CHAT)
    assert shown.exit_status == code, shown
    first_lines = shown.splitlines()[:1] or [""]
    assert first_lines[0] == text
    assert len(error_lines(shown)) == (code != 0), shown
    assert said in "".join(error_lines(shown)[:1])
    assert "internal error" not in shown.stderr
    assert len(router.requests) == 1


BROKEN = {name: end for name, end in ENDS.items() if end[1]}


@pytest.mark.parametrize("form", ["json", "csv", "id"])
@pytest.mark.parametrize("frames, code, text, said", BROKEN.values(),
                         ids=BROKEN)
def test_a_broken_stream_is_no_document(run, router, form, frames, code,
                                        text, said):
    router.order("*", frames=frames)
    shown = run(*CHAT, "-o", form)
    assert (shown.exit_status, shown) == (code, ""), shown
    if form == "json":
        assert said in json.loads(shown.stderr)["error"]["message"]
    else:
        assert len(error_lines(shown)) == 1


def test_the_code_of_an_error_in_a_stream_is_told(run, router):
    router.order("*", frames=[HE, ERROR])
    assert "\n  code: busy\n" in run(*CHAT).stderr


def test_lines_that_came_stay_when_the_stream_breaks(run, router):
    router.order("*", frames=[HE, ERROR])
    shown = run(*CHAT, "-o", "jsonl")
    assert shown.exit_status == 7, shown
    assert frames_of(shown)[0] == chunk({"content": "He"})
    assert "overloaded" in json.loads(shown.stderr)["error"]["message"]


def test_a_short_content_length_breaks_a_stream(run, router):
    router.order("*", frames=[HE, LLO], lie=9)
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (7, "Hello\n"), shown


def test_a_cut_stream_through_api_is_a_broken_stream(run, router):
    event = as_frame({"type": "response.output_text.delta", "delta": "a"})
    router.order("*", frames=[event])
    shown = run("api", "POST", "/responses", "-o", "jsonl")
    assert len(frames_of(shown)) == 1
    assert shown.exit_status == 7, shown


def test_an_error_in_place_of_a_stream_through_api_is_told(run, router):
    router.order("*", raw=json.dumps(OVERLOADED).encode(),
                 content_type="text/event-stream")
    shown = run("api", "POST", "/responses", "-o", "jsonl")
    assert (shown.exit_status, shown) == (1, ""), shown
    assert "overloaded" in json.loads(shown.stderr)["error"]["message"]


# -- no stream where one was asked for --------------------------------------

MESSAGE = {"role": "assistant", "content": "Hello"}
WHOLE = {"id": "c1", "object": "chat.completion", "created": 1, "extra": [1],
         "choices": [{"index": 0, "message": MESSAGE,
                      "finish_reason": "stop"}], "usage": None}
WHOLE_BODY = json.dumps(WHOLE, indent=1).encode()


@pytest.mark.parametrize("how", [
    {}, {"drip": True}, {"no_chunked": True}, {"content_type": "text/plain"}])
def test_json_in_place_of_a_stream_is_the_answer(run, router, how):
    router.order("*", times=2, raw=WHOLE_BODY, **how)
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (0, "Hello\n"), shown
    assert json.loads(run(*CHAT, "-o", "json")) == WHOLE


@pytest.mark.parametrize("before", [b"", b"\r\n  "])
def test_json_in_place_of_a_stream_may_be_split_anywhere(before):
    answer = SimpleNamespace(media="text/event-stream")
    for blocks in splits(before + WHOLE_BODY):
        events = list(xeroctl.answer_events(answer, iter(blocks)))
        assert [payload for _, payload in events] == [WHOLE], blocks


# What came with status 200 in place of a stream: (fault, code, what is said)
NO_STREAMS = {
    "an HTML page": ({"html": True}, 1, "502 Bad Gateway"),
    "an empty body": ({"raw": b""}, 1, ""),
    "an error": ({"raw": json.dumps(OVERLOADED).encode()}, 1, "overloaded"),
    "another object": ({"raw": b'{"status":"fine"}'}, 1, ""),
    "a list": ({"raw": b"[1]"}, 1, ""),
    "an answer without a choice": ({"raw": b'{"choices":[]}'}, 1, ""),
    "a choice without a message": ({"raw": b'{"choices":[{}]}'}, 1, ""),
    "half an answer": ({"raw": WHOLE_BODY[:40]}, 1, ""),
    "an answer cut short": ({"raw": WHOLE_BODY, "lie": 7}, 5, ""),
    "plain words": ({"raw": b"nothing of the kind"}, 1, ""),
}


@pytest.mark.parametrize("form", ["table", "json"])
@pytest.mark.parametrize("fault, code, said", NO_STREAMS.values(),
                         ids=NO_STREAMS)
def test_what_is_no_answer_is_an_error(run, router, form, fault, code, said):
    router.order("*", **fault)
    shown = run(*CHAT, "-o", form)
    assert (shown.exit_status, shown) == (code, ""), shown
    assert "<" not in shown.stderr
    if form == "table":
        line, = error_lines(shown)
        assert said in line
    else:
        assert said in json.loads(shown.stderr)["error"]["message"]


# -- chunks of every shape --------------------------------------------------

# A chunk: the text that it adds.
SHAPES = [
    (chunk({"content": None}), ""),
    (chunk({"content": ["He", "y "]}), "Hey "),
    (chunk({"content": [{"type": "text", "text": "He"},
                        {"type": "text", "text": "y "}]}), "Hey "),
    (chunk({"content": []}), ""),
    (chunk({"content": 5}), ""),
    (chunk({"refusal": "No. ", "content": None}), "No. "),
    (chunk(None), ""),
    (chunk("no object"), ""),
    ({"choices": [{"delta": {"content": "Hey "}}]}, "Hey "),
    ({"choices": [{"index": None, "delta": {"content": "Hey "}}]}, "Hey "),
    ({"choices": [{"index": 0}]}, ""),
    ({"choices": [None]}, ""),
    ({"choices": {}}, ""),
    ({"choices": None}, ""),
    ({"choices": []}, ""),
    ({"object": "chat.completion.chunk"}, ""),
    ({}, ""),
    ([], ""),
    (None, ""),
    (5, ""),
]


@pytest.mark.parametrize("shape, text", SHAPES, ids=map(json.dumps, (
    shape for shape, _ in SHAPES)))
def test_a_chunk_of_any_shape_is_borne(run, router, shape, text):
    router.order("*", times=2, frames=[as_frame(shape), HE, STOP, DONE])
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (0, text + "He\n"), shown
    kept = json.loads(run(*CHAT, "-o", "json"))["choices"][0]["message"]
    said = kept["content"]  # parts stay parts
    said = said if isinstance(said, str) else "".join(
        part if isinstance(part, str) else part["text"] for part in said)
    assert (kept.get("refusal") or "") + said == text + "He"


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
         "prompt_tokens_details": {"cached_tokens": 4},
         "completion_tokens_details": {"reasoning_tokens": 2}}
NO_CHOICES = {"empty": {"choices": []}, "null": {"choices": None},
              "missing": {}}


@pytest.mark.parametrize("event", [None, "message"])
@pytest.mark.parametrize("choices", NO_CHOICES.values(), ids=NO_CHOICES)
def test_a_usage_chunk_needs_no_choices(run, router, choices, event):
    usage = dict({"object": "chat.completion.chunk", "usage": USAGE},
                 **choices)
    frames = [as_frame(chunk({"content": "He"}, usage=None)), STOP,
              as_frame(usage, event), as_frame({"choices": [],
                                                "usage": None}), DONE]
    router.order("*", times=2, frames=frames)
    shown = run(*CHAT, "--show-usage", "-q")
    assert (shown.exit_status, shown) == (0, "He\n")
    assert shown.stderr == ("usage: prompt 9, completion 3, total 12,"
                            " cached 4, reasoning 2\n")
    assert json.loads(run(*CHAT, "-o", "json"))["usage"] == USAGE


def call_part(call_id=None, arguments=None, index=None, name=None):
    """One part of a tool call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    part = {"index": index, "id": call_id, "type": call_id and "function",
            "function": {k: v for k, v in function.items() if v is not None}}
    return {k: v for k, v in part.items() if v is not None}


# The parts of two calls, one list for each chunk.
CALLS = {
    "by index": [
        [call_part("a", "", 0, "f")], [call_part(None, '{"x"', 0)],
        [call_part("b", "", 1, "g")], [call_part(None, ":1}", 0)],
        [call_part(None, "{}", 1)]],
    "by index, two in a chunk": [
        [call_part("a", '{"x"', 0, "f"), call_part("b", "{", 1, "g")],
        [call_part(None, "}", 1), call_part(None, ":1}", 0)]],
    "without index, in order": [
        [call_part("a", "", name="f")], [call_part(None, '{"x"')],
        [call_part(None, ":1}")], [call_part("b", "", name="g")],
        [call_part(None, "{}")]],
    "without index, each whole": [
        [call_part("a", '{"x":1}', name="f"),
         call_part("b", "{}", name="g")]],
    "without index, by id": [
        [call_part("a", '{"x"', name="f")], [call_part("b", "{", name="g")],
        [call_part("a", ":1}")], [call_part("b", "}")]],
}


@pytest.mark.parametrize("parts", CALLS.values(), ids=CALLS)
def test_tool_calls_are_joined(run, router, parts):
    frames = [as_frame(chunk({"content": None, "tool_calls": each}))
              for each in parts] + [as_frame(chunk({}, "tool_calls")), DONE]
    router.order("*", times=2, frames=frames)
    shown = run(*CHAT)
    assert shown.exit_status == 0, shown
    assert shown.splitlines() == ['[tool call] f({"x":1})',
                                  "[tool call] g({})"]
    choice, = json.loads(run(*CHAT, "-o", "json"))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function",
             "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function",
             "function": {"name": "g", "arguments": "{}"}}]}


@pytest.mark.parametrize("calls", [None, {}, 5, [], [None], ["f"], [{}],
                                   [{"function": None}],
                                   [{"function": {"arguments": 5}}]])
def test_tool_calls_of_any_shape_are_borne(run, router, calls):
    frames = [as_frame(chunk({"tool_calls": calls})), HE, STOP, DONE]
    router.order("*", times=2, frames=frames)
    shown = run(*CHAT)
    assert shown.exit_status == 0 and shown.startswith("He\n"), shown
    assert run(*CHAT, "-o", "json").exit_status == 0


def test_a_tool_call_that_broke_off_is_a_broken_stream(run, router):
    router.order("*", frames=[
        as_frame(chunk({"tool_calls": [call_part("a", "{", 0, "f")]}))])
    assert run(*CHAT).exit_status == 7


# -- events that are no chunks ----------------------------------------------

VENDOR = {"type": "x_research.progress", "step": 1}
EXTRAS = {
    "vendor, named": (as_frame(VENDOR, event="x_research.progress"), True),
    "vendor, by type": (as_frame(VENDOR), True),
    "vendor, as a message": (as_frame(VENDOR, event="message"), True),
    "unknown, named": (as_frame({"a": 1}, event="news"), False),
    "unknown, by type": (as_frame({"type": "news", "a": 1}), False),
    "unknown, nameless": (as_frame({"a": 1}), False),
}


@pytest.mark.parametrize("frame, is_told", EXTRAS.values(), ids=EXTRAS)
def test_other_events_stay_out_of_the_text(run, router, frame, is_told):
    router.order("*", times=3, frames=[HE, frame, LLO, STOP, DONE])
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (0, "Hello\n"), shown
    told = [line for line in shown.stderr.splitlines()
            if "x_research.progress" in line]
    assert len(told) == is_told
    assert len(shown.stderr.splitlines()) == is_told + 1    # and the footer
    assert run(*CHAT, "-q").stderr == ""
    message = json.loads(run(*CHAT, "-o", "json"))["choices"][0]["message"]
    assert message == MESSAGE


def test_a_chunk_may_be_named_a_message(run, router):
    frames = [as_frame(chunk({"content": text}), event="message")
              for text in ("He", "llo")]
    router.order("*", frames=frames + [STOP, DONE])
    assert run(*CHAT) == "Hello\n"


def test_jsonl_shows_each_event_as_it_came(run, router):
    payloads = [chunk({"content": "Hé"}, vendor={"z": 1, "a": 2}), VENDOR,
                {"b": 1, "a": None}, chunk(None), chunk({}, "stop"),
                {"choices": [], "usage": USAGE}]
    router.order("*", frames=[as_frame(each) for each in payloads] + [DONE])
    shown = run(*CHAT, "-o", "jsonl")
    assert shown.exit_status == 0, shown
    assert shown.splitlines() == [
        json.dumps(each, ensure_ascii=False, separators=(",", ":"))
        for each in payloads]


def test_jsonl_shows_an_answer_that_did_not_stream(run, router):
    router.order("*", raw=WHOLE_BODY)
    assert frames_of(run(*CHAT, "-o", "jsonl")) == [WHOLE]


# -- the assembled answer ---------------------------------------------------

def without_nulls(value):
    """JSON without the members that say nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items()
                if each is not None}
    return list(map(without_nulls, value)) if isinstance(
        value, list) else value


@pytest.mark.parametrize("more", [(), ("--max-tokens", "3"), ("--enrich",)])
def test_an_assembled_answer_says_what_a_whole_one_says(run, more):
    answers = []
    for mode in ((), ("--stream",)):
        with Router(clock=lambda: 1770000000) as router:
            shown = run("chat", "--endpoint", "demo", "-m", "Hé", *mode,
                        *more, "-o", "json", against=router)
        assert shown.exit_status == 0, shown
        answers.append(without_nulls(json.loads(shown)))
    whole, assembled = answers
    assert assembled == whole
    assert list(assembled) == list(whole)


def completion(*choices):
    return {"id": "c1", "object": "chat.completion", "choices": [
        {"index": index, "message": dict({"role": "assistant"}, **message),
         "logprobs": logprobs, "finish_reason": "stop"}
        for index, (message, logprobs) in enumerate(choices)]}


def logprobs(*tokens):
    return {"content": [{"token": each, "logprob": -0.5} for each in tokens],
            "refusal": None}


def parts_of(*choices):
    """The chunks of an answer: (index, delta, logprobs) each."""
    for index, delta, probabilities in choices:
        yield {"id": "c1", "object": "chat.completion.chunk", "choices": [
            {"index": index, "delta": delta, "logprobs": probabilities,
             "finish_reason": None}]}
    for index in sorted({index for index, _, _ in choices}):
        yield {"id": "c1", "object": "chat.completion.chunk", "choices": [
            {"index": index, "delta": {}, "logprobs": None,
             "finish_reason": "stop"}]}


ASSEMBLED = {
    "a refusal": (
        [(0, {"role": "assistant", "content": None}, None),
         (0, {"refusal": "I "}, None), (0, {"refusal": "won't"}, None)],
        completion(({"content": None, "refusal": "I won't"}, None))),
    "reasoning": (
        [(0, {"reasoning_content": "Hm"}, None),
         (0, {"reasoning_content": "m", "content": "A"}, None)],
        completion(({"content": "A", "reasoning_content": "Hmm"}, None))),
    "two choices": (
        [(1, {"content": "c"}, None), (0, {"content": "a"}, None),
         (1, {"content": "d"}, None), (0, {"content": "b"}, None)],
        completion(({"content": "ab"}, None), ({"content": "cd"}, None))),
    "an unknown member": (
        [(0, {"content": "a", "vendor": {"b": 1}}, None)],
        completion(({"content": "a", "vendor": {"b": 1}}, None))),
    "log probabilities": (
        [(0, {"content": "a"}, logprobs("a")),
         (0, {"content": "b"}, logprobs("b"))],
        completion(({"content": "ab"}, logprobs("a", "b")))),
}


@pytest.mark.parametrize("parts, answer", ASSEMBLED.values(), ids=ASSEMBLED)
def test_nothing_is_lost_in_an_assembled_answer(run, router, parts, answer):
    frames = [as_frame(part) for part in parts_of(*parts)]
    router.order("*", frames=frames + [DONE])
    shown = run(*CHAT, "-o", "json")
    assert without_nulls(json.loads(shown)) == without_nulls(answer)


# -- at once ----------------------------------------------------------------

@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_a_delta_is_out_before_the_next_one_is_made(router, clock, form):
    ear = Ear(b"He")
    router.order("*", frames=[HE, LLO, STOP, DONE], gate=(1, ear.heard))
    stdout = io.TextIOWrapper(io.BufferedWriter(ear), encoding="ascii")
    streams = xeroctl.Streams(io.StringIO(), stdout, io.StringIO())
    environ = {"XEROTIER_BASE_URL": router.base_url,
               "XEROTIER_API_KEY": DEMO_KEY}
    # Silence, the fate of a delta that is held back, ends the test.
    argv = CHAT + ("--timeout", "2", "-o", form)
    assert xeroctl.main(argv, environ, streams, clock) == 0
    assert b"llo" in ear.data


# -- the readers of a body --------------------------------------------------

class Pieces:
    """A response whose read1 gives a body as it was split."""

    def __init__(self, pieces, length=None):
        self.pieces, self.length, self.fp = list(pieces), length, self

    def read1(self, most):
        piece = self.pieces.pop(0) if self.pieces else b""
        if len(piece) > most:
            self.pieces.insert(0, piece[most:])
        return piece[:most]


def joined(reader, *response):
    return b"".join(reader(Pieces(*response)))


HELLO = b"Hello, \r\n world"
CHUNKED = {
    "one chunk": b"f\r\n" + HELLO + b"\r\n0\r\n\r\n",
    "two chunks": b"7\r\nHello, \r\n08\r\n\r\n world\r\n0\r\n\r\n",
    "upper case and zeros": b"000F\r\n" + HELLO + b"\r\n000\r\n\r\n",
    "extensions": b'7;a\r\nHello, \r\n8 ;a="0;b"\r\n\r\n world\r\n0;z\r\n\r\n',
    "trailers": b"f\r\n" + HELLO + b"\r\n0\r\nDigest: a\r\nB: 5\r\n\r\n",
    "more after the end": b"f\r\n" + HELLO + b"\r\n0\r\n\r\n5\r\nagain\r\n",
}


@pytest.mark.parametrize("body", CHUNKED.values(), ids=CHUNKED)
def test_chunks_do_not_depend_on_splits(body):
    for pieces in splits(body):
        assert joined(xeroctl.chunked_blocks, pieces) == HELLO, pieces


def test_chunks_cut_anywhere_are_an_error():
    body = CHUNKED["two chunks"]
    end = body.rindex(b"0\r\n") + 3
    for count in range(len(body)):
        blocks = xeroctl.chunked_blocks(Pieces([body[:count]]))
        if count >= end:
            assert b"".join(blocks) == HELLO
            continue
        got = []
        with pytest.raises(http.client.IncompleteRead):
            got.extend(blocks)
        assert HELLO.startswith(b"".join(got)), count


@pytest.mark.parametrize("body", [
    b"zz\r\nHello\r\n0\r\n\r\n", b"-5\r\nHello\r\n0\r\n\r\n",
    b";a\r\nHello\r\n0\r\n\r\n", b"5\r\nHello!\r\n0\r\n\r\n",
    b"HTTP/1.1 500 Oops\r\n", b"\xff\r\n"])
def test_a_bad_size_of_a_chunk_is_an_error(body):
    for pieces in splits(body):
        with pytest.raises(http.client.HTTPException) as caught:
            joined(xeroctl.chunked_blocks, pieces)
        assert not isinstance(caught.value, http.client.IncompleteRead)


def test_data_is_out_before_the_next_chunk_comes():
    response = Pieces([b"2\r\nHe", b"\r\n3\r\nllo\r\n0\r\n\r\n"])
    assert next(xeroctl.chunked_blocks(response)) == b"He"
    assert len(response.pieces) == 1


def test_a_body_is_counted():
    for pieces in splits(HELLO):
        assert joined(xeroctl.plain_blocks, pieces, len(HELLO)) == HELLO
        assert joined(xeroctl.plain_blocks, pieces, None) == HELLO
        assert joined(xeroctl.plain_blocks, pieces, 3) == HELLO[:3]
        with pytest.raises(http.client.IncompleteRead):
            joined(xeroctl.plain_blocks, pieces, len(HELLO) + 1)


def test_a_body_of_no_length_known_to_be_empty_is_not_waited_for():
    def read1(most):
        pytest.fail("waited for bytes that cannot come")
    response = Pieces([], 0)
    response.read1 = read1
    assert list(xeroctl.plain_blocks(response)) == []


@pytest.mark.parametrize("body", [
    b"5\r\nHello\r\n", b"zz\r\nHello", b"5;x\r\nHel"])
def test_broken_chunks_are_an_error_of_the_connection(run, router, body):
    router.order("*", raw=body, content_type="text/plain", headers={
        "Content-Length": None, "Transfer-Encoding": "chunked"})
    shown = run("api", "POST", "/things")
    assert shown.exit_status == 5, shown
    assert len(error_lines(shown)) == 1


@pytest.mark.parametrize("drip", [False, True])
def test_chunks_with_extensions_and_trailers_come_through(run, router, drip):
    body = CUT_BODY
    router.order("*", drip=drip, headers={
        "Content-Length": None, "Transfer-Encoding": "chunked"},
        raw=b"%x;a=b\r\n%b\r\n0\r\nDigest: a\r\n\r\n" % (len(body), body))
    shown = run(*CHAT)
    assert (shown.exit_status, shown) == (0, "Hé!\n"), shown
