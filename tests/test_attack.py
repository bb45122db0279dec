"""What a server writes never acts on the terminal that shows it.

Each command of the map is asked on a pseudo-terminal, by a router whose every
text is an attack; a small strict scanner knows the sequences that the program
may write itself, and takes any other control character for a hit.
"""

import json
import os
import random
import re
import shlex

import pytest

import xeroctl
from conftest import (IS_FULL, Result, STARTED, costly, environment,
                      text_stream, written)
from router import as_frame
from test_terminal import DUMB, Screen
from test_session import Desk, has_readline
from world import Interrupting

pytest.importorskip("termios")

COMPLETIONS = "POST /chat/completions"
CHAT = "chat", "send", "--endpoint", "demo", "-m", "hi"
TALK = "responses", "create", "--endpoint", "demo", "-m", "hi"

# name: what a terminal would do at the sight of it, or show in its stead.
ATTACKS = {
    "clipboard": "\x1b]52;c;cm0gLXJmCg==\x07",
    "title": "\x1b]0;a title\x1b\\",
    "clear": "\x1b[2J\x1b[1;1H",
    "erase": "\x1b[2K\x1b[1A",
    "colour": "\x1b[5;7;38;5;9m",
    "answer back": "\x1b[6n\x1bP$qm\x1b\\\x05",
    "charset": "\x0e\x1b(0\x1bc",
    "overwrite": "harmless\rover",
    "line end": "line\r",
    "backspace": "ab\b\b\x7f",
    "feeds": "\0\v\f\x1f",
    "C1": "\x9b31m\x9d0;t\x9c\x90\x9f",
    "NEL": "a\x85b",
    "bidi": "\u202eexe.txt\u202c \u202a\u202b\u202d",
    "isolates": "\u2066\u2067x\u2068\u2069",
    "half": "\x1b",
}
ATTACK = " ".join(ATTACKS.values())
ESCAPED = xeroctl.visible(ATTACK)
# What is shown as it is: marks, joiners, floods, odd spaces.
HARMLESS = ("a\u200fb\u200e\u200b\u2028c\u2029 \U0001f469\u200d\U0001f4bb "
            + "e" + "\u0301" * 90)

# == the scanner

CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STYLES = "|".join((xeroctl.GREEN, xeroctl.YELLOW, xeroctl.RED, xeroctl.DIM,
                   xeroctl.BOLD, "0"))
OWN = re.compile(r"\x1b\[(?:%s)m"               # colours
                 r"|\r(?=\x1b\[(?:K|2m))|\x1b\[K"   # the status line
                 r"|\x1b\[\?2004[hl]"           # asks for marks of a paste
                 % STYLES)


def strays(shown):
    """The control characters that are none of the program's own."""
    return CONTROL.findall(OWN.sub("", shown))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
def test_the_scanner_sees_each_attack(attack):
    assert strays(f"\x1b[31m{attack}\x1b[0m\n")


def test_the_scanner_lets_what_is_ours_pass():
    assert not strays("\r\x1b[2m| waiting\x1b[0m\x1b[K\r\x1b[K\x1b[1mID\x1b["
                      "0m\x1b[?2004h\n\t\x1b[?2004l" + HARMLESS)


# == an answer of nothing but attacks

def as_text(text):
    return text


def as_list(text):
    return [text, text]


def as_object(text):
    return {text: text}


SHAPES = {"text": as_text, "list": as_list, "object": as_object}


def paths_shown():
    """Each place where some command looks for something to show."""
    groups = xeroctl.GROUPS
    specs = [spec for group in groups for specs in (
        [group.columns, group.fields]
        + [verb.columns or () for verb in group.verbs]) for spec in specs]
    return {path for spec in specs
            for path in getattr(xeroctl.as_column(spec), "paths", ())}


def message_of(text):
    call = {"id": text, "type": "function",
            "function": {"name": text, "arguments": text}}
    return {"role": text, "content": text, "refusal": text,
            "reasoning_content": text, "tool_calls": [call]}


def output_of(text):
    part = {"type": "output_text", "text": text}
    return [{"type": "message", "id": text, "role": text, "status": text,
             "content": [part]},
            {"type": "reasoning", "summary": [part], "content": [part]},
            {"type": "function_call", "name": text, "arguments": text,
             "call_id": text, "status": text}]


