"""approvals and learnings: what tools may do, and what came of it.

The router starts with two requests that wait, one of which cannot be undone,
and with one that was rejected; to decide one moves its invocation on.
"""

import functools
import json

import pytest

from conftest import STARTED, FakeClock, environment
from helpers import asked as asked_below, caller, labelled
from router import Router
from test_session import Desk

pty = pytest.importorskip("pty")

NOW = 1770000000
GROUP = ("approvals",)
DRAIN = "00000001-0000-4000-800a-000000000001"
DELETE = "00000002-0000-4000-800a-000000000002"
REJECTED = "00000003-0000-4000-800a-000000000003"
FOURTH = "00000004-0000-4000-800a-000000000004"
TOOL = "kubectl_delete_namespace"
INVOCATIONS = {DRAIN: "inv_000000000000000000000002",
               DELETE: "inv_000000000000000000000003"}
LINES = {DRAIN: f"{DRAIN}  destructive  kubectl_drain  ws_kube_prod"
                '  {"node":"worker-07"}',
         DELETE: f"{DELETE}  irreversible  {TOOL}  ws_kube_prod"
                 '  {"name":"old"}',
         FOURTH: f"{FOURTH}  destructive  kubectl_drain  ws_kube_prod  {{}}"}
SHOWN = """\
Tool:         kubectl_drain
Risk:         destructive
Arguments:    {"node":"worker-07"}
Workspace:    ws_kube_prod
Agent:        agt_1
Requested by: ada@example.com
Expires:      2026-02-02 02:55 UTC
"""
WATCHED = "GET /approvals?status=pending"
LEARNING = "lrn_0000000000000001"

approvals = caller("approvals")
asked = functools.partial(asked_below, below="/v1/exec")


def interrupt():
    raise KeyboardInterrupt


class WatchClock(FakeClock):
    """A clock on which something happens while somebody sleeps.

    When nothing is left to happen somebody presses Ctrl-C.
    """

    def sleep(self, seconds):
        self.steps = self.steps or [interrupt]
        super().sleep(seconds)


@pytest.fixture
def clock():
    return WatchClock()


@pytest.fixture
def drain_again(run):
    """Have one more request come up."""
    def invoke():
        assert run("exec", "invoke", "--workspace", "ws_kube_prod", "--tool",
                   "kubectl_drain", "--args", "{}").exit_status == 0
    return invoke


def status_of(router, approval_id):
    """The status of a request and that of its invocation."""
    with router.lock:
        return (router.store.approvals.get(approval_id)["status"],
                router.store.invocations.get(
                    INVOCATIONS[approval_id])["status"])


# == list and show ===========================================================

def test_requests_are_listed(router, golden):
    shown = golden("approvals-list", "approvals", "list")
    assert shown.splitlines()[0].split() == [
        "ID", "Status", "Risk", "Tool", "Created"]
    assert asked(router) == ["GET /approvals"]


def test_list_is_what_the_bare_group_does(approvals):
    assert approvals() == approvals("list")


@pytest.mark.parametrize("words, query, found", [
    (("--risk", "irreversible"), "risk=irreversible", [DELETE]),
    (("--risk", "read"), "risk=read", []),
    (("--status", "rejected"), "status=rejected", [REJECTED]),
    (("--workspace", "ws_kube_prod"), "workspace_id=ws_kube_prod",
     [REJECTED, DELETE, DRAIN]),
    (("--workspace", "ws_0123456789abcdef"),
     "workspace_id=ws_0123456789abcdef", []),
    (("--risk", "destructive", "--status", "pending"),
     "risk=destructive&status=pending", [DRAIN]),
    (("--limit", "1"), "limit=1", [REJECTED]),
    (("--limit", "1", "--after", DELETE), f"limit=1&after={DELETE}",
     [DRAIN]),
])
def test_a_list_is_narrowed(approvals, router, words, query, found):
    shown = approvals("list", *words, "-o", "id")
    assert shown.split() == found
    assert asked(router) == [f"GET /approvals?{query}"]


