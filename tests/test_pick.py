"""--pick: of the JSON result only what a path leads to.

Where it leads to nothing, a read prints nothing and a write all that came;
what has no JSON is refused before anything is sent.
"""

import io
import json

import pytest

import xeroctl
from conftest import environment, every_case, text_stream, written
from helpers import TerminalStream as Terminal

QWEN = "8b1f4c2d-9e7a-4f3b-bc11-2d8e6a4c5f01"
FIRST = "reference-parrot-1b"
CHAT = "chat", "--endpoint", "demo", "-m", "hi"
CONTENT = "choices.0.message.content"
ANSWER = ('Hello! You said: "hi". I am the demo endpoint of the reference'
          " router; I repeat what I am told.\n")
VALUE = {"a": {"b": [1, {"c": "x"}, None, [True, "y\nz"]], "0": 2.50},
         "n": None, "e": "", "f": False, "o": {}, "é": 12345678901234567890}


@pytest.fixture
def pick(run, router):
    """pick("a.b") takes its pick of VALUE, or of the value given."""
    def picker(path, value=VALUE, **options):
        router.order("GET /x", body=json.dumps(value).encode())
        return run("api", "/x", "--pick", path, **options)
    return picker


# == where a path leads ======================================================

@every_case
@pytest.mark.parametrize("path, text", [
    ("a.b.0", "1\n"), ("a.b.1.c", "x\n"), ("a.b.-1.-1", "y\nz\n"),
    ("a.b.-4", "1\n"), ("a.b.*", '1\n{"c":"x"}\n[true,"y\\nz"]\n'),
    ("a.b.*.c", "x\n"), ("a.0", "2.5\n"), ("a.*.1", '{"c":"x"}\n'),
    ("e", "\n"), ("f", "false\n"), ("o", "{}\n"),
    ("é", "12345678901234567890\n"), ("a.b.3.0", "true\n")])
def test_a_path_leads_to_values(pick, path, text):
    shown = pick(path)
    assert (shown, shown.exit_status, shown.stderr) == (text, 0, "")


@every_case
@pytest.mark.parametrize("path", [
    "n", "zz", "a.b.4", "a.b.-5", "a.b.c", "a.b.01", "a.b.-0x", "e.0", "o.*",
    "f.a", "a.b.2", "a.b.0.*", "a.b." + "9" * 5000, "a.b.-" + "9" * 5000])
def test_null_and_nothing_are_exit_1(pick, path):
    shown = pick(path)
    assert (shown, shown.exit_status) == ("", 1)
    error = json.loads(shown.stderr)["error"]
    assert error["message"] == path + " leads to nothing"
    assert error["hint"].startswith("it begins with a or ")


def test_a_list_may_stand_on_its_own(pick):
    assert pick("*.id", [{"id": "a"}, {}, {"id": 3}]) == "a\n3\n"
    assert pick("-1.id", [{"id": "a"}, {"id": 3}]) == "3\n"
    assert pick("*.id", []).exit_status == 1


@every_case
@pytest.mark.parametrize("value, hint", [
    ({"a": 1, "c": 2}, "it begins with a or c"), ([{}], "it begins with *"),
    ({}, None), ([], None), (5, None), ("a", None)])
def test_a_hint_names_how_a_path_can_begin(pick, value, hint):
    shown = pick("b", value)
    assert (shown, shown.exit_status) == ("", 1)
    assert json.loads(shown.stderr)["error"].get("hint") == hint


@pytest.mark.parametrize("path", ["", ".", ".a", "a.", "a..b", "a[0]"])
def test_a_path_is_checked_before_anything_is_sent(run, router, path):
    shown = run("models", "--pick=" + path)
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []
    assert "choices.0.message.content" in shown.stderr


# == every kind of result ====================================================

def test_the_text_of_an_answer_is_all_that_is_printed(run):
    assert run(*CHAT, "--pick", CONTENT) == ANSWER
    assert run(*CHAT, "--stream", "--pick", CONTENT) == ANSWER


@every_case
@pytest.mark.parametrize("words, path, first", [
    (["models"], "data.*.id", FIRST), (["models", QWEN], "id", QWEN),
    (["models", "--all", "--limit", "2"], "data.*.id", FIRST),
    (["health"], "components.-1.name", "execution"),
    (["slos", "--summary"], "total", "2"), (["status"], "data.0.step",
                                            "config"),
    (["models", QWEN, "x", "--delete", "-y"], "data.0.ok", "true"),
    (["commands"], "data.0.command", "chat send"),
    (["keys", "--create", "--name", "n", "--scopes", "inference"], "name",
     "n"),
    (["chats", "create", "--workspace", "ws_kube_prod"], "status", "active"),
    (["config", "add", "n", "--base-url", "http://127.0.0.1:1/v1",
      "--api-key-env", "K"], "name", "n")])