def record_of(text, shape=as_text):
    """A thing with a text in each place that any command shows."""
    record = {}
    for path in sorted(paths_shown(), key=lambda path: (-path.count("."),
                                                        path)):
        *outer, last = path.split(".")
        place = record
        for name in outer:
            place = place.setdefault(name, {})
        place.setdefault(last, shape(text))
    flaw = {"code": text, "message": text, "param": text, "line": 1}
    return dict(record, errors={"data": [flaw]}, output=output_of(text),
                choices=[{"index": 0, "message": message_of(text),
                          "finish_reason": text}])


def answer_of(text, shape=as_text):
    """The thing, and a list of it, under each name that a list may have."""
    record = record_of(text, shape)
    lists = dict.fromkeys(xeroctl.RECORD_KEYS, [record])
    return json.dumps(dict(record, object="list", total=9, has_more=True,
                           last_id=text, **lists)).encode()


def error_of(text):
    """An error that says it in each place that is looked at."""
    said = dict.fromkeys(("message", "type", "code", "param", "detail"), text)
    return json.dumps({"error": said}).encode()


# == the commands

# Not to be asked: they ask themselves, or listen.
LEFT_OUT = re.compile(r"listen|--interactive|config init|\|")


def rows():
    """A command line for each row of the map, and for each example."""
    found = []
    for group in xeroctl.GROUPS:
        for verb in group.verbs:
            call = xeroctl.sample_call(group, verb)
            found += [call] + [line for line in verb.examples if line != call]
    return [tuple(shlex.split(line)[1:]) for line in found
            if not LEFT_OUT.search(line)]


ROWS = rows()


def sampled(count, seed):
    """Some of the rows, always the same; all of them with --full."""
    return ROWS if IS_FULL else random.Random(seed).sample(ROWS, count)


INPUT = (b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
         b'"body":{"model":"m","messages":[{"role":"user","content":"x"}]}}\n')


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder with the files that the examples name."""
    monkeypatch.chdir(str(tmp_path))
    for name in ("in.jsonl", "requests.jsonl", "prompts.jsonl", "in.txt",
                 "model.gguf", "path"):
        (tmp_path / name).write_bytes(INPUT)
    return tmp_path


@pytest.fixture
def ask(router):
    """Run on a terminal, which both outputs share; or in a pipe."""
    def runner(*argv, typed=None, columns=100, is_piped=False, **environ):
        given = environment(router, XEROTIER_ENDPOINT="demo", **environ)
        screen = None if is_piped else Screen(columns)
        streams = [text_stream() if is_piped else screen.stream()
                   for _ in range(2)]
        stdin = text_stream()
        if typed is not None:
            os.write(screen.far, typed)
            stdin = screen.stream("r")
        status = xeroctl.main(argv, given, xeroctl.Streams(
            stdin, *streams), Interrupting(4))
        if is_piped:
            return Result("".join(map(written, streams)), "", status)
        shown = Result(screen.shown(), "", status)
        screen.close()
        return shown
    return runner


@pytest.fixture
def ask_rows(router, ask):
    """Run rows against one answer to all; yield (row, Result)."""
    def runner(chosen, *more, is_piped=False, environ=(), **answer):
        router.order("*", times=None, **answer)
        for row in chosen:
            shown = ask(*row, "--force", *more, is_piped=is_piped,
                        **dict(environ))
            assert "internal error" not in shown, (row, shown)
            yield row, shown
            for name in ("out.jsonl.state.json", "out.jsonl.journal.jsonl"):
                if os.path.exists(name):
                    os.unlink(name)
    return runner


def check_harmless(asked, least):
    """Nothing acts, and so many of the commands did show the attack."""
    count = told = 0
    for row, shown in asked:
        assert not strays(shown), (row, shown)
        count += 1
        told += ESCAPED[:30] in shown or r"\u001b]52" in shown
    assert told >= least * count, (told, count)


FORMS = [((), "text")] + [
    pytest.param(more, shape, marks=costly) for more, shape in [
        (("-o", "wide"), "text"),
        (("-o", "json"), "text"), (("-o", "jsonl"), "object"),
        (("-o", "csv"), "text"), (("-o", "id"), "text"),
        (("-vv",), "list"), (("-v", "--color", "always"), "text"),
        (("--curl",), "text"), (("--dry-run",), "text")]]


@pytest.mark.parametrize("more, shape", FORMS)
def test_no_field_of_an_answer_acts(ask_rows, more, shape):
    asked = ask_rows(sampled(14, 7), *more,
                     body=answer_of(ATTACK, SHAPES[shape]))
    least = 0 if set(more) & {"--curl", "--dry-run", "id"} else 0.3
    check_harmless(asked, least)


@pytest.mark.parametrize("shape", ["list", "object"])
def test_no_field_of_another_type_acts(ask_rows, shape):
    check_harmless(ask_rows(sampled(6, 3), body=answer_of(
        ATTACK, SHAPES[shape])), 0.1)


def test_a_dumb_terminal_gets_no_control_at_all(ask_rows):
    for row, shown in ask_rows(sampled(10, 5), body=answer_of(ATTACK),
                               environ=DUMB):
        assert not CONTROL.search(shown), (row, shown)


def texts_in(value):
    """Each text in a JSON value, at any depth."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, (list, tuple)):
        return {text for each in value for text in texts_in(each)}
    return {value} if isinstance(value, str) else set()


