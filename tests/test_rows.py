"""Every example of the help does what it says, in every form of output.

So is all that holds of every command alike said here, once: what it plans is
what it sends; what cannot be taken back wants a yes; a key without the scope
and an id that is not there end it; a list goes on, and is told as it was
received.  A world (world.py) holds what the examples are about; the plain
command runs the first example of each verb, --full every one, in every form.
"""

import csv
import io
import json
import os
import random
import re
import shutil
import subprocess
import time

import pytest

import xeroctl
from conftest import (INTERPRETERS, IS_FULL, SCRIPT, costly, environment,
                      every_case)
from helpers import typed
from world import BODY, CALLS, ROWS, Row, command_of, signature

pytestmark = every_case

# What each verb that writes asks of the router; E is an endpoint's slug, {}
# an id that is new, + a body.
WRITES = """
chat send                  POST /E/chat/completions +
chat new                   POST /workspaces/ws_1/chat-templates/triage/apply +
batches create             POST /E/batches +
batches submit             POST /E/batches +
batches cancel             POST /E/batches/batch_1/cancel
batches run                POST /E/batches +
batches run --direct       POST /E/chat/completions +
models update              PATCH /models/model_1 +
models delete              DELETE /models/model_1
models share               POST /models/model_1/share
models unshare             POST /models/model_1/unshare
models revalidate          POST /models/model_1/revalidate
models versions create     POST /models/model_1/versions +
models versions promote    POST /models/model_1/versions/2.0.0/promote
models versions rollback   POST /models/model_1/versions/2.0.0/rollback
models set-capabilities    PATCH /models/model_1/capabilities +
embeddings create          POST /E/embeddings +
rerank                     POST /E/rerank +
score                      POST /E/score +
responses delete           DELETE /E/responses/resp_1
responses cancel           POST /E/responses/resp_1/cancel
responses create           POST /E/responses +
completions update         POST /E/chat/completions/chatcmpl-1 +
completions delete         DELETE /E/chat/completions/chatcmpl-1
conversations create       POST /conversations +
conversations update       POST /conversations/conv_1 +
conversations delete       DELETE /conversations/conv_1
conversations add-item     POST /conversations/conv_1/items +
conversations delete-item  DELETE /conversations/conv_1/items/msg_1
files upload               POST /files +
files delete               DELETE /files/file-1
uploads cancel             POST /uploads/upload_1/cancel
uploads delete             DELETE /uploads/upload_1
upload                     POST /uploads/{}/complete +
webhooks create            POST /webhooks +
webhooks update            PUT /webhooks/webhook_1 +
webhooks delete            DELETE /webhooks/webhook_1
webhooks test              POST /webhooks/webhook_1/test
keys create                POST /management/api-keys +
keys delete                DELETE /management/api-keys/key_1
keys rotate                POST /management/api-keys/key_1/rotate
keys ip-filter             PUT /management/api-keys/key_1/ip-filter +
keys quota                 PUT /management/api-keys/key_1/quota +
agents create              POST /management/agents +
agents update              PATCH /management/agents/agent_1 +
agents delete              DELETE /management/agents/agent_1
agents join-keys create    POST /management/join-keys +
agents join-keys revoke    DELETE /management/join-keys/jk_1
agents candidates approve  POST /management/agents/candidates/cand_1/approve
agents candidates reject   POST /management/agents/candidates/cand_1/reject
agents pause-exec          POST /management/agents/agent_1/pause-exec
agents resume-exec         POST /management/agents/agent_1/resume-exec
agents revoke-credentials  POST /management/agents/agent_1/revoke-credentials
agents curve-rotate        POST /management/agents/agent_1/curve-rotate
slos create                POST /slos +
slos update                PUT /slos/slo_1 +
slos delete                DELETE /slos/slo_1
slos calculate             POST /slos/slo_1/calculate
endpoints create           POST /endpoints +
endpoints update           PATCH /endpoints/my-llm +
endpoints delete           DELETE /endpoints/my-llm
workspaces create          POST /workspaces +
workspaces update          PATCH /workspaces/ws_1 +
workspaces delete          DELETE /workspaces/ws_1
workspaces bind            POST /workspaces/ws_1/agents +
workspaces unbind          DELETE /workspaces/ws_1/agents/agent_1
chats create               POST /chats +
chats rename               PATCH /chats/chat_1 +
chats delete               DELETE /chats/chat_1
chats archive              POST /chats/chat_1/archive
chats restore              POST /chats/chat_1/restore
chats send                 POST /chats/chat_1/messages +
maintenance schedule       POST /management/maintenance +
maintenance update         PATCH /management/maintenance/mnt_1 +
maintenance cancel         POST /management/maintenance/mnt_1/cancel
maintenance complete       POST /management/maintenance/mnt_1/complete
maintenance purge          POST /management/maintenance/purge +
project update             PATCH /management/project +
project set-role           PATCH /management/project/members/usr_1 +
project remove-member      DELETE /management/project/members/usr_1
project invite             POST /management/project/invitations +
project revoke-invitation  DELETE /management/project/invitations/invite_1
settings set               PUT /settings/theme +
exports create             POST /exports/logs +
exports delete             DELETE /exports/exp_1
exec invoke                POST /exec/invocations +
exec cancel                POST /exec/invocations/inv_1/cancel
templates create           POST /chat-templates +
templates update           PUT /chat-templates/triage +
templates delete           DELETE /chat-templates/triage
templates promote          POST /chat-templates/triage/promote +
templates apply            POST /workspaces/ws_1/chat-templates/triage/apply +
templates apply-from-dir   POST /chat-templates +
approvals approve          POST /exec/approvals/approval_1/approve
approvals reject           POST /exec/approvals/approval_1/reject
approvals delegate         POST /exec/approvals/delegations +
approvals revoke-delegation DELETE /exec/approvals/delegations/dlg_1
"""
WRITES = dict(re.findall(r"(?m)^(.+?) +([A-Z]+ /\S*(?: \+)?)$", WRITES))

