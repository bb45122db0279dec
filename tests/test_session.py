"""The interactive session of `chat send`: in a pipe, at a keyboard, on a
pseudo-terminal; and what goes into its messages.

In process, the keyboard is a stream that says it is a terminal and gives one
line a time.  A process is started where readline, the tty driver or a signal
takes part.
"""

import base64
import functools
import io
import json
import os
import select
import struct
import subprocess
import threading
import time

import pytest

import xeroctl
from conftest import (ENDS, INTERPRETERS, STARTED, Result, environment,
                      python_name, text_stream, written)
from helpers import answer_to, mode_of
from router import Router, as_frame

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")
fcntl = pytest.importorskip("fcntl")

LIMIT_S = 10
COMPLETIONS = "POST /chat/completions"
CHAT = "chat", "send", "--endpoint", "demo"
SESSION = CHAT + ("--interactive",)
DONE = b"data: [DONE]\n\n"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def exchange(text):
    """A question and its answer, as they are sent with the next one."""
    return [user(text), assistant(answer_to(text))]


def asked(router):
    """The messages of each request, oldest first."""
    return [seen.json["messages"] for seen in router.requests]


def chunk(delta, finish=None):
    return as_frame({"object": "chat.completion.chunk", "choices": [
        {"index": 0, "delta": delta, "finish_reason": finish}]})


def says(text):
    return chunk({"content": text})


def answered(text, prompt_tokens=0, completion_tokens=0, finish="stop"):
    """The frames of an answer, and what it is said to have cost."""
    usage = {"prompt_tokens": prompt_tokens,
             "completion_tokens": completion_tokens,
             "total_tokens": prompt_tokens + completion_tokens}
    return [says(text), chunk({}, finish),
            as_frame({"object": "chat.completion.chunk", "choices": [],
                      "usage": usage}), DONE]


ERROR = as_frame({"error": {"message": "gone"}})
HALF = [says("Half"), ERROR]


class Keyboard:
    """A terminal in the place of stdin: one item is typed for each read.

    A text is a line; a function is called before the next item.  After the
    last there is Ctrl-D.
    """

    def __init__(self, typed):
        self.typed, self.ends = list(typed), 0

    def isatty(self):
        return True

    def readline(self):
        while self.typed:
            item = self.typed.pop(0)
            if isinstance(item, str):
                return item.encode("utf-8", "surrogateescape") + b"\n"
            item()
        self.ends += 1
        assert self.ends < 9, "it reads on after the end of input"
        return b""


def press_ctrl_c(*_):
    raise KeyboardInterrupt()


class StoppedAt(io.BytesIO):
    """An output that is met by Ctrl-C, once, when it shows certain bytes."""

    def __init__(self, mark):
        super().__init__()
        self.mark = mark

    def write(self, data):
        super().write(data)
        if self.mark and self.mark in data:
            self.mark = None
            press_ctrl_c()


@pytest.fixture
def pipe(run):
    """pipe("one", "two") is a session whose lines come through a pipe."""
    def runner(*lines, more=(), **options):
        text = "".join(line + "\n" for line in lines)
        return run(*SESSION, *more, stdin=text.encode(
            "utf-8", "surrogateescape"), **options)
    return runner


@pytest.fixture
def sit(router, clock):
    """sit("one", "two") is a session at a keyboard; ends with Ctrl-D."""
    def runner(*typed, more=(), command=SESSION, stop_at=None, **environ):
        streams = xeroctl.Streams(Keyboard(typed), *(
            io.TextIOWrapper(StoppedAt(stop_at), encoding="ascii")
            for _ in ("stdout", "stderr")))
        status = xeroctl.main(command + tuple(more),
                              environment(router, **environ), streams, clock)
        return Result(written(streams.stdout), written(streams.stderr),
                      status)
    return runner


# == in a pipe

def test_each_line_of_a_pipe_is_a_message(pipe, router):
    shown = pipe("one", "  two  ")
    assert asked(router) == [[user("one")],
                             exchange("one") + [user("  two  ")]]
    assert shown == answer_to("one") + "\n" + answer_to("  two  ") + "\n"
    assert shown.exit_status == 0


def test_a_pipe_sees_no_prompt_no_bar_and_no_escape(pipe, router):
    shown = pipe("one", '"""', "two", '"""', "/tokens",
                 TERM="xterm-256color", COLORTERM="truecolor")
    total = "total: 22 input tokens, 38 output tokens, 4 messages\n"
    assert shown.stderr == total + total
    assert "\x1b" not in shown


@pytest.mark.parametrize("python", [INTERPRETERS[0], INTERPRETERS[-1]],
                         ids=python_name)
def test_each_answer_is_whole_before_the_next_line_is_read(start):
    process = start(*SESSION)
    for text in ("one", "two"):
        process.stdin.write(text.encode() + b"\n")
        process.stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            assert select.select([process.stdout], [], [], LIMIT_S)[0], answer
            block = os.read(process.stdout.fileno(), 65536)
            assert block, answer
            answer += block
        assert answer.decode() == answer_to(text) + "\n"
    process.stdin.close()
    assert process.wait(LIMIT_S) == 0