def test_json_on_a_terminal_is_whole_all_the_same(ask_rows):
    count = 0
    for row, shown in ask_rows(sampled(10, 8), "-q", "-o", "json",
                               body=answer_of(ATTACK)):
        if shown.exit_status == 0 and shown[:1] in ("{", "["):
            value, _ = json.JSONDecoder().raw_decode(shown)
            count += ATTACK in texts_in(value)
    assert count >= 3


HEADER = re.sub("[^\t\x20-\x7e\x80-\xff\x1b\x07\b]", "", ATTACK)
SAID = {"status": 400, "body": error_of(ATTACK),
        "headers": {"X-Request-ID": HEADER}, "reason": HEADER}
ERRORS = {
    "envelope": SAID,
    "texts": dict(SAID, body=json.dumps({"detail": [
        {"loc": [ATTACK], "msg": ATTACK}]}).encode()),
    "body": dict(SAID, status=500, body=ATTACK.encode()),
    "reason": dict(SAID, status=404, body=b""),
    "title": dict(SAID, status=502, content_type="text/html", body=(
        f"<html><head><title>{ATTACK}</title></head><body><h1>{ATTACK}"
        "</h1></body></html>").encode()),
    "redirect": {"status": 302, "headers": {
        "Location": "http://127.0.0.2/" + HEADER}},
    "no JSON": {"body": ATTACK.encode()},
    "a text": {"body": json.dumps(ATTACK).encode()},
}


@pytest.mark.parametrize("fault", ERRORS.values(), ids=list(ERRORS))
def test_no_part_of_an_error_acts(ask_rows, fault):
    least = 0 if fault.get("status") == 302 else 0.2   # %1B: a URL
    check_harmless(ask_rows(sampled(5, 9), **fault), least)


@costly
@pytest.mark.parametrize("more", [("-o", "json"), ("-vv",), ("-q",)])
@pytest.mark.parametrize("fault", ERRORS.values(), ids=list(ERRORS))
def test_no_part_of_an_error_acts_in_any_form(ask_rows, fault, more):
    check_harmless(ask_rows(ROWS, *more, **fault), 0)


def test_an_error_says_all_of_it_harmlessly(ask, router):
    router.order("*", **SAID)
    shown = ask("models")
    assert not strays(shown)
    assert f"error: HTTP 400 {ESCAPED}" in shown
    for label in ("code", "param"):
        assert f"\n  {label}: {ESCAPED}\n" in shown
    assert f"\n  request id: {xeroctl.visible(HEADER).strip()}\n" in shown


def test_a_pipe_gets_what_the_terminal_does_not(ask_rows, ask):
    chosen = sampled(14, 7)
    told = [row for row, shown in ask_rows(chosen, body=answer_of(ATTACK))
            if ESCAPED in shown]
    assert len(told) > len(chosen) / 4
    for row, shown in ask_rows(told, is_piped=True, body=b""):
        assert ATTACK in shown, (row, shown)


def test_raw_lets_all_of_it_through(ask_rows):
    told = [row for row, shown in ask_rows(sampled(10, 7), "--raw",
                                           body=answer_of(ATTACK))
            if ATTACK in shown]
    assert len(told) >= 3


