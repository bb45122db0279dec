"""templates: how chats begin, kept by hand or from a folder of files.

A workspace of the router gives its templates two a page unless it is told
otherwise, and has two of one name, so that names must be looked up with care.
"""

import json
import os

import pytest

from helpers import asked, caller, labelled


pty = pytest.importorskip("pty")

GROUP = ("templates",)
KUBE = ("--workspace", "ws_kube_prod")
IN_KUBE = "/workspaces/ws_kube_prod/chat-templates"
ALL_OF_PROJECT = "GET /chat-templates?limit=100"
ALL_OF_KUBE = f"GET {IN_KUBE}?limit=100"
PROMPT = "You work step by step, and say each step."
HEADS = ["ID", "Name", "Scope", "Version", "Policy", "Updated"]
FIRST_NEW = "ctpl_01H0000000000000000000001"
WHOLE = {
    "name": "tidy-up", "scope": "project", "description": "Tidy up",
    "system_prompt": "Tidy up.\nAlways.", "allowed_tools": ["kubectl_get"],
    "approval_policy": "elevated", "applicable_workspace_types": ["general"],
    "metadata": {"owner": "ada"}}
SMALL = {"name": "tidy-up", "system_prompt": "Tidy up."}
BY_WORD = [("show",), ("delete", "--force"), ("versions",),
           ("promote", "--scope", "project"), ("update", "--file", "t.json")]

templates = caller("templates")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, so that names of files are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def writes(router):
    return [line for line in asked(router) if not line.startswith("GET ")]


def put(template=SMALL, to="t.json", **changes):
    """Write a template into a file; a change to None leaves a field out."""
    if isinstance(template, dict):
        template = json.dumps({
            key: value for key, value in dict(template, **changes).items()
            if value is not None})
    with open(to, "w") as target:
        target.write(template)
    return to


def fill(**files):
    """Write the files of a folder `set`: their names and templates."""
    os.makedirs("set", exist_ok=True)
    for name, template in files.items():
        put(template, os.path.join("set", name + ".json"))


def named(name, prompt="Do it."):
    return {"name": name, "system_prompt": prompt}


# == list ====================================================================

def test_templates_are_listed(router, golden):
    shown = golden("templates-list", "templates", "list")
    assert shown.splitlines()[0].split() == HEADS
    assert asked(router) == ["GET /chat-templates"]


def test_list_is_what_the_bare_group_does(templates, router):
    assert templates() == templates("list")
    assert asked(router) == ["GET /chat-templates"] * 2


@pytest.mark.parametrize("scope, count", [
    ("all", 7), ("platform", 1), ("project", 1), ("workspace", 5)])
def test_a_scope_is_asked_for(templates, router, scope, count):
    shown = templates("list", "--scope", scope, "-o", "id")
    assert len(shown.splitlines()) == count
    assert asked(router) == [f"GET /chat-templates?scope={scope}"]


def test_a_scope_that_is_none_is_not_sent(refused):
    said = refused("list", "--scope", "world")
    assert "--scope" in said and "platform, project, workspace" in said


def test_all_pages_of_a_workspace_are_one_document(templates, router):
    value = json.loads(templates("list", *KUBE, "--all", "-o", "json"))
    assert [each["name"] for each in value["data"]] == [
        "drain-kubernetes-node", "restart-deployment", "rotate-certificates",
        "duplicate-name", "duplicate-name"]
    assert value["has_more"] is False and len(router.requests) == 3


# == show, and names =========================================================

def test_a_template_is_shown_by_its_id(router, golden):
    golden("templates-show", "templates", "show", "ctpl_01HTRIAGE")
    assert asked(router) == ["GET /chat-templates/ctpl_01HTRIAGE"]


def test_a_template_is_shown_by_its_name(templates, router):
    assert (templates("show", "triage-incident")
            == templates("show", "ctpl_01HTRIAGE"))
    assert asked(router)[:2] == [ALL_OF_PROJECT,
                                 "GET /chat-templates/ctpl_01HTRIAGE"]