def test_a_pipe_keeps_no_history(pipe, tmp_path):
    pipe("one", "/tokens", XDG_STATE_HOME=str(tmp_path), HOME=str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("stdin, messages", [
    (b"one\ntwo", ["one", "two"]),
    (b"one\r\ntwo\r\n", ["one", "two"]),
    (b"\xef\xbb\xbfone\n", ["one"]),
    (b"\n  \none\n\n\t\n", ["one"]),
    (b"a\xff\n", ["a\ufffd"]),
    ("Grüße\u2028漢字\x85\v\f\U0001f99c\n".encode(),
     ["Grüße\u2028漢字\x85\v\f\U0001f99c"]),
    (b"", []),
])
def test_lines_are_read_as_they_are_meant(run, router, stdin, messages):
    shown = run(*SESSION, stdin=stdin)
    assert [turns[-1] for turns in asked(router)] == list(map(user, messages))
    assert shown.exit_status == 0


@pytest.mark.parametrize("lines", [
    ['"""', "one", "", "  two", '"""'],
    ['"""one', "", '  two"""'],
])
def test_a_block_in_a_pipe_is_one_message(pipe, router, lines):
    assert pipe(*lines, "next").exit_status == 0
    assert [turns[-1] for turns in asked(router)] == [
        user("one\n\n  two"), user("next")]


@pytest.mark.parametrize("lines, message", [
    (['"""one two"""'], "one two"),
    (['"""', "/etc/hosts", "is a file", '"""'], "/etc/hosts\nis a file"),
    (['"""', "// a comment", "int x;", '"""'], "// a comment\nint x;"),
    (['"""', "/quit", '"""'], "/quit"),
    (['"""', " ", "", "a", '"""'], " \n\na"),
])
def test_what_is_in_a_block_is_no_command(pipe, router, lines, message):
    assert pipe(*lines).exit_status == 0
    assert asked(router) == [[user(message)]]


def test_an_open_block_is_not_lost_without_a_word(pipe, router):
    shown = pipe('"""', "/etc")
    assert asked(router) == [[user("/etc")]] or shown.exit_status


@pytest.mark.parametrize("fault, exit_status", [
    ({"status": 500}, 1), ({"status": 401}, 3), ({"status": 404}, 4),
    ({"drop": "after"}, 5), ({"frames": HALF}, 7)])
def test_a_failure_in_a_pipe_shows_in_the_end(pipe, router, fault,
                                              exit_status):
    router.order(COMPLETIONS, frames=answered("first"))
    router.order(COMPLETIONS, **fault)
    shown = pipe("one", "two", "three")
    assert shown.exit_status == exit_status
    assert len(router.requests) == 3
    assert shown.startswith("first\n")
    assert shown.endswith(answer_to("three") + "\n")


def test_a_failure_in_a_pipe_is_told_once(pipe, router):
    router.order(COMPLETIONS, status=500, message="it broke")
    assert pipe("one", "two").stderr.count("it broke") == 1


def test_a_first_message_that_failed_shows_in_the_end(pipe, router):
    router.order(COMPLETIONS, status=500)
    assert pipe("two", more=["-m", "one"]).exit_status == 1
    assert asked(router) == [[user("one")], [user("two")]]


def test_a_bad_command_in_a_pipe_shows_in_the_end(pipe, router):
    shown = pipe("/nope", "one")
    assert shown.exit_status == 2 and "/nope" in shown.stderr
    assert asked(router) == [[user("one")]]


def test_a_closed_stdin_is_the_end_of_a_session(router, clock):
    streams = xeroctl.Streams(None, text_stream(), text_stream())
    assert xeroctl.main(SESSION, environment(router), streams, clock) == 0
    assert router.requests == []


def test_ctrl_c_in_a_pipe_is_the_end(pipe, router, clock):
    router.order(COMPLETIONS, status=503)
    clock.sleep = press_ctrl_c
    assert pipe("one", "two").exit_status == 130
    assert len(router.requests) == 1


# == the conversation on the wire

def test_each_request_carries_all_turns(pipe, router):
    pipe("one", "two", "three", more=["--system", "Be brief."])
    before = [system("Be brief.")]
    assert asked(router) == [
        before + [user("one")],
        before + exchange("one") + [user("two")],
        before + exchange("one") + exchange("two") + [user("three")]]


def test_a_system_prompt_may_come_from_a_file(pipe, router, tmp_path):
    path = tmp_path / "persona.txt"
    path.write_bytes(b"\xef\xbb\xbfBe terse.\r\n")
    pipe("one", more=["--from-file", str(path), "--system", "Be long."])
    assert asked(router) == [[system("Be terse."), user("one")]]


@pytest.mark.parametrize("more, max_tokens", [
    ([], 4096), (["--max-tokens", "7"], 7), (["--param", "max_tokens=7"], 7)])
def test_a_session_asks_for_4096_tokens_unless_told(pipe, router, more,
                                                    max_tokens):
    pipe("one", "two", more=more)
    assert [seen.json["max_tokens"] for seen in router.requests] == [
        max_tokens] * 2


@pytest.mark.parametrize("more, fields", [
    ([], {}), (["--max-tokens", "7"], {"max_tokens": 7})])
def test_style_openai_has_no_default_of_tokens(pipe, openai_router, more,
                                               fields):
    pipe("one", more=more, against=openai_router, XEROTIER_STYLE="openai")
    seen, = openai_router.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.json == dict({
        "model": "demo", "messages": [user("one")], "stream": True,
        "stream_options": {"include_usage": True}}, **fields)


def test_one_message_alone_asks_for_no_number_of_tokens(run, router):
    run(*CHAT, "-m", "hi")
    assert "max_tokens" not in router.requests[0].json


@pytest.mark.parametrize("more", [[], ["--stream"],
                                  ["--param", "stream=false"]])
def test_a_session_always_streams(pipe, router, more):
    pipe("one", "two", more=more)
    for seen in router.requests:
        assert seen.json["stream"] is True
        assert seen.json["stream_options"] == {"include_usage": True}
        assert seen.headers["Accept"] == "text/event-stream"


def test_flags_hold_for_each_request(pipe, router):
    shown = pipe("one", "two", more=[
        "--temperature", "0.5", "--seed", "7", "--stop", "END", "--store",
        "--param", "top_k=5", "--agentic", "--enrich", "--slo-ttft-ms",
        "250", "--slo-tpot-ms", "40", "--model", "llama-3"])
    assert shown.stderr.count("-> agentic mode\n") == 1
    assert len(router.requests) == 2
    for seen in router.requests:
        wanted = {"model": "llama-3", "temperature": 0.5, "seed": 7,
                  "stop": ["END"], "store": True, "top_k": 5,
                  "web_search_options": {"x_agentic": True}}
        assert {key: seen.json[key] for key in wanted} == wanted
        assert seen.headers["X-Xerotier-Vendor-Events"] == "1"
        assert seen.headers["X-SLO-TTFT-Ms"] == "250"
        assert seen.headers["X-SLO-TPOT-Ms"] == "40"


@pytest.mark.parametrize("stdin", [b"", b"two\n"])
def test_m_is_the_first_message_of_a_session(run, router, stdin):
    shown = run(*SESSION, "-m", "one", stdin=stdin)
    assert shown.exit_status == 0
    assert [turns[-1]["content"] for turns in asked(router)] == (
        ["one"] + stdin.decode().split())


def test_a_first_message_is_no_command(pipe, router):
    assert pipe(more=["-m", "/quit"]).exit_status == 0
    assert asked(router) == [[user("/quit")]]


def test_a_first_message_may_hold_files(pipe, router, tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("some notes")
    pipe("two", more=["--attach", str(path),
                      "--image", "https://example.com/a.png"])
    first, second = asked(router)
    text, image = first[0]["content"]
    assert "some notes" in text["text"]
    assert image["image_url"] == {"url": "https://example.com/a.png"}
    assert second[0] == first[0] and second[2:] == [user("two")]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "id"])
def test_a_session_shows_text_only(pipe, router, form):
    shown = pipe("one", more=["-o", form])
    assert shown.exit_status == 2 and shown == ""
    assert "--interactive" in shown.stderr and "-o" in shown.stderr
    assert router.requests == []


def test_a_session_shows_text_whatever_the_environment_says(pipe):
    assert pipe("one", XEROTIER_OUTPUT="json") == answer_to("one") + "\n"


def test_a_dry_run_of_a_session_sends_nothing(pipe, router):
    shown = pipe("two", more=["-m", "one", "--dry-run"])
    assert shown.exit_status == 0 and '"content": "one"' in shown
    assert router.requests == []


def test_a_session_shows_what_each_answer_cost(pipe):
    shown = pipe("one", "two", more=["--show-usage"])
    assert "usage: prompt 1, completion 19, total 20" in shown.stderr
    assert shown.stderr.count("usage: prompt ") == 2


def test_a_session_hints_at_an_answer_that_was_cut_short(pipe, router):
    router.order(COMPLETIONS, frames=answered("Half", finish="length"))
    assert "--max-tokens" in pipe("one").stderr


# == failures: never two user turns in a row

NO_ANSWER = [{"status": 500}, {"status": 401}, {"status": 503, "times": 3},
             {"html": True, "status": 502}, {"drop": "after"},
             {"body": b"{}"}, {"frames": [ERROR]}, {"frames": []},
             {"frames": [chunk({"role": "assistant", "content": ""})]}]


