"""conversations: kept on the server, with the items that are in them."""

import json

import pytest

from conftest import every_case
from router import as_json

ENDPOINT = "--endpoint", "demo"
OPENAI = "--style", "openai"
FIRST = "conv_000000000000000000000001"
ITEM = "msg_000000000000000000000001"
PATH = "/proj_demo/v1/conversations"


@pytest.fixture
def do(run):
    """do("get", ID) is a verb of the group, with an endpoint."""
    def doer(verb, *argv, **options):
        return run("conversations", verb, *argv, *ENDPOINT, **options)
    return doer


@pytest.fixture
def held(do, router):
    """A conversation with two items and some metadata."""
    do("create", "--metadata", "team=blue", "kind=test", "--item",
       "user:hi: there", "assistant:yes")
    router.requests.clear()
    return FIRST


def last(router):
    """The last request, as METHOD and target."""
    seen = router.requests[-1]
    return f"{seen.method} {seen.target}"


# == every verb ==============================================================

def test_a_conversation_is_made_changed_and_gone(do, router):
    made = do("create", "-o", "id").strip()
    assert made == FIRST and last(router) == f"POST {PATH}"
    assert "Metadata: -\n" in do("get", made)
    assert last(router) == f"GET {PATH}/{made}"
    shown = do("update", made, "--metadata", "a=1", "b=2")
    assert "Metadata: a=1, b=2\n" in shown and "Updated:  2026" in shown
    assert last(router) == f"POST {PATH}/{made}"
    assert router.requests[-1].json == {"metadata": {"a": "1", "b": "2"}}
    assert do("delete", made, "--force") == f"deleted {made}\n"
    assert last(router) == f"DELETE {PATH}/{made}"
    assert do("get", made).exit_status == 4
    assert do("list", "-o", "id") == ""


@pytest.mark.parametrize("flags, body", [
    ([], {}),
    (["--metadata", "a=1", "b=x=y"], {"metadata": {"a": "1", "b": "x=y"}}),
    (["--item", "user:hi: there"],
     {"items": [{"type": "message", "role": "user",
                 "content": "hi: there"}]}),
    (["--item", "system:one", "developer:two", "--item", "assistant:",
      "--metadata", "a=1"],
     {"items": [{"type": "message", "role": role, "content": text}
                for role, text in (("system", "one"), ("developer", "two"),
                                   ("assistant", ""))],
      "metadata": {"a": "1"}}),
])
def test_create_sends_what_was_given(do, router, flags, body):
    shown = do("create", *flags)
    assert shown.exit_status == 0, shown
    assert router.requests[-1].json == body


def test_an_item_keeps_lines_and_letters(do, router):
    do("create", "--item", "user:Grüße\n- 😀")
    assert router.requests[-1].json["items"][0]["content"] == (
        "Grüße\n- 😀")


@pytest.mark.parametrize("item", ["hi", "tool:hi", ":hi", "User:hi"])
def test_an_item_needs_a_role_that_is_one(do, router, item):
    shown = do("create", "--item", item)
    assert (shown, shown.exit_status) == ("", 2)
    assert repr(item) in shown.stderr and "ROLE:TEXT" in shown.stderr
    assert "developer" in shown.stderr and router.requests == []


def test_list_is_the_default_verb(run, router, held):
    shown = run("conversations", *ENDPOINT)
    head, row = shown.splitlines()
    assert head.split() == ["ID", "Object", "Created", "Updated", "Metadata"]
    assert row.split()[0] == held and row.split()[-1] == "2"
    assert last(router) == f"GET {PATH}"


def test_items_are_listed_in_either_order(do, router, held):
    shown = do("list-items", held)
    head, *rows = shown.splitlines()
    assert head.split() == ["ID", "Type", "Role", "Status", "Content"]
    assert [row.split(None, 4)[1:] for row in rows] == [
        ["message", "assistant", "completed", "yes"],
        ["message", "user", "completed", "hi: there"]]
    shown = do("list-items", held, "--order", "asc", "--limit", "1",
               "-o", "id")
    assert shown == ITEM + "\n" and f"--after {ITEM}" in shown.stderr
    assert last(router) == f"GET {PATH}/{held}/items?order=asc&limit=1"
    assert do("list-items", held, "--order", "asc", "--after", ITEM,
              "-o", "id") == ITEM[:-1] + "2\n"