def test_a_name_is_looked_for_on_every_page(templates, router):
    last = None
    for number in range(103):
        with router.lock:
            last = router.store.templates.keep({
                "id": f"ctpl_{number}", "object": "chat_template",
                "name": f"spare-{number}", "scope": "project", "version": 1,
                "workspace_id": None}, "proj_demo")
    assert last["name"] == "spare-102"
    shown = templates("promote", "drain-kubernetes-node", "--scope",
                      "platform", "-o", "id")
    assert shown == "ctpl_01HDRAIN\n"
    assert [line.startswith("GET /chat-templates?") for line in asked(
        router)] == [True, True, False]


def test_a_version_is_asked_for(templates, router):
    shown = templates("show", "rotate-certificates", *KUBE, "--version", "2")
    assert labelled(shown)["Version"] == "2"
    assert asked(router) == [ALL_OF_KUBE,
                             f"GET {IN_KUBE}/ctpl_01HROTATE?version=2"]


@pytest.mark.parametrize("version", ["0", "-1", "two", "1.5"])
def test_a_version_that_is_no_number_is_not_sent(refused, version):
    assert "--version" in refused("show", "ctpl_1", f"--version={version}")


def test_a_version_that_never_was_is_not_found(templates):
    shown = templates("show", "ctpl_01HTRIAGE", "--version", "3")
    assert shown.exit_status == 4 and "no version 3" in shown.stderr


@pytest.mark.parametrize("words", BY_WORD)
@pytest.mark.parametrize("place", [(), KUBE])
def test_a_name_that_is_not_there_names_near_ones(templates, router, words,
                                                  place):
    put()
    shown = templates(words[0], "restart-deploiment", *words[1:], *place)
    assert (shown, shown.exit_status) == ("", 4)
    assert "no template restart-deploiment" in shown.stderr
    assert "hint: there is restart-deployment\n" in shown.stderr
    assert writes(router) == []


def test_where_a_name_is_missing_is_said_in_words(templates):
    assert "None" not in templates("show", "nothing-like-it").stderr


@pytest.mark.parametrize("words", BY_WORD)
@pytest.mark.parametrize("place", [(), KUBE])
def test_of_two_of_a_name_none_is_taken(templates, router, words, place):
    put()
    shown = templates(words[0], "duplicate-name", *words[1:], *place)
    assert (shown, shown.exit_status) == ("", 2)
    assert "2 templates are named duplicate-name" in shown.stderr
    assert "ctpl_01HTWIN1" in shown.stderr
    assert "ctpl_01HTWIN2" in shown.stderr
    assert len(router.requests) == 1


@pytest.mark.parametrize("words", [
    ("list",), ("show", "ctpl_01HTRIAGE"), ("create", "--file", "t.json"),
    ("delete", "ctpl_01HTRIAGE", "--force")])
def test_an_empty_workspace_is_not_the_project(refused, words):
    put()
    assert "empty" in refused(*words, "--workspace", "")


def test_an_id_is_percent_encoded(templates, router):
    assert templates("show", "ctpl_a/b").exit_status == 4
    assert asked(router) == ["GET /chat-templates/ctpl_a%2Fb"]


# == create and update =======================================================

@pytest.mark.parametrize("place, path", [((), "/chat-templates"),
                                         (KUBE, IN_KUBE)])
def test_a_template_is_made(templates, router, place, path):
    put(WHOLE, scope="workspace" if place else "project")
    shown = labelled(templates("create", "--file", "t.json", *place))
    assert shown["ID"] == FIRST_NEW and shown["Version"] == "1"
    assert shown["Policy"] == "elevated" and shown["Tools"] == "kubectl_get"
    assert asked(router) == [f"POST {path}"]
    assert router.requests[0].json == dict(
        WHOLE, scope="workspace" if place else "project")


