"""endpoints, workspaces, chats, maintenance, project, settings, usage,
exports and health: the small groups, each as a conversation.
"""

import gzip
import json
import re

import pytest

from helpers import asked, check_call
from router import Router

NOW = 1770000000
GROUP = ()
GPU_A = "00000001-0000-4000-8006-000000000001"
CHAT = "chat_01H0000000000000000000001"
EXPORT = "exp_000000000000000000000001"
WINDOW = "mnt_00000001"
MAINTENANCE = "/management/maintenance"
PROJECT = "/management/project"
FROM, TO = "2026-12-01T10:00:00Z", "2026-12-01T12:00:00Z"
SCHEDULE = ["maintenance", "schedule", "--title", "disks", "--starts-at",
            FROM, "--ends-at", TO]
INVITE = ["project", "invite", "--email", "a@example.com"]
BARS = re.compile("[▁-█]")


@pytest.fixture
def chat(run, router):
    """The id of a chat with one message."""
    run("chats", "create", "--workspace", "ws_kube_prod", "--title", "Nodes")
    run("chats", "send", CHAT, "-m", "drain\nall")
    del router.requests[:]
    return CHAT


@pytest.fixture
def window(run, router):
    """The id of a maintenance window that is scheduled."""
    run(*SCHEDULE)
    del router.requests[:]
    return WINDOW


def last_query(router):
    return dict(router.requests[-1].query)


def ids(run, *words):
    return run(*words, "-o", "id").split()


# == all of them =============================================================

LISTS = {
    "endpoints-list": ("endpoints list",
                       "SLUG MODEL TIER REGION STATUS"),
    "workspaces-list": ("workspaces list", "ID NAME TYPE STATUS CREATED"),
    "workspaces-agents": ("workspaces agents ws_kube_prod", None),
    "workspaces-tools": ("workspaces tools ws_kube_prod", None),
    "chats-list": ("chats list", "ID TITLE WORKSPACE MESSAGES UPDATED"),
    "chats-messages": (f"chats messages {CHAT}", "ROLE CREATED CONTENT"),
    "maintenance-list": ("maintenance list", None),
    "project-members": ("project members", "ID EMAIL ROLE JOINED"),
    "project-invitations": ("project invitations", None),
    "settings-list": ("settings list", "Key Value Description"),
    "usage-endpoints": ("usage endpoints --from 2d", None),
    "usage-requests": ("usage requests --from 2d --limit 3", None),
    "exports-list": ("exports list", None),
}
RECORDS = {
    "endpoints-get": "endpoints get demo",
    "workspaces-show": "workspaces show ws_kube_prod",
    "chats-show": f"chats show {CHAT}",
    "maintenance-show": f"maintenance show {WINDOW}",
    "project-show": "project show",
    "settings-get": "settings get budget",
    "usage-summary": "usage --from 2d",
    "exports-get": f"exports get {EXPORT}",
    "health-dashboard": "health",
    "health-check": "health check",
}


@pytest.fixture
def furnished(run, router, chat, window):
    """A router that has one at least of everything."""
    run("workspaces", "bind", "ws_kube_prod", "--agent", GPU_A)
    run(*INVITE, "--role", "owner")
    run("exports", "create", "logs", "--from", "2d")
    del router.requests[:]


@pytest.mark.parametrize("name", sorted(LISTS))
def test_a_list_is_as_the_page_says(run, furnished, golden, name):
    line, heads = LISTS[name]
    shown = run(*line.split())
    golden(name, line.split(), shown)
    assert heads is None or shown.splitlines()[0].split() == heads.split()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_record_is_as_the_page_says(run, furnished, golden, name):
    argv = RECORDS[name].split()
    shown = run(*argv)
    golden(name, argv, shown)
    assert shown.exit_status == 0 and shown.stderr == ""