@pytest.mark.parametrize("fault", NO_ANSWER)
def test_a_failed_request_takes_its_message_back(sit, router, fault):
    router.order(COMPLETIONS, frames=answered("first"))
    router.order(COMPLETIONS, **fault)
    shown = sit("one", "two", "three")
    assert shown.exit_status == 0
    assert shown.stderr.count("error: ") == 1
    assert asked(router)[-1] == [user("one"), assistant("first"),
                                 user("three")]


@pytest.mark.parametrize("frames", [
    HALF, [says("Half")], [says("Ha"), says("lf"), b"data: no JSON\n\n"]])
def test_a_broken_stream_is_no_turn(sit, router, frames):
    router.order(COMPLETIONS, frames=frames)
    shown = sit("one", "two")
    assert shown == "Half\n" + answer_to("two") + "\n"
    assert shown.stderr.count("error: ") == 1 and shown.exit_status == 0
    assert asked(router)[-1] == [user("two")]


@pytest.mark.parametrize("delta, shown_as", [
    ({"refusal": "I will not."}, "I will not.\n"),
    ({"tool_calls": [{"index": 0, "function": {"name": "look",
                                               "arguments": "{}"}}]},
     "[tool call] look({})\n"),
    ({}, "")])
def test_an_answer_without_text_is_a_turn_too(sit, router, delta, shown_as):
    router.order(COMPLETIONS, frames=[chunk(delta, "stop"), DONE])
    assert sit("one", "two").startswith(shown_as)
    roles = [message["role"] for message in asked(router)[-1]]
    assert roles in (["user", "assistant", "user"], ["user"])


def test_a_refused_connection_keeps_the_session(sit, router):
    again = Router(port=router.port)
    shown = sit("one", router.stop, "two", again.start, "three")
    again.stop()
    assert "error: connect" in shown.stderr
    assert shown.exit_status == 0
    assert asked(again) == [exchange("one") + [user("three")]]


def test_ctrl_c_keeps_what_came_and_the_session(sit, router, tmp_path):
    path = tmp_path / "chat.json"
    router.order(COMPLETIONS, frames=[says("Ha"), says("lf"), says("way")])
    shown = sit("one", "two", f"/save {path}", stop_at=b"lf")
    assert shown == "Half\n" + answer_to("two") + "\n"
    assert shown.exit_status == 0 and "error" not in shown.stderr
    assert asked(router)[-1] == [user("one"), assistant("Half"), user("two")]
    cut, = [m for m in json.loads(path.read_text())["messages"]
            if set(m) != {"role", "content"}]
    assert cut == dict(assistant("Half"), cut=True)


def test_ctrl_c_before_an_answer_takes_the_message_back(sit, router, clock):
    router.order(COMPLETIONS, status=503)
    clock.sleep = press_ctrl_c      # it waits before it tries again
    shown = sit("one", "two")
    assert asked(router) == [[user("one")], [user("two")]]
    assert shown == answer_to("two") + "\n" and shown.exit_status == 0


# == slash commands

SLASH_COMMANDS = ["/help", "/clear", "/system", "/save", "/load", "/tokens",
                  "/quit", "/retry", "/undo", "/model", "/save!", "/endpoint",
                  "/attach", "/image", "/edit"]
KEYS = ["Up", "Down", "Tab", "Ctrl+A", "Ctrl+E", "Ctrl+U", "Ctrl+K",
        "Ctrl+W", "Ctrl+C", "Ctrl+D"]


def test_help_shows_commands_and_keys(pipe, router):
    shown = pipe("/help")
    words = shown.stderr.split()
    assert [word for word in SLASH_COMMANDS + KEYS if word not in words] == []
    assert '"""' in words
    assert shown == "" and router.requests == []


@pytest.mark.parametrize("line", [
    "/nope", "/", "/Help", "/sav x", "/etc/passwd"])
def test_an_unknown_command_is_not_sent(sit, router, line):
    shown = sit(line, "one")
    assert f"error: unknown command {line.split()[0]}\n" in shown.stderr
    assert "hint: " in shown.stderr
    assert asked(router) == [[user("one")]]


def test_an_unknown_command_names_the_nearest(sit):
    assert "did you mean /save?" in sit("/sav x").stderr


@pytest.mark.parametrize("line", [
    "/system", "/save", "/load", "/model", "/retry", "/undo", "/endpoint",
    "/attach", "/image", "/attach missing.txt", "/image missing.png"])
def test_a_command_that_cannot_be_run_changes_nothing(sit, router, line):
    shown = sit(line, "one")
    assert shown.stderr.count("error: ") == 1 and shown.exit_status == 0
    assert asked(router) == [[user("one")]]


def test_clear_keeps_the_system_message_and_the_tokens(pipe, router):
    shown = pipe("one", "/clear", "two", "/clear",
                 more=["--system", "Be brief."])
    assert asked(router) == [[system("Be brief."), user("one")],
                             [system("Be brief."), user("two")]]
    assert "total: 6 input tokens, 38 output tokens, 0 messages" in (
        shown.stderr)


@pytest.mark.parametrize("more", [[], ["--system", "Be long."]])
def test_system_sets_or_replaces_the_system_message(pipe, router, more):
    pipe("one", "/system Be brief, and  kind.", "two", more=more)
    assert asked(router)[-1] == [system("Be brief, and  kind."),
                                 *exchange("one"), user("two")]


def test_model_is_used_from_the_next_request_on(sit, router):
    shown = sit("one", "/model llama-3", "two")
    assert [seen.json["model"] for seen in router.requests] == ["demo",
                                                                "llama-3"]
    assert shown.stderr.count("| model: llama-3 |") == 2


def test_undo_forgets_one_exchange_after_the_other(pipe, router):
    pipe("one", "two", "/undo", "three", "/undo", "/undo", "four")
    assert asked(router)[2:] == [exchange("one") + [user("three")],
                                 [user("four")]]


def test_retry_asks_the_last_question_again(pipe, router):
    for text in ("first", "second", "better"):
        router.order(COMPLETIONS, frames=answered(text))
    pipe("one", "two", "/retry", "three")
    _, second, again, last = asked(router)
    before = [user("one"), assistant("first"), user("two")]
    assert again == second == before
    assert last == before + [assistant("better"), user("three")]


def test_retry_asks_again_for_an_answer_that_was_cut(sit, router):
    router.order(COMPLETIONS, frames=[says("Half"), says("way")])
    sit("one", "/retry", stop_at=b"Half")
    assert asked(router) == [[user("one")]] * 2


def test_a_failed_retry_loses_nothing(sit, router):
    router.order(COMPLETIONS, frames=answered("first"))
    router.order(COMPLETIONS, status=500)
    sit("one", "/retry", "two")
    assert asked(router)[-1] == [user("one"), assistant("first"), user("two")]


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"drop": "after"}, {"frames": HALF},
    {"frames": [chunk({}, "stop"), DONE]}])
def test_retry_asks_a_question_again_that_failed(sit, router, fault):
    router.order(COMPLETIONS, frames=answered("first"))
    router.order(COMPLETIONS, **fault)
    shown = sit("one", "two", "/retry", "/retry", "three")
    assert shown.exit_status == 0
    before = [user("one"), assistant("first")]
    assert asked(router)[1:] == [before + [user("two")]] * 3 + [
        before + exchange("two") + [user("three")]]