@pytest.mark.parametrize("verb", ["list", "watch", "delegate"])
def test_a_risk_that_is_none_is_not_sent(refused, verb):
    said = refused(verb, *(("--to", "bob") * (verb == "delegate")),
                   "--risk", "mild")
    assert "read, write, destructive, irreversible" in said


def test_a_request_is_shown(approvals, router, golden):
    golden("approvals-show", "approvals", "show", REJECTED)
    assert asked(router) == [f"GET /approvals/{REJECTED}"]
    assert json.loads(approvals("show", REJECTED, "-o", "json"))[
        "reason"] == "Not today"


# == approve =================================================================

def test_a_request_is_approved_with_a_note(approvals, router):
    shown = labelled(approvals("approve", DRAIN, "--force", "--note",
                               "go on"))
    assert (shown["Status"], shown["Note"]) == ("approved", "go on")
    assert shown["Decided"] == "2026-02-02 02:40 UTC"
    assert asked(router)[-1] == f"POST /approvals/{DRAIN}/approve"
    assert router.requests[-1].json == {"note": "go on"}
    assert status_of(router, DRAIN) == ("approved", "queued")


def test_what_was_approved_runs(approvals, run, clock):
    approvals("approve", DRAIN, "--force")
    clock.steps = [int] * 5
    shown = run("exec", "watch", INVOCATIONS[DRAIN])
    assert labelled(shown)["Status"] == "completed"


def test_an_approval_without_words_says_nothing_more(approvals, router):
    assert approvals("approve", DRAIN, "-y", "-o", "id") == DRAIN + "\n"
    assert router.requests[-1].json in ({}, None)


def test_what_is_approved_is_shown_first(approvals, router):
    shown = approvals("approve", DRAIN, "--force", "-o", "id")
    assert (shown, shown.stderr) == (DRAIN + "\n", SHOWN)
    assert approvals("approve", DRAIN, "--dry-run").stderr == ""


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{}", b'{"risk":"read"}',
                                  b'[{"id":"a","tool":"kubectl_drain"}]'])
def test_what_cannot_be_shown_is_not_approved(approvals, router, body):
    router.order(f"GET /{DRAIN}", body=body)
    shown = approvals("approve", DRAIN, "--force")
    assert (shown, shown.exit_status) == ("", 1)
    assert shown.stderr.startswith("error: the answer has no id")
    assert router.seen("POST", "/approve") == []


def test_what_destroys_is_approved_by_a_yes(answer, router):
    status, said = answer("approvals", "approve", DRAIN, typed=b"y\n")
    assert status == 0 and SHOWN in said, said
    assert said.index("Expires:") < said.index(
        "Approve kubectl_drain? [y/N] ")
    assert status_of(router, DRAIN) == ("approved", "queued")


@pytest.mark.parametrize("typed", [b"\n", b"n\n", b"kubectl_drain\n",
                                   b"\x04"])
def test_anything_but_a_yes_approves_nothing(answer, router, typed):
    status, said = answer("approvals", "approve", DRAIN, typed=typed)
    assert status == 1 and "nothing was" in said
    assert router.seen("POST", "/approve") == []


def test_nobody_to_ask_is_no_yes(approvals, router):
    shown = approvals("approve", DRAIN)
    assert (shown, shown.exit_status) == ("", 2)
    assert "--force" in shown.stderr and SHOWN in shown.stderr
    assert router.seen("POST", "/approve") == []


@pytest.mark.parametrize("risk, exit_status", [
    ("read", 0), ("write", 0), (None, 2), ("unheard-of", 2)])
def test_what_harms_nothing_is_not_asked_about(approvals, router, risk,
                                               exit_status):
    with router.lock:
        router.store.approvals.get(DRAIN)["risk"] = risk
    assert approvals("approve", DRAIN).exit_status == exit_status