WRITES = [
    ("endpoints create my-llm --model m", "POST /endpoints",
     {"slug": "my-llm", "model": "m"}),
    ("endpoints create my-llm --model m --tier t --region r",
     "POST /endpoints",
     {"slug": "my-llm", "model": "m", "tier": "t", "region": "r"}),
    ("endpoints create my-llm --model m --param temperature=0.5",
     "POST /endpoints", {"slug": "my-llm", "model": "m",
                         "parameters": {"temperature": 0.5}}),
    ("endpoints update demo --param temperature=0.5 --param status=inactive",
     "PATCH /endpoints/demo", {"temperature": 0.5, "status": "inactive"}),
    ('endpoints update demo --param a=[1] b=c', "PATCH /endpoints/demo",
     {"a": [1], "b": "c"}),
    ("endpoints delete demo --force", "DELETE /endpoints/demo", None),
    ("workspaces create --name w --type general --description d",
     "POST /workspaces",
     {"name": "w", "type": "general", "description": "d"}),
    ('workspaces update ws_kube_prod --name w --param settings={"a":1}',
     "PATCH /workspaces/ws_kube_prod", {"name": "w", "settings": {"a": 1}}),
    ("workspaces delete ws_kube_prod -y", "DELETE /workspaces/ws_kube_prod",
     None),
    (f"workspaces bind ws_0123456789abcdef --agent {GPU_A}",
     "POST /workspaces/ws_0123456789abcdef/agents", {"agent_id": GPU_A}),
    (f"workspaces unbind ws_kube_prod --agent {GPU_A} --force",
     f"DELETE /workspaces/ws_kube_prod/agents/{GPU_A}", None),
    ("chats create --workspace ws_kube_prod", "POST /chats",
     {"workspace_id": "ws_kube_prod"}),
    (f"chats rename {CHAT} --title t", f"PATCH /chats/{CHAT}",
     {"title": "t"}),
    (f"chats archive {CHAT}", f"POST /chats/{CHAT}/archive", None),
    (f"chats delete {CHAT} --force", f"DELETE /chats/{CHAT}", None),
    (f"chats send {CHAT} -m -x", f"POST /chats/{CHAT}/messages",
     {"content": "-x", "role": "user"}),
    (f"chats send {CHAT} --message=x --role assistant",
     f"POST /chats/{CHAT}/messages", {"content": "x", "role": "assistant"}),
    (" ".join(SCHEDULE), f"POST {MAINTENANCE}",
     {"title": "disks", "starts_at": FROM, "ends_at": TO}),
    (" ".join(SCHEDULE + ["--severity critical --description d"]),
     f"POST {MAINTENANCE}",
     {"title": "disks", "starts_at": FROM, "ends_at": TO,
      "severity": "critical", "description": "d"}),
    (f"maintenance update {WINDOW} --ends-at 2026-12-02T00:00:00+01:00",
     f"PATCH {MAINTENANCE}/{WINDOW}",
     {"ends_at": "2026-12-02T00:00:00+01:00"}),
    (f"maintenance update {WINDOW} --severity info --title t",
     f"PATCH {MAINTENANCE}/{WINDOW}", {"severity": "info", "title": "t"}),
    (f"maintenance cancel {WINDOW} --force",
     f"POST {MAINTENANCE}/{WINDOW}/cancel", None),
    (f"maintenance complete {WINDOW}",
     f"POST {MAINTENANCE}/{WINDOW}/complete", None),
    ("maintenance purge --before 2026-01-01 --force",
     f"POST {MAINTENANCE}/purge", {"before": "2026-01-01"}),
    ("maintenance purge --before 7d --force", f"POST {MAINTENANCE}/purge",
     {"before": "2026-01-26T02:40:00Z"}),
    ("project update --name n --description d", f"PATCH {PROJECT}",
     {"name": "n", "description": "d"}),
    ("project set-role usr_00000002 --role owner",
     f"PATCH {PROJECT}/members/usr_00000002", {"role": "owner"}),
    ("project remove-member usr_00000002 --force",
     f"DELETE {PROJECT}/members/usr_00000002", None),
    ("project invite --email b@example.com --role member",
     f"POST {PROJECT}/invitations",
     {"email": "b@example.com", "role": "member"}),
    ("project revoke-invitation invite_00000001 --force",
     f"DELETE {PROJECT}/invitations/invite_00000001", None),
    ("settings set default_model my-llm", "PUT /settings/default_model",
     {"value": "my-llm"}),
    ('settings set default_model "7"', "PUT /settings/default_model",
     {"value": "7"}),
    ("settings set log_retention_days 7",
     "PUT /settings/log_retention_days", {"value": 7}),
    ("settings set store_completions false",
     "PUT /settings/store_completions", {"value": False}),
    ('settings set budget {"amount":1.50}', "PUT /settings/budget",
     {"value": {"amount": 1.5}}),
    ("settings set regions []", "PUT /settings/regions", {"value": []}),
    ("exports create usage --from 2026-01-01 --to 2026-01-31",
     "POST /exports/usage", {"start_date": "2026-01-01",
                             "end_date": "2026-01-31", "format": "jsonl"}),
    ("exports create logs --from 7d --to 12h --format csv --filter"
     " status_codes=[500] region=eu --filter min_latency_ms=5",
     "POST /exports/logs",
     {"start_date": "2026-01-26T02:40:00Z",
      "end_date": "2026-02-01T14:40:00Z", "format": "csv",
      "filters": {"status_codes": [500], "region": "eu",
                  "min_latency_ms": 5}}),
    (f"exports delete {EXPORT} --force", f"DELETE /exports/{EXPORT}", None),
]


