"""agents: the machines that run models, and how they get in.

Join keys and candidates are by flag below a word of their own.
"""

import json
import re
from shlex import quote, split

import pytest

from helpers import asked, check_call


NOW = 1770000000
GROUP = ("agents",)
AGENTS = "/management/agents"
JOIN_KEYS = "/management/join-keys"
GPU_A = "00000001-0000-4000-8006-000000000001"
NEW_AGENT = "00000003-0000-4000-8006-000000000003"
HEADS = ["ID", "NAME", "REGION", "STATUS", "TIERS", "LAST SEEN"]


@pytest.fixture
def join_key(run, router):
    """The id of a join key that is there."""
    run("agents", *NEW_KEY)
    del router.requests[:]
    return "jk_0000000000000001"


NEW_KEY = ["join-keys", "--create", "--name", "rack 7", "--region",
           "eu-central", "--router-addr", "tcp://router.example:5555"]
NEW_LINE = " ".join(map(quote, NEW_KEY))


def head_of(shown):
    return re.split("  +", shown.splitlines()[0])


def ids(run, *words):
    return run("agents", *words, "-o", "id").split()


# == agents ==================================================================

def test_an_agent_comes_and_goes(run, router):
    made = json.loads(run("agents", "--create", "--name", "gpu-z",
                          "--region", "eu-1", "-o", "json"))
    assert made["status"] == "pending" and made["id"] == NEW_AGENT
    assert NEW_AGENT in ids(run)
    changed = json.loads(run("agents", NEW_AGENT, "--update", "--region",
                             "eu-2", "-o", "json"))
    assert (changed["name"], changed["region"]) == ("gpu-z", "eu-2")
    assert ids(run, NEW_AGENT) == [NEW_AGENT]
    gone = run("agents", NEW_AGENT, "--delete", "--force")
    assert gone == f"deleted {NEW_AGENT}\n"
    assert NEW_AGENT not in ids(run) and GPU_A in ids(run)
    one = f"{AGENTS}/{NEW_AGENT}"
    assert asked(router)[:6] == [
        f"POST {AGENTS}", f"GET {AGENTS}", f"PATCH {one}", f"GET {one}",
        f"DELETE {one}", f"GET {AGENTS}"]


def test_a_list_is_as_the_page_says(golden):
    shown = golden("agents-list", "agents")
    assert head_of(shown) == HEADS


def test_a_record_is_as_the_page_says(golden):
    shown = golden("agents-show", "agents", GPU_A)
    labels = [line.split(":")[0] for line in shown.splitlines()]
    assert labels[:6] == HEADS


def test_events_are_listed(run, router):
    run("agents", "pause-exec", GPU_A)
    shown = run("agents", GPU_A, "--events")
    assert head_of(shown) == ["TIME", "TYPE", "MESSAGE"]
    assert "agent.exec_paused" in shown and "agent.created" in shown
    assert asked(router)[1:] == [f"GET {AGENTS}/{GPU_A}/events"]
    one = run("agents", GPU_A, "--events", "--limit", "1", "-o", "id")
    rest = run("agents", GPU_A, "--events", "--after", one.strip(), "-o",
               "id")
    assert "--after" in one.stderr and len((one + rest).split()) == 2
    assert run("agents", GPU_A, "--events", "--limit", "1", "--all", "-o",
               "id") == one + rest


SENT = [
    ("--create --name n", f"POST {AGENTS}", {"name": "n"}),
    ("--create --name n --region r", f"POST {AGENTS}",
     {"name": "n", "region": "r"}),
    ("--create --name n --region r --max-concurrent 0 --description d",
     f"POST {AGENTS}",
     {"name": "n", "region": "r", "max_concurrent_requests": 0,
      "description": "d"}),
    (f"{GPU_A} --update --name n --max-concurrent 4",
     f"PATCH {AGENTS}/{GPU_A}", {"name": "n", "max_concurrent_requests": 4}),
    (f"{GPU_A} --update --region r --description ''",
     f"PATCH {AGENTS}/{GPU_A}", {"region": "r", "description": ""}),
    (f"pause-exec {GPU_A} --workspace ws_kube_prod",
     f"POST {AGENTS}/{GPU_A}/pause-exec", {"workspace_id": "ws_kube_prod"}),
    (f"curve-rotate {GPU_A} --reason -leaked",
     f"POST {AGENTS}/{GPU_A}/curve-rotate", {"reason": "-leaked"}),
    (NEW_LINE, f"POST {JOIN_KEYS}",
     {"name": "rack 7", "region": "eu-central",
      "router_addr": "tcp://router.example:5555"}),
    (f"{NEW_LINE} --expires-in-hours 2", f"POST {JOIN_KEYS}",
     {"name": "rack 7", "region": "eu-central",
      "router_addr": "tcp://router.example:5555", "expires_in_hours": 2}),
]