# Commands that hand over a text or a file as it is, whatever the form.
BARE = ("chats export", "exports download", "exec raw", "files download",
        "batches download", "batches errors", "shell-completion", "help")
REFUSED = {     # forms that a row has not
    "approvals watch": ("csv",)}
WITHOUT_ID = ("models probe", "slos summary", "maintenance purge",
              "usage summary", "health dashboard", "exec tool-show")
FORMS = "json", "jsonl", "csv", "id", "table", "wide"


def first_rows():
    """The first example of each verb; those that need more than a world."""
    found = {}
    for row in ROWS:
        found.setdefault((command_of(row), row.verb.by is None), row)
    return list(found.values())


def sample(cases, count, seed=7):
    """The same few of many cases each time; all of them with --full."""
    cases = list(cases)
    return cases if IS_FULL else random.Random(seed).sample(cases, count)


def asked(world, row):
    """The last write that the router saw, in the words of WRITES."""
    names = {value: name for name, value in world.ids.items()}
    writes = [seen for seen in world.router.requests
              if seen.method not in ("GET", "HEAD")]
    if not writes:
        return None
    path = writes[-1].path.replace("ctpl_01HDRAIN", "triage").replace(
        "/exports/usage", "/exports/logs")
    path = re.sub(r"^/proj_demo(/[^/]+)?/v1",
                  lambda slug: "/E" if slug.group(1) else "", path)
    for value, name in names.items():
        path = path.replace(value, name)
    path = re.sub(r"0000000.-0000-4000-80..-[0-9]{12}", "{}", path)
    return f"{writes[-1].method} {path}" + " +" * bool(writes[-1].body)


def check_done(world, row, shown):
    """Assert that a row that ended well did what its command is there for."""
    wanted = WRITES.get(command_of(row) + " --direct" * (
        "--direct" in row.words))
    seen = asked(world, row)
    if row.is_plan and wanted:
        method = wanted.split(" ")[0]
        assert seen is None
        assert re.search(rf"(?m)^{method} http\S+", shown)
        assert shown.count("…") and world.router.key not in shown
    elif row.is_plan:
        assert "would write" in shown
    elif row.group.name != "api":
        assert seen == wanted