@pytest.mark.parametrize("line, call, body", WRITES)
def test_flags_are_sent_and_no_others(run, router, furnished, line, call,
                                      body):
    check_call(run(*line.split()), router, call, body)


@pytest.mark.parametrize("line, said", [
    ("endpoints create my-llm", "--model"),
    ("endpoints create --model m", "SLUG"),
    ("endpoints update demo", "nothing to update"),
    ("endpoints update demo --param a", "KEY=VALUE"),
    ("endpoints delete demo", "demo?"),
    ("workspaces create", "--name"),
    ("workspaces update ws_1", "nothing to update"),
    ("workspaces bind ws_1", "--agent"),
    ("workspaces delete ws_1", "Delete workspace ws_1?"),
    ("workspaces unbind ws_1 --agent a", "Unbind agent a from ws_1?"),
    ("chats create", "--workspace"),
    ("chats rename chat_1", "--title"),
    ("chats send chat_1", "--message"),
    ("chats export chat_1 --format html", "html"),
    ("chats delete chat_1", "Delete chat chat_1?"),
    ("maintenance schedule --title t --starts-at 2026-12-01T10:00:00"
     " --ends-at 2026-12-01T12:00:00Z", "no zone"),
    (f"maintenance schedule --title t --starts-at {TO} --ends-at {FROM}",
     "wrong way round"),
    (f"maintenance schedule --title t --starts-at {TO} --ends-at {TO}",
     "wrong way round"),
    ("maintenance schedule --title t --starts-at 2026-12-01T10:00:00Z"
     " --ends-at 2026-12-01T11:00:00+02:00", "wrong way round"),
    (f"maintenance schedule --title t --starts-at {FROM}", "--ends-at"),
    (" ".join(SCHEDULE + ["--severity bad"]), "--severity"),
    (f"maintenance update mnt_1 --starts-at {TO} --ends-at {FROM}",
     "wrong way round"),
    ("maintenance update mnt_1", "nothing to update"),
    ("maintenance cancel mnt_1", "Cancel mnt_1?"),
    ("maintenance purge", "--before"),
    ("maintenance purge --before 2026-01-01",
     "Forget all maintenance that was over before 2026-01-01?"),
    ("maintenance purge --before yesterday", "yesterday"),
    ("project update", "nothing to update"),
    ("project set-role usr_1", "--role"),
    ("project remove-member usr_1", "Remove member usr_1?"),
    ("project revoke-invitation i", "i?"),
    ("project invite", "--email"),
    ("settings set budget", "VALUE"),
    ("settings get", "ID"),
    ("usage --from 3d --to 5d", "wrong way round"),
    ("usage daily --from 2026-02-01T00:00:00", "no zone"),
    ("usage --from 9999w", "is no time"),
    ("maintenance purge --before 999999w", "is no time"),
    ("usage requests --to soon", "soon"),
    ("exports create logs", "--from"),
    ("exports create bills --from 1d", "bills"),
    ("exports create --from 1d", "KIND"),
    ("exports create logs --from 1d --format xml", "xml"),
    ("exports create logs --from 91d", "at most 90 days"),
    ("exports create logs --from 2025-01-01 --to 2025-12-31",
     "at most 90 days"),
    ("exports create logs --from 2027-01-01", "wrong way round"),
    ("exports create logs --from 1d --to 2d", "wrong way round"),
    ("exports create logs --from 2026-01-01T00:00:00", "no zone"),
    ("exports create logs --from 1d --wait-timeout 3", "--wait"),
    ("exports create logs --from 1d --filter region", "KEY=VALUE"),
    ("exports delete exp_1", "Delete export exp_1?"),
    ("exports list --offset -1", "--offset"),
    ("health chek", "check"),
])
def test_wrong_words_are_refused_before_anything_is_sent(refused, line,
                                                         said):
    assert said in refused(*line.split())