def test_what_is_harmless_in_a_text_is_shown_as_it_is(ask, router):
    router.order("*", body=json.dumps({"choices": [
        {"index": 0, "message": message_of(HARMLESS),
         "finish_reason": "stop"}]}).encode())
    assert HARMLESS in ask(*CHAT, "--stream", **DUMB)


MARKS = "\u200b\u200f\u2060\ufeff\u061c\u2028\U000e0041"
MARKS_SHOWN = r"\u200b\u200f\u2060\ufeff\u061c\u2028\U000e0041"


@pytest.mark.parametrize("form", xeroctl.FORMS)
def test_a_name_shows_what_has_no_width(ask, router, form):
    router.order("*", times=None, body=answer_of(MARKS))
    said = ask("models", "model_1", "-o", form)
    assert not set(MARKS) & set(said)
    assert (json.dumps(MARKS) if "json" in form else MARKS_SHOWN) in said
    assert MARKS in ask("models", "model_1", "-o", form, is_piped=True)


def test_a_tree_and_an_error_show_what_has_no_width(ask, router):
    file = {"id": "file_1", "filename": MARKS, "relative_path": MARKS}
    router.order("*", body=json.dumps({"data": [file]}).encode())
    assert "\u2500 " + MARKS_SHOWN in ask("files", "--tree")
    router.order("*", status=404, body=error_of(MARKS))
    said = ask("models", "model_1")
    assert f"HTTP 404 {MARKS_SHOWN}" in said and f"code: {MARKS_SHOWN}" in said
    assert not set(MARKS) & set(ask("config", "use", MARKS))


@costly
def test_a_flood_of_marks_ends(ask, router):
    name = "e" + "\u0301" * 10 ** 6 + "\x1b"
    router.order("*", body=json.dumps({"data": [
        {"id": name, "filename": name}]}).encode())
    shown = ask("files")
    assert shown.exit_status == 0 and not strays(shown)


# == a line stays a line

LINE = "one\nerror: forged\ttab"


def is_forged(shown):
    return "\nerror: forged" in shown or "\ttab" in shown


# Where a line end is the text's own: it is shown, or fetched, as it is.
TEXTS = {"export", "download", "api", "chat", "diff", "raw", "models"}
OUTPUTS = {("exec", verb) for verb in ("show", "watch", "invoke", "cancel")}


def test_no_field_begins_a_line_of_its_own(ask_rows):
    chosen = [row for row in sampled(30, 2) if not TEXTS & set(row)
              and "--stream" not in row and row[0] != "responses"
              and row[:2] not in OUTPUTS]
    for row, shown in ask_rows(chosen, body=answer_of(LINE)):
        assert not is_forged(shown), (row, shown)


def test_a_flaw_of_a_batch_is_one_line(ask, router):
    router.order("GET /batches/batch_1", body=answer_of(LINE))
    shown = ask("batches", "batch_1", is_piped=True)
    assert r"  line 1: one\nerror: forged\ttab" in shown
    assert not is_forged(shown)


WAITS = [("batches", "b", "--wait"), ("responses", "r", "--wait"),
         ("models", "m", "--revalidate", "--wait"),
         ("batches", "b", "--download")]


@pytest.mark.parametrize("argv", WAITS)
def test_progress_is_one_line(ask, router, argv):
    router.order("GET /content", body=b"a result")
    router.order("*", times=None, body=answer_of(LINE))
    shown = ask(*argv)
    assert "\x1b[2m" in shown and not is_forged(shown), shown


@pytest.mark.parametrize("argv", WAITS[:2])
def test_progress_fits_the_terminal_whatever_it_says(ask, router, argv):
    router.order("*", times=None, body=json.dumps(
        {"id": "b", "status": "\x1b" * 60}).encode())
    shown = ask(*argv, columns=60)
    lines = re.findall("\r\x1b\\[2m(.*?)\x1b\\[0m\x1b\\[K", shown)
    assert lines and max(map(len, lines)) < 60


def test_a_vendor_event_fits_the_terminal(ask, router):
    router.order(COMPLETIONS, frames=[
        as_frame({"message": "\x9b" * 60}, event="x_a")] + chat_frames("hi"))
    shown = ask(*CHAT, "--stream", columns=60, **DUMB)
    assert "x_a" in shown
    assert max(map(len, shown.splitlines())) < 60 + len("-- 1 tokens")