@pytest.mark.parametrize("row", ROWS if IS_FULL else first_rows(), ids=str)
def test_an_example_does_what_it_says(world, row):
    if row.is_init:
        pytest.skip("a terminal is needed: see below")
    world.prepare(row)
    files = world.files_now()
    shown = world.start(row)
    assert shown.exit_status == (130 if row.is_endless else 0)
    assert not re.search("(?m)^(error|Traceback)", shown.stderr)
    check_done(world, row, shown)
    if row.is_plan:
        assert world.files_now() == files
    if "json" in row.words and not row.is_endless and not (
            command_of(row) in BARE):
        json.loads(shown)


def test_every_verb_that_writes_is_in_the_table():
    writing = {command_of(row) for row in ROWS if row.verb.writes}
    assert writing - set(WRITES) <= {
        "api", "config init", "config add", "config use", "config set",
        "config unset", "config remove"}
    assert set(WRITES) - {"batches run --direct"} <= {
        command_of(row) for row in ROWS}


# == words ===================================================================

BY_FLAG = [(group, verb) for group in xeroctl.GROUPS for verb in group.verbs
           if verb.by]


def sent(world, row, words):
    """What a call shows, and all that it asks of the router, once each."""
    world.prepare(row)
    shown = world.start(row, words=words)
    world.router.rest()
    asked = []
    for seen in world.router.requests:
        request = seen.method, seen.target, seen.form or seen.body
        asked += [request] * (request not in asked)
    return shown, shown.exit_status, asked


def word_calls(group, verb):
    """The same call by each word of the verb, and with its flag beside it."""
    words = Row(group, verb, xeroctl.examples_of(group, verb)[0]).words
    place = 1 + bool(verb.word)
    plain = [word for word in words
             if not verb.by_flag or word != verb.by.long_name]
    found = [plain[:place] + [word] + plain[place:] for word in verb.words]
    return found + [words[:place] + [verb.name] + words[place:]]


@pytest.mark.parametrize("group, verb", BY_FLAG, ids=lambda each: each.name)
def test_a_word_and_a_flag_ask_the_same(world, group, verb):
    row = Row(group, verb, xeroctl.examples_of(group, verb)[0])
    by_flag = sent(world, row, row.words)
    assert by_flag[1] == 0 and by_flag[2]
    for words in word_calls(group, verb):
        assert sent(world, row, words) == by_flag, words


@pytest.mark.parametrize("group", [group for group in xeroctl.GROUPS if any(
    verb.name in ("get", "show") for verb in group.verbs)],
    ids=lambda group: group.name)
def test_get_and_show_are_one_verb(world, group):
    verb, = [verb for verb in group.verbs if verb.name in ("get", "show")]
    row = Row(group, verb, xeroctl.sample_call(group, verb))
    rest = row.words[1 + (verb.by is None):]
    got, shown = [sent(world, row, [group.name, word] + rest)
                  for word in ("get", "show")]
    assert got == shown and got[1] == 0


# == forms ===================================================================

def check_lines(text):
    assert text.endswith("\n") or not text
    assert "\r" not in text and "\x1b" not in text


def check_json(text):
    assert text.endswith("\n") and not text.endswith("\n\n")
    json.loads(text)


def check_jsonl(text):
    check_lines(text)
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict)


def check_csv(text):
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert text.endswith("\r\n") and len({len(row) for row in rows}) == 1
    assert all(rows[0])


def check_id(text):
    check_lines(text)
    assert all(line.strip() == line != "" for line in text.splitlines())


CHECKS = {"json": check_json, "jsonl": check_jsonl, "csv": check_csv,
          "id": check_id, "table": check_lines, "wide": check_lines}
DRIVEN = [row for row in CALLS if not row.is_init]
FEW = DRIVEN if IS_FULL else [row for row in first_rows()
                              if not row.is_init and not row.is_plan]
SHAPED = [row for row in DRIVEN if command_of(row) not in BARE]


def has_form(row, form):
    """Whether a row may be asked for a form: sessions have one alone."""
    return form not in REFUSED.get(command_of(row), ()) and (
        not row.is_interactive or form in ("table", "wide"))