def test_a_request_cannot_pass_for_another_one(router, python):
    """On a terminal: what hides a line, and what adds one."""
    with router.lock:
        router.store.approvals.get(DRAIN).update(
            tool="a\x1b[2K\rb", args={"x": "\x1b[1A\nTool: harmless"},
            requested_by="eve\nTool: harmless")
    desk = Desk([python, STARTED, "approvals", "approve", DRAIN], environment(
        router, TERM="xterm", NO_COLOR="1"))
    try:
        desk.until("Approve a\\x1b[2K\\x0db? [y/N] ")
        desk.type("n\n")
        assert desk.end() == 1
    finally:
        desk.close()
    assert b"\x1b" not in desk.shown.replace(b"\x1b[K", b"")
    assert desk.shown.count(b"\nTool: harmless") == 0
    assert router.seen("POST", "/approve") == []


def test_what_was_decided_stays_so(approvals):
    shown = approvals("approve", REJECTED, "--force")
    assert (shown, shown.exit_status) == ("", 1)
    assert "HTTP 409" in shown.stderr and "rejected" in shown.stderr


def test_what_cannot_be_undone_wants_the_name_of_the_tool(answer, router):
    status, said = answer("approvals", "approve", DELETE,
                          typed=TOOL.encode() + b"\n")
    assert status == 0, said
    assert TOOL in said and "cannot be undone" in said
    assert router.requests[-1].json == {"confirm": TOOL}
    assert status_of(router, DELETE) == ("approved", "queued")


@pytest.mark.parametrize("typed", [
    b"y\n", b"yes\n", b"\n", b"\x04", b"kubectl_drain\n",
    TOOL.upper().encode() + b"\n", TOOL[:-1].encode() + b"\n"])
def test_any_other_word_approves_nothing(answer, router, typed):
    status, said = answer("approvals", "approve", DELETE, typed=typed)
    assert status == 1 and "nothing was" in said
    assert router.seen("POST", "/approve") == []
    assert status_of(router, DELETE) == ("pending", "pending_approval")


@pytest.mark.parametrize("words", [(), ("--note", "x"), ("--force",),
                                   ("-y",)])
def test_without_a_terminal_the_name_is_a_flag(approvals, router, words):
    shown = approvals("approve", DELETE, *words)
    assert (shown, shown.exit_status) == ("", 2)
    assert f"--confirm {TOOL}" in shown.stderr
    assert router.seen("POST", "/approve") == []


def test_a_name_given_as_a_flag_is_not_asked_for(approvals, router):
    shown = approvals("approve", DELETE, "--confirm", TOOL)
    assert shown.exit_status == 0 and "?" not in shown.stderr
    assert router.requests[-1].json == {"confirm": TOOL}
    assert status_of(router, DELETE) == ("approved", "queued")


@pytest.mark.parametrize("name", ["", "kubectl_drain", TOOL + " ", "yes"])
def test_a_wrong_name_given_as_a_flag_is_not_sent(approvals, router, name):
    shown = approvals("approve", DELETE, f"--confirm={name}")
    assert (shown, shown.exit_status) == ("", 2)
    assert TOOL in shown.stderr
    assert router.seen("POST", "/approve") == []


# == reject ==================================================================

@pytest.mark.parametrize("approval_id", [DRAIN, DELETE])
def test_a_request_is_rejected_with_a_reason(approvals, router, approval_id):
    shown = labelled(approvals("reject", approval_id, "--reason", "no"))
    assert (shown["Status"], shown["Reason"]) == ("rejected", "no")
    assert asked(router) == [f"POST /approvals/{approval_id}/reject"]
    assert router.requests[0].json == {"reason": "no"}
    assert status_of(router, approval_id) == ("rejected", "rejected")


def test_a_rejection_needs_no_reason(approvals, router):
    assert approvals("reject", DRAIN, "-o", "id") == DRAIN + "\n"
    assert router.requests[0].json in ({}, None)
    again = approvals("reject", DRAIN)
    assert again.exit_status == 1 and "HTTP 409" in again.stderr


# == watch ===================================================================