@pytest.mark.parametrize("words, call, body", SENT)
def test_flags_are_sent_and_no_others(run, router, words, call, body):
    check_call(run(*GROUP, *split(words)), router, call, body)


@pytest.mark.parametrize("words, said", [
    ("--create --name n --region r --max-concurrent -1", "--max-concurrent"),
    ("--create --name n --region r --max-concurrent x", "'x'"),
    (f"{GPU_A} --update", "nothing to update"),
    (f"{NEW_LINE} --router-addr http://h:1", "tcp://"),
    (f"{NEW_LINE} --router-addr tcp://h", "tcp://"),
    (f"{NEW_LINE} --router-addr tcp://h:x", "tcp://"),
    (f"{NEW_LINE} --expires-in-hours 0", "--expires-in-hours"),
])
def test_wrong_words_are_refused_before_anything_is_sent(refused, words,
                                                         said):
    assert said in refused(*split(words))


# == what can be done to an agent ============================================

def test_execution_is_paused_in_a_workspace_and_everywhere(run):
    def told(*words):
        agent = json.loads(run("agents", *words, "-o", "json"))
        return agent["exec_paused"], agent["paused_workspaces"]
    one = "--workspace", "ws_kube_prod"
    assert told("pause-exec", GPU_A, *one) == (False, ["ws_kube_prod"])
    assert told("pause-exec", GPU_A) == (True, ["ws_kube_prod"])
    assert told("resume-exec", GPU_A, *one) == (True, [])
    assert told("resume-exec", GPU_A) == (False, [])


def test_credentials_are_revoked_once(run):
    shown = run("agents", "revoke-credentials", GPU_A, "--force")
    assert re.search("^STATUS: +revoked$", shown, re.M)
    again = run("agents", "revoke-credentials", GPU_A, "--force")
    assert again.exit_status == 1 and "HTTP 409" in again.stderr


def test_new_transport_keys_are_told(run):
    first, second = (json.loads(run("agents", "curve-rotate", GPU_A, "-o",
                                    "json")) for _ in range(2))
    assert first["curve_rotated_at"] == NOW
    assert first["curve_public_key"] != second["curve_public_key"]
    run("agents", "curve-rotate", GPU_A, "--reason", "leaked")
    assert "leaked" in run("agents", GPU_A, "--events")


# == join keys ===============================================================

def test_a_join_key_comes_and_is_revoked(run, router, join_key):
    assert ids(run, "join-keys") == [join_key]
    gone = run("agents", "join-keys", join_key, "--revoke", "--force")
    assert gone == f"revoked {join_key}\n"
    assert "  revoked  " in run("agents", "join-keys")
    again = run("agents", "join-keys", join_key, "--revoke", "--force")
    assert again.exit_status == 1 and "HTTP 409" in again.stderr
    assert asked(router)[:2] == [f"GET {JOIN_KEYS}",
                                 f"DELETE {JOIN_KEYS}/{join_key}"]


def test_a_list_of_join_keys_is_as_the_page_says(run, join_key, golden):
    run("agents", *NEW_KEY, "--expires-in-hours", "2")
    shown = golden("agents-join-keys", "agents", "join-keys")
    assert head_of(shown) == ["ID", "NAME", "REGION", "STATUS", "EXPIRES"]


def test_a_join_key_is_shown_once(run):
    shown = run("agents", *NEW_KEY, "-o", "id", "-vv")
    assert re.match(r"xjk_[0-9a-f]{40}\n\Z", shown)
    assert shown.strip() not in shown.stderr
    assert "warning: keep the key" in shown.stderr
    assert "xjk_" not in run("agents", "join-keys", "-o", "json")
    assert re.search(r"^key: +xjk_\w+$", run("agents", *NEW_KEY), re.M)


# == candidates ==============================================================

def test_candidates_are_let_in_or_kept_out(run, router):
    assert ids(run, "candidates") == ["cand_00000002", "cand_00000001"]
    shown = run("agents", "candidates", "cand_00000001", "--approve")
    assert shown == "approved cand_00000001\n"
    assert "gpu-c" in run("agents")
    shown = run("agents", "candidates", "cand_00000002", "--reject")
    assert shown == "rejected cand_00000002\n"
    assert "gpu-d" not in run("agents")
    again = run("agents", "candidates", "cand_00000002", "--approve")
    assert again == "" and again.exit_status == 1
    assert "rejected already" in again.stderr


def test_a_list_of_candidates_shows_who_waits(run, golden):
    run("agents", "candidates", "cand_00000001", "--approve")
    golden("agents-candidates", "agents", "candidates")


def test_a_decision_is_a_whole_answer_for_a_program(run):
    made = json.loads(run("agents", "candidates", "cand_00000001",
                          "--approve", "-o", "json"))
    assert made["agent_id"] == NEW_AGENT