@pytest.mark.parametrize("row, form", sample(
    [(row, form) for row in SHAPED for form in FORMS], 60), ids=str)
def test_every_row_has_every_form(world, row, form):
    world.prepare(row)
    shown = world.start(row, "-o", form)
    if not has_form(row, form):
        assert shown.exit_status == 2 and shown == ""
        assert "-o" in shown.stderr and world.router.requests == []
        return
    if form == "id" and "the answer has no id" in shown.stderr:
        assert (shown, shown.exit_status) == ("", 1)
        assert command_of(row) in WITHOUT_ID
        return
    assert shown.exit_status == (130 if row.is_endless else 0)
    if not (row.is_endless and form == "json"):
        CHECKS[form](shown)


# == a reader that leaves ====================================================

class Left(io.BytesIO):
    """A pipe that nobody reads any more."""

    def write(self, data):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("row", sample(DRIVEN, 40), ids=str)
def test_a_reader_that_leaves_is_no_error(world, row):
    world.prepare(row)
    whole = world.start(row)
    world.prepare(row)
    shown = world.start(row, "-q", stdout=Left())
    assert shown.exit_status == (141 if whole else whole.exit_status)
    assert "error" not in shown.stderr.replace("--errors", "")
    assert "Traceback" not in shown.stderr


# == help ====================================================================

@pytest.mark.parametrize("row", sample(CALLS, 25), ids=str)
def test_every_row_has_help(world, row):
    world.reset(None)
    whole = world.run(*row.words, "--help")
    assert whole.exit_status == 0 and whole.stderr == ""
    assert "examples:" in whole
    assert max(map(len, whole.splitlines())) <= 80
    assert world.router.requests == []


# == a terminal, and a shell =================================================

@costly
@pytest.mark.parametrize("row", [row for row in ROWS if row.is_init], ids=str)
def test_init_asks_and_stores(world, row, tmp_path):
    from groups.test_config import BASE, DUMB, KEY, NAME, STYLE, Conversation
    config = tmp_path / "new" / "config.toml"
    talk = Conversation(*row.words, XEROTIER_CONFIG=str(config), **DUMB)
    shown = talk.says((NAME, "prod\n"), (BASE, world.router.base_url + "\n"),
                      (STYLE, "\n"), (KEY, world.router.key + "\n")).result()
    talk.close()
    assert (shown.exit_status, shown) == (0, "added prod\n")
    assert world.router.key not in shown.stderr
    assert world.router.key in config.read_text()


PIPELINES = [row for row in ROWS if "|" in row.example or "<(" in row.example]
DONE = {"chat send": "Hello", "webhooks verify": "the signature is good\n",
        "shell-completion": ""}


@costly
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("row", PIPELINES, ids=str)
def test_a_pipeline_runs_in_a_shell(world, row, tmp_path):
    """As it stands in the help: git and fish are not asked for their part."""
    world.prepare(row)
    for name, text in (
            ("xeroctl", f'exec "{INTERPRETERS[0]}" "{SCRIPT}" "$@"'),
            ("git", "echo Hello")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o700)
    line = row.example.replace("| source", "| cat")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=world.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
        env=environment(world.router, PATH=f"{tmp_path}:{os.environ['PATH']}",
                        BODY=BODY.decode(), **stamped()))
    assert done.returncode == 0, done.stderr
    assert b"error" not in done.stderr
    if row.group.name != "shell-completion":
        assert done.stdout.decode().startswith(DONE[command_of(row)][:3])


def stamped():
    """A signature of now, since a process has no clock of ours."""
    now = str(int(time.time()))
    return {"TIMESTAMP": now, "SIGNATURE": signature(now)}


# == plans ===================================================================

def writes_of(world):
    return [seen for seen in world.router.requests
            if seen.method not in ("GET", "HEAD")]


# What is not known yet stands in <…>; the name of a run is new each time.
UNKNOWN = re.compile("<[^>]*>|xeroctl-[0-9a-f]{12}")


def text_of(method, url, body):
    return json.dumps([method, url, body], sort_keys=True, ensure_ascii=False)