def test_what_waits_is_told_at_once(approvals, router, clock):
    shown = approvals("watch")
    assert shown == f"{LINES[DELETE]}\n{LINES[DRAIN]}\n"
    assert shown.exit_status == 130 and "Traceback" not in shown.stderr
    assert asked(router) == [WATCHED] and clock.slept == [5]


def test_each_request_is_told_once(approvals, router, clock, drain_again):
    clock.steps = [int, drain_again, int, int]
    shown = approvals("watch")
    assert shown == "".join(
        LINES[each] + "\n" for each in (DELETE, DRAIN, FOURTH))
    assert clock.slept == [5] * 5
    assert len(router.seen("GET", "/approvals")) == 5


def test_what_is_decided_meanwhile_is_not_told_again(approvals, clock):
    clock.steps = [lambda: approvals("reject", DRAIN), int]
    assert approvals("watch").count(DRAIN) == 1


@pytest.mark.parametrize("words, query, found", [
    (("--risk", "irreversible"), "&risk=irreversible", [DELETE]),
    (("--risk", "read"), "&risk=read", []),
    (("--agent", "agt_1"), "&agent_id=agt_1", [DELETE, DRAIN]),
    (("--agent", "agt_2"), "&agent_id=agt_2", [])])
def test_a_watch_is_narrowed(approvals, router, words, query, found):
    shown = approvals("watch", *words, "-o", "id")
    assert shown.split() == found
    assert asked(router) == [WATCHED + query]


@pytest.mark.parametrize("interval", ["1", "0.5", "60"])
def test_an_interval_is_kept(approvals, clock, interval):
    clock.steps = [int, int]
    approvals("watch", "--interval", interval)
    assert clock.slept == [float(interval)] * 3


@pytest.mark.parametrize("interval", ["0", "-5", "often", "nan"])
def test_an_interval_that_is_no_time_is_refused(refused, interval):
    assert "--interval" in refused("watch", f"--interval={interval}")


def test_a_request_takes_one_line_whatever_it_says(approvals, router):
    router.order("GET /approvals", body=json.dumps({"data": [
        {"id": "1", "risk": None, "tool": "a\nb\tc", "workspace_id": "w"},
        {"id": "2"}]}).encode())
    assert approvals("watch") == "1  -  a\\nb\\tc  w  -\n2  -  -  -  -\n"


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"data": 7}'])
def test_an_answer_that_is_no_list_ends_the_watch(approvals, router, body):
    router.order("GET /approvals", body=body)
    shown = approvals("watch")
    assert (shown, shown.exit_status) == ("", 1)
    assert len(router.requests) == 1


def test_a_watch_as_jsonl_is_what_was_received(approvals, clock,
                                               drain_again):
    clock.steps = [drain_again]
    rows = list(map(json.loads, approvals(
        "watch", "-o", "jsonl").splitlines()))
    assert [each["id"] for each in rows] == [DELETE, DRAIN, FOURTH]
    assert rows[1]["args"] == {"node": "worker-07"}


def test_a_watch_has_no_csv_and_says_what_it_has(refused):
    assert "-o jsonl" in refused("watch", "-o", "csv")


def test_a_watch_looks_at_every_page(approvals, drain_again):
    for _ in range(22):
        drain_again()
    shown = approvals("watch", "-o", "id")
    assert len(set(shown.split())) == len(shown.split()) == 24


def test_a_watch_survives_an_answer_that_failed(approvals, router, clock):
    clock.steps = [int] * 8
    router.order("GET /approvals", times=4, status=502)
    assert len(approvals("watch").splitlines()) == 2


def test_a_watch_ends_when_the_key_is_taken_away(approvals, router):
    shown = approvals("watch", XEROTIER_API_KEY="xero_demo_gone")
    assert (shown, shown.exit_status) == ("", 3)
    assert len(router.requests) == 1


# == delegations =============================================================

