"""completions: chat completions that were stored, found again and changed."""

import json

import pytest

from router import as_json

ENDPOINT = "--endpoint", "demo"
LIST = ("completions",) + ENDPOINT
PATH = "/proj_demo/demo/v1/chat/completions"
ANSWER = ('Hello! You said: "{}". I am the demo endpoint of the reference'
          " router; I repeat what I am told.")


def store(run, text="Hi", team=None, **options):
    """Have a completion stored; return its id."""
    flags = ["--param", 'metadata={"team":"%s"}' % team] if team else []
    for name, value in options.items():
        flags += ["--" + name, value]
    return run("chat", *ENDPOINT, "-m", text, "--store", "-o", "id",
               *flags).strip()


@pytest.fixture
def stored(run, router):
    """The ids of three completions, oldest first."""
    ids = [store(run, "one", team="blue"), store(run, "two", team="red"),
           store(run, "three", team="blue", model="other")]
    router.requests.clear()
    return ids


def ids_in(shown):
    return shown.split()


def one(seen):
    """The only request that was made."""
    request, = seen.requests
    return request


# == list ====================================================================

def test_what_was_stored_is_listed(run, router, stored):
    shown = run(*LIST)
    head, *rows = shown.splitlines()
    assert head.split() == ["ID", "Model", "Finish", "Tokens", "Created"]
    assert [row.split()[0] for row in rows] == stored[::-1]
    assert rows[0].split()[1:4] == ["other", "stop", "20"]
    assert (one(router).method, one(router).target) == ("GET", PATH)


def test_what_was_not_stored_is_not_there(run):
    run("chat", *ENDPOINT, "-m", "Hi")
    shown = run(*LIST)
    assert (shown, shown.exit_status) == ("", 0)
    assert shown.stderr == "No completions found.\n"


@pytest.mark.parametrize("flags, query, found", [
    (["--model", "other"], [("model", "other")], [2]),
    (["--metadata", "team=blue"], [("metadata[team]", "blue")], [2, 0]),
    (["--metadata", "team=blue", "--model", "demo"],
     [("model", "demo"), ("metadata[team]", "blue")], [0]),
    (["--metadata", "team=blue", "--metadata", "x=1"],
     [("metadata[team]", "blue"), ("metadata[x]", "1")], []),
    (["--order", "asc"], [("order", "asc")], [0, 1, 2]),
    (["--limit", "2"], [("limit", "2")], [2, 1]),
    (["--after", "chatcmpl-2"], [("after", "chatcmpl-2")], [0]),
    (["--order", "asc", "--limit", "1", "--after", "chatcmpl-1"],
     [("order", "asc"), ("limit", "1"), ("after", "chatcmpl-1")], [1]),
])
def test_each_flag_of_a_list_is_a_query(run, router, stored, flags, query,
                                        found):
    shown = run(*LIST, *flags, "-o", "id")
    assert sorted(one(router).query) == sorted(query)
    assert ids_in(shown) == [stored[place] for place in found]


def test_a_query_keeps_every_character(run, router):
    run(*LIST, "--metadata", "a b&c=d=e&ü", "--model", "x/y z")
    assert sorted(one(router).query) == [("metadata[a b&c]", "d=e&ü"),
                                         ("model", "x/y z")]


def test_every_page_asks_for_the_same(run, router, stored):
    shown = run(*LIST, "--all", "--limit", "1", "--metadata", "team=blue",
                "--order", "asc", "-o", "id")
    assert ids_in(shown) == [stored[0], stored[2]]
    for seen in router.requests:
        assert ("metadata[team]", "blue") in seen.query
        assert ("order", "asc") in seen.query


# == one of them =============================================================

def test_a_completion_is_shown_with_what_it_said(run, router, stored):
    shown = run("completions", stored[0], *ENDPOINT)
    assert f"ID:       {stored[0]}\n" in shown
    assert "Metadata: team=blue\n" in shown
    assert f"Content:  {ANSWER.format('one')}\n" in shown
    assert one(router).target == f"{PATH}/{stored[0]}"


def test_messages_are_what_was_asked_and_said(run, router, stored):
    shown = run("completions", stored[1], "--messages", *ENDPOINT)
    head, *rows = shown.splitlines()
    assert head.split() == ["Role", "Content"]
    assert [row.split(None, 1) for row in rows] == [
        ["user", "two"], ["assistant", ANSWER.format("two")]]
    assert one(router).target == f"{PATH}/{stored[1]}/messages"