def is_planned(plan, seen, origin):
    """Whether a request is that of the plan; of a form: but for its parts."""
    body = seen.json if seen.body and not seen.form else None
    wanted = text_of(plan["method"], plan["url"],
                     None if seen.form else plan.get("body"))
    pattern = "[^/\"]+".join(map(re.escape, UNKNOWN.split(wanted)))
    return re.fullmatch(pattern, text_of(seen.method, origin + seen.target,
                                         body))


PLANNED = [row for row in FEW if command_of(row) in WRITES
           and not row.is_interactive]


@pytest.mark.parametrize("row", PLANNED, ids=str)
def test_a_plan_is_what_is_sent(world, row):
    """And it sends nothing but what it has to look up."""
    world.prepare(row)
    shown = world.start(row, "--dry-run", "-o", "json")
    assert shown.exit_status == 0
    assert world.router.key not in shown + shown.stderr
    assert world.start(row, "--curl").startswith("curl -sS")
    assert writes_of(world) == []
    plans = json.loads(shown)
    plans = plans if isinstance(plans, list) else [plans]
    world.prepare(row)
    world.start(row)
    world.router.rest()
    for plan, seen in zip(plans, writes_of(world)):
        assert is_planned(plan, seen, world.router.origin), (
            plan, seen.method, seen.target)


# == a key that may not ======================================================

SCOPELESS = "xero_demo_0123456789abcdef"


@pytest.mark.parametrize("row", FEW, ids=str)
def test_a_key_without_the_scope_is_told_which_it_lacks(world, row):
    world.prepare(row)
    world.router.add_key(SCOPELESS)
    world.write("scopeless.txt", SCOPELESS)
    shown = world.start(row, "--api-key", "@" + world.place("scopeless.txt"))
    assert SCOPELESS not in shown + shown.stderr
    if world.router.requests and command_of(row) != "health check":
        is_bulk = shown.startswith("[FAIL] ")
        assert shown.exit_status == (1 if is_bulk else 3)
        assert re.search("lacks the scope '(inference|management|execution)'",
                         shown + shown.stderr)
    else:
        assert shown.exit_status == 0


# == questions ===============================================================

# What is asked before a command does what cannot be taken back.
QUESTIONS = """
batches cancel             Cancel batch batch_1?
models delete              Delete model model_1?
responses delete           Delete response resp_1?
completions delete         Delete completion chatcmpl-1?
conversations delete       Delete conversation conv_1?
conversations delete-item  Delete item msg_1?
files delete               Delete file file-1?
uploads cancel             Cancel upload upload_1?
uploads delete             Delete upload upload_1?
webhooks delete            Delete webhook webhook_1?
keys delete                Delete key key_1?
keys rotate                Rotate key key_1?
keys ip-filter             Replace the IP filter of key key_1?
agents delete              Delete agent agent_1?
agents join-keys revoke    Revoke join key jk_1?
agents revoke-credentials  Revoke the credentials of agent agent_1?
slos delete                Delete SLO slo_1?
endpoints delete           Delete endpoint my-llm?
workspaces delete          Delete workspace ws_1?
workspaces unbind          Unbind agent agent_1 from ws_1?
chats delete               Delete chat chat_1?
maintenance cancel         Cancel mnt_1?
maintenance purge  Forget all maintenance that was over before 2026-01-01?
project remove-member      Remove member usr_1?
project revoke-invitation  Revoke invitation invite_1?
exports delete             Delete export exp_1?
templates delete           Delete template triage?
approvals approve          Approve kubectl_drain?
approvals revoke-delegation  Revoke delegation dlg_1?
config remove              Remove deployment prod?
"""
QUESTIONS = dict(re.findall(r"(?m)^(\S.*?)  +(\S.*\?)$", QUESTIONS))
NO_TERMINAL = "There is no terminal to ask on"


def unforced(world, row, answer=b""):
    """What a row does that is not told to go ahead; what it wrote."""
    world.prepare(row)
    words = [word for word in row.words if word not in ("--force", "-y")]
    shown = world.start(row, words=words, force=False, **(
        {"stdin": typed(answer)} if answer else {}))
    return shown, [(seen.method, seen.target) for seen in writes_of(world)]