def test_somebody_decides_for_a_week(approvals, router):
    shown = labelled(approvals("delegate", "--to", "bob@example.com",
                               "--expires", "7d"))
    assert shown == {
        "ID": "dlg_00000001", "To": "bob@example.com", "Risk": "destructive",
        "Workspace": "-", "Expires": "2026-02-09 02:40 UTC"}
    assert asked(router) == ["POST /approvals/delegations"]
    assert router.requests[0].json == {
        "delegate_to": "bob@example.com", "expires_at":
        "2026-02-09T02:40:00Z"}


def test_a_delegation_is_narrowed(approvals, router):
    approvals("delegate", "--to", "bob", "--risk", "write", "--workspace",
              "ws_kube_prod", "--expires", "2026-05-27T14:00:00+02:00")
    assert router.requests[0].json == {
        "delegate_to": "bob", "risk": "write", "workspace_id":
        "ws_kube_prod", "expires_at": "2026-05-27T14:00:00+02:00"}


@pytest.mark.parametrize("words, said", [
    (("--to", "bob", "--expires", "soon"), "--expires"),
    (("--to", "bob", "--expires", "2026-05-27T14:00:00"), "zone")])
def test_a_delegation_that_cannot_be_is_not_sent(refused, words, said):
    assert said in refused("delegate", *words)


def test_delegations_are_listed_and_taken_back(approvals, answer, router):
    approvals("delegate", "--to", "bob")
    approvals("delegate", "--to", "eve", "--risk", "write")
    lines = approvals("delegations").splitlines()
    assert lines[0].split() == ["ID", "To", "Risk", "Workspace", "Expires"]
    assert [line.split()[1] for line in lines[1:]] == ["eve", "bob"]
    status, said = answer("approvals", "revoke-delegation", "dlg_00000001",
                          typed=b"y\n")
    assert status == 0 and "Revoke delegation dlg_00000001? [y/N]" in said
    assert asked(router)[-1] == "DELETE /approvals/delegations/dlg_00000001"
    assert approvals("delegations", "-o", "id") == "dlg_00000002\n"
    assert approvals("revoke-delegation", "dlg_00000002", "-y") == (
        "revoked dlg_00000002\n")
    shown = approvals("delegations")
    assert shown == "" and shown.stderr == "No delegations found.\n"


def test_a_delegation_is_taken_back_only_when_that_is_meant(answer, router,
                                                            refused):
    assert "--force" in refused("revoke-delegation", "dlg_1")
    assert answer("approvals", "revoke-delegation", "dlg_1",
                  typed=b"\n")[0] == 1
    assert router.requests == []


# == learnings ===============================================================

def test_learnings_are_listed(run, router, golden):
    shown = golden("learnings-list", "learnings", "list")
    assert shown.splitlines()[0].split() == [
        "ID", "Source", "Score", "Created", "Content"]
    assert run("learnings") == shown
    assert asked(router) == ["GET /learnings"] * 2


def test_a_learning_is_shown(router, golden):
    shown = golden("learnings-show", "learnings", "show", LEARNING)
    assert list(labelled(shown)) == [
        "ID", "Content", "Workspace ID", "Score", "Source Type", "Created"]
    assert asked(router) == [f"GET /learnings/{LEARNING}"]


@pytest.mark.parametrize("workspace, count", [
    ("ws_kube_prod", 3), ("ws_0123456789abcdef", 0)])
def test_learnings_are_those_of_a_workspace(run, router, workspace, count):
    shown = run("learnings", "list", "--workspace", workspace, "-o", "id")
    assert len(shown.splitlines()) == count
    assert asked(router) == [f"GET /learnings?workspace_id={workspace}"]


def test_learnings_are_asked_of_the_frontend(run, router):
    with Router(clock=lambda: NOW) as frontend:
        shown = run("learnings", "list", "-o", "id",
                    XEROTIER_FRONTEND_URL=frontend.origin)
        assert len(shown.splitlines()) == 3, shown.stderr
        assert run("approvals", "-o", "id",
                   XEROTIER_FRONTEND_URL=frontend.origin).exit_status == 0
        assert asked(frontend) == ["GET /learnings"]
    assert asked(router) == ["GET /approvals"]
