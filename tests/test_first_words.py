"""What people type first is answered, and what they are told can be typed.

Words that they bring from other tools, a text without its flag, a pipe that
nobody reads, a name that is not quite right; every command in a hint exists
and takes the flags it is shown with.
"""

import ast
import itertools
import os
import re

import pytest

import xeroctl
from conftest import (ROOT, SCRIPT, Result, environment, every_case,
                      text_stream, written)
from router import OPENAI_MODEL

CHAT = "chat", "--endpoint", "demo", "-m", "hi"
LINE = ('{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
        '"body":{}}\n')


def check_told(shown, router, *words):
    """Exit 2 with a hint and these words, and nothing was sent."""
    assert (shown.exit_status, shown) == (2, ""), shown
    assert "\n  hint: " in shown.stderr
    for word in words:
        assert word in shown.stderr, shown
    assert router.requests == []


# == words of other tools ====================================================

@pytest.mark.parametrize("argv", [
    ["version"], ["-q", "version"], ["version", "-q"], ["version", "x"]])
def test_version_is_a_word_too(run, argv):
    shown = run(*argv, against=None)
    assert shown == f"xeroctl {xeroctl.__version__}\n"
    assert (shown.stderr, shown.exit_status) == ("", 0)


def test_help_on_version_finds_the_flag(run):
    shown = run("help", "version", against=None)
    assert "\n--version: print the version\n" in shown
    assert run("help", "version", "x", against=None).exit_status == 0


@every_case
@pytest.mark.parametrize("argv, command", [
    (["login"], "xeroctl config init"),
    (["login", "--api-key", "x"], "xeroctl config init"),
    (["auth", "login"], "xeroctl config init"),
    (["logout"], "xeroctl config unset NAME api_key"),
    (["completion", "bash"], "xeroctl shell-completion bash"),
    (["get", "--raw", "models", "x"], "xeroctl models get\n"),
    (["get", "models"], "xeroctl models list\n"),
    (["delete", "file", "x"], "help lists the commands"),
    (["chat", "-m", "two", "words"], "-m TEXT, in quotes"),
    (["chat", "Hello"], "-m TEXT"),
    (["chat", "What is the capital?", "--endpoint", "demo"], "-m TEXT"),
    (["chat", "send", "Hello"], "goes with -m TEXT"),
    (["responses", "create", "Hello"], "goes with -m TEXT"),
    (["embeddings", "Hello"], "--input TEXT"),
    (["chat", "sned"], "did you mean send?"),
    (["endpoints", "ls"], "xeroctl endpoints list\n"),
    (["templates", "--raw", "ls"], "xeroctl templates list\n"),
    (["config", "ls"], "xeroctl config list\n"),
    (["models", "ls"], "xeroctl models list\n"),
    (["files", "ls", "--limit", "1"], "xeroctl files list\n"),
    (["batches", "ls", "--endpoint", "demo"], "xeroctl batches list\n"),
    (["agents", "join-keys", "ls"], "xeroctl agents join-keys list\n"),
    (["chat", "ls"], "-m TEXT"),
])
def test_a_word_of_another_tool_is_answered(run, router, argv, command):
    check_told(run(*argv), router, command)


def test_behind_two_dashes_it_is_an_id(run, router):
    assert run("models", "--", "ls").exit_status == 4
    assert router.requests[0].target == "/proj_demo/v1/models/ls"


# == guesses =================================================================

@every_case
@pytest.mark.parametrize("word, hint", [
    ("mdoels", "did you mean models?"), ("Models", "did you mean models?"),
    ("cht", "did you mean chat?"), ("kyes", "did you mean keys?"),
    ("embed", "did you mean embeddings?"),
    ("hello", "xeroctl help lists"), ("ls", "xeroctl help lists"),
    ("user", "xeroctl help lists"), ("oauth", "xeroctl help lists"),
    ("", "xeroctl help lists"), ("x", "xeroctl help lists")])
def test_a_word_too_far_from_all_gets_no_guess(run, router, word, hint):
    check_told(run(word), router, hint)


@every_case
@pytest.mark.parametrize("flag, guess", [
    ("--strem", "--stream"), ("--sys", "--system"), ("--apikey", "--api-key"),
    ("--foo", None), ("--x", None), ("--nope", None), ("--bogus", None)])
