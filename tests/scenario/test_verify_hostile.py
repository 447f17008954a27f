"""Verification against servers and clients at their worst (T12, T13, T14, T17 of semantics 4.11, and what those do not name)."""
import subprocess
import threading
import time

import pytest

from conftest import EDGE, INTERNAL, STRANGER, Process, accepts, eventually, free_port, message
from test_interop import UNBOUND, ZONE
from test_verify import ALSO, BAD, GOOD, scene  # noqa: F401

pytestmark = pytest.mark.sanitized
PATIENT = {"harvest": {"tarpit_after": 0, "defer_after": 0, "disconnect_after": 0}, "strangers": {"errors": 0},
           "limits": {"errors": 100000, "sessions_per_client": 0}}


def ask_for(gateway, addresses, client=EDGE):
    """Replies to RCPTs that are all pipelined in one session."""
    c = gateway.smtp(client)
    c.write("EHLO x\r\nMAIL FROM:<>\r\n" + "".join(f"RCPT TO:<{a}>\r\n" for a in addresses))
    assert c.reply().code == 250 and c.reply().code == 250
    replies = [c.reply() for _ in addresses]
    c.close()
    return replies


# --- clients ---

def test_thousands_of_guesses_while_good_ones_go_on(scene):
    """T13. What reaches the server is bounded by `rate` from the first moment, whatever comes in."""
    s = scene(verify={"rate": 200, "waiting": 50, "connections": 3}, **PATIENT)
    assert s.rcpt(GOOD).code == 250
    started, over, found = time.monotonic(), threading.Event(), []

    def attack(k):
        for j in range(10):
            found.extend(r.code for r in ask_for(s.gateway, [f"guess-{k}-{j}-{i}@example.com" for i in range(50)], STRANGER))

    def good():
        while not over.is_set():
            assert [r.code for r in ask_for(s.gateway, [GOOD] * 10)] == [250] * 10

    attackers = [threading.Thread(target=attack, args=(k,)) for k in range(8)]
    friend = threading.Thread(target=good)
    for t in (*attackers, friend):
        t.start()
    for t in attackers:
        t.join()
    asked, took = s.backend.probes(), time.monotonic() - started
    over.set()
    friend.join()
    assert len(found) == 4000 and set(found) <= {450, 550} and found.count(550) > 0
    assert asked <= 200 * took + 20 + 1, "a tenth of a second's worth at once, then the rate, and the good one before"
    assert s.rcpt(GOOD).code == 250 and s.gateway.metric("postern_verify_overflow_total") > 0
    assert s.gateway.metric("postern_verify_backends", state="up") == 1


def test_guesses_are_not_remembered_beyond_their_room(scene):
    """A flood of unknown recipients does not push good ones out of the cache."""
    s = scene(verify={"rate": 0}, verdicts={"entries": 1000}, **PATIENT)
    assert s.rcpt(GOOD).code == 250 and s.rcpt(ALSO).code == 250
    for k in range(40):
        assert {r.code for r in ask_for(s.gateway, [f"guess-{k}-{i}@example.com" for i in range(50)])} == {550}
    probes = s.backend.probes()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(ALSO).code == 250
    assert s.backend.probes() == probes
    assert s.gateway.metric("postern_verdict_cache_entries") <= 1000


# --- servers ---

def test_one_byte_at_a_time(scene):
    """Bytes are no progress, answers are: the server counts as one that cannot be asked, and holds nothing up for longer than the time-out."""
    s = scene(timeouts={"rcpt": "1s", "verify_stranger": "500ms", "verify_edge": "20s"})
    assert s.rcpt(GOOD).code == 250
    s.backend.byte_s = 0.3
    assert s.rcpt("slow@example.com").startswith("450 4.1.1")
    assert s.rcpt("other@example.com", EDGE).startswith("451 4.4.1")
    assert s.rcpt(GOOD).code == 250
    s.backend.byte_s = 0
    eventually(lambda: s.rcpt(ALSO, EDGE).code == 250)


@pytest.mark.parametrize("how", ["half", "close", "421 4.3.2 shutting down", "bytes"])
def test_breaks_in_the_middle(scene, how):
    """Some recipients of each transaction have their answer, then it is over: the others are asked for again, and nobody becomes unknown."""
    s = scene(users=[f"user{i}@example.com" for i in range(20)], **PATIENT)
    count = [0]

    def rcpt(address):
        count[0] += 1
        return how if count[0] % 7 == 0 else None
    s.backend.rcpt = rcpt
    wanted = {f"user{i}@example.com": 250 if i < 20 else 550 for i in range(30)}
    replies = ask_for(s.gateway, wanted)
    for (address, code), r in zip(wanted.items(), replies):
        assert r.code in (code, 450, 451), (address, r)
    s.backend.rcpt = None
    eventually(lambda: [r.code for r in ask_for(s.gateway, wanted)] == list(wanted.values()))


