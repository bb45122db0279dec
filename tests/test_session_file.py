"""`--session FILE`: a conversation that lives in a file, for scripts and for
sessions, of chat and of responses.

Whatever ends a call, the file holds the conversation as it was before, or
with the turn; and one process at a time goes on with it.
"""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from conftest import STARTED, at_both_ends, environment
from helpers import mode_of
from router import as_frame
from test_session import (COMPLETIONS, DONE, LIMIT_S, Desk, answer_to,
                          answered, asked, assistant, chunk, exchange, says,
                          system, user)

CHAT = "chat", "send", "--endpoint", "demo"
RESPONSES = "responses", "create", "--endpoint", "demo"
POST = "POST /responses"
BROKEN = [says("Half"), as_frame({"error": {"message": "gone"}})]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.json"


@pytest.fixture
def turn(run, path):
    """turn("hi") is the next turn of the conversation in the file."""
    def runner(text, *more, command=CHAT, **options):
        return run(*command, "--session", str(path), "-m", text, *more,
                   **options)
    return runner


def messages(path):
    return json.loads(path.read_text("utf-8"))["messages"]


# == turn by turn ============================================================

def test_a_script_goes_on_with_its_conversation(turn, router, path):
    assert turn("one", "--system", "Be brief.") == answer_to("one") + "\n"
    assert turn("two", "--stream") == answer_to("two") + "\n"
    assert json.loads(turn("three", "-o", "json"))["object"] == (
        "chat.completion")
    before = [system("Be brief.")] + exchange("one") + exchange("two")
    assert asked(router)[2] == before + [user("three")]
    assert messages(path) == before + exchange("three")


def test_the_file_is_what_save_writes(turn, run, path, tmp_path):
    turn("one", "--model", "llama-3", "--system", "Be brief.")
    other = tmp_path / "saved.json"
    run("chat", "--interactive", "--session", str(path), "--endpoint",
        "demo", stdin=f"/save {other}\n".encode())
    assert path.read_bytes() == other.read_bytes()
    assert mode_of(path) == 0o600
    assert json.loads(path.read_text()) == {
        "version": 1, "endpoint": "demo", "model": "llama-3",
        "messages": [system("Be brief.")] + exchange("one"),
        "usage": {"prompt_tokens": 3, "completion_tokens": 19}}


def test_a_session_goes_on_with_what_a_script_began(turn, run, router, path):
    turn("one")
    shown = run(*CHAT, "--interactive", "--session", str(path),
                stdin=b"two\n/undo\nthree\n")
    assert shown.exit_status == 0
    assert asked(router)[-1] == exchange("one") + [user("three")]
    assert messages(path) == exchange("one") + exchange("three")
    assert "total: 43 input tokens, 57 output tokens, 4 messages" in (
        shown.stderr)


def test_what_a_command_changes_is_in_the_file(turn, run, path):
    turn("one")
    run(*CHAT, "--interactive", "--session", str(path),
        stdin=b"/system Sing.\n/clear\n")
    assert messages(path) == [system("Sing.")]


def test_endpoint_and_model_are_those_of_the_file(turn, run, router, path):
    turn("one", "--model", "llama-3")
    run("chat", "--session", str(path), "-m", "two",
        XEROTIER_ENDPOINT="nowhere")
    run("chat", "--session", str(path), "-m", "three", "--endpoint",
        "my-endpoint", "--model", "other")
    run("chat", "--session", str(path), "-m", "four")
    assert [(seen.path.split("/")[2], seen.json["model"])
            for seen in router.requests] == [
        ("demo", "llama-3"), ("demo", "llama-3"), ("my-endpoint", "other"),
        ("my-endpoint", "other")]


def test_a_model_that_nobody_named_is_the_endpoint(turn, run, router, path):
    turn("one")
    run("chat", "--session", str(path), "-m", "two", "--endpoint",
        "my-endpoint")
    assert router.requests[-1].json["model"] == "my-endpoint"


@pytest.mark.parametrize("model, more, sent", [
    ("one", [], "one"), ("one", ["--endpoint", "two"], "two"),
    ("other", [], "other"), ("other", ["--endpoint", "two"], "two"),
    ("other", ["--endpoint", "two", "--model", "three"], "three")])
def test_with_style_openai_the_endpoint_is_the_model(run, path, model, more,
                                                     sent):
    path.write_text(json.dumps({"endpoint": "one", "model": model,
                                "messages": []}))
    shown = run("chat", "--session", str(path), "-m", "hi", "--style",
                "openai", "--curl", *more)
    assert f'"model":"{sent}"' in shown