def test_dashes_make_no_flags_alike(run, flag, guess):
    hint = run(*CHAT, flag).stderr.partition("hint: ")[2]
    assert hint == (f"did you mean {guess}?\n" if guess
                    else "xeroctl help chat\n")


@pytest.mark.parametrize("argv, hint", [
    (["batches", "run", "--frob"], "xeroctl help batches run\n"),
    (["--frob"], "xeroctl help\n"),
    (["models", "-o", "x.json"], "a file goes with --output-file, or >\n"),
    (["models", "-o", "jsom"], "did you mean json?\n")])
def test_a_flag_that_is_none_is_looked_up_in_the_help(run, argv, hint):
    shown = run(*argv)
    assert shown.exit_status == 2
    assert shown.stderr.partition("hint: ")[2] == hint, shown


@pytest.mark.parametrize("slug, hint", [
    ("dmeo", "did you mean demo?"), ("endpoint-pord", "endpoint-prod?"),
    ("something-else", "xeroctl endpoints lists them")])
def test_a_mistyped_slug_gets_the_nearest_one(run, router, slug, hint):
    shown = run("chat", "--endpoint", slug, "-m", "hi")
    assert shown.exit_status == 4 and hint in shown.stderr, shown
    assert [seen.target for seen in router.requests] == [
        f"/proj_demo/{slug}/v1/chat/completions", "/proj_demo/v1/endpoints"]


@pytest.mark.parametrize("fault", [
    {"status": 503}, {"status": 403}, {"drop": "after"},
    {"body": b"<html>"}, {"body": b'{"data":[5,{"slug":null},{}]}'}])
def test_a_list_that_is_not_to_be_had_costs_one_request(run, router, clock,
                                                        fault):
    router.order("GET /endpoints", times=None, **fault)
    shown = run("chat", "--endpoint", "dmeo", "-m", "hi")
    assert shown.exit_status == 4 and clock.slept == [], shown
    assert "xeroctl endpoints lists them" in shown.stderr
    assert len(router.requests) == 2


def test_with_style_openai_it_is_a_model(run, openai_router):
    near = OPENAI_MODEL[:-1] + "x"
    for words in (["--endpoint", near], ["--model", near]):
        openai_router.order("POST /chat/completions", status=404,
                            message=f"The model `{near}` does not exist")
        shown = run("chat", "-m", "hi", *words, "--style", "openai",
                    against=openai_router)
        assert f"did you mean {OPENAI_MODEL}?" in shown.stderr, shown
    openai_router.order("POST /chat/completions", status=404)
    run("chat", "-m", "hi", "--model", OPENAI_MODEL, "--style", "openai",
        against=openai_router)
    assert [seen.method for seen in openai_router.requests] == [
        "POST", "GET", "POST", "GET", "POST"]


# == a pipe that was not read ================================================

@pytest.fixture
def piped(router, clock):
    """piped(b"bytes", "chat", …): run with a pipe that holds them."""
    def runner(data, *argv, ended=True):
        far, near = os.pipe()
        os.write(near, data)
        streams = xeroctl.Streams(open(far, encoding="utf-8"), text_stream(),
                                  text_stream())
        if ended:
            os.close(near)
        status = xeroctl.main(argv, environment(router), streams, clock)
        left = b"" if not ended else os.read(far, 100)
        streams.stdin.close()
        if not ended:
            os.close(near)
        shown = Result(written(streams.stdout), written(streams.stderr),
                       status)
        shown.left = left
        return shown
    pytest.importorskip("termios")
    return runner


def test_a_pipe_that_was_not_read_is_told(piped):
    shown = piped(b"a diff", *CHAT)
    assert shown.exit_status == 0 and shown.left == b"a diff"
    assert "standard input was not read: -m -" in shown.stderr
    assert " or --attach -" in shown.stderr
    assert piped(b"a diff", *CHAT, "-q").stderr == ""
    assert piped(b"a diff", *CHAT, ended=False).stderr == shown.stderr


def test_the_hint_names_what_takes_it(piped, tmp_path):
    (tmp_path / "in.jsonl").write_text(LINE.replace(
        "{}", '{"model":"m","messages":[{"role":"user","content":"x"}]}'))
    shown = piped(b"x", "batches", "check", str(tmp_path / "in.jsonl"))
    assert shown.stderr == "standard input was not read: - takes it\n"
    shown = piped(b"x", "embeddings", "--endpoint", "demo", "--input", "x",
                  "--dry-run")
    assert "--input - or --input-file - takes it" in shown.stderr