ITEMS = [
    ({"type": "function_call", "name": "get_weather",
      "arguments": '{"city":"Paris"}'},
     '[tool call] get_weather({"city":"Paris"})'),
    ({"type": "function_call_output", "call_id": "c", "output": "18\n°C"},
     "18\\n°C"),
    ({"type": "function_call_output", "output": {"celsius": 18}},
     '{"celsius":18}'),
    ({"type": "function_call_output", "output": [
        {"type": "input_text", "text": "18"}]}, "18"),
    ({"type": "reasoning", "content": None, "summary": [
        {"type": "summary_text", "text": "It asks."}]}, "It asks."),
    ({"type": "web_search_call", "action": {"query": "q"}},
     '[tool call] web_search_call({"query":"q"})'),
    ({"type": "message", "role": "user", "content": []}, "-"),
    ({"type": "message", "role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": "{}"}}]}, "[tool call] f({})"),
    ({"type": "message", "content": "a", "tool_calls": "odd"}, "a")]


@every_case
@pytest.mark.parametrize("item, shown", ITEMS)
def test_items_are_shown_with_calls_and_their_output(run, do, router, item,
                                                     shown):
    router.order("GET /items", body=as_json({"data": [dict(item, id="i")]}))
    assert do("list-items", "c").splitlines()[1].endswith("  " + shown)
    router.order("GET /input_items", body=as_json(
        {"data": [dict(item, id="i")]}))
    assert run("responses", "r", "--input-items", "--endpoint",
               "demo").splitlines()[1].endswith("  " + shown)


def test_update_needs_something_to_change(do, router):
    shown = do("update", FIRST)
    assert (shown, shown.exit_status) == ("", 2)
    assert "--metadata" in shown.stderr and router.requests == []


# == items are added =========================================================

def bare(role, text):
    return {"type": "message", "role": role, "content": text}


@pytest.mark.parametrize("role", ["user", "assistant", "system",
                                  "developer"])
def test_an_item_is_added_bare(do, router, held, role):
    shown = do("add-item", held, "--role", role, "--content", "more")
    assert shown.exit_status == 0
    assert f"Role:    {role}\n" in shown and "Content: more\n" in shown
    assert last(router) == f"POST {PATH}/{held}/items"
    assert router.requests[-1].json == bare(role, "more")
    assert do("list-items", held, "--limit", "1", "-o", "json").count(
        '"more"') == 1


@pytest.mark.parametrize("content, stdin, text", [
    ("-", b"one\ntwo\n", "one\ntwo"), ("", b"", ""), ("-5", b"", "-5"),
    ("@file", b"", "@file")])
def test_the_content_of_an_item(do, router, held, content, stdin, text):
    shown = do("add-item", held, "--role", "user", "--content", content,
               stdin=stdin)
    assert shown.exit_status == 0, shown
    assert router.requests[-1].json == bare("user", text)


OUTPUT = {"type": "function_call_output", "call_id": "call_1",
          "output": "12 °C"}


@pytest.mark.parametrize("from_stdin", [True, False])
def test_any_item_is_added_as_json(do, router, held, tmp_path, from_stdin):
    data = b"\xef\xbb\xbf" + json.dumps(OUTPUT).encode()
    path = tmp_path / "item.json"
    path.write_bytes(data)
    shown = do("add-item", held, "--json", "-" if from_stdin else str(path),
               stdin=data)
    assert shown.exit_status == 0
    assert "Type:    function_call_output\n" in shown
    assert router.requests[-1].json == OUTPUT


@pytest.mark.parametrize("flags, item", [
    (["--role", "user", "--content", "hi"], bare("user", "hi")),
    (["--json", "-"], OUTPUT)])
def test_style_openai_adds_items_in_a_list(run, openai_router, flags, item):
    made = run("conversations", "create", "-o", "id", *OPENAI,
               against=openai_router).strip()
    shown = run("conversations", "add-item", made, *flags, *OPENAI,
                against=openai_router, stdin=json.dumps(OUTPUT).encode())
    assert shown.exit_status == 0 and item["type"] in shown
    assert last(openai_router) == f"POST /v1/conversations/{made}/items"
    assert openai_router.requests[-1].json == {"items": [item]}