def test_calls_are_shown_where_nothing_was_said(run, router):
    call = {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    router.order("GET /messages", body=as_json({"data": [call]}))
    router.order("GET /c", body=as_json(
        {"id": "c", "choices": [{"message": call}]}))
    for words in ("--messages",), ():
        shown = run("completions", "c", *words, *ENDPOINT)
        assert shown.endswith("  [tool call] f({})\n")


def test_messages_are_paged(run, router, stored):
    shown = run("completions", stored[1], "--messages", "--order", "desc",
                "--limit", "1", "--all", "-o", "jsonl", *ENDPOINT)
    assert [json.loads(line)["role"] for line in shown.splitlines()] == [
        "assistant", "user"]
    assert [dict(seen.query)["order"] for seen in router.requests] == [
        "desc", "desc"]


def test_a_message_of_parts_shows_its_text(run, router, stored):
    router.order("GET /messages", body=as_json({
        "object": "list", "has_more": False, "data": [
            {"role": "user", "content": [{"type": "text", "text": "see\n"},
                                         {"type": "image_url"}]},
            {"role": "assistant", "content": None}]}))
    _, first, second = run("completions", stored[0], "--messages",
                           *ENDPOINT).splitlines()
    assert first.startswith("user       see\\n")
    assert second == "assistant  -"


def test_metadata_is_changed_and_nothing_else(run, router, stored):
    shown = run("completions", stored[0], "--update", "--metadata", "x=1",
                "y=2=3", *ENDPOINT)
    assert shown.exit_status == 0 and "Metadata: x=1, y=2=3\n" in shown
    assert (one(router).method, one(router).target) == (
        "POST", f"{PATH}/{stored[0]}")
    assert one(router).json == {"metadata": {"x": "1", "y": "2=3"}}
    assert ids_in(run(*LIST, "--metadata", "x=1", "-o", "id")) == [stored[0]]


@pytest.mark.parametrize("argv, told", [
    (["c", "--messages", "--delete"], ["--messages", "--delete"]),
    (["c", "--update", "--delete"], ["--update", "--delete"]),
    (["--messages"], ["--messages", "ID"]),
    (["--update", "--metadata", "a=1"], ["--update", "ID"]),
    (["--delete"], ["--delete", "ID"]),
    (["c", "--update"], ["nothing to update", "--metadata"]),
    (["c", "--model", "x"], ["--model"]),
    (["c", "--metadata", "a=1"], ["--metadata"]),
    (["--metadata", "a"], ["a"]),
    (["--order", "up"], ["--order", "asc"]),
])
def test_what_does_not_go_together_is_named(run, router, argv, told):
    shown = run("completions", *argv, *ENDPOINT)
    assert (shown, shown.exit_status) == ("", 2)
    for word in told:
        assert word in shown.stderr
    assert router.requests == []


def test_pairs_do_not_swallow_the_id(run, router, stored):
    run("completions", "--update", "--metadata", "a=1", stored[0], *ENDPOINT)
    assert one(router).target == f"{PATH}/{stored[0]}"


def test_an_endpoint_is_needed_but_with_style_openai(run, router,
                                                     openai_router):
    shown = run("completions")
    assert (shown, shown.exit_status) == ("", 2)
    assert "no endpoint" in shown.stderr and router.requests == []
    for action in [], ["--messages"], ["--delete", "--dry-run"]:
        run("completions", *["c"] * bool(action), *action, "--style",
            "openai", against=openai_router)
    assert [seen.target for seen in openai_router.requests] == [
        "/v1/chat/completions", "/v1/chat/completions/c/messages"]


# == what a person sees ======================================================

ONE = ("completions", "chatcmpl-1") + ENDPOINT
SEEN = {
    "completions-list": LIST,
    "completions-list-paged": LIST + ("--limit", "1"),
    "completions-list-csv": LIST + ("-o", "csv"),
    "completions-show": ONE,
    "completions-messages": ONE + ("--messages",),
    "completions-update": ONE + ("--update", "--metadata", "team=green"),
    "completions-delete": ONE + ("--delete", "--force"),
    "completions-unknown": ("completions", "chatcmpl-9") + ENDPOINT,
    "completions-no-update": ONE + ("--update",),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(golden, stored, name):
    golden(name, *SEEN[name])