def test_a_template_comes_from_stdin(templates, router):
    shown = templates("create", "--file", "-", "-o", "id",
                      stdin=json.dumps(SMALL).encode())
    assert shown == FIRST_NEW + "\n" and router.requests[0].json == SMALL


def test_a_new_version_replaces_what_was(templates, router):
    put(name="triage-incident", system_prompt="New.")
    shown = templates("update", "triage-incident", "--file", "t.json",
                      "-o", "json")
    value = json.loads(shown)
    assert (value["version"], value["system_prompt"]) == (3, "New.")
    assert asked(router) == [ALL_OF_PROJECT,
                             "PUT /chat-templates/ctpl_01HTRIAGE"]
    before = templates("show", "ctpl_01HTRIAGE", "--version", "2")
    assert labelled(before)["Prompt"] == PROMPT


def test_a_workspaces_template_is_updated_there(templates, router):
    put(name="restart-deployment")
    assert templates("update", "restart-deployment", "--file", "t.json",
                     *KUBE).exit_status == 0
    assert asked(router) == [ALL_OF_KUBE, f"PUT {IN_KUBE}/ctpl_01HRESTART"]


@pytest.mark.parametrize("changes, said", [
    ({"colour": 3, "size": 4}, ["unknown field colour", "unknown field size"]),
    ({"name": None}, ["name is missing"]),
    ({"system_prompt": None}, ["system_prompt is missing"]),
    ({"system_prompt": ""}, ["system_prompt is missing"]),
    ({"name": None, "system_prompt": None, "x": 1},
     ["name is missing", "system_prompt is missing", "unknown field x"]),
    ({"name": "Tidy Up"}, ["kebab-case"]),
    ({"name": "tidy_up"}, ["kebab-case"]),
    ({"name": "-tidy"}, ["kebab-case"]),
    ({"name": "tidy\n"}, ["kebab-case"]),
    ({"name": 4}, ["name"]),
    ({"approval_policy": "lax"},
     ["approval_policy", "standard, elevated, restricted"]),
    ({"approval_policy": ["standard"]}, ["approval_policy"]),
])
@pytest.mark.parametrize("words", [("create",), ("update", "ctpl_1")])
def test_what_is_wrong_with_a_file_is_named(refused, words, changes, said):
    put(**changes)
    told = refused(*words, "--file", "t.json")
    assert told.startswith("error: t.json: ")
    for each in said:
        assert each in told


@pytest.mark.parametrize("field, value", [
    ("scope", "world"), ("scope", 1), ("scope", ["project"]),
    ("system_prompt", 4)])
def test_a_field_of_another_type_is_named(refused, field, value):
    put(**{field: value})
    assert field in refused("create", "--file", "t.json")


@pytest.mark.parametrize("text, said", [
    ("{", "not JSON"), ("", "not JSON"), ('{"name": NaN}', "not JSON"),
    ("[]", "no JSON object"), ("null", "no JSON object"),
    ('"x"', "no JSON object")])
def test_a_file_that_is_no_template_is_not_sent(refused, text, said):
    put(text)
    told = refused("create", "--file", "t.json")
    assert "t.json" in told and said in told


def test_a_file_that_is_missing_is_named(refused):
    assert "none.json" in refused("create", "--file", "none.json")


@pytest.mark.parametrize("template_id", [
    "ctpl_01HROTATE", "rotate-certificates"])
def test_a_template_shown_can_be_made_elsewhere(templates, template_id):
    shown = templates("show", template_id, *KUBE, "-o", "json")
    put(shown)
    made = templates("create", "--file", "t.json", "--workspace",
                     "ws_0123456789abcdef", "-o", "json")
    before, after = json.loads(shown), json.loads(made)
    for field in WHOLE:
        assert after[field] == before[field]
    assert after["workspace_id"] == "ws_0123456789abcdef"
    assert (after["version"], after["id"]) == (1, FIRST_NEW)