def question_in(world, shown):
    """The question in an error or before an answer, with names for ids."""
    text = re.search(r"(?m)^(?:error: )?(.*\?) (?:\[y/N\]|There is no)",
                     shown.stderr).group(1)
    for name, value in world.ids.items():
        text = text.replace(value, name)
    return text


@pytest.mark.parametrize("row", [row for row in FEW if row.asks], ids=str)
def test_what_cannot_be_taken_back_wants_a_yes(world, row):
    shown, writes = unforced(world, row)
    if command_of(row) not in QUESTIONS:
        assert NO_TERMINAL not in shown.stderr
        return
    assert (shown, shown.exit_status, writes) == ("", 2, [])
    assert NO_TERMINAL in shown.stderr and "--force" in shown.stderr
    assert question_in(world, shown) == QUESTIONS[command_of(row)]
    shown, writes = unforced(world, row, b"n\n")
    assert (shown, shown.exit_status, writes) == ("", 1, [])
    shown, writes = unforced(world, row, b"y\n")
    assert shown.exit_status == 0 and question_in(world, shown)
    forced = world.prepare(row) or world.start(row)
    assert forced == shown
    assert writes == [(seen.method, seen.target)
                      for seen in writes_of(world)]


# == what is not there =======================================================

NOWHERE = "no/such ?"
WITH_ID = [row for row in FEW if set(row.words) & set(
    "agent_1 approval_1 batch_1 cand_1 chat_1 chatcmpl-1 conv_1 dlg_1 exp_1"
    " file-1 inv_1 invite_1 jk_1 key_1 lrn_1 mnt_1 model_1 resp_1 slo_1"
    " triage upload_1 usr_1 webhook_1 ws_1".split())]

IN_BODY = [row for row in WITH_ID
           if command_of(row) in ("chats create", "exec invoke")]


@pytest.mark.parametrize("row", WITH_ID, ids=str)
def test_what_is_not_there_is_exit_4(world, row):
    """Its id is one piece of the path, whatever stands in it."""
    world.prepare(row)
    shown = world.start(row, words=[NOWHERE if word in world.ids else word
                                    for word in row.words])
    assert shown.exit_status == 4
    targets = [seen.target for seen in world.router.requests]
    assert targets and not any("no/such" in target for target in targets)
    if row not in IN_BODY and row.group.name != "templates":
        assert all("no%2Fsuch%20%3F" in target for target in targets)


@pytest.mark.parametrize("row", WITH_ID, ids=str)
def test_what_is_no_id_is_not_sent(world, row):
    world.prepare(row)
    for word in "", "..":
        shown = world.start(row, words=[
            word if each in world.ids else each for each in row.words])
        assert (shown, shown.exit_status) == ("", 2)
        assert world.router.requests == []


@pytest.mark.parametrize("row, name", [
    (row, declared.long_name) for row in FEW for declared in row.verb.flags
    if declared.metavar in ("ID", "ID|NAME", "SLUG", "SLUG|UUID")
    and not declared.is_word or declared.long_name == "--tool"], ids=str)
def test_no_flag_sends_an_id_that_is_none(world, row, name):
    """Wherever it is sent: in a path, a query or a body."""
    world.prepare(row)
    shown = world.start(row, name, "")
    assert (shown, shown.exit_status) == ("", 2)
    assert f"error: {name}: '' cannot be an id" in shown.stderr
    assert world.router.requests == []


# == pages ===================================================================

PAGES = [{"object": "list", "data": [{"id": "x1"}, {"id": "x2"}],
          "has_more": True, "last_id": "x2"},
         {"object": "list", "data": [{"id": "x3"}], "has_more": False}]
PAGED = [row for row in CALLS if row.verb.paging
         and not set(row.words) & {"--limit", "--all", "--tree"}
         and command_of(row) != "templates versions"]     # looks a name up


def paged(world, row, *words, pages=PAGES):
    """What a list shows of these pages, and the query for each of them."""
    world.prepare(row)
    for page in pages:
        world.router.order("GET *", body=json.dumps(page).encode())
    shown = world.start(row, "--limit", "2", *words)
    assert shown.exit_status == 0
    return shown, [dict(seen.query) for seen in world.router.requests]