def test_with_style_openai_a_model_is_enough(run, openai_router, path):
    for text in "one", "two":
        shown = run("chat", "--session", str(path), "-m", text, "--style",
                    "openai", "--model", "demo", against=openai_router,
                    XEROTIER_ENDPOINT="")
        assert shown.exit_status == 0, shown
    assert messages(path) == exchange("one") + exchange("two")
    data = json.loads(path.read_text())
    assert (data["endpoint"], data["model"]) == (None, "demo")


def test_a_system_message_replaces_that_of_the_file(turn, router, path):
    turn("one", "--system", "Be brief.")
    turn("two", "--system", "Sing.")
    assert asked(router)[1] == [system("Sing."), *exchange("one"),
                                user("two")]
    assert messages(path)[0] == system("Sing.")


@pytest.mark.parametrize("content", [
    exchange("one"), {"messages": exchange("one")},
    {"version": 1, "endpoint": None, "model": 7, "messages": exchange("one"),
     "usage": None}])
def test_a_list_of_messages_is_a_conversation(turn, router, path, content):
    path.write_text(json.dumps(content))
    path.chmod(0o644)
    assert turn("two").exit_status == 0
    assert asked(router) == [exchange("one") + [user("two")]]
    assert messages(path) == exchange("one") + exchange("two")
    assert mode_of(path) == 0o600


def test_an_empty_file_is_a_conversation_that_begins(turn, path):
    path.write_text("")
    assert turn("one").exit_status == 0
    assert messages(path) == exchange("one")


def test_a_link_stays_a_link(turn, path, tmp_path):
    (tmp_path / "real.json").write_text(json.dumps(exchange("one")))
    path.symlink_to("real.json")
    assert turn("two").exit_status == 0
    assert path.is_symlink()
    assert messages(tmp_path / "real.json") == exchange("one") + exchange(
        "two")
    assert sorted(os.listdir(str(tmp_path))) == ["real.json", "talk.json"]


def test_images_stay_in_the_conversation(turn, router):
    url = "https://example.com/a.png"
    turn("Look:", "--image", url)
    turn("And now?")
    parts = asked(router)[1][0]["content"]
    assert parts == [{"type": "text", "text": "Look:"},
                     {"type": "image_url", "image_url": {"url": url}}]


# == what is no turn =========================================================

@pytest.mark.parametrize("fault, exit_status", [
    ({"status": 500}, 1), ({"status": 404}, 4), ({"drop": "after"}, 5),
    ({"frames": BROKEN}, 7)])
@pytest.mark.parametrize("is_new", [True, False])
def test_what_failed_is_not_in_the_file(turn, router, path, tmp_path, fault,
                                        exit_status, is_new):
    if not is_new:
        turn("one")
    before = not is_new and path.read_bytes()
    router.order(COMPLETIONS, **fault)
    shown = turn("two", "--stream", "--system", "Sing.")
    assert shown.exit_status == exit_status
    assert not is_new and path.read_bytes() == before or (
        is_new and os.listdir(str(tmp_path)) == [])


@pytest.mark.parametrize("delta, is_turn", [
    ({"content": ""}, False), ({}, False), ({"refusal": "No."}, True),
    ({"tool_calls": [{"index": 0, "function": {"name": "look",
                                               "arguments": "{}"}}]}, True)])
@pytest.mark.parametrize("more", [(), ("--interactive",)])
def test_an_answer_without_text_or_call_is_no_turn(turn, router, path, delta,
                                                   is_turn, more):
    router.order(COMPLETIONS, frames=[chunk(delta, "stop"), DONE])
    shown = turn("one", "--stream", *more)
    assert shown.exit_status == 0
    assert path.exists() == is_turn
    assert ("taken back" in shown.stderr) == (not is_turn)


@pytest.mark.parametrize("plan", ["--dry-run", "--curl"])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_plan_writes_nothing(turn, path, router, tmp_path, plan, is_new):
    if not is_new:
        turn("one")
        path.chmod(0o644)
    before = [] if is_new else [path.read_bytes()]
    shown = turn("two", "--system", "Sing.", plan)
    assert shown.exit_status == 0 and "two" in shown
    assert ("You said" in shown) == (not is_new)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == before
    assert is_new or mode_of(path) == 0o644
    assert len(router.requests) == len(before)