def test_a_folded_header_is_one_line(ask, router):
    """The line end of a header that goes on is a part of its value."""
    router.order("*", headers={"X-Request-ID": "a\r\n error: forged"})
    shown = ask("models", "-v", is_piped=True)
    assert "\n error: forged" not in shown


@pytest.mark.parametrize("argv, answer", [
    (TALK + ("--background",), {"id": LINE, "object": "response",
                                "status": "queued", "output": []}),
    (("exec", "invoke", "--workspace", "w", "--tool", "t", "--args", "{}"),
     {"id": LINE, "status": "pending_approval", "approval_id": LINE})])
def test_an_id_is_one_line(ask, router, argv, answer):
    router.order("*", body=json.dumps(answer).encode())
    shown = ask(*argv, is_piped=True)
    assert "one\\nerror" in shown and not is_forged(shown), shown


# == commands to paste

HOSTILE_ID = "f;touch hacked"


@pytest.mark.parametrize("argv, answer", [
    (("files",), {"data": [{"id": HOSTILE_ID}], "has_more": True}),
    (TALK + ("--background",), {"id": HOSTILE_ID, "object": "response",
                                "status": "queued", "output": []}),
    (("exec", "invoke", "--workspace", "w", "--tool", "t", "--args", "{}"),
     {"id": HOSTILE_ID, "status": "pending_approval",
      "approval_id": HOSTILE_ID})])
def test_a_command_to_paste_quotes_what_the_server_said(ask, router, argv,
                                                        answer):
    router.order("*", body=json.dumps(answer).encode())
    shown = ask(*argv, is_piped=True)
    commands = re.findall("(?:xeroctl|--after) .*", shown)
    assert commands and shlex.quote(HOSTILE_ID) in commands[0]
    for command in commands:
        assert HOSTILE_ID not in command.replace(shlex.quote(HOSTILE_ID), "")


# == answers that come in pieces

def chat_frames(*texts, **more):
    def chunk(delta, finish=None):
        return as_frame(dict({"object": "chat.completion.chunk", "choices": [
            {"index": 0, "delta": delta, "finish_reason": finish}]}, **more))
    return [chunk({"content": text}) for text in texts] + [
        chunk({}, "stop"), b"data: [DONE]\n\n"]


def response_frames(*texts):
    def event(kind, **fields):
        return as_frame(dict(type=kind, **fields), event=kind)
    response = {"id": "resp_1", "object": "response", "status": "completed",
                "output": []}
    return [event("response.created", response=dict(
        response, status="in_progress"))] + [
        event("response.output_text.delta", item_id="msg_1", output_index=0,
              content_index=0, delta=text) for text in texts] + [
        event("response.completed", response=response)]


STREAMS = {"chat": (CHAT + ("--stream",), chat_frames),
           "responses": (TALK + ("--stream",), response_frames)}
PLACES = range(1, len(ATTACK)) if IS_FULL else random.Random(4).sample(
    range(1, len(ATTACK)), 6)


@pytest.mark.parametrize("argv, frames", STREAMS.values(), ids=list(STREAMS))
def test_no_attack_acts_however_it_is_split(ask, router, argv, frames):
    for place in PLACES:
        router.order("*", frames=frames(ATTACK[:place], ATTACK[place:]))
        shown = ask(*argv)
        assert not strays(shown), (place, shown)
        assert ESCAPED in shown, (place, shown)


@pytest.mark.parametrize("argv, frames", STREAMS.values(), ids=list(STREAMS))
def test_no_attack_acts_a_character_a_time(ask, router, argv, frames):
    router.order("*", frames=frames(*ATTACK))
    shown = ask(*argv)
    assert not strays(shown) and ESCAPED in shown, shown


def test_no_attack_acts_a_byte_a_time(ask, router):
    data = ATTACK.encode()
    router.order("*", body=data, content_type="text/plain", drip=True)
    shown = ask("api", "/anything")
    assert not strays(shown) and ESCAPED in shown, shown


def delta(**fields):
    return as_frame({"object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": fields, "finish_reason": None}]})


HALVES = ATTACK[:31], ATTACK[31:]
CALL = [{"index": 0, "id": ATTACK, "type": "function", "function": {
    "name": ATTACK, "arguments": HALVES[0]}}]