FRONTEND = {"maintenance", "project", "project members", "keys", "agents",
            "agents join-keys"}


@pytest.mark.parametrize("line", sorted(FRONTEND | {
    "endpoints", "workspaces", "chats", "settings", "usage", "exports",
    "health"}))
def test_only_management_is_at_the_frontend(run, router, line):
    with Router(clock=lambda: NOW) as frontend:
        run(*line.split(), XEROTIER_FRONTEND_URL=frontend.origin)
        assert [len(router.requests), len(frontend.requests)] == (
            [0, 1] if line in FRONTEND else [1, 0])


# == endpoints ===============================================================

def test_an_endpoint_comes_serves_and_goes(run, router):
    def serves():
        return run("chat", "--endpoint", "my-llm", "-m", "hi").exit_status
    assert serves() == 4
    assert run("endpoints", "create", "my-llm", "--model",
               "m").exit_status == 0
    assert serves() == 0 and "\nmy-llm  " in run("endpoints")
    shown = run("endpoints", "update", "my-llm", "--param", "status=inactive",
                "temperature=0.5")
    assert re.search('^Parameters: {"temperature":0.5}$', shown, re.M)
    assert serves() == 6
    assert run("endpoints", "delete", "my-llm",
               "--force") == "deleted my-llm\n"
    assert "my-llm" not in run("endpoints")
    assert run("endpoints", "get", "my-llm").exit_status == 4


@pytest.mark.parametrize("words", [
    ["get", "demo"], ["create", "demo-2", "--model", "m"],
    ["update", "demo", "--param", "a=1"], ["delete", "demo", "--force"]])
def test_the_id_of_an_endpoint_is_the_slug_that_its_verbs_take(run, words):
    assert run("endpoints", *words, "-o", "id") == words[1] + "\n"


def test_a_list_of_endpoints_is_for_xargs_and_wide_has_their_ids(run, router):
    slugs = run("endpoints", "-o", "id").split()
    assert slugs[0] == "demo" and len(slugs) > 1
    for slug in slugs:
        assert run("endpoints", "get", slug).exit_status == 0
    known = {each["slug"]: each["id"]
             for each in router.store.endpoints.records.values()}
    heads, first, *_ = run("endpoints", "-o", "wide").splitlines()
    assert heads.split()[-1] == "ID" and first.split()[-1] == known["demo"]
    assert run("endpoints", "-o", "csv").split()[1].endswith(known["demo"])
    assert known["demo"] not in run("endpoints")


def test_a_slug_is_taken_once(run):
    shown = run("endpoints", "create", "demo", "--model", "m")
    assert shown.exit_status == 1 and "HTTP 409" in shown.stderr


# == workspaces ==============================================================

def test_a_workspace_comes_and_goes(run, router):
    made, = ids(run, "workspaces", "create", "--name", "w")
    assert made in ids(run, "workspaces")
    shown = run("workspaces", "update", made, "--name", "v")
    assert re.search("^NAME: +v$", shown, re.M)
    assert run("workspaces", "show", made) == shown
    assert run("workspaces", "delete", made,
               "--force") == f"deleted {made}\n"
    assert made not in ids(run, "workspaces")
    assert asked(router) == [
        "POST /workspaces", "GET /workspaces", f"PATCH /workspaces/{made}",
        f"GET /workspaces/{made}", f"DELETE /workspaces/{made}",
        "GET /workspaces"]


def test_an_agent_is_bound_and_unbound(run):
    place = "ws_kube_prod", "--agent", GPU_A
    assert run("workspaces", "bind",
               *place) == f"bound {GPU_A} to ws_kube_prod\n"
    assert run("workspaces", "bind", *place).exit_status == 1
    assert ids(run, "workspaces", "agents", "ws_kube_prod") == [GPU_A]
    assert run("workspaces", "unbind", *place,
               "--force") == f"unbound {GPU_A} from ws_kube_prod\n"
    empty = run("workspaces", "agents", "ws_kube_prod")
    assert empty == "" and empty.stderr == "No agents found.\n"


# == chats ===================================================================