def test_retry_asks_a_question_again_that_was_stopped(sit, router, clock):
    router.order(COMPLETIONS, status=503)
    clock.sleep = press_ctrl_c
    assert "/retry" in sit("one", "/retry").stderr
    assert asked(router) == [[user("one")]] * 2


def test_a_retry_that_was_stopped_loses_nothing(sit, router, clock):
    router.order(COMPLETIONS, frames=answered("first"))
    router.order(COMPLETIONS, status=503)
    clock.sleep = press_ctrl_c
    sit("one", "/retry", "two")
    assert asked(router)[-1] == [user("one"), assistant("first"), user("two")]


def test_another_endpoint_goes_on_with_the_conversation(sit, router):
    shown = sit("one", "/endpoint my-endpoint", "two")
    assert [seen.path.split("/")[2] for seen in router.requests] == [
        "demo", "my-endpoint"]
    assert asked(router)[1] == exchange("one") + [user("two")]
    assert [seen.json["model"] for seen in router.requests] == [
        "demo", "my-endpoint"]
    assert "endpoint: my-endpoint | tokens: " in shown.stderr


def test_a_model_that_was_named_stays_at_another_endpoint(pipe, router):
    pipe("/model llama-3", "/endpoint my-endpoint", "one")
    assert router.requests[0].json["model"] == "llama-3"


@pytest.mark.parametrize("style, is_told", [("xerotier", True),
                                            ("openai", False)])
def test_a_model_decides_only_without_endpoints(run, style, is_told):
    shown = run(*SESSION, "--style", style, stdin=b"/model llama-3\n")
    assert ("endpoint decides" in shown.stderr) == is_told


def test_a_bar_without_an_endpoint_has_the_model(sit, openai_router):
    shown = sit("one", command=("chat", "--interactive", "--model", "demo"),
                XEROTIER_STYLE="openai", XEROTIER_ENDPOINT="",
                XEROTIER_BASE_URL=openai_router.base_url)
    assert shown.exit_status == 0, shown
    assert shown.stderr.startswith("model: demo | tokens: 0/0 | msgs: 0\n")
    assert "endpoint" not in shown.stderr


def test_files_and_images_wait_for_the_next_message(sit, router, tmp_path):
    path = tmp_path / "a b.txt"
    path.write_text("some notes")
    url = "https://example.com/a.png"
    router.order(COMPLETIONS, status=500)
    sit(f"/attach {path}", f"/image {url}", "/tokens", "Look:", "Look!",
        "three")
    content = [{"type": "text",
                "text": "Look!\n\na b.txt\n```\nsome notes\n```"},
               {"type": "image_url", "image_url": {"url": url}}]
    failed, good, last = asked(router)
    assert failed[0]["content"][1] == content[1]
    assert good == [user(content)]
    assert last[0] == user(content) and last[2] == user("three")


def test_a_retry_has_the_files_of_what_failed(sit, router, tmp_path):
    path = tmp_path / "notes"
    path.write_text("some notes")
    router.order(COMPLETIONS, status=500)
    sit(f"/attach {path}", "Look:", "/retry", "two")
    text = "Look:\n\nnotes\n```\nsome notes\n```"
    assert [turns[-1] for turns in asked(router)] == [
        user(text), user(text), user("two")]


def test_a_tilde_is_the_home_of_the_user(sit, router, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    sit("one", "/save ~/a b.json", "/clear", "/load ~/a b.json", "two")
    assert (tmp_path / "a b.json").exists()
    assert asked(router)[-1] == exchange("one") + [user("two")]


EDITORS = [
    ("VISUAL", "printf 'Grüße\\n\\n  two\\n' >", "Grüße\n\n  two"),
    ("EDITOR", "printf /quit >", "/quit"),
    ("EDITOR", ":", None), ("EDITOR", "exit 3; :", None)]


@pytest.mark.parametrize("variable, does, text", EDITORS)
def test_a_message_is_written_in_the_editor(sit, router, tmp_path, variable,
                                            does, text):
    editor = tmp_path / "an editor"
    editor.write_text(f'#!/bin/sh\n[ "$1" = -w ] || exit 9\n{does} "$2"\n',
                      "utf-8")
    editor.chmod(0o700)
    shown = sit("/edit", "end", PATH="/usr/bin:/bin", TMPDIR=str(tmp_path),
                **{variable: f"'{editor}' -w"})
    assert shown.exit_status == 0
    assert [turns[-1] for turns in asked(router)] == [
        user(each) for each in (text, "end") if each]
    assert ("exit code 3" in shown.stderr) == ("exit" in does)


@pytest.mark.parametrize("command", ["/missing/editor", "'", " "])
def test_an_editor_that_cannot_be_run_is_told(sit, router, command):
    shown = sit("/edit", "end", EDITOR=command)
    assert shown.stderr.count("error: ") == 1
    assert "internal" not in shown.stderr
    assert asked(router) == [[user("end")]]


TOTALS = "total: 148 input tokens, 532 output tokens, 6 messages"


@pytest.fixture
def three_answers(router):
    """Three answers that cost 148 and 532 tokens."""
    for cost in ((48, 132), (50, 200), (50, 200)):
        router.order(COMPLETIONS, frames=answered("yes", *cost))


@pytest.mark.parametrize("last", ["/quit", "/tokens"])
def test_quit_and_tokens_show_the_totals(pipe, three_answers, last):
    shown = pipe("one", "two", "three", last)
    assert shown.stderr.count(TOTALS) == 1 + (last == "/tokens")
    assert shown == "yes\n" * 3 and shown.exit_status == 0


def test_the_end_of_input_shows_the_totals(pipe, three_answers):
    assert pipe("one", "two", "three").stderr == TOTALS + "\n"


def test_nothing_is_read_after_quit(pipe, router):
    assert pipe("one", "/quit", "two").exit_status == 0
    assert asked(router) == [[user("one")]]


# == /save and /load

def test_a_saved_conversation_has_this_shape(pipe, router, tmp_path):
    path = tmp_path / "a chat.json"
    shown = pipe("Grüße \udcff", f"/save {path}", more=[
        "--model", "llama-3", "--system", "Be brief."])
    assert shown.exit_status == 0
    text = path.read_bytes().decode("utf-8")
    assert json.loads(text) == {
        "version": 1, "endpoint": "demo", "model": "llama-3",
        "messages": [system("Be brief.")] + exchange("Grüße \ufffd"),
        "usage": {"prompt_tokens": 4, "completion_tokens": 20}}
    assert "Grüße" in text and text.endswith("}\n")
    assert router.key not in text


def test_a_saved_conversation_is_for_its_owner_only(pipe, tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("old")
    old.chmod(0o644)
    pipe("one", f"/save! {old}", f"/save {new}")
    assert mode_of(old) == mode_of(new) == 0o600


def test_save_replaces_a_file_whole(pipe, tmp_path):
    path, link = tmp_path / "chat.json", tmp_path / "link.json"
    pipe(f"/save {path}")
    old = path.read_text()
    os.link(str(path), str(tmp_path / "other.json"))
    os.symlink("chat.json", str(link))
    pipe("one", f"/save {link}")
    assert json.loads(path.read_text())["messages"] == exchange("one")
    assert (tmp_path / "other.json").read_text() == old
    assert link.is_symlink()
    assert len(os.listdir(str(tmp_path))) == 3


@pytest.mark.parametrize("content", [
    b"notes", b"{}", b"[]", b'{"messages": []}', b'{"version": 1}',
    b"\xff\xfe"])
def test_save_replaces_no_file_of_another_kind(sit, router, tmp_path,
                                               content):
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    shown = sit("one", f"/save {path}", "two")
    assert shown.stderr.count("error: ") == 1 and "/save!" in shown.stderr
    assert path.read_bytes() == content
    assert len(router.requests) == 2 and shown.exit_status == 0
    assert "error: " not in sit("one", f"/save! {path}", f"/save {path}"
                                ).stderr
    assert json.loads(path.read_text())["messages"] == exchange("one")


@pytest.mark.parametrize("name", ["folder", "missing/chat.json", "a\0b"])
def test_a_save_that_fails_leaves_nothing_and_goes_on(sit, router, tmp_path,
                                                      name):
    (tmp_path / "folder").mkdir()
    shown = sit(f"/save {tmp_path}/{name}", "one")
    assert shown.stderr.count("error: cannot write ") == 1
    assert asked(router) == [[user("one")]] and shown.exit_status == 0
    assert os.listdir(str(tmp_path)) == ["folder"]


def test_a_model_that_sends_no_text_at_all_can_be_saved(pipe, router,
                                                        tmp_path):
    router.order(COMPLETIONS, frames=answered("half a pair \ud800"))
    router.order(COMPLETIONS, body=json.dumps({"choices": [{
        "message": assistant("\ud800 again"), "finish_reason": "stop"}]})
        .encode())
    path = tmp_path / "chat.json"
    assert pipe("one", "two", "three", f"/save {path}").exit_status == 0
    assert "again" in json.loads(path.read_bytes().decode())["messages"][3][
        "content"]


def test_a_conversation_is_taken_up_where_it_was_saved(pipe, router,
                                                       tmp_path):
    path = tmp_path / "chat.json"
    pipe("one", f"/save {path}", more=["--system", "Be brief."])
    saved = path.read_bytes()
    shown = pipe("lost", "and found", f"/load {path}", "/tokens",
                 f"/save {path}", "two", more=["--system", "Be long."])
    before = [system("Be brief."), *exchange("one")]
    assert json.loads(path.read_text())["messages"] == before == (
        json.loads(saved.decode())["messages"])
    assert asked(router)[-1] == before + [user("two")]
    first, last = [line for line in shown.stderr.splitlines()
                   if line.startswith("total: ")]
    assert first.endswith("39 output tokens, 2 messages")   # as they stood
    assert last.endswith("58 output tokens, 4 messages")


@pytest.mark.parametrize("wrap", [
    lambda messages: messages,
    lambda messages: {"messages": messages},
    lambda messages: {"version": 1, "messages": messages, "usage": None},
])
def test_a_list_of_messages_is_a_conversation(pipe, router, tmp_path, wrap):
    path = tmp_path / "chat.json"
    parts = [{"type": "text", "text": "one"}]
    messages = [system("Be brief."), user(parts), assistant("yes")]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(wrap(messages)).encode())
    assert pipe(f"/load {path}", "two").exit_status == 0
    assert asked(router) == [messages + [user("two")]]


def test_a_turn_that_was_cut_is_sent_like_others(pipe, router, tmp_path):
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([user("one"),
                                dict(assistant("Half"), cut=True)]))
    pipe(f"/load {path}", "two")
    assert asked(router) == [[user("one"), assistant("Half"), user("two")]]