PIECES = {
    "reasoning": [delta(reasoning_content=half) for half in HALVES],
    "tool call": [delta(tool_calls=CALL)],
    "refusal": [delta(refusal=half) for half in HALVES],
    "parts": [delta(content=[{"type": "text", "text": half}
                             for half in HALVES])],
    "vendor event": [as_frame({"message": ATTACK}, event="x_" + HEADER)],
    "finish": [as_frame({"choices": [{"index": 0, "delta": {},
                                      "finish_reason": ATTACK}]})],
    "error": [as_frame({"error": {"message": ATTACK, "code": ATTACK}})],
    "no JSON": [b"data: " + ATTACK.replace("\r", "").encode() + b"\n\n"],
    "usage": [as_frame({"id": ATTACK, "choices": [], "model": ATTACK,
                        "usage": {"prompt_tokens": ATTACK}})],
}


@pytest.mark.parametrize("more", [(), ("-o", "jsonl")])
@pytest.mark.parametrize("frames", PIECES.values(), ids=list(PIECES))
def test_no_piece_of_a_stream_acts(ask, router, frames, more):
    router.order("*", frames=frames + chat_frames("done"))
    shown = ask(*CHAT, "--stream", "--show-reasoning", "--show-usage", *more)
    assert not strays(shown), shown
    assert "internal error" not in shown


# == questions

@pytest.mark.parametrize("argv, said", [
    (("models", ATTACK, "--delete"), f"Delete model {ESCAPED}? [y/N] "),
    (("batches", ATTACK, "--cancel"), f"Cancel batch {ESCAPED}? [y/N] "),
    (("templates", "delete", "ctpl_" + ATTACK), f"{ESCAPED}? [y/N] ")])
def test_a_question_names_a_thing_harmlessly(ask, argv, said):
    shown = ask(*argv, typed=b"n\n")
    assert not strays(shown) and said in shown


@pytest.mark.parametrize("argv", [
    ("approvals", "approve", "a"),
    ("approvals", "approve", "a", "--confirm", "x")])
def test_a_tool_to_approve_is_named_harmlessly(ask, router, argv):
    router.order("*", times=None, body=json.dumps(dict(
        record_of(ATTACK), risk="irreversible")).encode())
    shown = ask(*argv, typed=b"x\n")
    assert not strays(shown) and ESCAPED[:30] in shown


def test_a_question_is_one_line(ask):
    shown = ask("models", LINE, "--delete", typed=b"n\n")
    assert not is_forged(shown), shown


# == names of the server on this disk

def test_a_file_to_download_is_named_harmlessly(ask, router, place):
    router.order("GET /files/f", times=None, body=json.dumps(
        {"id": "f", "object": "file", "filename": "a/../" + ATTACK,
         "relative_path": ATTACK}).encode())
    router.order("GET /content", body=b"x", headers={
        "Content-Disposition": f'attachment; filename="{HEADER}"'})
    (place / "new").mkdir()
    shown = ask("files", "f", "--download", "new")
    assert not strays(shown)
    made, = os.listdir("new")
    assert not CONTROL.search(made) and "/" not in made


def test_a_tree_is_harmless(ask, router):
    files = [{"id": "f", "filename": name, "bytes": 1, "relative_path": path}
             for name, path in [(ATTACK, None), ("a", f"{ATTACK}/{ATTACK}"),
                                ("b", LINE), ("c", f"d/{LINE}")]]
    router.order("GET /files", body=json.dumps(
        {"object": "list", "data": files}).encode())
    shown = ask("files", "--tree")
    assert not strays(shown) and not is_forged(shown)
    assert shown.count(ESCAPED[:30]) == 3


# == sessions

SESSIONS = {"chat": (("chat", "--interactive"), chat_frames),
            "responses": (("responses", "create", "--interactive"),
                          response_frames)}


@pytest.mark.parametrize("argv, frames", SESSIONS.values(),
                         ids=list(SESSIONS))
def test_no_answer_acts_in_a_session(ask, router, argv, frames):
    router.order("*", frames=frames(*HALVES))
    router.order("*", **SAID)
    shown = ask(*argv, typed=b"one\ntwo\n/quit\n")
    assert shown.exit_status == 0 and not strays(shown), shown
    assert shown.count(ESCAPED[:30]) >= 2