def test_any_verb_takes_it(run, tmp_path, words, path, first):
    shown = run(*words, "--pick", path,
                XEROTIER_CONFIG=str(tmp_path / "config.toml"))
    assert shown.splitlines()[0] == first


def test_it_beats_the_form_of_the_environment(run):
    assert run("models", "--pick", "data.0.id", XEROTIER_OUTPUT="csv"
               ) == FIRST + "\n"
    assert run("models", "-o", "json", "--pick", "data.0.id") == FIRST + "\n"


@pytest.mark.parametrize("form", ["table", "wide", "jsonl", "csv", "id"])
def test_another_form_is_refused(run, router, form):
    shown = run("models", "--pick", "data", "-o", form)
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []
    assert f"-o {form}" in shown.stderr


@every_case
@pytest.mark.parametrize("words", [
    ["help"], ["help", "chat"], ["shell-completion", "bash"],
    ["exec", "raw", "x"], ["chats", "export", "x"],
    ["files", "x", "--download", "-"], list(CHAT) + ["--interactive"],
    ["batches", "x", "--endpoint", "e", "--download", "--output-file", "-"],
    ["exports", "download", "x", "--output-file", "-"]])
def test_what_prints_no_json_is_refused(run, router, words):
    shown = run(*words, "--pick", "id")
    assert (shown, shown.exit_status) == ("", 2) and router.requests == []
    assert "JSON" in shown.stderr


def test_a_download_to_a_file_has_json(run, router, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_text("hello")
    made = run("files", "--upload", "in", "--pick", "id").strip()
    assert run("files", made, "--download", "out", "--pick", "bytes") == "5\n"


def test_an_export_as_json_has_it(run):
    chat = run("chats", "create", "--workspace", "ws_kube_prod", "--pick",
               "id").strip()
    assert run("chats", "export", chat, "--format", "json", "--pick",
               "chat.id") == chat + "\n"


@pytest.mark.parametrize("order", [
    {"body": b"plain", "content_type": "text/plain"}, {"status": 204},
    {"body": b"data: 1\n\n", "content_type": "text/event-stream"}])
def test_an_answer_that_is_no_json_is_exit_1(run, router, order):
    router.order("GET /x", **order)
    shown = run("api", "/x", "--pick", "id")
    assert (shown, shown.exit_status) == ("", 1)
    assert "no JSON" in shown.stderr


# == writes ==================================================================

def test_what_a_write_brought_is_not_lost(run, router):
    shown = run("keys", "--create", "--name", "n", "--scopes", "inference",
                "--pick", "value")
    assert shown.exit_status == 1 and "leads to nothing" in shown.stderr
    assert json.loads(shown)["key"].startswith("xero_")
    shown = run("api", "/conversations", "--field", "metadata={}", "--pick",
                "nothing")
    assert shown.exit_status == 1 and json.loads(shown)["id"]
    router.order("POST /x", body=b"plain", content_type="text/plain")
    shown = run("api", "POST", "/x", "--pick", "id")
    assert (shown, shown.exit_status) == ("plain", 1)


def test_a_write_that_failed_prints_nothing(run, router):
    router.order("POST /api-keys", status=400)
    shown = run("keys", "--create", "--name", "n", "--scopes", "inference",
                "--pick", "key")
    assert (shown, shown.exit_status) == ("", 1)


@pytest.mark.parametrize("flag", ["--dry-run", "--curl"])
@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_a_plan_is_shown_as_ever(run, router, tmp_path, flag, form):
    assert run(*CHAT, flag, "--pick", "x.y", *form) == run(*CHAT, flag, *form)
    config = {"XEROTIER_CONFIG": str(tmp_path / "c")}
    words = "config", "add", "n", "--style", "openai", flag, *form
    assert run(*words, "--pick", "x.y", **config) == run(*words, **config)
    assert router.requests == []


def test_a_read_of_a_dry_run_is_picked_from(run):
    assert run("models", "--dry-run", "--pick", "data.0.id") == FIRST + "\n"
    assert "curl" in run("models", "--curl", "--pick", "data.0.id")


# == terminals ===============================================================

@pytest.mark.parametrize("path, shown", [
    ("a", "x\\x1b[2Jy\n"), ("b", '["\\u001b"]\n')])
def test_controls_are_escaped_on_a_terminal(router, clock, path, shown):
    router.order("GET /x", body=b'{"a": "x\\u001b[2Jy", "b": ["\\u001b"]}')
    streams = xeroctl.Streams(text_stream(), Terminal(io.BytesIO()),
                              text_stream())
    assert xeroctl.main(["api", "/x", "--pick", path], environment(router),
                        streams, clock) == 0
    assert written(streams.stdout) == shown


def test_in_a_pipe_a_text_passes_unchanged(pick):
    assert pick("a", {"a": "x\x1b[2Jy"}) == "x\x1b[2Jy\n"