@pytest.mark.parametrize("content", [
    b"", b"no JSON", b"null", b"7", b'"text"', b"{}", b'{"messages": {}}',
    b'{"messages": null}', b"[1]", b"[[]]", b'[{"role": "user"}]',
    b'[{"content": "x"}]', b'[{"role": 1, "content": "x"}]',
    b'[{"role": "user", "content": {"a": 1}}]',
    b'[{"role": "user", "content": "x"}, {"role": "parrot", "content": "x"}]',
    b'[{"role": "user", "content": "x"}', b"[" * 100000, b"\xff\xfe\x00"])
def test_load_refuses_what_is_no_conversation(sit, router, tmp_path, content):
    path = tmp_path / "chat.json"
    path.write_bytes(content)
    shown = sit("one", f"/load {path}", "two", more=["--system", "S"])
    assert shown.stderr.count("error: ") == 1
    assert "internal" not in shown.stderr
    assert asked(router)[-1] == [system("S"), *exchange("one"), user("two")]


@pytest.mark.parametrize("name", ["missing.json", "", "a\0b"])
def test_load_names_a_file_that_it_cannot_read(sit, router, tmp_path, name):
    shown = sit("one", f"/load {tmp_path}/{name}", "two")
    assert "error: cannot read " in shown.stderr
    assert asked(router)[-1] == exchange("one") + [user("two")]


# == at a keyboard

@pytest.mark.parametrize("more, model", [
    ([], ""), (["--model", "llama-3"], "model: llama-3 | "),
    (["--model", "my-endpoint"], "model: my-endpoint | ")])
def test_the_bar_shows_where_the_session_stands(sit, three_answers, more,
                                                model):
    shown = sit("one", "two", "three", more=more, command=(
        "chat", "--endpoint", "my-endpoint", "--interactive"))
    bars = [line.replace("> ", "") for line in shown.stderr.splitlines()
            if "endpoint: " in line]
    assert bars == [
        f"endpoint: my-endpoint | {model}tokens: {tokens} | msgs: {count}"
        for tokens, count in (("0/0", 0), ("48/132", 2), ("98/332", 4),
                              ("148/532", 6))]


def test_the_talk_of_the_session_is_not_in_the_answers(sit):
    shown = sit("one", "/help", "/tokens", TERM="xterm-256color")
    assert shown == answer_to("one") + "\n"
    assert shown.stderr.startswith("endpoint: demo | tokens: 0/0 | msgs: 0\n")
    assert "\n> " in shown.stderr and "\x1b" not in shown.stderr
    assert "total: 1 input tokens, 19 output tokens, 2 messages" in (
        shown.stderr)


def test_quiet_hides_the_bar_but_not_the_answers(sit):
    shown = sit("one", more=["-q"])
    assert shown == answer_to("one") + "\n"
    assert "endpoint:" not in shown.stderr


def test_ctrl_c_twice_in_a_row_leaves(sit, router):
    shown = sit(press_ctrl_c, "one", press_ctrl_c, "two",
                press_ctrl_c, press_ctrl_c, "three")
    assert shown.exit_status == 130
    assert asked(router) == [[user("one")], exchange("one") + [user("two")]]


def test_ctrl_c_at_the_bar_is_one_at_the_prompt(sit, router):
    shown = sit("one", "two", stop_at=b"msgs: 2")
    assert shown.exit_status == 0
    assert asked(router)[1:] == [exchange("one") + [user("two")]]


def test_ctrl_c_gives_a_block_up(sit, router):
    assert sit('"""', "lost", press_ctrl_c, "one").exit_status == 0
    assert asked(router) == [[user("one")]]


