"""Help that reads like a manual, and lists that come page by page."""

import io
import os
import threading

import pytest

import xeroctl
from conftest import environment, text_stream

NEWLINE = "\n"


@pytest.fixture
def on_a_terminal(tmp_path):
    """Run with a terminal as standard output; return what it got."""
    pty = pytest.importorskip("pty")

    def runner(*argv, **environ):
        far, near = pty.openpty()
        stdout = io.TextIOWrapper(os.fdopen(near, "wb", 0), "ascii",
                                  write_through=True)
        streams = xeroctl.Streams(text_stream(), stdout, text_stream())
        blocks = []
        reader = threading.Thread(target=drain, args=(far, blocks))
        reader.start()
        assert xeroctl.main(argv, environment(TERM="xterm", **environ),
                            streams) == 0
        stdout.close()
        reader.join()
        os.close(far)
        return b"".join(blocks).decode()
    return runner


def drain(number, blocks):
    """Read a terminal to its end, which is an error on Linux."""
    try:
        for block in iter(lambda: os.read(number, 4096), b""):
            blocks.append(block)
    except OSError:
        pass


def test_each_group_stands_in_one_family(run):
    named = " ".join(names for _, names in xeroctl.FAMILIES).split()
    known = [group.name for group in xeroctl.GROUPS + xeroctl.ABOUT]
    assert sorted(named) == sorted(known)
    shown = run("help", against=None).split(NEWLINE)
    heads = [shown.index(family + ":") for family, _ in xeroctl.FAMILIES]
    assert heads == sorted(heads)
    assert shown.index("global flags:") > heads[-1]


def test_a_group_of_no_family_is_listed_too(run):
    group = xeroctl.Group("odd", "What is odd.", verbs=(
        xeroctl.Verb("", "Do it.", lambda *_: None),), default="")
    shown = run("help", against=None, groups=(group,))
    assert "more:\n  odd               What is odd.\n" in shown


def test_a_verb_shows_an_example_first_then_the_common_flags(run):
    shown = run("help", "chat", "send", against=None)
    places = [shown.index(text) for text in (
        "usage: xeroctl chat send", "\nfor example:\n  xeroctl chat send ",
        "\nflags:\n  --endpoint SLUG", "\n  --stream ", "\nmore flags:\n",
        "\n  --top-p F ", "\nglobal flags:\n", "\nexamples:\n")]
    assert places == sorted(places)


def test_few_flags_are_all_common(run):
    shown = run("help", "keys", "quota", against=None)
    assert "\nflags:\n" in shown and "more flags" not in shown


@pytest.mark.parametrize("words, lines", [
    (["config"], ["the config file:", '    style = "openai"']),
    (["config", "--help"], ["the config file:"]),
    (["batches"], ["the input file:", "the output file:"])])
def test_a_topic_of_a_file_stands_in_the_help_of_its_command(run, words,
                                                             lines):
    argv = words if "--help" in words else ["help"] + words
    shown = run(*argv, against=None).split(NEWLINE)
    assert all(line in shown for line in lines)
    assert max(map(len, shown)) < 80
    assert "examples:" in shown[-8:]


def test_the_input_file_of_the_topic_is_one_that_passes(run, tmp_path):
    shown = run("help", "batches", against=None)
    begin = shown.index('    {"custom_id"')
    lines = shown[begin:].split(NEWLINE)[:2]
    path = tmp_path / "in.jsonl"
    path.write_text(" ".join(line.strip() for line in lines) + NEWLINE)
    assert run("batches", "check", str(path), against=None).exit_status == 0


def test_the_config_file_of_the_topic_is_one_that_is_read(run, tmp_path):
    shown = run("help", "config", against=None)
    text = shown[shown.index("    current ="):shown.index("  A deployment")]
    path = tmp_path / "config.toml"
    path.write_text(text)
    listed = run("config", "list", "-o", "id", against=None,
                 XEROTIER_CONFIG=str(path))
    assert listed.split() == ["prod", "local"]


def test_heads_are_bold_on_a_terminal_only(run, on_a_terminal):
    shown = on_a_terminal("help", "chat", "send")
    assert "\x1b[1mflags:\x1b[0m\r\n" in shown
    assert shown.count("\x1b[1m") == shown.count("\x1b[0m") == 5
    assert "\x1b" not in on_a_terminal("help", "chat", "send", NO_COLOR="1")
    assert "\x1b" not in run("help", "chat", "send", against=None)


@pytest.mark.parametrize("form, first", [
    ("id", b"file-"), ("jsonl", b'{"id":"file-'), ("csv", b"ID,")])
def test_a_page_is_shown_before_the_next_one_is_asked_for(run, router, form,
                                                          first):
    for number in range(3):
        router.add_file(f"{number}.txt", b"x")
    asked = []
    router.order("GET /files", when=lambda request: asked.append(1)
                 or len(asked) == 2, status=400)
    shown = run("files", "--all", "--limit", "2", "-o", form)
    assert shown.exit_status == 1 and "is not valid" in shown.stderr
    assert shown.encode().startswith(first)
    assert len(shown.splitlines()) == 2 + (form == "csv")


@pytest.mark.parametrize("form", ["table", "json", "wide"])
def test_a_form_that_needs_the_whole_shows_nothing_of_a_part(run, router,
                                                             form):
    for number in range(3):
        router.add_file(f"{number}.txt", b"x")
    asked = []
    router.order("GET /files", when=lambda request: asked.append(1)
                 or len(asked) == 2, status=400)
    shown = run("files", "--all", "--limit", "2", "-o", form)
    assert (shown.exit_status, shown) == (1, "")