def test_every_connection_breaks(scene):
    s = scene(verify={"connections": 2}, **PATIENT)
    s.backend.rcpt = lambda address: "close"
    assert {r[:9] for r in ask_for(s.gateway, [f"user{i}@example.com" for i in range(30)])} <= {"451 4.4.1", "450 4.1.1"}
    tried = s.backend.connections
    assert {r[:9] for r in ask_for(s.gateway, [f"more{i}@example.com" for i in range(30)])} == {"451 4.4.1"}
    assert s.backend.connections - tried <= 2, "it is left alone"
    assert s.gateway.metric("postern_verdict_cache_entries") == 0


def test_banner_that_never_comes(scene):
    s = scene(timeouts={"greeting": "1s", "verify_stranger": "500ms"})
    s.backend.banner_wait = threading.Event()
    assert s.rcpt(GOOD).startswith("450 4.1.1")
    assert s.rcpt(GOOD, EDGE).startswith("451 4.4.1")
    s.backend.banner_wait.set()
    eventually(lambda: s.rcpt(GOOD).code == 250)


def test_takes_everything_and_then_does_not(scene):
    """Found by canaries; while it lasts nobody is asked for. When a delivery is refused as unknown the server is looked at again."""
    s = scene(users=None, verify={"canary": "1h"})
    assert s.rcpt("anybody@example.com").code == 250
    eventually(lambda: s.gateway.metric("postern_verify_blind_domains") == 1, "two canaries were taken")
    probes = s.backend.probes()
    assert s.rcpt("invented@example.com").code == 250
    assert s.backend.probes() == probes and s.gateway.metric("postern_verify_total", source="accept-all") == 1
    s.backend.users = {GOOD}
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    assert c.send("alice@example.net", ["gone@example.com"], message("to nobody"))[-1].code == 250
    eventually(lambda: s.gateway.metric("postern_verify_blind_domains") == 0, "a canary was refused")
    assert s.rcpt("gone@example.com").code == 550 and s.rcpt("invented@example.com").code == 550 and s.rcpt(GOOD).code == 250


def test_takes_everything_at_rcpt_and_refuses_after_the_content(scene):
    s = scene(users=None, verify={"canary": "1h"})
    assert s.rcpt("anybody@example.com").code == 250
    eventually(lambda: s.gateway.metric("postern_verify_blind_domains") == 1)
    s.backend.dot = "550 5.1.1 no such user"
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    assert c.send("alice@example.net", ["gone@example.com"], message("to nobody"))[-1].code == 250
    eventually(lambda: [e for e in s.gateway.events("verify_canary") if e["state"] == "data-stage"])
    assert s.rcpt("gone@example.com").code == 550, "of this one it is known"


def test_null_sender_refused_on_tuesdays(scene):
    """Now it refuses the empty sender, now every other: what it takes today is found each time, and nobody hears of it."""
    s = scene(verify={"good_fresh": 1, "good_refresh": 1, "unknown_fresh": 1})
    tuesday = lambda sender: None if sender else "550 5.7.1 no null senders today"  # noqa: E731
    other_day = lambda sender: "550 5.7.1 sender address rejected" if sender else None  # noqa: E731
    for i, day in enumerate((tuesday, other_day, tuesday, other_day)):
        s.backend.mail = day
        s.backend.users.add(f"user{i}@example.com")
        assert s.rcpt(f"user{i}@example.com").code == 250
        assert s.rcpt(f"nobody{i}@example.com").code == 550
    s.backend.mail = "550 5.7.1 nobody at all"
    assert s.rcpt("late@example.com").startswith("451 4.3.0")
    assert len(s.backend.senders) < 40, "it does not try the one and the other for ever"


def test_changes_its_mind(scene):
    """Good, unknown, good, ... at every look: a good one does not become unknown by one refusal, an unknown one good by one answer."""
    s = scene(verify={"good_fresh": 1, "good_refresh": 1, "unknown_fresh": 1, "confirm": 1})
    assert s.rcpt(GOOD).code == 250
    s.backend.rcpt = lambda address: "550 5.1.1 no such user" if s.backend.probes(GOOD) % 2 == 0 else None
    eventually(lambda: s.rcpt(GOOD).code != 250 or s.backend.probes(GOOD) >= 4, "it is asked for again and again")
    assert s.rcpt(GOOD).code == 250
    codes = []
    s.backend.users.add("new@example.com")
    s.backend.rcpt = lambda address: None if s.backend.probes(address) % 2 == 0 else "550 5.1.1 no such user"
    eventually(lambda: codes.append(s.rcpt("new@example.com").code) or codes[-1] == 250)
    assert codes[0] == 550


@pytest.mark.parametrize("helo", ["500 5.5.1 what?", "502 5.5.2 no EHLO"])
def test_old_server_without_ehlo(scene, helo):
    s = scene()
    s.backend.ehlo = helo
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550


# --- what is around them ---