@pytest.mark.parametrize("pasted, message", [
    (["\x1b[200~def f():", "", "    return 1", "\x1b[201~"],
     "def f():\n\n    return 1\n"),
    (["\x1b[200~  one", "\ttwo\x1b[201~"], "  one\n\ttwo"),
    (["see \x1b[200~a", "b\x1b[201~ and \x1b[200~c", "d\x1b[201~."],
     "see a\nb and c\nd."),
    (["\x1b[200~/etc/hosts", "is a file\x1b[201~"], "/etc/hosts\nis a file"),
    (["\x1b[200~// a comment", "int x;\x1b[201~"], "// a comment\nint x;"),
    (['\x1b[200~"""', "one", '"""\x1b[201~'], "one"),
])
def test_a_paste_of_many_lines_is_one_message(sit, router, pasted, message):
    assert sit(*pasted, "next").exit_status == 0
    assert [turns[-1] for turns in asked(router)] in (
        [user(message), user("next")],
        [user(message.rstrip("\n")), user("next")])


# == history

@pytest.fixture
def history(tmp_path):
    """The history file of a session with XDG_STATE_HOME at tmp_path."""
    return tmp_path / "xeroctl" / "history"


def entries(path):
    """The messages that a history file holds, one JSON text a line."""
    return list(map(json.loads, path.read_text(encoding="utf-8").split("\n")
                    [:-1]))


def test_the_history_holds_each_message_once(sit, tmp_path, history):
    sit("one", '"""', "a", "", "  b", '"""', "/tokens", "é \udcff\u2028",
        XDG_STATE_HOME=str(tmp_path))
    assert entries(history) == ["one", "a\n\n  b", "/tokens",
                                "é \ufffd\u2028"]
    assert mode_of(history) == 0o600
    assert mode_of(history.parent) == 0o700


def test_the_history_is_below_home_by_default(sit, tmp_path):
    sit("one", HOME=str(tmp_path))
    path = tmp_path / ".local" / "state" / "xeroctl" / "history"
    assert entries(path) == ["one"]


def test_the_history_holds_the_last_1000(sit, tmp_path, history):
    history.parent.mkdir()
    history.write_text("".join(f'"{number}"\n' for number in range(1234)))
    sit("new", XDG_STATE_HOME=str(tmp_path))
    kept = entries(history)
    assert kept == list(map(str, range(235, 1234))) + ["new"]
    assert mode_of(history) == 0o600


def test_the_history_holds_a_failed_message_too(sit, router, tmp_path,
                                                history):
    router.order(COMPLETIONS, status=500)
    sit("one", XDG_STATE_HOME=str(tmp_path))
    assert entries(history) == ["one"]


def test_no_history_keeps_none(sit, router, tmp_path):
    sit("one", more=["--no-history"], XDG_STATE_HOME=str(tmp_path))
    assert os.listdir(str(tmp_path)) == [] and len(router.requests) == 1


def test_a_state_folder_that_cannot_be_written_does_no_harm(sit, router,
                                                            tmp_path):
    (tmp_path / "file").write_text("")
    shown = sit("one", "two", XDG_STATE_HOME=str(tmp_path / "file"))
    assert shown.exit_status == 0 and len(router.requests) == 2
    assert "error" not in shown.stderr


def test_a_session_needs_no_home(sit, router):
    shown = sit("one")
    assert shown.exit_status == 0 and "error" not in shown.stderr


def test_the_key_is_never_in_the_history(sit, router, tmp_path, history):
    sit("one", f"my key is {router.key}!", f"/system {router.key}",
        '"""', "a", router.key, '"""', XDG_STATE_HOME=str(tmp_path))
    assert len(router.requests) == 3
    assert entries(history) == ["one"]


# == on a pseudo-terminal

class Desk:
    """A process on a pseudo-terminal of its own, and a person at it.

    The terminal is the controlling one, so that Ctrl-C is a signal, and
    echoes nothing by itself.
    """

    # The leader of a session that has no terminal gets the one it opens.
    OPEN = 'exec "$@" <>"$0" >&0 2>&0'

    def __init__(self, command, environ):
        self.far, near = pty.openpty()
        modes = termios.tcgetattr(near)
        modes[1] &= ~termios.OPOST
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(near, termios.TCSANOW, modes)
        fcntl.ioctl(near, termios.TIOCSWINSZ,
                    struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", self.OPEN, os.ttyname(near)] + command,
            stdin=near, stdout=near, stderr=near, env=environ,
            start_new_session=True)
        os.close(near)
        self.shown, self.place = b"", 0
        self.deadline = time.monotonic() + LIMIT_S

    def type(self, text):
        os.write(self.far, text.encode())

    def read(self):
        """Take in what is shown next; False at the end."""
        left = self.deadline - time.monotonic()
        assert select.select([self.far], [], [], max(0, left))[0], self.shown
        assert left > 0, self.shown     # a spinner never ends
        try:
            block = os.read(self.far, 65536)
        except OSError:         # how Linux ends a terminal that was closed
            block = b""
        self.shown += block
        return bool(block)

    def until(self, *wanted):
        """Wait until these texts have been shown, one after the other."""
        for text in wanted:
            sought = text.encode()
            while sought not in self.shown[self.place:]:
                assert self.read(), (text, self.shown)
            self.place = self.shown.index(sought, self.place) + len(sought)

    def prompt(self, messages):
        """Wait for the prompt of a session with so many messages."""
        self.until(f"msgs: {messages}\n", "> ")

    def press_ctrl_c(self):
        """Press it as late as a person does.

        A signal that comes between two reads waits for the next key.
        """
        time.sleep(0.05)
        self.type("\x03")

    def say(self, text, messages):
        """Type a line; wait for the next prompt."""
        self.type(text + "\n")
        self.prompt(messages)

    def end(self):
        """Wait for the end; return the exit status."""
        while self.read():
            pass
        return self.process.wait(LIMIT_S)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.far)


# Which interpreter, and whether it has readline.
SEATS = sorted({(INTERPRETERS[0], True), (ENDS[-1], True),
                (ENDS[-1], False)})


def seat_name(seat):
    return python_name(seat[0]) + ("-readline" if seat[1] else "-plain")


with_readline = pytest.mark.parametrize(
    "desk", [seat for seat in SEATS if seat[1]], ids=seat_name, indirect=True)


@functools.lru_cache(maxsize=None)
def has_readline(python):
    return not subprocess.call([python, "-c", "import readline"],
                               stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)


@pytest.fixture(params=SEATS, ids=seat_name)
def desk(request, router, tmp_path):
    """desk("--model", "llama-3") is a Desk with a session that has begun."""
    python, wants_readline = request.param
    if wants_readline and not has_readline(python):
        pytest.skip("this interpreter has no readline")
    made, environ = [], {"TERM": "xterm", "NO_COLOR": "1",
                         "INPUTRC": os.devnull,
                         "XDG_STATE_HOME": str(tmp_path)}
    if not wants_readline:
        (tmp_path / "readline.py").write_text("raise ImportError()\n")
        environ["PYTHONPATH"] = str(tmp_path)

    def maker(*more, **variables):
        made.append(Desk([python, STARTED, *SESSION, *more], environment(
            router, **dict(environ, **variables))))
        made[-1].prompt(0)
        return made[-1]
    yield maker
    for one in made:
        one.close()


