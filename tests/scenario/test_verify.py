"""Recipient verification with real processes: is a recipient taken when, and only when, its server takes it? (semantics 4.11)"""
import threading
import time

import pytest

from backend import Backend
from conftest import EDGE, INTERNAL, PATIENCE_S, STRANGER, Gateway, Sink, Smtp, eventually, free_port, message

pytestmark = pytest.mark.sanitized
GOOD, ALSO, BAD = "bob@example.com", "eve@example.com", "nobody@example.com"


class Scene:
    """A gateway that verifies, with a scripted backend behind it."""

    def __init__(self, run, users=(GOOD, ALSO), verify=None, domain=None, **settings):
        self.edge = run(Sink, address=EDGE, name="edge")
        port = free_port(INTERNAL)
        self.backend = run(lambda directory: Backend(INTERNAL, port, users))
        self.gateway = run(Gateway, destination={"mode": "edge", "host": EDGE, "port": self.edge.port},
                           domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": port}, **(domain or {})}],
                           verify={"mode": "unverified", "canary": 0, **(verify or {})}, **settings)

    def rcpt(self, address, client=STRANGER, sender="alice@example.net", params=""):
        """The reply to one RCPT in a session of its own that goes no further."""
        s = self.gateway.smtp(client)
        s.ehlo()
        assert s.say(f"MAIL FROM:<{sender}>{params}").code == 250
        reply = s.say(f"RCPT TO:<{address}>")
        assert s.say("RSET").code == 250
        assert s.say("QUIT").code == 221
        s.close()
        return reply


@pytest.fixture
def scene(run):
    return lambda **more: Scene(run, **more)


# --- T1, T2: who is asked about, and what it hears ---

@pytest.mark.parametrize("client", [EDGE, STRANGER])
def test_good_and_unknown(scene, client):
    s = scene()
    assert s.rcpt(GOOD, client).startswith("250 2.1.5")
    assert s.rcpt(BAD, client).startswith("550 5.1.1")
    asked = s.backend.probes()
    assert asked == 2 and s.backend.senders[0] == ""
    for _ in range(5):
        assert s.rcpt(GOOD, client).code == 250 and s.rcpt(BAD, client).code == 550
    assert s.backend.probes() == asked, "the cache answers"
    assert not s.backend.messages, "a probe never sends a message"


def test_trusted_clients_are_not_verified(scene):
    s = scene()
    assert s.rcpt(BAD, INTERNAL).code == 250
    assert s.backend.probes() == 0


def test_mail_for_good_recipients_goes_through(scene):
    s = scene()
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    replies = c.send("alice@example.net", [GOOD, BAD, ALSO], message("mixed"))
    assert [r.code for r in replies] == [250, 250, 550, 250, 354, 250]
    eventually(lambda: s.backend.messages, "the message arrives")
    assert s.backend.messages[0][0] == [GOOD, ALSO]


@pytest.mark.parametrize("verify,reply", [({}, "451 4.4.1"), ({"compat": "postfix"}, "450 4.1.1"), ({"fail": "open"}, "250 2.1.5"),
                                          ({"fail": "stale"}, "451 4.4.1")])
def test_dead_backend(scene, verify, reply):
    s = scene(verify=verify)
    s.backend.stop()
    assert s.rcpt(GOOD, EDGE).startswith(reply)
    assert s.rcpt(ALSO, STRANGER).startswith(reply)
    s.backend.start()
    if not reply.startswith("250"):
        eventually(lambda: s.rcpt(GOOD, EDGE).code == 250, "it is asked again, in seconds")
    eventually(lambda: s.rcpt(BAD, EDGE).code == 550)


def test_known_recipients_are_taken_while_the_backend_is_dead(scene):
    s = scene()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    s.backend.stop()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    assert s.rcpt("new@example.com").startswith("451 4.4.1")


def test_stale_verdicts_serve_when_the_backend_is_dead(scene):
    s = scene(verify={"fail": "stale", "good_fresh": 1, "good_refresh": 1, "unknown_fresh": 1})
    assert s.rcpt(GOOD).code == 250
    s.backend.stop()
    eventually(lambda: s.gateway.metric("postern_verify_total", source="stale") > 0 or not s.rcpt(GOOD).code == 250, "its verdict got old")
    assert s.rcpt(GOOD).code == 250
    assert s.rcpt("new@example.com").startswith("451 4.4.1")