@pytest.mark.parametrize("flags, stdin, told", [
    ([], b"", "--role"),
    (["--role", "user"], b"", "--content"),
    (["--content", "hi"], b"", "--role"),
    (["--role", "tool", "--content", "hi"], b"", "--role"),
    (["--json", "-", "--role", "user"], b"{}", "cannot be combined"),
    (["--json", "-", "--content", "hi"], b"{}", "cannot be combined"),
    (["--json", "/no/such"], b"", "/no/such"),
    (["--json", "-"], b"{", "not JSON"),
    (["--json", "-"], b"", "not JSON"),
    (["--json", "-", "--content", "-"], b"{}", "standard input"),
])
def test_what_is_no_item_is_not_sent(do, router, flags, stdin, told):
    shown = do("add-item", FIRST, *flags, stdin=stdin)
    assert (shown, shown.exit_status) == ("", 2)
    assert told in shown.stderr and router.requests == []


# == items and conversations go ==============================================

def test_an_item_is_deleted(do, router, held):
    shown = do("delete-item", held, "--item-id", ITEM)
    assert (shown, shown.exit_status) == ("", 2)
    assert f"Delete item {ITEM}?" in shown.stderr and router.requests == []
    shown = do("delete-item", held, "--item-id", ITEM, "--force")
    assert shown == f"deleted {ITEM}\n"
    assert last(router) == f"DELETE {PATH}/{held}/items/{ITEM}"
    assert ITEM not in do("list-items", held, "-o", "id").split()
    assert do("delete-item", held, "--item-id", ITEM, "-y").exit_status == 4


def test_json_of_a_deleted_item_is_its_conversation(do, held):
    shown = do("delete-item", held, "--item-id", ITEM, "-y", "-o", "json")
    assert json.loads(shown)["id"] == held


# == the endpoint ============================================================

VERBS = [["list"], ["get", FIRST], ["create"],
         ["update", FIRST, "--metadata", "a=1"], ["delete", FIRST, "-y"],
         ["list-items", FIRST],
         ["add-item", FIRST, "--role", "user", "--content", "x"],
         ["delete-item", FIRST, "--item-id", ITEM, "-y"]]


@pytest.mark.parametrize("argv", VERBS, ids=lambda argv: argv[0])
def test_no_path_has_the_endpoint_in_it(run, router, held, argv):
    shown = run("conversations", *argv, XEROTIER_ENDPOINT="my-endpoint")
    assert shown.exit_status == 0, shown
    assert router.requests[-1].path.startswith(PATH)


def test_the_endpoint_of_a_deployment_is_enough(run, router, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('current = "here"\n[deployment.here]\nendpoint = "demo"\n'
                    f'base_url = "{router.base_url}"\n'
                    f'api_key = "{router.key}"\n')
    path.chmod(0o600)
    shown = run("conversations", against=None, XEROTIER_CONFIG=str(path))
    assert shown.exit_status == 0, shown
    assert last(router) == f"GET {PATH}"


@pytest.mark.parametrize("argv", VERBS, ids=lambda argv: argv[0])
def test_style_openai_needs_none(run, openai_router, argv):
    run("conversations", "create", "--item", "user:hi", *OPENAI,
        against=openai_router)
    shown = run("conversations", *argv, *OPENAI, against=openai_router)
    assert shown.exit_status == 0, shown
    assert openai_router.requests[-1].path.startswith("/v1/conversations")


# == what a person sees ======================================================

SEEN = {
    "conversations-list": ("list",),
    "conversations-get": ("get", FIRST),
    "conversations-create": ("create", "--metadata", "a=1", "--item",
                             "user:Hi", "assistant:Hello"),
    "conversations-update": ("update", FIRST, "--metadata", "team=green"),
    "conversations-delete": ("delete", FIRST, "--force"),
    "conversations-items": ("list-items", FIRST),
    "conversations-items-csv": ("list-items", FIRST, "-o", "csv"),
    "conversations-add-item": ("add-item", FIRST, "--role", "user",
                               "--content", "two\nlines"),
    "conversations-delete-item": ("delete-item", FIRST, "--item-id", ITEM,
                                  "--force"),
    "conversations-delete-unasked": ("delete", FIRST),
    "conversations-unknown": ("get", "conv_9"),
    "conversations-bad-item": ("create", "--item", "Hi"),
}


@pytest.mark.parametrize("name", sorted(SEEN))
def test_what_a_person_sees(golden, held, name):
    argv = ("conversations",) + SEEN[name] + ENDPOINT
    golden(name, *argv)


def test_what_a_person_sees_without_an_endpoint(golden):
    golden("conversations-no-endpoint", "conversations", "list")