@pytest.fixture
def held(router):
    """An answer that stops after its first token, for ever."""
    router.order(COMPLETIONS, gate=(1, threading.Event()),
                 frames=[says("Half"), says("way")])


def wait_for_request(router):
    """Wait until a request has come: the spinner turns before it is sent."""
    deadline = time.monotonic() + LIMIT_S
    while not router.requests:
        assert time.monotonic() < deadline
        time.sleep(0.01)


UP, DOWN, CTRL_D = "\x1b[A", "\x1b[B", "\x04"
PASTE, PASTED = "\x1b[200~", "\x1b[201~"


def test_a_session_on_a_terminal(desk, router):
    at = desk("--model", "llama-3")
    assert b"endpoint: demo | model: llama-3 | tokens: 0/0 | msgs: 0\n" in (
        at.shown)
    at.type("one\n")
    at.until(answer_to("one") + "\n", "tokens: 1/19 | msgs: 2\n", "> ")
    at.say("two", 4)
    at.type("/quit\n")
    assert at.end() == 0
    assert b"total: 22 input tokens, 38 output tokens, 4 messages\n" in (
        at.shown)
    assert asked(router) == [[user("one")],
                             exchange("one") + [user("two")]]


def test_what_is_typed_is_utf8(desk, router):
    at = desk()
    at.say("Grüße 漢字", 2)
    assert asked(router) == [[user("Grüße 漢字")]]
    assert answer_to("Grüße 漢字").encode() in at.shown


@with_readline
def test_up_recalls_any_text_in_any_locale(desk, router):
    at = desk(LC_ALL="C")
    at.say("Grüße 漢字", 2)
    at.say(UP, 4)
    assert asked(router)[1][-1] == asked(router)[0][0] == user("Grüße 漢字")


def test_ctrl_d_ends_the_session_with_totals(desk):
    at = desk()
    at.say("one", 2)
    at.type(CTRL_D)
    assert at.end() == 0
    assert b"total: 1 input tokens, 19 output tokens, 2 messages\n" in (
        at.shown)


def test_ctrl_c_in_mid_answer_keeps_what_came(desk, router, held):
    at = desk()
    at.type("one\n")
    at.until("Half")
    at.press_ctrl_c()
    at.prompt(2)
    assert router.requests[0].closed.wait(LIMIT_S)
    at.say("two", 4)
    assert asked(router)[1] == [user("one"), assistant("Half"), user("two")]


def test_ctrl_c_before_the_first_token_takes_it_back(desk, router):
    router.order(COMPLETIONS, hang=True)
    at = desk()
    at.type("one\n")
    at.until("waiting for the first token")
    wait_for_request(router)
    at.press_ctrl_c()
    at.prompt(0)
    at.say("two", 2)
    assert asked(router) == [[user("one")], [user("two")]]


def test_ctrl_c_at_the_prompt_clears_the_line(desk, router):
    at = desk()
    at.type("not sent")
    at.press_ctrl_c()
    at.until("> ")
    at.say("one", 2)
    assert asked(router) == [[user("one")]]
    at.press_ctrl_c()
    at.until("Ctrl-C again leaves", "> ")
    at.press_ctrl_c()
    assert at.end() == 130


def test_a_paste_is_one_message(desk, router):
    at = desk()
    at.type(f"{PASTE}def f():\r\r    return 1\r\r# end{PASTED}")
    at.say("", 2)
    assert b"\x1b[?2004h" in at.shown      # how a program asks for the marks
    at.type(CTRL_D)
    assert at.end() == 0
    assert b"\x1b[?2004l" in at.shown.rpartition(b"\x1b[?2004h")[2]
    assert asked(router) == [[user("def f():\n\n    return 1\n\n# end")]]


def test_a_paste_is_one_message_after_an_editor_too(desk, router, tmp_path):
    """Vim ends by telling the terminal to mark no paste."""
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf '\\033[?2004lfound' >&2\n")
    editor.chmod(0o700)
    at = desk(EDITOR=str(editor), PATH="/usr/bin:/bin")
    at.type("/edit\n")
    at.until("\x1b[?2004lfound", "\x1b[?2004h", "> ")


def test_a_failure_on_a_terminal_keeps_the_session(desk, router):
    router.order(COMPLETIONS, status=500, message="\x1b]0;it broke\x07")
    router.order(COMPLETIONS, frames=[says("\x1b]52;c;QQ==\x07"),
                                      says("\x9b31m\u202e"), ERROR])
    at = desk()
    at.type("one\n")
    at.until("error: HTTP 500 \\x1b]0;it broke\\x07\n")
    at.prompt(0)
    at.type("two\n")
    at.until("\\x1b]52;c;QQ==\\x07\\x9b31m\\u202e\n", "error: ")
    at.prompt(0)
    at.say("three", 2)
    assert asked(router)[1:] == [[user("two")], [user("three")]]
    at.type(CTRL_D)
    assert at.end() == 0
    assert b"\x1b]" not in at.shown and b"\x07" not in at.shown
    assert "\x9b".encode() not in at.shown


@with_readline
def test_up_recalls_what_was_said(desk, router):
    router.order(COMPLETIONS, status=500)
    at = desk()
    at.say("one", 0)
    at.say(UP, 2)
    at.say("two", 4)
    at.say(UP + UP, 6)
    at.say(UP + UP + DOWN + "!", 8)
    assert [turns[-1]["content"] for turns in asked(router)] == [
        "one", "one", "two", "one", "one!"]


@with_readline
def test_up_recalls_a_block_in_this_session_and_the_next(desk, router):
    at = desk()
    at.type('"""\n')
    for line in ("one", "", "  two"):
        at.until(". ")
        at.type(line + "\n")
    at.until(". ")
    at.say('"""', 2)
    at.say(UP, 4)
    at.type(CTRL_D)
    assert at.end() == 0
    at = desk()
    at.say(UP, 2)
    assert [turns[-1] for turns in asked(router)] == [
        user("one\n\n  two")] * 3


@with_readline
def test_up_needs_no_history_file(desk, router, tmp_path):
    at = desk("--no-history")
    at.say("one", 2)
    at.say(UP, 4)
    assert [turns[-1]["content"] for turns in asked(router)] == ["one"] * 2
    assert os.listdir(str(tmp_path)) == []


@with_readline
def test_tab_completes_a_command_that_begins_the_line(desk, router):
    at = desk()
    at.say("/sy\tBe brief.", 0)
    at.say("see /sy\t", 2)
    assert asked(router) == [[system("Be brief."), user("see /sy")]]


@with_readline
def test_tab_in_a_block_is_a_tab(desk, router):
    """As where a program is pasted into a terminal that marks no paste."""
    at = desk()
    at.type('"""\n')
    for line in ("\treturn", "a\tb", "/sy\t"):
        at.until(". ")
        at.type(line + "\n")
    at.until(". ")
    at.say('"""', 2)
    at.say("/sy\tBe brief.", 2)
    at.say("one", 4)
    assert asked(router) == [
        [user("\treturn\na\tb\n/sy\t")],
        [system("Be brief."), user("\treturn\na\tb\n/sy\t"),
         assistant(answer_to("\treturn\na\tb\n/sy\t")), user("one")]]