def test_slow_backend_stranger_hears_450_and_the_retry_finds_the_verdict(scene):
    s = scene(timeouts={"verify_stranger": "200ms", "shutdown": "10s"})
    s.backend.hold = threading.Event()
    assert s.rcpt(GOOD).startswith("450 4.1.1")
    s.backend.hold.set()
    eventually(lambda: s.rcpt(GOOD).code == 250)
    assert s.backend.probes(GOOD) == 1, "the probe went on after the 450"


def test_slow_backend_edge_waits(scene):
    s = scene(timeouts={"verify_stranger": "100ms", "shutdown": "10s"})
    s.backend.hold = threading.Event()
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write(f"RCPT TO:<{GOOD}>\r\n")
    assert s.rcpt(GOOD, STRANGER).code == 450
    s.backend.hold.set()
    assert c.reply().code == 250


# --- what the server's words mean ---

@pytest.mark.parametrize("words,reply", [
    ("550 5.1.1 no such user", "550 5.1.1"),
    ("550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "550 5.1.1"),
    ("550 5.2.1 mailbox disabled", "550 5.2.1"),
    ("552 5.2.2 mailbox full", "452 4.2.2"),
    ("452 4.2.2 over quota", "452 4.2.2"),
    ("450 4.2.0 greylisted, come back", "450 4.1.1"),
    ("550 5.7.1 your address is blocked by policy", "451 4.3.0"),
])
def test_triage(scene, words, reply):
    s = scene()
    s.backend.rcpt = lambda address: words if address == BAD else None
    heard = s.rcpt(BAD)
    assert heard.startswith(reply)
    for secret in ("inside.local", INTERNAL, "AS(2018", "blocked", "greylisted"):
        assert secret not in heard, "the server's words and name stay inside"


def test_backend_that_refuses_our_helo_makes_nobody_unknown(scene):
    s = scene()
    s.backend.helo = "550 5.7.1 go away, gw.example.com"
    assert s.rcpt(GOOD).startswith("451 4.3.0")
    assert s.rcpt(ALSO).startswith("451 4.3.0")
    assert s.gateway.metric("postern_verify_backends", state="refuses-us") == 1
    assert s.gateway.metric("postern_verdict_cache_entries") == 0
    eventually(lambda: s.gateway.events("verify_alarm"), "somebody is told")
    s.backend.helo = None
    eventually(lambda: s.rcpt(GOOD).code == 250, "and sees in seconds that it is mended")


def test_server_that_refuses_the_null_sender(scene):
    s = scene()
    s.backend.mail = lambda sender: None if sender else "550 5.7.1 null sender refused"
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    assert s.backend.senders[0] == "" and s.backend.senders[-1].startswith("postern-probe-")
    nulls = s.backend.senders.count("")
    assert s.rcpt(ALSO).code == 250
    assert s.backend.senders.count("") == nulls, "it is remembered"
    # who asks back hears that this sender exists, and its mail goes nowhere
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    assert [r.code for r in c.send("", s.backend.senders[-1], message("back"))] == [250, 250, 354, 250]
    assert s.gateway.queued() == 0


def test_smtputf8_recipient(scene):
    s = scene(users=("jörg@example.com",))
    assert s.rcpt("jörg@example.com", params=" SMTPUTF8").code == 250
    assert s.rcpt("jürgen@example.com", params=" SMTPUTF8").startswith("550 5.1.1")


# --- waiting together ---

def test_many_ask_for_one_recipient_and_the_server_is_asked_once(scene):
    s = scene()
    s.backend.hold = threading.Event()
    clients = [s.gateway.smtp(EDGE) for _ in range(20)]
    for c in clients:
        c.write(f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{GOOD}>\r\n")
        assert c.reply().code == 250 and c.reply().code == 250
    eventually(lambda: s.gateway.metric("postern_verify_waiting") == 20)
    s.backend.hold.set()
    assert [c.reply().code for c in clients] == [250] * 20
    assert s.backend.probes() == 1


def test_pipelined_recipients_are_asked_for_together_and_answered_in_order(scene):
    users = [f"user{i}@example.com" for i in range(0, 60, 2)]
    s = scene(users=users)
    s.backend.hold = threading.Event()
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write("".join(f"RCPT TO:<user{i}@example.com>\r\n" for i in range(60)))
    eventually(lambda: s.backend.probes() > 0)
    s.backend.hold.set()
    assert [c.reply().code for _ in range(60)] == [250, 550] * 30
    assert len(s.backend.senders) < 30, "many in one transaction"


def test_client_that_leaves_while_waiting(scene):
    s = scene()
    s.backend.hold = threading.Event()
    for _ in range(10):
        c = s.gateway.smtp(EDGE)
        c.write(f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{GOOD}>\r\n")
        assert c.reply().code == 250 and c.reply().code == 250
        c.close()
    eventually(lambda: s.gateway.metric("postern_sessions_open") == 0)
    s.backend.hold.set()
    assert s.rcpt(GOOD).code == 250


def test_stop_while_sessions_wait(scene):
    s = scene()
    s.backend.hold = threading.Event()
    c = s.gateway.smtp(EDGE)
    c.write(f"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{GOOD}>\r\n")
    eventually(lambda: s.backend.probes() == 1)
    assert s.gateway.stop() == 0
    s.backend.hold.set()


# --- being gentle (T13) ---

def test_dictionary_attack_reaches_the_server_at_its_cap(scene):
    s = scene(verify={"connections": 2, "batch": 10, "rate": 0, "waiting": 100}, harvest={"tarpit_after": 0, "defer_after": 0, "disconnect_after": 0},
              limits={"errors": 100000, "sessions_per_client": 0}, strangers={"errors": 0})
    assert s.rcpt(GOOD).code == 250
    s.backend.delay_s = 0.01
    clients = []
    for k in range(20):
        c = s.gateway.smtp(STRANGER)
        c.write("EHLO x\r\nMAIL FROM:<>\r\n" + "".join(f"RCPT TO:<guess-{k}-{i}@example.com>\r\n" for i in range(50)))
        clients.append(c)
    good = [s.rcpt(GOOD, EDGE).code for _ in range(20)]
    assert good == [250] * 20, "those who are known go on"
    codes = [c.reply().code for c in clients for _ in range(52)]
    assert set(codes) <= {250, 450, 550} and codes.count(550) > 0
    assert s.backend.open_max <= 4, "two, and those that say goodbye: one is replaced after ten refusals"


def test_rate_limit_of_probes(scene):
    s = scene(verify={"rate": 5})
    started = time.monotonic()
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write("".join(f"RCPT TO:<guess{i}@example.com>\r\n" for i in range(20)))
    assert [c.reply().code for _ in range(20)] == [550] * 20
    assert time.monotonic() - started > 1, "5 at once, then 5 a second: never all twenty within the first second"


def test_harvester_is_slowed_deferred_and_sent_away(scene):
    s = scene(harvest={"tarpit_after": 2, "tarpit": "100ms", "defer_after": 4, "disconnect_after": 6})
    c = s.gateway.smtp(STRANGER)
    c.ehlo()
    c.say("MAIL FROM:<>")
    codes = [c.say(f"RCPT TO:<guess{i}@example.com>").code for i in range(4)]
    assert codes == [550] * 4
    probes = s.backend.probes()
    assert c.say(f"RCPT TO:<{GOOD}>").startswith("450 4.1.1"), "nothing more is to be learnt"
    assert c.say(f"RCPT TO:<{BAD}>").startswith("450 4.1.1")
    assert s.backend.probes() == probes
    assert c.say(f"RCPT TO:<{GOOD}>").startswith("421 4.7.0")
    assert s.rcpt(GOOD, EDGE).code == 250, "the edge is not judged by it"
    assert s.gateway.metric("postern_sessions_harvest_total") == 1


def test_harvester_is_known_to_all_workers(scene):
    """One guess in each session: no matter which worker has it, the twenty-first is one too many."""
    s = scene(harvest={"tarpit_after": 0, "defer_after": 20, "disconnect_after": 0}, limits={"sessions_per_client": 0})
    clients = [s.gateway.smtp(STRANGER) for _ in range(40)]
    for c in clients:
        c.ehlo()
        c.say("MAIL FROM:<>")
    sessions = [w["sessions"] for w in s.gateway.status()["workers"]]
    assert len(sessions) == 2 and all(sessions), "the kernel gave both workers some"
    codes = [c.say(f"RCPT TO:<guess{i}@example.com>").code for i, c in enumerate(clients)]
    assert codes == [550] * 20 + [450] * 20
    assert s.backend.probes() == 20


def test_recipients_seen_ahead_are_counted_once(scene):
    """What is pipelined behind a late answer is looked at early: that must not count against the client a second time."""
    s = scene(harvest={"tarpit_after": 2, "tarpit": "200ms", "defer_after": 2, "disconnect_after": 7})
    assert s.rcpt(BAD, EDGE).code == 550, "the cache knows it"
    c = s.gateway.smtp(STRANGER)
    c.ehlo()
    c.say("MAIL FROM:<>")
    c.write(f"RCPT TO:<{BAD}>\r\n" * 6)
    assert [c.reply().code for _ in range(6)] == [550, 550, 450, 450, 450, 450]


def test_edge_may_ask_for_as_many_as_it_likes(scene):
    s = scene(limits={"errors": 3})
    c = s.gateway.smtp(EDGE)
    c.ehlo()
    c.say("MAIL FROM:<>")
    assert [c.say(f"RCPT TO:<guess{i}@example.com>").code for i in range(60)] == [550] * 60
    assert c.say("QUIT").code == 221


# --- modes ---

def test_mode_off_and_bypass_of_one_address(scene):
    s = scene(domain={"verify": {"mode": "unverified"}})
    s.gateway.configure(domains=s.gateway.settings["domains"] + [{"name": "open@example.com", "verify": {"mode": "off"}}])
    s.gateway.cli("reload")
    assert s.rcpt("open@example.com").code == 250 and s.rcpt(BAD).code == 550
    assert s.backend.probes("open@example.com") == 0


def test_listed(scene, tmp_path):
    recipients = tmp_path / "recipients"
    recipients.write_text(f"# who is here\n{GOOD}\nALSO@example.com\n")
    s = scene(verify={"mode": "listed", "list": str(recipients)})
    assert s.rcpt(GOOD).code == 250 and s.rcpt("also@EXAMPLE.com").code == 250
    assert s.rcpt(BAD).startswith("550 5.1.1")
    assert s.backend.probes() == 0
    recipients.write_text(f"{GOOD}\nALSO@example.com\n{BAD}\n")
    s.gateway.cli("reload")
    assert s.rcpt(BAD).code == 250


def test_shadow_refuses_nothing_and_says_what_it_would(scene):
    s = scene(verify={"enforce": False})
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 250
    eventually(lambda: s.gateway.events("verify_shadow"), "it is told")
    told = s.gateway.events("verify_shadow")[0]
    assert told["to"] == BAD and told["would"] == "550"
    assert s.gateway.metric("postern_verify_shadow_total") == 1


def test_cautious_says_550_only_when_it_was_said_twice(scene):
    s = scene(verify={"cautious": True, "confirm": 1, "unknown_fresh": 1})
    assert s.rcpt(BAD).startswith("450 4.1.1")
    eventually(lambda: s.rcpt(BAD).startswith("550 5.1.1"))


def test_reply_has_a_reference_that_the_log_explains(scene):
    s = scene()
    s.backend.helo = "550 5.7.1 go away"
    heard = s.rcpt(GOOD)
    reference = heard.rsplit(" ", 1)[1]
    eventually(lambda: [e for e in s.gateway.events("verify") if e.get("ref") == reference and "go away" in e.get("text", "")])


# --- what is remembered ---

def test_verdicts_survive_kill_9(scene):
    s = scene()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    eventually(lambda: s.gateway.metric("postern_verdict_store_records") == 2, "the verdicts are on disk")
    s.gateway.kill()
    s.backend.stop()
    s.gateway.start()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550


def test_store_that_cannot_be_written_costs_no_start(scene, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    s = scene(verdicts={"store": str(tmp_path / "file" / "verdicts")})
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    assert any("will not be kept" in e["text"] for e in s.gateway.events("boot_note"))


def test_good_recipient_falls_only_when_refused_twice(scene):
    s = scene(verify={"good_fresh": 1, "good_refresh": 1, "confirm": 1})
    assert s.rcpt(GOOD).code == 250
    s.backend.users.discard(GOOD)
    eventually(lambda: s.backend.probes(GOOD) >= 2 or s.rcpt(GOOD).code != 250, "it is asked for again")
    eventually(lambda: s.rcpt(GOOD).code == 550)
    assert s.backend.probes(GOOD) >= 3


def test_deliveries_teach(scene):
    s = scene()
    c = s.gateway.smtp(INTERNAL)
    c.ehlo()
    assert c.send("alice@example.net", [GOOD], message("x"))[-1].code == 250
    eventually(lambda: s.backend.messages, "delivered")
    probes = s.backend.probes()
    eventually(lambda: s.gateway.queued() == 0)
    assert s.rcpt(GOOD).code == 250
    assert s.backend.probes() == probes, "nobody had to ask"


def test_trusted_senders_teach(scene):
    """What a trusted client sends in the name of is good at first sight; its server has the last word."""
    s = scene(users=(GOOD,))
    assert s.rcpt(BAD).code == 550
    c = s.gateway.smtp(INTERNAL)
    c.ehlo()
    for sender in (GOOD, ALSO, BAD, "someone@elsewhere.example", ""):
        assert c.send(sender, ["carol@far.example"], message("out"))[-1].code == 250
    assert c.say("MAIL FROM:<aborted@example.com>").code == 250 and c.say("RCPT TO:<carol@far.example>").code == 250 and c.say("RSET").code == 250
    assert s.rcpt(BAD).code == 550, "what its server said counts"
    s.backend.hold = threading.Event()
    probes = s.backend.probes()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(ALSO).code == 250, "nobody waits"
    assert s.gateway.metric("postern_verify_total", source="learned") == 2
    s.backend.hold.set()
    eventually(lambda: s.backend.probes() >= probes + 2, "but they are asked for")
    eventually(lambda: s.rcpt(ALSO).code == 550, "and a hint falls at once")
    assert s.rcpt(GOOD).code == 250
    s.backend.stop()
    assert s.rcpt("aborted@example.com").startswith("451 4.4.1"), "only a message teaches"


# --- loops (T12) ---

@pytest.mark.parametrize("sender", ["empty", "token"])
def test_two_gateways_that_ask_each_other(run, tmp_path, sender):
    """Each takes the other for the server with the mailboxes. Everybody has all the time there is, so nothing but the loop itself, found out,
    can be what ends the question; how long that took is in the log."""
    edge, wait_s = run(Sink, address=EDGE, name="edge"), 280
    ports, gateways = {"one": free_port(), "two": free_port()}, {}
    for name, peer in (("one", "two"), ("two", "one")):
        (tmp_path / name).mkdir()
        gateways[name] = run(lambda _, **settings: Gateway(tmp_path / name, **settings), hostname=f"{name}.example.com",
                             listeners=[{"address": f"127.0.0.1:{ports[name]}"}], trusted_networks=["127.0.0.20"],
                             destination={"mode": "edge", "host": EDGE, "port": edge.port}, verify={"mode": "unverified", "canary": 0, "sender": sender},
                             domains=[{"name": "example.com", "local": True, "route": {"hosts": ["127.0.0.1"], "port": ports[peer]}}],
                             timeouts={"verify_stranger": f"{wait_s}s", "verify_edge": f"{wait_s}s", "shutdown": "10s"})
    s = Smtp("127.0.0.1", ports["one"], "127.0.0.30")
    s.ehlo()
    s.say("MAIL FROM:<>")
    reply = s.say("RCPT TO:<x@example.com>")
    assert reply.startswith("554 5.4.6"), reply

    def lines(name):
        return [(g, e) for g in gateways for e in gateways[g].events(name)]
    eventually(lambda: len(lines("verify_alarm")) >= 2 and {g for g, _ in lines("rcpt")} == set(gateways), "both have told of it")
    assert sorted((g, e["state"]) for g, e in lines("verify_alarm")) == [("one", "loop"), ("two", "loop")], "one alarm at each"
    eventually(lambda: [e for _, e in lines("rcpt") if e["client"] == "127.0.0.30"])
    heard = [e for g, e in lines("rcpt") if e["client"] == "127.0.0.30"]
    assert [(e["reply"], e["enhanced"]) for e in heard] == [("554", "5.4.6")], "the client hears it once"
    asked = [e for g, e in lines("verify") if g == "one" and e["ref"] == heard[0]["ref"]]
    assert [e["result"] for e in asked] == ["loops"]
    assert int(asked[0]["ms"]) < wait_s * 1000, "found, not timed out"
    assert min(e["ts"] for _, e in lines("verify_alarm")) <= heard[0]["ts"], "whoever is told to act is told before the client"