def test_a_chat_comes_and_goes(run, router):
    made, = ids(run, "chats", "create", "--workspace", "ws_kube_prod")
    assert ids(run, "chats") == [made] == [CHAT]
    assert ids(run, "chats", "--workspace", "ws_0123456789abcdef") == []
    assert last_query(router) == {"workspace_id": "ws_0123456789abcdef"}
    shown = run("chats", "rename", made, "--title", "T")
    assert re.search("^TITLE: +T$", shown, re.M)
    assert re.search("^STATUS: +archived$", run("chats", "archive", made),
                     re.M)
    late = run("chats", "send", made, "-m", "hi")
    assert late.exit_status == 1 and "HTTP 409" in late.stderr
    assert run("chats", "restore", made).exit_status == 0
    assert run("chats", "send", made, "-m", "-",
               stdin=b"hi\nthere\n").exit_status == 0
    assert router.requests[-1].json["content"] in ("hi\nthere",
                                                   "hi\nthere\n")
    assert run("chats", "delete", made, "--force") == f"deleted {made}\n"
    assert run("chats").stderr == "No chats found.\n"


def test_a_chat_is_exported_as_text_and_as_json(run, router, chat):
    text = run("chats", "export", chat)
    assert text.startswith("# Nodes\n") and "drain\nall" in text
    assert text == run("chats", "export", chat, "--format", "md")
    whole = json.loads(run("chats", "export", chat, "--format", "json"))
    assert whole["messages"][0]["content"] == "drain\nall"
    assert asked(router) == [f"GET /chats/{chat}/export?format={form}"
                             for form in ("md", "md", "json")]
    assert run("chats", "export", "chat_2").exit_status == 4


# == maintenance =============================================================

def test_a_window_comes_and_ends(run, router):
    assert ids(run, *SCHEDULE) == [WINDOW]
    assert ids(run, "maintenance", "--status", "scheduled") == [WINDOW]
    assert last_query(router) == {"status": "scheduled"}
    shown = run("maintenance", "update", WINDOW, "--title", "t")
    assert re.search("^TITLE: +t$", shown, re.M)
    assert re.search("^SEVERITY: +info$", shown, re.M)
    shown = run("maintenance", "cancel", WINDOW, "--force")
    assert re.search("^STATUS: +cancelled$", shown, re.M)
    again = run("maintenance", "complete", WINDOW)
    assert again.exit_status == 1 and "HTTP 409" in again.stderr
    gone = json.loads(run("maintenance", "purge", "--before", "2027-01-01",
                          "--force", "-o", "json"))
    assert gone["purged"] == 1 and ids(run, "maintenance") == []


def test_a_span_ahead_is_a_time(run, router):
    run("maintenance", "schedule", "--title", "t", "--starts-at", "1d",
        "--ends-at", "36h")
    assert router.requests[0].json == {
        "title": "t", "starts_at": "2026-02-03T02:40:00Z",
        "ends_at": "2026-02-03T14:40:00Z"}


# == project and settings ====================================================

def test_members_are_invited_and_removed(run):
    made, = ids(run, *INVITE)
    assert run(*INVITE).exit_status == 1        # invited already
    assert ids(run, "project", "invitations") == [made]
    assert run("project", "revoke-invitation", made,
               "--force") == f"revoked {made}\n"
    assert ids(run, "project", "invitations") == []
    last = run("project", "remove-member", "usr_00000001", "--force")
    assert last.exit_status == 1 and "HTTP 409" in last.stderr
    assert run("project", "remove-member", "usr_00000002",
               "--force") == "removed usr_00000002\n"
    assert ids(run, "project", "members") == ["usr_00000001"]


def test_the_project_is_changed(run):
    shown = run("project", "update", "--name", "n")
    assert re.search("^Name: +n$", shown, re.M) and shown == run("project")


def test_a_setting_is_read_and_changed(run):
    run("settings", "set", "budget", '{"amount":1}')
    assert json.loads(run("settings", "get", "budget", "-o",
                          "json"))["value"] == {"amount": 1}
    assert "budget" in ids(run, "settings")
    wrong = run("settings", "set", "log_retention_days", "long")
    assert wrong.exit_status == 1 and "param: value" in wrong.stderr
    assert run("settings", "get", "nothing").exit_status == 4


@pytest.mark.parametrize("text, value", [
    ("null", None), ("", ""), ('""', ""), ("{}", {}), ("0", 0),
    ("NaN", "NaN"), ("-1", -1), ("tru", "tru"),
    ("12345678901234567890", 12345678901234567890)])