@with_readline
def test_tab_completes_files_where_a_command_takes_one(desk, router,
                                                       tmp_path):
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a folder" / "my notes.txt").write_text("notes")
    at = desk()
    at.say(f"/attach {tmp_path}/a f\tmy\t", 0)
    at.say(f"/model {tmp_path}/a\t", 0)
    at.say(f"see {tmp_path}/a\t", 2)
    assert asked(router)[0] == [user(
        f"see {tmp_path}/a\n\nmy notes.txt\n```\nnotes\n```")]
    assert router.requests[0].json["model"] == f"{tmp_path}/a"


@with_readline
def test_ctrl_c_on_a_line_with_text_only_clears_it(desk, router):
    at = desk()
    for _ in range(3):
        at.type("not sent")
        at.press_ctrl_c()
        at.until("> ")
    at.say("one", 2)
    assert asked(router) == [[user("one")]]


def test_ctrl_c_in_the_editor_is_the_editors(desk, router, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\ntrap 'printf caught > \"$1\"; exit 0' INT\n"
                      "echo ready >&2\nwhile :; do sleep 0.05; done\n")
    editor.chmod(0o700)
    at = desk(EDITOR=str(editor), PATH="/usr/bin:/bin")
    at.type("/edit\n")
    at.until("ready")
    at.press_ctrl_c()
    at.prompt(2)
    assert asked(router) == [[user("caught")]]


@with_readline
def test_the_keys_of_the_page_edit_the_line(desk, router):
    at = desk()
    for number, typed in enumerate([
            "bc\x01a\x05d", "lost\x15abcd", "abcdlost" + "\x02" * 4 + "\x0b",
            "abcd lost\x17\b"]):
        at.say(typed, 2 * number + 2)
    assert {turns[-1]["content"] for turns in asked(router)} == {"abcd"}
    assert len(router.requests) == 4


@with_readline
def test_a_torn_history_recalls_what_can_be_read(desk, router, history):
    history.parent.mkdir()
    history.write_bytes(b'"one"\n"tw\n\xff\n7\n"\\ud800"\n"\\u0000"\n'
                        + '"Grüße"\n"fo'.encode())
    at = desk()
    at.say(UP, 2)
    assert asked(router) == [[user("Grüße")]]


# == files, images and other parameters

def test_an_attached_file_is_fenced_below_its_name(run, router, tmp_path):
    path = tmp_path / "a b.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n\ntwo\n")
    run(*CHAT, "-m", "Look:", "--attach", str(path), "--attach", "-",
        stdin="```\nGrüße\xff\n```\n".encode())
    assert asked(router) == [[user(
        "Look:\n\na b.txt\n```\none\n\ntwo\n```\n\n"
        "stdin\n````\n```\nGrüße\xff\n```\n````")]]


def test_a_file_alone_is_a_message(run, router, tmp_path):
    path = tmp_path / "notes"
    path.write_text("notes")
    assert run(*CHAT, "--attach", str(path)).exit_status == 0
    assert asked(router) == [[user("notes\n```\nnotes\n```")]]


def test_images_are_sent_as_parts(run, router, tmp_path):
    path = tmp_path / "dot.PNG"
    path.write_bytes(b"\x89PNG")
    url = "https://example.com/a.png"
    run(*CHAT, "-m", "Look:", "--image", str(path), "--image", url)
    data = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    assert asked(router) == [[user([
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": data}},
        {"type": "image_url", "image_url": {"url": url}}])]]


SCHEMA = {"type": "object", "properties": {"b": {}, "a": {}}}


@pytest.mark.parametrize("schema, name", [
    (SCHEMA, "my_answer"),
    ({"name": "other", "strict": True, "schema": SCHEMA}, "other"),
    ({"type": "json_schema", "json_schema": {"name": "third",
                                             "schema": SCHEMA}}, "third")])
def test_a_json_schema_is_wrapped_as_needed(run, router, tmp_path, schema,
                                            name):
    path = tmp_path / "my answer.json"
    path.write_text(json.dumps(schema))
    run(*CHAT, "-m", "hi", "--response-format", f"@{path}")
    sent = router.requests[0].json["response_format"]
    assert list(sent) == ["type", "json_schema"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["name"] == name
    assert json.dumps(sent["json_schema"]["schema"]) == json.dumps(SCHEMA)
    assert sent["json_schema"].get("strict") == schema.get("strict")


@pytest.mark.parametrize("flags, fields", [
    ("--response-format text", {"response_format": {"type": "text"}}),
    ("--response-format=json_object",
     {"response_format": {"type": "json_object"}}),
    ("--param top_k=5 --param a.b=null --param x=[1,\"=\"]",
     {"top_k": 5, "a.b": None, "x": [1, "="]}),
    ("--param temperature=0.25 --temperature 1", {"temperature": 0.25}),
    ("--stop END --stop=--", {"stop": ["END", "--"]}),
])
def test_flags_are_fields_of_the_request(run, router, flags, fields):
    assert run(*CHAT, "-m", "hi", *flags.split()).exit_status == 0
    sent, = [seen.json for seen in router.requests]
    assert {key: sent[key] for key in fields} == fields


@pytest.mark.parametrize("flags, headers", [
    ("", (None, None)),
    ("--slo-ttft-ms 250", ("250", None)),
    ("--slo-ttft-ms=1 --slo-tpot-ms 40", ("1", "40"))])
def test_service_levels_are_headers(run, router, flags, headers):
    run(*CHAT, "-m", "hi", *flags.split())
    seen, = router.requests
    assert headers == (seen.headers["X-SLO-TTFT-Ms"],
                       seen.headers["X-SLO-TPOT-Ms"])
    assert not [name for name in seen.json if "slo" in name]


@pytest.mark.parametrize("flags", [
    "--attach missing.txt", "--attach - --attach -", "--attach - -m -",
    "--image missing.png", "--image notes.txt", "--image .",
    "--response-format xml", "--response-format @missing.json",
    "--response-format @notes.txt", "--param top_k", "--param =5",
    "--param top_k=five", "--param top_k=NaN", "--slo-ttft-ms 0",
    "--slo-tpot-ms fast"])
@pytest.mark.parametrize("more", [[], ["--interactive"]])
def test_bad_input_is_refused_before_anything_is_sent(
        run, router, tmp_path, monkeypatch, flags, more):
    (tmp_path / "notes.txt").write_text("notes")
    monkeypatch.chdir(str(tmp_path))
    shown = run(*CHAT, "-m", "hi", *flags.split(), *more)
    assert shown.exit_status == 2 and shown == ""
    assert shown.stderr.startswith("error: ")
    assert router.requests == []


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("command", [
    CHAT + ("-m", "hi", "--stream"), SESSION + ("-m", "hi")])
def test_reasoning_is_shown_on_request(run, router, field, command):
    frames = [chunk({field: "Let me "}), chunk({field: "think."})]
    router.order(COMPLETIONS, frames=frames + answered("Done."), times=2)
    assert "think" not in run(*command).stderr
    shown = run(*command, "--show-reasoning")
    assert shown == "Done.\n"
    assert shown.stderr.startswith("Let me think.\n")