def test_names_do_not_resolve_for_a_while(run, scene, tmp_path):
    dns = free_port()
    s = scene(domain={"route": {"hosts": ["plain.example"], "port": 1, "mx": False}}, dns={"resolver": f"127.0.0.1:{dns}", "timeout": "500ms"})
    s.gateway.configure(domains=[{"name": "example.com", "local": True, "route": {"hosts": ["plain.example"], "port": s.backend.port, "mx": False}}])
    s.gateway.cli("reload")
    assert s.rcpt(GOOD, EDGE).startswith("451 4.4.1")
    assert s.gateway.metric("postern_verdict_cache_entries") == 0
    (tmp_path / "unbound.conf").write_text(ZONE.format(port=dns, directory=tmp_path, sink=INTERNAL))
    resolver = run(lambda d: Process(UNBOUND, "-c", tmp_path / "unbound.conf", log=tmp_path / "unbound.log"))
    eventually(lambda: accepts("127.0.0.1", dns), "unbound answers")
    eventually(lambda: s.rcpt(GOOD, EDGE).code == 250, "names resolve again")
    resolver.kill()
    assert s.rcpt(ALSO, EDGE).code == 250 and s.rcpt(BAD, EDGE).code == 550, "addresses that are known go on serving"


def test_deliveries_paused_and_verification_goes_on(scene):
    """T15."""
    s = scene()
    s.gateway.cli("queue", "pause")
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    assert [r.code for r in c.send("alice@example.net", [GOOD, BAD], message("waits"))] == [250, 250, 550, 354, 250]
    assert s.rcpt(ALSO).code == 250 and s.rcpt("new@example.com").code == 550
    assert s.gateway.queued() == 1 and not s.backend.messages
    s.gateway.cli("queue", "resume")
    eventually(lambda: s.backend.messages, "delivered")


def test_reload_while_sessions_wait(scene):
    s = scene(**PATIENT)
    s.backend.hold = threading.Event()
    c = s.gateway.smtp(EDGE)
    c.write("EHLO x\r\nMAIL FROM:<>\r\n" + f"RCPT TO:<{GOOD}>\r\nRCPT TO:<{BAD}>\r\n")
    eventually(lambda: s.backend.probes() > 0)
    for i in range(5):
        s.gateway.configure(verify={"rate": 10 + i, "connections": 1 + i, "batch": 1 + i})
        s.gateway.cli("reload")
    s.gateway.configure(domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": s.backend.port}, "verify": {"mode": "off"}}])
    s.gateway.cli("reload")
    assert s.rcpt(BAD).code == 250, "new sessions go by the new settings"
    s.backend.hold.set()
    assert [c.reply().code for _ in range(4)] == [250, 250, 250, 550], "who was waiting has what was asked for"


def test_kill_9_while_verdicts_are_written(scene):
    """T14. Again and again; what it knows afterwards is true."""
    s = scene(users=None, verify={"rate": 0}, **PATIENT)
    s.backend.rcpt = lambda address: "550 5.1.1 no such user" if int(address[4:address.index("@")]) % 2 else None
    at = 0
    for life in range(4):
        written = s.gateway.metric("postern_verdict_store_records")
        for _ in range(1000):  # it writes about every second
            assert [r.code for r in ask_for(s.gateway, [f"user{i}@example.com" for i in range(at, at + 40)])] == [250, 550] * 20
            at += 40
            if s.gateway.metric("postern_verdict_store_records") >= written + 20:
                break
        s.gateway.kill()
        s.gateway.start()
        assert not [e for e in s.gateway.events("boot_note") if "damaged" in e["text"]]
    s.backend.stop()
    replies = ask_for(s.gateway, [f"user{i}@example.com" for i in range(0, 200)])
    assert {r.code for r in replies} <= {250, 550, 451} and [r.code for r in replies].count(250) >= 10
    for i, r in enumerate(replies):
        assert r.code in ((250, 451) if i % 2 == 0 else (550, 451)), (i, r)


def test_stop_under_attack(scene):
    s = scene(verify={"rate": 50}, **PATIENT)

    def attack(k):
        try:
            while True:
                ask_for(s.gateway, [f"guess-{k}-{time.monotonic_ns()}-{i}@example.com" for i in range(50)], STRANGER)
        except (OSError, AssertionError):
            pass
    threads = [threading.Thread(target=attack, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    eventually(lambda: s.gateway.metric("postern_verify_queue") > 0)
    assert s.gateway.stop() == 0
    for t in threads:
        t.join()


def test_guesses_in_one_write_are_asked_for_no_further_than_they_may_go(scene):
    """Recipients are looked at ahead of their turn. Where one in a hundred would be answered, a hundred are not to be asked for."""
    s = scene(harvest={"tarpit_after": 0, "defer_after": 5, "disconnect_after": 0}, limits={"errors": 100000}, strangers={"errors": 0})
    assert s.rcpt(GOOD).code == 250
    replies = ask_for(s.gateway, [f"guess-{i}@example.com" for i in range(300)], STRANGER)
    assert [r.code for r in replies] == [550] * 5 + [450] * 295
    assert s.backend.probes() <= 1 + 5, "the good one, and those that were answered"