@pytest.mark.parametrize("row", PAGED, ids=str)
def test_a_list_goes_on_where_it_ended(world, row):
    name, place = (("offset", "2") if row.verb.paging == "offset"
                   else ("after", "x2"))
    shown, (query,) = paged(world, row, pages=PAGES[:1])
    assert f"more exist: --{name} {place} continues, --all" in shown.stderr
    assert query["limit"] == "2" and name not in query
    more = dict(query, **{name: place})
    shown, asked = paged(world, row, f"--{name}", place, pages=PAGES[1:])
    assert asked == [more] and "more exist" not in shown.stderr
    shown, asked = paged(world, row, "--all", "-o", "json")
    page = json.loads(shown)
    assert [each["id"] for each in page["data"]] == ["x1", "x2", "x3"]
    assert page["has_more"] is False and shown.stderr == ""
    assert asked == [query, more]
    assert paged(world, row, "-q", pages=PAGES[:1])[0].stderr == ""


EMPTY = {"object": "list", "data": [], "has_more": False}
ONE = {"object": "list", "has_more": False, "data": [
    {"id": "x1", "slug": "x1", "zeta": 1.50, "created_at": None,
     "none": "\u00fc\u2028", "big": 12345678901234567890}]}


@pytest.mark.parametrize("row", PAGED, ids=str)
def test_an_empty_list_has_a_form(world, row):
    shown, _ = paged(world, row, pages=[EMPTY])
    assert shown == "" and re.fullmatch("No [a-z ]+ found.\n", shown.stderr)
    for form, text in (("jsonl", ""), ("id", ""),
                       ("json", json.dumps(EMPTY, indent=2) + "\n")):
        assert paged(world, row, "-o", form, pages=[EMPTY])[0] == text, form
    head, end = paged(world, row, "-o", "csv", pages=[EMPTY])[0].split("\r\n")
    assert head and not end


@pytest.mark.parametrize("row", PAGED, ids=str)
def test_a_list_is_told_as_it_was_received(world, row):
    """In JSON, and record by record; csv has as many rows."""
    one, = ONE["data"]
    for form, text in (
            ("json", json.dumps(ONE, indent=2, ensure_ascii=False) + "\n"),
            ("jsonl", json.dumps(one, ensure_ascii=False,
                                 separators=(",", ":")) + "\n")):
        assert paged(world, row, "-o", form, pages=[ONE])[0] == text
    assert paged(world, row, "-o", "csv", pages=[ONE])[0].count("\r\n") == 2
    assert row.verb.id_path != "id" or paged(
        world, row, "-o", "id", pages=[ONE])[0] == "x1\n"


@pytest.mark.parametrize("row", [
    row for row in CALLS if row.verb.name in ("get", "show")
    and row.group.name not in ("config", "templates")], ids=str)
def test_a_record_is_told_as_it_was_received(world, row):
    one, = ONE["data"]
    for form, text in (
            ("json", json.dumps(one, indent=2, ensure_ascii=False)),
            ("jsonl", json.dumps(one, ensure_ascii=False,
                                 separators=(",", ":"))),
            ("id", "x1")):
        world.prepare(row)
        world.router.order("GET *", times=None, body=json.dumps(one).encode())
        shown = world.start(row, "-o", form)
        assert (shown, shown.stderr) == (text + "\n", ""), form


# == the endpoint ============================================================

SLUGGED = [row for row in DRIVEN if "--endpoint" in row.words]


@pytest.mark.parametrize("row", SLUGGED, ids=str)
def test_without_an_endpoint_three_ways_are_told(world, row):
    world.prepare(row)
    at = row.words.index("--endpoint")
    words = row.words[:at] + row.words[at + 2:]
    for slug in None, "":
        shown = world.start(row, words=words, XEROTIER_ENDPOINT=slug,
                            XEROTIER_CONFIG=world.place("none.toml"))
        assert (shown, shown.exit_status) == ("", 2)
        for way in ("no endpoint", "--endpoint", "XEROTIER_ENDPOINT",
                    "xeroctl config set NAME endpoint"):
            assert way in shown.stderr
        assert world.router.requests == []