def test_a_template_shown_can_be_made_under_another_name(templates, router):
    templates("create", "--file", put(WHOLE))
    before = json.loads(templates("show", "tidy-up", "-o", "json"))
    shown = templates("create", "--file", put(before, "before.json"))
    assert shown.exit_status == 1 and "HTTP 409" in shown.stderr
    put(dict(before, name="tidy-more"))
    assert templates("create", "--file", "t.json").exit_status == 0
    assert router.requests[-1].json == dict(WHOLE, name="tidy-more")


def test_a_template_without_policy_can_be_made_elsewhere(templates, router):
    before = dict(WHOLE, id="ctpl_1", approval_policy=None)
    router.order("GET /ctpl_1", body=json.dumps(before).encode())
    put(templates("show", "ctpl_1", "-o", "json"))
    assert templates("create", "--file", "t.json").exit_status == 0


# == delete, promote, versions, apply ========================================

@pytest.mark.parametrize("name", ["ctpl_01HTRIAGE", "triage-incident"])
def test_a_template_is_deleted_when_that_is_meant(answer, templates, router,
                                                  name):
    status, said = answer("templates", "delete", name, typed=b"y\n")
    assert status == 0
    assert said == f"Delete template {name}? [y/N] "
    assert writes(router) == ["DELETE /chat-templates/ctpl_01HTRIAGE"]
    assert templates("show", "ctpl_01HTRIAGE").exit_status == 4


def test_a_delete_is_told(templates, router):
    shown = templates("delete", "rotate-certificates", *KUBE, "-y")
    assert shown == "deleted rotate-certificates\n"
    assert asked(router) == [ALL_OF_KUBE, f"DELETE {IN_KUBE}/ctpl_01HROTATE"]
    assert json.loads(templates("delete", "ctpl_01HNOTES", "-y", "-o",
                                "json"))["deleted"] is True


@pytest.mark.parametrize("name", ["ctpl_01HROTATE", "rotate-certificates"])
def test_a_template_is_promoted(templates, router, name):
    shown = labelled(templates("promote", name, *KUBE, "--scope", "platform"))
    assert (shown["Scope"], shown["Version"]) == ("platform", "7")
    assert writes(router) == [f"POST {IN_KUBE}/ctpl_01HROTATE/promote"]
    assert router.requests[-1].json == {"scope": "platform"}


@pytest.mark.parametrize("words", [(), ("--scope", "workspace"),
                                   ("--scope", "all")])
def test_a_promotion_goes_up(refused, words):
    assert "--scope" in refused("promote", "ctpl_1", *words)


@pytest.mark.parametrize("name, place", [
    ("ctpl_01HROTATE", ()), ("rotate-certificates", KUBE)])
def test_versions_are_listed(templates, router, name, place):
    lines = templates("versions", name, *place).splitlines()
    assert lines[0].split() == ["Version", "Created", "Notes"]
    assert [line.split()[0] for line in lines[1:]] == list("7654321")
    assert asked(router)[-1].endswith("/ctpl_01HROTATE/versions")


def test_versions_have_pages(templates, router):
    words = "versions", "ctpl_01HROTATE"
    shown = templates(*words, "--limit", "2")
    assert len(shown.splitlines()) == 3
    assert "--after ctpl_01HROTATE:6" in shown.stderr
    assert len(templates(*words, "--limit", "2", "--all").splitlines()) == 8


def test_versions_that_were_cut_say_so(templates, router):
    put(name="triage-incident", system_prompt="New.")
    for _ in range(20):
        templates("update", "ctpl_01HTRIAGE", "--file", "t.json")
    shown = templates("versions", "ctpl_01HTRIAGE")
    assert len(shown.splitlines()) == 21 and "more exist" in shown.stderr


@pytest.mark.parametrize("name", ["ctpl_01HRESTART", "restart-deployment"])
def test_a_chat_begins_as_chat_new_begins_it(templates, run, router, name):
    shown = templates("apply", name, *KUBE)
    assert shown.exit_status == 0
    assert writes(router) == [f"POST {IN_KUBE}/ctpl_01HRESTART/apply"]
    again = run("chat", "new", *KUBE, "--template", name)
    assert shown.replace("00001", "00002") == again
    assert again.startswith("chat created from template\n")