def test_any_value_is_one(run, router, text, value):
    run("settings", "set", "budget", text)
    assert router.requests[0].json == {"value": value}


# == usage ===================================================================

@pytest.mark.parametrize("verb", ["summary", "daily", "endpoints",
                                  "requests"])
def test_usage_is_asked_for_as_given(run, router, verb):
    assert run("usage", verb).exit_status == 0
    assert last_query(router) == {}
    assert run("usage", verb, "--from", "7d", "--to", "2026-02-01",
               "--endpoint", "demo", "--model", "m").exit_status == 0
    assert last_query(router) == {"from": "2026-01-26T02:40:00Z",
                                  "to": "2026-02-01", "endpoint": "demo",
                                  "model": "m"}
    assert run("usage", verb, XEROTIER_ENDPOINT="demo").exit_status == 0
    assert last_query(router) == {}
    assert asked(router)[0] == f"GET /usage/{verb}"


def test_days_end_in_a_line_for_each_column(run, golden):
    argv = ["usage", "daily", "--from", "3d"]
    shown = run(*argv)
    golden("usage-daily", argv, shown)
    assert len(BARS.findall(shown)) == 4 * 8
    assert all(len(line) == 14 + 4 for line in shown.splitlines()[-8:])


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "id"])
def test_the_lines_are_for_people_alone(run, form):
    shown = run("usage", "daily", "--from", "3d", "-o", form)
    assert not BARS.search(shown) and "2026-02-02" in shown
    if form == "csv":
        head, *rows = shown.split("\r\n" if "\r" in shown else "\n")[:-1]
        assert head.startswith("Date,Requests,Errors,Input tokens")
        assert [row.split(",")[0] for row in rows] == [
            "2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"]


def test_no_usage_has_no_lines(run):
    shown = run("usage", "daily", "--model", "none")
    assert not BARS.search(shown.replace("▁", ""))
    assert shown.exit_status == 0


# == exports =================================================================

def test_an_export_is_made_waited_for_and_downloaded(run, router, tmp_path,
                                                     clock):
    shown = run("exports", "create", "logs", "--from", "2d", "--wait", "-o",
                "json")
    made = json.loads(shown)
    assert made["status"] == "completed" and clock.slept
    assert "pending" in shown.stderr
    target = tmp_path / "logs.jsonl"
    done = run("exports", "download", made["id"], "--output-file",
               str(target))
    assert done.exit_status == 0
    lines = target.read_text("utf-8").splitlines()
    assert len(lines) == made["row_count"]
    assert {"endpoint_slug", "status_code"} <= set(json.loads(lines[0]))
    assert run("exports", "download", made["id"], "--output-file",
               "-") == target.read_bytes().decode("utf-8")
    assert [each.name for each in tmp_path.iterdir()] == ["logs.jsonl"]
    assert run("exports", "delete", EXPORT,
               "--force") == f"deleted {EXPORT}\n"
    assert ids(run, "exports") == []


@pytest.mark.parametrize("chunked", [False, True])
def test_what_comes_compressed_is_written_plain(run, router, tmp_path,
                                                chunked):
    run("exports", "create", "executions", "--from", "2d")
    text = b'{"n":1}\n' * 9999
    router.order("GET /download", body=gzip.compress(text),
                 headers={"Content-Encoding": "gzip"}, no_chunked=chunked)
    target = tmp_path / "x"
    shown = run("exports", "download", EXPORT, "--output-file", str(target))
    assert shown.exit_status == 0 and target.read_bytes() == text


@pytest.mark.parametrize("body", [
    b"<html>Sign in</html>", b'{"object":"error","message":"expired"}'])
def test_a_page_or_an_error_is_no_export(run, router, tmp_path, body):
    (tmp_path / "x").write_bytes(b"old")
    router.order("GET /download", body=body)
    shown = run("exports", "download", EXPORT, "--output-file",
                str(tmp_path / "x"))
    assert shown.exit_status == 1 and "answered with an " in shown.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"
    assert router.seen("GET", "/files/" + EXPORT) == []