@pytest.mark.parametrize("frames", PIECES.values(), ids=list(PIECES))
def test_no_piece_acts_in_a_session(ask, router, frames):
    router.order("*", frames=frames + chat_frames("done"))
    shown = ask("chat", "--interactive", "--show-reasoning", "--show-usage",
                typed=b"one\n/tokens\n/quit\n")
    assert not strays(shown), shown


def test_a_saved_conversation_is_harmless(ask, place):
    (place / "said.json").write_text(json.dumps(
        {"model": ATTACK, "messages": [message_of(ATTACK)] * 2}))
    shown = ask("chat", "--interactive", typed=b"/load said.json\n"
                b"/retry\n/undo\n/nope\x1b[2J\n/quit\n")
    assert not strays(shown), shown


@pytest.mark.skipif(not has_readline(os.sys.executable),
                    reason="this interpreter has no readline")
def test_no_answer_acts_beside_the_line_editor(router, place):
    router.order("*", frames=chat_frames(*HALVES))
    router.order("*", **SAID)
    desk = Desk([os.sys.executable, STARTED, "chat", "--endpoint", "demo",
                 "--interactive"], environment(
                     router, TERM="xterm", NO_COLOR="1", INPUTRC=os.devnull))
    try:
        desk.prompt(0)
        desk.say("1", 2)
        desk.say("2", 2)
        desk.type("\x04")
        assert desk.end() == 0
    finally:
        desk.close()
    shown = desk.shown.decode()
    readlines = (r"(?<=\x1b\[\?2004l)\r|\r(?=\n)|\x1b\[\?1034h|\x1b\[C"
                 r"|\r(?=[>12\x1b]|$)"
                 r"|\r(?=[-|/\\] waiting)")    # the status line, uncoloured
    assert strays(re.sub(readlines, "", shown)) == []
    assert shown.count(ESCAPED[:30]) >= 2


# == names of the config

CONFIG = """current = "%(name)s"
[deployment."%(name)s"]
base_url = "%(url)s"
api_key = "xero_demo_key"
endpoint = "%(name)s"
"x%(name)s" = "%(name)s"
"""


@pytest.mark.parametrize("argv", [
    ("config", "list"), ("config", "list", "-o", "wide"), ("config", "show"),
    ("config", "path"), ("status",), ("models", "--context", "nope"),
    ("config", "use", "nope"), ("config", "remove", "nope"), ("help",),
    ("help", "environment"), ("help", "exit-codes"), ("commands",),
    ("shell-completion", "bash"), ("config", "list", "-o", "csv"),
    ("shell-completion", "zsh"), ("shell-completion", "fish"),
    ("models", "--help"), (ATTACK,), ("models", "--" + ATTACK),
    ("config", "use", ATTACK), ("chat", "--context", ATTACK, "-m", "hi")])
def test_no_name_of_the_config_acts(router, ask, place, argv):
    name = "".join(f"\\u{ord(c):04x}" if c < "\u2100" else c for c in ATTACK)
    path = place / "config.toml"
    path.write_text(CONFIG % {"name": name, "url": router.base_url})
    path.chmod(0o600)
    shown = ask(*argv, XEROTIER_CONFIG=str(path), XEROTIER_BASE_URL="",
                XEROTIER_API_KEY="")
    assert not strays(shown), shown
    if argv[:2] == ("config", "list"):
        assert ESCAPED[:30] in shown


# == types that no field should have

@pytest.mark.parametrize("value", [["f"], {"f": 1}, 7, True])
@pytest.mark.parametrize("flag", ["--download", "--errors"])
def test_a_file_id_that_is_none_is_an_error(ask, router, flag, value):
    name = "output" if flag == "--download" else "error"
    router.order("GET /batches/b", body=json.dumps(
        {"id": "b", "status": "completed",
         name + "_file_id": value}).encode())
    shown = ask("batches", "b", flag, is_piped=True)
    assert shown.exit_status == 1 and shown.startswith("error: ")
    assert "internal error" not in shown


def test_an_approval_with_an_odd_id_is_shown(ask, router):
    router.order("*", times=None, body=json.dumps(
        {"data": [{"id": ["a"], "tool": "t"}]}).encode())
    shown = ask("approvals", "watch", is_piped=True)
    assert shown.exit_status == 130 and "internal error" not in shown
    assert shown.count('["a"]') == 1