@pytest.mark.parametrize("data, argv", [
    (b"", CHAT), (b"hi", ("chat", "--endpoint", "demo", "-m", "-")),
    (b"hi", CHAT + ("--attach", "-")), (b"x", ("models",)),
    (b"/quit\nmore\n", ("chat", "--endpoint", "demo", "--interactive", "-m",
                        "hi"))])
def test_a_pipe_that_is_empty_read_or_not_meant_is_not_told(piped, data,
                                                            argv):
    assert "was not read" not in piped(data, *argv).stderr


# == hints can be typed ======================================================

@pytest.mark.parametrize("argv, takes_it", [
    (["batches", "check", "{}"], False),
    (["batches", "run", "--endpoint", "demo", "--input", "{}",
      "--output-file", "{}.out"], False),
    (["batches", "--endpoint", "demo", "--input", "{}"], True)])
def test_only_who_takes_no_validate_is_told_of_it(run, tmp_path, argv,
                                                  takes_it):
    (tmp_path / "in").write_text(LINE)
    words = [word.format(tmp_path / "in") for word in argv]
    assert ("--no-validate" in run(*words).stderr) == takes_it
    shown = run(*words, "--no-validate")
    assert ("--no-validate goes with --input" in shown.stderr) != takes_it


def test_a_result_that_is_not_there_yet_is_waited_for(run, router):
    router.batch_plan(hold="in_progress")
    words = "batches", "--endpoint", "demo"
    batch = run(*words, "--input", "-", "-o", "id", stdin=LINE.replace(
        "{}", '{"model":"m","messages":[]}').encode()).strip()
    shown = run(*words, batch, "--download")
    assert f"hint: xeroctl batches {batch} --endpoint demo --wait" in (
        shown.stderr), shown


def said(node):
    """The text of a constant or of parts put together; … for a value."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return said(node.left) + said(node.right)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(said, node.values))
    if isinstance(node, ast.Call) and getattr(
            node.func, "id", None) == "call_again":
        return " ".join(["xeroctl"] + [
            said(each) for each in node.args[1:]
            if not isinstance(each, ast.Starred)])
    text = (node.value if hasattr(node, "value")
            else getattr(node, "s", None))  # before 3.8
    return text if isinstance(text, str) else "…"


def texts(node):
    """Yield all texts of a program, each as long as it is written."""
    for child in ast.iter_child_nodes(node):
        text = said(child)
        if "xeroctl " in text:
            yield text
        elif set(text) == {"…"}:
            yield from texts(child)


# A command, and what may belong to it: verbs, NAMES, flags, what is filled in.
COMMAND = re.compile(r"xeroctl(?= [a-z…])(?! xeroctl)(?: (?:[a-z][a-z_-]*"
                     r"|[A-Z]+|…|--?[a-z-]+))+")
GROUPS = xeroctl.GROUPS + xeroctl.ABOUT


def words_of(found):
    """The words of a command, without the prose behind it; None of none."""
    name, *rest = found.split()[1:]
    group = {group.name: group for group in GROUPS}.get(name)
    assert group or name == "…", found
    if group is None:
        return None
    known = {verb.name for verb in group.verbs if verb.by is None}
    known.update(xeroctl.DEPLOYMENT_KEYS, (v.word for v in group.verbs))
    kept = list(itertools.takewhile(
        lambda word: word[0] in "-…" or word.isupper() or word in known,
        rest))
    return [name] + kept


def all_hints():
    with open(SCRIPT, encoding="utf-8") as source:
        found = list(texts(ast.parse(source.read())))
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as source:
        found += re.findall("`(xeroctl [^`]*)`", source.read())
    commands = (words_of(command) for text in found
                for command in COMMAND.findall(text))
    return {" ".join(words).replace("…", "x") for words in commands if words}


def test_a_command_in_a_hint_exists_and_takes_its_flags():
    hints = all_hints()
    assert len(hints) > 40 and {
        "endpoints", "models", "config init", "config unset NAME api_key",
        "responses x --wait", "config add NAME --base-url URL --api-key",
        "batches run --split"} <= hints, hints
    for hint in hints:
        try:
            xeroctl.parse(hint.split(), GROUPS)
        except xeroctl.HelpWanted:
            pass
        except xeroctl.UsageError as error:
            assert re.search("missing|needs", str(error)), (hint, str(error))