def test_what_is_not_whole_is_no_download(run, router, tmp_path):
    run("exports", "create", "executions", "--from", "2d")
    body = gzip.compress(b'{"n":1}\n' * 9999)[:-20]
    router.order("GET /download", body=body, times=None,
                 headers={"Content-Encoding": "gzip"})
    target = tmp_path / "x"
    shown = run("exports", "download", EXPORT, "--output-file", str(target))
    assert shown.exit_status in (1, 5) and not target.exists()
    assert "Traceback" not in shown.stderr
    assert "internal error" not in shown.stderr


def test_a_download_has_a_name_of_its_own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, = ids(run, "exports", "create", "executions", "--from", "2d")
    shown = run("exports", "download", made, "-o", "json")
    place, = tmp_path.iterdir()
    assert place.name == f"{EXPORT}.jsonl"
    assert json.loads(shown) == {"id": EXPORT, "path": place.name,
                                 "bytes": place.stat().st_size}


def test_an_export_that_is_not_ready_is_not_downloaded(run, tmp_path):
    run("exports", "create", "logs", "--from", "2d")
    shown = run("exports", "download", EXPORT, "--output-file",
                str(tmp_path / "x"))
    assert shown.exit_status == 1 and "HTTP 409" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wait_for_an_export_ends(run, router):
    router.export_polls = 99
    shown = run("exports", "create", "logs", "--from", "2d", "--wait",
                "--wait-timeout", "5")
    assert shown.exit_status == 8 and EXPORT in shown.stderr
    assert f"xeroctl exports get {EXPORT}" in shown.stderr


def test_an_export_that_fails_is_told_of(run, router):
    router.order(f"GET /exports/{EXPORT}", body=json.dumps(
        {"id": EXPORT, "status": "cancelled"}).encode())
    shown = run("exports", "create", "logs", "--from", "2d", "--wait")
    assert shown.exit_status == 1
    assert f"export {EXPORT}: cancelled" in shown.stderr


def test_ninety_days_are_allowed(run, router):
    for words in ["--from", "90d"], ["--from", "2026-01-01", "--to",
                                     "2026-03-31"]:
        assert run("exports", "create", "usage", *words,
                   "--format", "json").exit_status == 0
    assert router.requests[0].json == {
        "start_date": "2025-11-04T02:40:00Z",
        "end_date": "2026-02-02T02:40:00Z", "format": "json"}


# == health ==================================================================

def test_a_check_sends_no_key(run, router):
    shown = run("health", "check", "-o", "json", "-vv")
    assert json.loads(shown) == {"status": "ok"} and shown.exit_status == 0
    seen, = router.requests
    assert seen.target == "/healthz" and "Authorization" not in seen.headers
    assert "Authorization" not in shown.stderr


def test_a_check_needs_no_key(run, router):
    shown = run("health", "check", XEROTIER_API_KEY="")
    assert shown == "status: ok\n" and shown.exit_status == 0


def test_a_check_is_planned_without_a_key(run, router):
    shown = run("health", "check", "--curl")
    assert "/healthz" in shown and "KEY" not in shown
    assert router.requests == []


def test_a_host_that_is_not_well_is_told_of(run, router):
    router.order("GET /healthz", times=None, status=500, message="no disk")
    shown = run("health", "check")
    assert shown.exit_status == 1 and "HTTP 500 no disk" in shown.stderr


@pytest.mark.parametrize("body", [b"well", b'"well"'])
def test_a_host_may_answer_with_a_word(run, router, body):
    router.order("GET /healthz", body=body)
    shown = run("health", "check")
    assert (shown, shown.exit_status) == ("status: well\n", 0)


@pytest.mark.parametrize("answer, lines", [
    ({"status": "ok", "services": []}, ["status: ok"]),
    ({"status": "degraded", "checked_at": NOW, "note": "a\nb",
      "services": [{"name": "a", "up": True}, {"name": "b", "at": 1}]},
     ["status: degraded; checked at: 2026-02-02 02:40 UTC; note: a\\nb",
      "name  up   at", "a     yes  -", "b     -    1"]),
    ({"services": {"api": "up"}, "errors": ["x"]},
     ['services: api=up; errors: ["x"]'])])
def test_a_dashboard_of_any_shape_is_a_line_and_a_table(run, router, answer,
                                                        lines):
    router.order("GET /dashboard", body=json.dumps(answer).encode())
    assert run("health").splitlines() == lines


def test_the_dashboard_is_whole_for_a_program(run):
    told = json.loads(run("health", "-o", "json"))
    assert told["agents"]["online"] == 1 and told["components"]