def test_a_template_of_the_platform_begins_a_chat(templates, router):
    shown = templates("apply", "ctpl_01HTRIAGE", *KUBE, "-o", "json")
    assert json.loads(shown)["template_version"] == 2
    assert asked(router) == [f"POST {IN_KUBE}/ctpl_01HTRIAGE/apply"]


def test_a_chat_may_begin_with_a_message(templates, router):
    templates("apply", "ctpl_01HTRIAGE", *KUBE, "-m", "-", stdin=b"Hi\n")
    assert router.requests[-1].json == {"role": "user", "content": "Hi"}
    assert writes(router)[-1].startswith("POST /chats/chat_")


def test_the_id_of_a_new_chat_goes_to_xargs(templates):
    assert templates("apply", "ctpl_01HDRAIN", *KUBE, "-o", "id").startswith(
        "chat_")


# == apply-from-dir ==========================================================

def test_a_folder_is_applied_in_order(templates, router):
    fill(c=named("new-one"), a=named("triage-incident"),
         b=named("write-release-notes", PROMPT))
    put("{", os.path.join("set", "not-a-template.txt"))
    shown = templates("apply-from-dir", "set")
    assert shown == ("[OK] a.json -> ctpl_01HTRIAGE v3\n"
                     f"[OK] c.json -> {FIRST_NEW} v1\n")
    assert (shown.stderr, shown.exit_status) == ("b.json is unchanged\n", 0)
    assert asked(router) == [
        ALL_OF_PROJECT, "PUT /chat-templates/ctpl_01HTRIAGE",
        "POST /chat-templates"]
    assert router.requests[1].json == named("triage-incident")


def test_a_folder_applied_twice_is_unchanged(templates, router):
    fill(a=WHOLE, b=named("b-two"))
    templates("apply-from-dir", "set")
    before = len(writes(router))
    shown = templates("apply-from-dir", "set")
    assert (shown, shown.exit_status) == ("", 0)
    assert shown.stderr == "a.json is unchanged\nb.json is unchanged\n"
    assert before == len(writes(router)) == 2


def test_a_folder_is_for_a_workspace(templates, router):
    fill(a=named("rotate-certificates"), b=named("triage-incident"))
    shown = templates("apply-from-dir", "set", *KUBE)
    assert shown == ("[OK] a.json -> ctpl_01HROTATE v8\n"
                     f"[OK] b.json -> {FIRST_NEW} v1\n")
    assert asked(router) == [
        ALL_OF_KUBE, f"PUT {IN_KUBE}/ctpl_01HROTATE", f"POST {IN_KUBE}"]


def test_a_folder_for_the_project_leaves_workspaces_alone(templates, router):
    fill(a=named("restart-deployment"))
    shown = templates("apply-from-dir", "set")
    assert shown == f"[OK] a.json -> {FIRST_NEW} v1\n"
    assert writes(router) == ["POST /chat-templates"]


def test_a_file_that_fails_does_not_stop_the_others(templates, router):
    fill(a=named("a-one"), b=dict(SMALL, colour=3), d=named("d-four"))
    put("{", os.path.join("set", "c.json"))
    router.order("POST /chat-templates", status=400, message="No room.")
    shown = templates("apply-from-dir", "set")
    lines = shown.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "[FAIL] a.json", "[FAIL] b.json", "[FAIL] c.json",
        f"[OK] d.json -> {FIRST_NEW} v1"]
    assert "No room." in lines[0] and "unknown field colour" in lines[1]
    assert "not JSON" in lines[2]
    assert shown.exit_status == 1
    assert shown.stderr == "error: 1 of 4 files applied\n"
    assert len(writes(router)) == 2


def test_a_file_never_chooses_between_two_of_its_name(templates, router):
    fill(a=named("duplicate-name"))
    shown = templates("apply-from-dir", "set", *KUBE)
    assert shown.startswith("[FAIL] a.json (2 templates are named")
    assert shown.exit_status == 1 and writes(router) == []