# == what is refused, before anything is sent ================================

@pytest.mark.parametrize("content", [
    b"no JSON", b"null", b"7", b"{}", b'{"messages": {}}', b"[1]",
    b'[{"role": "user"}]', b'[{"role": "parrot", "content": "x"}]',
    b"[" * 100000, b"\xff\xfe\x00"])
@pytest.mark.parametrize("command", [CHAT, RESPONSES])
def test_what_is_no_conversation_is_refused(turn, router, path, content,
                                            command):
    path.write_bytes(content)
    shown = turn("two", command=command)
    assert (shown, shown.exit_status) == ("", 2)
    assert shown.stderr.startswith("error: ")
    assert path.read_bytes() == content and router.requests == []


@pytest.mark.parametrize("name", ["missing/talk.json", ".", "-", "pipe",
                                  "/dev/null"])
def test_what_is_no_place_for_a_file_is_refused(run, router, tmp_path, name,
                                                monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    os.mkfifo("pipe")
    shown = run(*CHAT, "--session", name, "-m", "hi")
    assert (shown, shown.exit_status) == ("", 2)
    assert shown.stderr.startswith("error: ") and router.requests == []
    assert os.listdir(".") == ["pipe"]


@pytest.mark.parametrize("command, more", [
    (CHAT, ["--param", "messages=[]"]),
    (RESPONSES, ["--param", "input=[]"]), (RESPONSES, ["--background"]),
    (RESPONSES, ["--previous-response-id", "resp_1"]),
    (CHAT, ["--attach", "missing.txt"]), (CHAT, ["--extract", "-o", "json"])])
@pytest.mark.parametrize("is_new", [True, False])
def test_what_does_not_go_with_it_is_refused(turn, router, path, command,
                                             more, is_new):
    if not is_new:
        path.write_text("")     # made by mktemp
    shown = turn("hi", *more, command=command)
    assert (shown, shown.exit_status) == ("", 2)
    assert router.requests == [] and path.exists() == (not is_new)


@pytest.mark.parametrize("command", [CHAT, RESPONSES])
def test_a_turn_needs_a_message(run, router, path, command):
    shown = run(*command, "--session", str(path))
    assert shown.exit_status == 2 and "is missing" in shown.stderr
    assert router.requests == [] and not path.exists()


def test_a_session_of_nowhere_leaves_no_file(run, router, path):
    shown = run("chat", "--session", str(path), "-m", "hi")
    assert shown.exit_status == 2 and "no endpoint" in shown.stderr
    assert not path.exists()


# == one process at a time ===================================================

@at_both_ends
def test_a_second_process_is_refused(start, router, run, path):
    """While the first waits, in its first turn as in its second."""
    for number in (1, 2):
        gate, begun = threading.Event(), threading.Event()
        router.order(COMPLETIONS, frames=answered("Done."), gate=(0, gate),
                     when=lambda seen: begun.set() is None)
        process = start(*CHAT, "--session", str(path), "-m", "one")
        assert begun.wait(LIMIT_S)
        shown = run(*CHAT, "--session", str(path), "-m", "two")
        assert (shown, shown.exit_status) == ("", 2)
        assert "another run is" in shown.stderr
        gate.set()
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert len(messages(path)) == 2 * number
    assert len(router.requests) == 2


@at_both_ends
def test_a_session_holds_its_file_from_turn_to_turn(start, run, path):
    process = start(*CHAT, "--interactive", "--session", str(path))
    for number in (1, 2):
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline()
        shown = run(*CHAT, "--session", str(path), "-m", "two")
        assert shown.exit_status == 2 and "another run is" in shown.stderr
    process.communicate(timeout=LIMIT_S)
    assert run(*CHAT, "--session", str(path), "-m", "two").exit_status == 0
    assert len(messages(path)) == 6


@at_both_ends
@pytest.mark.parametrize("name", ["save", "save!"])
def test_to_save_it_where_it_lives_lets_nobody_in(start, run, path, name):
    process = start(*CHAT, "--interactive", "--session", str(path))
    for line in b"one\n", f"/{name} {path}\ntwo\n".encode():
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline()
    assert run(*CHAT, "--session", str(path), "-m", "x").exit_status == 2
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert messages(path) == exchange("one") + exchange("two")


# == what ends a call ========================================================

@pytest.mark.parametrize("number, exit_status", [
    (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@at_both_ends
def test_a_script_that_is_stopped_keeps_what_came(start, router, path, number,
                                                  exit_status):
    router.order(COMPLETIONS, gate=(1, threading.Event()),
                 frames=[says("Half"), says("way")])
    process = start(*CHAT, "--session", str(path), "-m", "one", "--stream")
    assert process.stdout.read(4) == b"Half"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == exit_status and b"Traceback" not in stderr
    assert messages(path) == [user("one"), dict(assistant("Half"), cut=True)]


def sits_at(router, python, tmp_path, path, *more):
    """A Desk with a session on the file, in the middle of an answer."""
    router.order(COMPLETIONS, gate=(1, threading.Event()),
                 frames=[says("Half"), says("way")])
    desk = Desk([python, STARTED, *CHAT, "--interactive", "--session",
                 str(path), *more], environment(
        router, TERM="xterm", NO_COLOR="1", INPUTRC=os.devnull,
        XDG_STATE_HOME=str(tmp_path)))
    desk.prompt(0)
    desk.type("one\n")
    desk.until("Half")
    return desk


@at_both_ends
def test_a_terminal_that_is_lost_keeps_what_came(router, run, python,
                                                 tmp_path, path):
    """The window is closed in mid-answer: every write fails, too."""
    desk = sits_at(router, python, tmp_path, path)
    os.close(desk.far)
    try:
        assert desk.process.wait(LIMIT_S) in (1, 129)
    finally:
        desk.far = os.open(os.devnull, os.O_RDWR)   # for close()
        desk.close()
    assert messages(path) == [user("one"), dict(assistant("Half"), cut=True)]
    run("chat", "--session", str(path), "-m", "two")
    assert asked(router)[-1] == [user("one"), assistant("Half"), user("two")]


@at_both_ends
def test_signals_that_come_together_are_one(router, python, tmp_path, path):
    """A shell and the kernel both tell that the terminal has gone."""
    for _ in range(5):
        desk = sits_at(router, python, tmp_path, path)
        time.sleep(0.1)  # a signal just before a wait is seen after it
        try:
            for _ in range(20):
                desk.process.send_signal(signal.SIGHUP)
                desk.process.send_signal(signal.SIGTERM)
            assert desk.end() in (129, 143)
        finally:
            desk.close()
        assert b"Traceback" not in desk.shown
        assert messages(path)[-1] == dict(assistant("Half"), cut=True)
        path.unlink()


@at_both_ends
def test_an_answer_that_nobody_reads_on_is_kept(router, python, path):
    """xeroctl … | head -1"""
    gate = threading.Event()
    router.order(COMPLETIONS, gate=(1, gate),
                 frames=[says("Half")] + answered("way") * 9)
    process = subprocess.Popen(
        [python, STARTED, *CHAT, "--session", str(path), "-m", "one",
         "--stream"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(router))
    assert process.stdout.read(4) == b"Half"
    process.stdout.close()
    gate.set()
    assert process.wait(LIMIT_S) == 141
    process.stderr.close()
    question, answer = messages(path)
    assert question == user("one")
    assert answer["content"].startswith("Half")


@at_both_ends
def test_an_answer_that_cannot_be_shown_is_kept(router, python, path):
    """As on a terminal that is gone, where nobody hears of a hang-up."""
    router.order(COMPLETIONS, gate=(1, threading.Event()),
                 frames=[says("Half"), says("way")])
    with open("/dev/full", "wb") as full:
        assert subprocess.call(
            [python, STARTED, *CHAT, "--session", str(path), "-m", "one",
             "--stream"], stdin=subprocess.DEVNULL, stdout=full,
            stderr=subprocess.DEVNULL, env=environment(router)) == 1
    assert messages(path) == [user("one"), dict(assistant("Half"), cut=True)]


def test_a_file_that_cannot_be_written_costs_no_answer(turn, router, path,
                                                       tmp_path):
    turn("one")
    before = path.read_bytes()
    tmp_path.chmod(0o500)
    try:
        if os.access(str(tmp_path), os.W_OK):
            pytest.skip("root may write anywhere")
        shown = turn("two")
    finally:
        tmp_path.chmod(0o700)
    assert shown == answer_to("two") + "\n" and shown.exit_status == 2
    assert path.read_bytes() == before


# == responses ===============================================================

def inputs(router):
    return [(seen.json["input"], seen.json.get("previous_response_id"))
            for seen in router.requests]


def test_responses_follow_each_other_from_call_to_call(turn, router, path):
    for text in ("one", "two"):
        assert turn(text, command=RESPONSES).exit_status == 0
    first = messages(path)[1]["response_id"]
    assert inputs(router) == [("one", None), ("two", first)]
    turn("three", "--instructions", "Sing.", command=RESPONSES)
    assert router.requests[-1].json["instructions"] == "Sing."
    assert messages(path)[0] == system("Sing.")


# What servers say that have no store: llama.cpp, vLLM, OpenAI.
REFUSALS = [
    (400, "llama.cpp does not support 'previous_response_id'."),
    (404, "Response with id '{}' not found."),
    (400, "Previous response with id '{}' not found."),
    (500, "ik_llama.cpp does not support 'previous_response_id'.")]


@pytest.mark.parametrize("status, message", REFUSALS)
def test_a_server_without_a_store_is_sent_the_history(turn, router, path,
                                                      status, message):
    turn("one", command=RESPONSES)
    first = messages(path)[1]["response_id"]
    router.order(POST, when=lambda seen: b"previous_response_id" in seen.body,
                 status=status, message=message.format(first), times=None)
    for text in ("two", "three"):
        assert turn(text, command=RESPONSES).exit_status == 0
    history = [dict(each, type="message") for each in (
        user("one"), assistant(answer_to("one")), user("two"))]
    assert inputs(router)[1:3] == [("two", first), (history, None)]
    sent, followed = inputs(router)[3]
    assert sent[:3] == history and followed is None
    assert len(router.requests) == 4    # asked once whether it has a store


def test_a_refusal_may_come_as_an_event(turn, router, path):
    """As LM Studio says it."""
    turn("one", command=RESPONSES)
    router.order(POST, when=lambda seen: b"previous_response_id" in seen.body,
                 frames=[as_frame({"type": "error", "error": {
                     "code": "previous_response_not_found",
                     "message": "No node"}})])
    shown = turn("two", "--stream", command=RESPONSES)
    assert (shown, shown.exit_status) == (answer_to("two") + "\n", 0)
    assert len(router.requests[-1].json["input"]) == 3


@pytest.mark.parametrize("more", [{}, {"previous_response_id": None}])
def test_a_server_that_forgets_without_a_word_is_sent_the_history(
        turn, router, path, more):
    """As Ollama and mlx-vlm take the id, and do nothing with it."""
    turn("one", command=RESPONSES)
    router.order(POST, body=json.dumps(dict({
        "id": "resp_9", "object": "response", "status": "completed",
        "output": [{"type": "message", "role": "assistant", "content": [
            {"type": "output_text", "text": "What?"}]}]}, **more)).encode())
    assert "sent whole" in turn("two", command=RESPONSES).stderr
    turn("three", command=RESPONSES)
    sent, followed = inputs(router)[2]
    assert [item["content"] for item in sent] == [
        "one", answer_to("one"), "two", "What?", "three"]
    assert followed is None


def test_other_refusals_are_told(turn, router, path):
    turn("one", command=RESPONSES)
    before = path.read_bytes()
    router.order(POST, status=400, message="temperature is too high")
    assert turn("two", command=RESPONSES).exit_status == 1
    assert len(router.requests) == 2 and path.read_bytes() == before


def test_a_response_that_was_not_stored_is_not_followed(turn, router, path):
    turn("one", "--no-store", command=RESPONSES)
    turn("two", command=RESPONSES)
    sent, followed = inputs(router)[1]
    assert len(sent) == 3 and followed is None


def test_chat_goes_on_with_responses_and_back(turn, router, path):
    turn("one", command=RESPONSES)
    turn("two")
    assert router.requests[-1].json["messages"] == [
        user("one"), assistant(answer_to("one")), user("two")]
    turn("three", command=RESPONSES)
    body = router.requests[-1].json
    assert body["previous_response_id"] == messages(path)[1]["response_id"]
    assert [item["content"] for item in body["input"]] == [
        "two", answer_to("two"), "three"]


def test_files_and_images_go_with_a_response(turn, router, tmp_path):
    (tmp_path / "notes").write_text("notes")
    url = "https://example.com/a.png"
    turn("Look:", "--attach", str(tmp_path / "notes"), "--image", url,
         command=RESPONSES)
    item, = router.requests[0].json["input"]
    assert item == {"type": "message", "role": "user", "content": [
        {"type": "input_text", "text": "Look:\n\nnotes\n```\nnotes\n```"},
        {"type": "input_image", "image_url": url}]}