def test_two_files_of_one_name_do_not_take_turns(templates, router):
    fill(a=named("a-one", "x"), b=named("a-one", "y"))
    assert templates("apply-from-dir", "set").exit_status == 1
    shown = templates("apply-from-dir", "set")
    assert "[FAIL] b.json" in shown and "a.json" in shown
    assert writes(router) == ["POST /chat-templates"]


def test_a_folder_in_json_is_a_bulk_result(templates):
    fill(a=named("triage-incident"), b=named("b-two"), c=named("C"),
         d=named("write-release-notes", PROMPT))
    shown = templates("apply-from-dir", "set", "-o", "json")
    value = json.loads(shown)
    assert value["object"] == "list"
    assert [(each["id"], each["ok"]) for each in value["data"]] == [
        ("ctpl_01HTRIAGE", True), (FIRST_NEW, True), (None, False),
        ("ctpl_01HNOTES", True)]
    assert [each["error"] is None for each in value["data"]] == [
        True, True, False, True]
    assert "kebab-case" in value["data"][2]["error"]
    assert shown.exit_status == 1


def test_a_failed_row_names_its_file(templates, router):
    fill(a=named("a-one"))
    router.order("POST /chat-templates", status=400, message="No room.")
    shown = templates("apply-from-dir", "set", "-o", "jsonl")
    assert "a.json" in shown


def test_only_what_is_there_has_an_id(templates):
    fill(a=named("triage-incident"), b=named("B"))
    shown = templates("apply-from-dir", "set", "-o", "id")
    assert (shown, shown.exit_status) == ("ctpl_01HTRIAGE\n", 1)


def test_a_dry_run_of_a_folder_is_its_plan(templates, router):
    fill(a=named("a-one"), b=named("triage-incident"),
         c=named("write-release-notes", PROMPT))
    shown = templates("apply-from-dir", "set", "--dry-run", "-o", "json")
    plan = json.loads(shown)
    assert [(each["method"], each["url"].partition("/v1")[2])
            for each in plan] == [
        ("POST", "/chat-templates"),
        ("PUT", "/chat-templates/ctpl_01HTRIAGE")]
    assert plan[0]["body"] == named("a-one")
    assert "c.json is unchanged" in shown.stderr and shown.exit_status == 0
    assert asked(router) == [ALL_OF_PROJECT]


def test_a_dry_run_names_the_files_that_fail(templates, router):
    fill(a=named("a-one"), b=dict(SMALL, colour=3))
    shown = templates("apply-from-dir", "set", "--dry-run")
    assert "POST " in shown
    assert "b.json" in shown + shown.stderr
    assert "unknown field colour" in shown + shown.stderr
    assert shown.exit_status == 1 and writes(router) == []


def test_a_folder_without_templates_is_told(refused, folder):
    (folder / "empty").mkdir()
    assert "*.json" in refused("apply-from-dir", "empty")
    assert "no-folder" in refused("apply-from-dir", "no-folder")


@pytest.mark.parametrize("row", [
    {"name": ["a"]}, {"name": {"a": 1}}, {"name": None}, {}, 7, None])
def test_an_odd_row_of_the_list_does_no_harm(templates, router, row):
    fill(a=named("a-one"))
    router.order("GET /chat-templates", body=json.dumps(
        {"object": "list", "data": [row]}).encode())
    shown = templates("apply-from-dir", "set")
    assert shown == f"[OK] a.json -> {FIRST_NEW} v1\n", shown.stderr


def test_a_folder_named_like_a_file_fails_alone(templates, folder):
    fill(b=named("b-two"))
    (folder / "set" / "a.json").mkdir()
    shown = templates("apply-from-dir", "set")
    assert shown.exit_status == 1
    assert [line.split()[:2] for line in shown.splitlines()] == [
        ["[FAIL]", "a.json"], ["[OK]", "b.json"]]
