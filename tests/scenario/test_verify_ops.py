"""Operators and recipient verification: show, probe, pin, unpin, purge, export, stats, backends, retry; the same over the API, metrics."""
import json
import subprocess
import threading

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, eventually
from test_verify import ALSO, BAD, GOOD, Scene

pytestmark = pytest.mark.sanitized


@pytest.fixture
def scene(run):
    return lambda **more: Scene(run, **more)


def verify(scene, *args, check=True):
    r = scene.gateway.cli("--json", "verify", *args, check=check)
    return json.loads(r.stdout) if r.stdout else None


def show(scene, address):
    return verify(scene, "show", address)


def exported(scene, *args):
    return [json.loads(line) for line in scene.gateway.cli("verify", "export", *args).stdout.splitlines()]


def stored(scene, count):
    eventually(lambda: scene.gateway.metric("postern_verdict_store_records") == count, f"{count} records on disk")


# --- show ---

def test_show_says_what_is_known_and_what_rcpt_would_say(scene):
    s = scene()
    before = show(s, "Bob+x@EXAMPLE.com")
    assert before["verdict"] == "none" and before["key"] == "bob+x@example.com" and before["mode"] == "unverified"
    assert before["rcpt"] == {"asks": True, "reply": None, "source": None}
    assert before["backend"]["key"] == f"{INTERNAL}:{s.backend.port}" and before["backend"]["state"] == "up"
    assert s.backend.probes() == 0, "to look is not to ask"
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    good, bad = show(s, GOOD.upper()), show(s, BAD)
    assert good["verdict"] == "good" and good["source"] == "probe" and good["age"] == "fresh" and good["key"] == GOOD
    assert good["rcpt"]["reply"] == "250 2.1.5" and good["rcpt"]["source"] == "cache"
    assert good["checked"] < good["fresh_until"] < good["kept_until"]
    assert bad["verdict"] == "unknown" and bad["rcpt"]["reply"] == "550 5.1.1"
    text = s.gateway.cli("verify", "show", GOOD, BAD).stdout
    assert "good, said by its server" in text and "550 5.1.1, by cache; look for ref=" in text
    elsewhere = show(s, "x@elsewhere.example")
    assert not elsewhere["local"] and elsewhere["rcpt"]["reply"].startswith("554 5.7.1")


def test_show_when_the_server_is_dead(scene):
    s = scene()
    s.backend.stop()
    assert s.rcpt(GOOD).startswith("451 4.4.1")
    shown = show(s, ALSO)
    assert shown["backend"]["state"] == "down" and shown["rcpt"]["reply"] == "451 4.4.1" and shown["rcpt"]["source"] == "down"


def test_show_of_what_is_no_address(scene):
    s = scene()
    r = s.gateway.cli("verify", "show", "nonsense", check=False)
    assert r.returncode == 1 and "address" in r.stderr


# --- a refusal out of the cache leads to the log line of who found it out ---

def test_every_refusal_carries_the_reference_of_the_log_line_that_has_the_servers_words(scene):
    s = scene(workers=2)
    first = s.rcpt(BAD).rsplit(" ", 1)[1]
    again = {s.rcpt(BAD).rsplit(" ", 1)[1] for _ in range(6)}
    assert again == {first}, "from every worker"
    line = eventually(lambda: [e for e in s.gateway.events("verify") if e["ref"] == first])[0]
    assert "User unknown in virtual mailbox table" in line["text"] and line["relay"]
    assert show(s, BAD)["rcpt"]["ref"] == first
    stored(s, 1)
    s.gateway.kill()
    s.gateway.start()
    assert s.rcpt(BAD).rsplit(" ", 1)[1] == first, "after a restart, too"
    assert s.backend.probes(BAD) == 1


# --- probe ---

def test_probe_shows_the_dialogue_and_teaches(scene):
    s = scene()
    probe = verify(s, "probe", BAD)
    assert probe["said"] == "unknown" and probe["reply"] == "550 5.1.1" and probe["stored"]
    assert probe["before"]["verdict"] == "none" and probe["after"]["verdict"] == "unknown"
    dialogue = "\n".join(probe["dialogue"])
    for part in ("S: 220 inside.local", "C: EHLO gw.example.com", "C: MAIL FROM:<>", f"C: RCPT TO:<{BAD}>", "S: 550 5.1.1"):
        assert part in dialogue, dialogue
    assert all(" ms " in line for line in probe["dialogue"])
    assert not s.backend.messages
    probes = s.backend.probes()
    assert s.rcpt(BAD).code == 550 and s.backend.probes() == probes, "it is remembered"
    text = s.gateway.cli("verify", "probe", GOOD).stdout
    assert "C: RCPT TO" in text and "good, said by its server" in text and "250 2.1.5" in text
    eventually(lambda: [e["what"] for e in s.gateway.events("admin")] == [f"verify probe {BAD}", f"verify probe {GOOD}"], "both are logged")


def test_probe_without_storing(scene):
    s = scene()
    probe = verify(s, "probe", "--no-store", GOOD)
    assert probe["said"] == "good" and not probe["stored"]
    assert show(s, GOOD)["verdict"] == "none"


def test_probe_of_a_good_one_that_is_refused_says_that_it_stays_good_for_now(scene):
    s = scene()
    assert s.rcpt(GOOD).code == 250
    s.backend.users.discard(GOOD)
    probe = verify(s, "probe", GOOD)
    assert probe["said"] == "unknown" and probe["after"]["verdict"] == "good" and probe["after"]["suspect"]
    assert probe["reply"] == "250 2.1.5"


def test_probe_of_a_dead_server(scene):
    s = scene()
    s.backend.stop()
    probe = verify(s, "probe", GOOD)
    assert probe["said"] is None and probe["result"] == "down" and probe["reply"] == "451 4.4.1" and not probe["stored"]
    assert "refused" in "\n".join(probe["dialogue"]).lower()


def test_what_a_probe_finds_out_about_its_server_counts(scene):
    s = scene()
    assert "No server has been asked" in s.gateway.cli("verify", "backends").stdout
    verify(s, "probe", "--no-store", GOOD)
    assert "No server has been asked" in s.gateway.cli("verify", "backends").stdout
    verify(s, "probe", GOOD)
    b, = verify(s, "backends")
    assert b["key"] == f"{INTERNAL}:{s.backend.port}" and b["state"] == "up"
    s.backend.helo = "550 5.7.1 go away"
    verify(s, "probe", GOOD)
    b, = verify(s, "backends")
    assert b["state"] == "refuses-us" and b["last_reply"] == "550 5.7.1 go away"
    assert s.rcpt(ALSO).startswith("451 4.3.0") and s.backend.probes(ALSO) == 0
    s.backend.helo = None
    verify(s, "probe", BAD)
    b, = verify(s, "backends")
    assert b["state"] == "up" and s.rcpt(ALSO).code == 250, "no longer left alone"


# --- pins ---

def test_pins_beat_everything_and_survive_kill_9_and_purge(scene, tmp_path):
    recipients = tmp_path / "recipients"
    recipients.write_text(f"{ALSO}\n")
    s = scene(verify={"list": str(recipients)})
    assert s.rcpt(ALSO).code == 250 and s.backend.probes() == 0, "listed"
    pinned = verify(s, "pin", BAD, "good", "--reason", "his mailbox comes on Monday")
    assert pinned["durable"] and pinned["after"]["pin"] == "good"
    assert verify(s, "pin", ALSO.upper(), "unknown")["durable"]
    for _ in range(3):
        assert s.rcpt(BAD).code == 250 and s.rcpt(ALSO).startswith("550 5.1.1")
    assert s.backend.probes() == 0
    s.gateway.kill()
    s.gateway.start()
    assert s.rcpt(BAD).code == 250 and s.rcpt(ALSO).code == 550
    verify(s, "purge", "--all", "--yes")
    verify(s, "purge", BAD)
    s.gateway.kill()
    s.gateway.start()
    assert s.rcpt(BAD).code == 250 and s.rcpt(ALSO).code == 550 and s.backend.probes() == 0
    assert {(e["address"], e["pin"]) for e in exported(s, "--pinned")} == {(BAD, "good"), (ALSO, "unknown")}
    assert show(s, BAD)["pin"] == "good" and show(s, BAD)["rcpt"]["source"] == "pin"
    log = [e for e in s.gateway.events("admin") if e["what"] == f"verify pin good {BAD}"]
    assert log and "uid:" in log[0]["who"] and log[0]["why"] == "his mailbox comes on Monday"
    assert verify(s, "unpin", BAD)["durable"] and verify(s, "unpin", ALSO)["durable"]
    assert s.rcpt(BAD).code == 550 and s.rcpt(ALSO).code == 250
    s.gateway.kill()
    s.gateway.start()
    assert s.rcpt(BAD).code == 550 and not exported(s, "--pinned")


def test_what_is_learned_does_not_take_a_pin_away(scene):
    s = scene()
    assert verify(s, "pin", BAD, "good")["durable"]
    verify(s, "probe", BAD)
    assert s.rcpt(BAD).code == 250
    assert exported(s)[0]["verdict"] == "unknown", "and all is on disk"
    s.gateway.kill()
    s.gateway.start()
    assert s.rcpt(BAD).code == 250
    assert verify(s, "unpin", BAD)["after"]["verdict"] == "unknown", "what stands under it was kept up to date"
    assert s.rcpt(BAD).code == 550


def test_pin_that_is_not_durable_says_so(scene, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    s = scene(verdicts={"store": str(tmp_path / "file" / "verdicts")})
    r = s.gateway.cli("verify", "pin", BAD, "good", check=False)
    assert r.returncode == 1 and "not on disk" in r.stdout and "restart" in r.stderr
    assert s.rcpt(BAD).code == 250, "in force all the same"
    assert s.gateway.cli("verify", "export", check=False).returncode == 1


@pytest.mark.parametrize("args,words", [
    (("pin", "x@elsewhere.example", "good"), "no local domain"), (("pin", GOOD), "good or unknown"), (("pin", GOOD, "bad"), "good or unknown"),
    (("purge",), "--all"), (("purge", "--all", GOOD), "--all"), (("purge", "--older-than", "yesterday", "--yes"), "10m"),
    (("retry",), "--all"), (("retry", "nobody"), "no such server"), (("probe",), "one address"), (("show", "--sender", "x", GOOD), "takes no"),
    (("export", "--verdict", "bad"), "good or unknown"), (("probe", "x@elsewhere.example@"), "address"),
])
def test_mistakes_are_told(scene, args, words):
    s = scene()
    r = s.gateway.cli("verify", *args, check=False)
    assert r.returncode in (1, 2) and words in r.stderr, r.stderr


# --- purge ---

def test_purge_reaches_all_workers_and_the_store(scene):
    s = scene(workers=2, verify={"unknown_fresh": 3600})
    for _ in range(8):  # both workers have given it out
        assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550
    assert (s.backend.probes(GOOD), s.backend.probes(BAD)) == (1, 1)
    assert verify(s, "purge", BAD)["durable"]
    s.backend.users.add(BAD)
    assert [s.rcpt(BAD).code for _ in range(8)] == [250] * 8
    assert s.backend.probes(BAD) == 2 and s.backend.probes(GOOD) == 1
    s.gateway.cli("verify", "purge", BAD, GOOD)
    assert exported(s) == []
    s.gateway.kill()
    s.gateway.start()
    assert show(s, GOOD)["verdict"] == "none"


def test_purge_of_many_by_what_they_are(scene):
    users = [f"user{i}@example.com" for i in range(5)]
    s = scene(users=users)
    s.gateway.configure(domains=s.gateway.settings["domains"] + [
        {"name": "other.example", "local": True, "route": {"hosts": [INTERNAL], "port": s.backend.port}}])
    s.gateway.cli("reload")
    s.backend.users.update({"a@other.example", "b@other.example"})
    for u in users + ["a@other.example", "b@other.example"]:
        assert s.rcpt(u, EDGE).code == 250
    for i in range(3):
        assert s.rcpt(f"guess{i}@example.com", EDGE).code == 550
    assert s.gateway.metric("postern_verdict_cache_entries") == 10
    asked = s.gateway.cli("verify", "purge", "--unknown", check=False)
    assert asked.returncode == 1 and "Forget 3 verdicts?" in asked.stderr and "--yes" in asked.stderr
    assert s.gateway.metric("postern_verdict_cache_entries") == 10
    assert verify(s, "purge", "--unknown", "--yes")["done"] == 3
    assert verify(s, "purge", "@OTHER.example", "--yes")["done"] == 2
    assert {e["address"] for e in exported(s)} == set(users)
    assert verify(s, "purge", "--older-than", "1h", "--yes")["done"] == 0
    assert verify(s, "purge", "--all", "--yes") == {"matched": 5, "done": 5, "durable": True, "error": None}
    assert exported(s) == [] and s.gateway.metric("postern_verdict_cache_entries") == 0
    assert s.rcpt(users[0]).code == 250, "and is found out again"


# --- export ---

def test_export_by_domain_and_verdict(scene):
    s = scene()
    assert s.rcpt(GOOD).code == 250 and s.rcpt(ALSO).code == 250 and s.rcpt(BAD).code == 550
    lines = exported(s)
    assert [e["address"] for e in lines] == [GOOD, ALSO, BAD]
    assert lines[0]["verdict"] == "good" and lines[0]["source"] == "probe" and lines[0]["checked"].startswith("20") and lines[0]["pin"] is None
    assert [e["address"] for e in exported(s, "--verdict", "unknown")] == [BAD]
    assert [e["address"] for e in exported(s, "--domain", "example.com", "--verdict", "good")] == [GOOD, ALSO]
    assert exported(s, "--domain", "elsewhere.example") == []


def test_export_goes_over_the_unix_socket_only(scene):
    import urllib.error
    import urllib.request
    s = scene()
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(f"http://127.0.0.1:{s.gateway.metrics_port}/api/v1/verify/export", timeout=PATIENCE_S)
    assert e.value.code == 403


# --- backends ---

def test_backends_and_retry(scene):
    s = scene(verify={"rate": 77, "connections": 3})
    assert "No server has been asked" in s.gateway.cli("verify", "backends").stdout
    s.backend.helo = "550 5.7.1 go away"
    assert s.rcpt(GOOD).startswith("451 4.3.0")
    b, = verify(s, "backends")
    assert b["state"] == "refuses-us" and b["last_reply"] == "550 5.7.1 go away" and b["retry_at"] and b["rate"] == 77 and b["connections_max"] == 3
    assert b["key"] == f"{INTERNAL}:{s.backend.port}"
    text = s.gateway.cli("verify", "backends").stdout
    assert "refuses-us" in text and "go away" in text
    s.backend.helo = None
    asked = s.backend.connections
    assert verify(s, "retry", b["key"]) == {"matched": 1, "hurried": 1}
    assert s.rcpt(GOOD).code == 250, "asked again at once"
    assert s.backend.connections > asked
    b, = verify(s, "backends")
    assert b["state"] == "up" and b["retry_at"] is None
    assert verify(s, "retry", "--all") == {"matched": 1, "hurried": 0}
    eventually(lambda: "verify retry all" in [e["what"] for e in s.gateway.events("admin")], "it is logged")


# --- figures ---

def test_stats_and_metrics_by_domain_source_and_result(scene):
    s = scene()
    assert s.rcpt(GOOD).code == 250
    assert s.rcpt(GOOD).code == 250 and s.rcpt(BAD).code == 550 and s.rcpt(BAD, EDGE).code == 550
    verify(s, "pin", ALSO, "unknown")
    assert s.rcpt(ALSO).code == 550
    metric = lambda **labels: s.gateway.metric("postern_verify_total", domain="example.com", **labels)
    assert metric(source="probe", result="accepted") == 1 and metric(source="cache", result="accepted") == 1
    assert metric(source="probe", result="unknown") == 1 and metric(source="cache", result="unknown") == 1
    assert metric(source="pin", result="unknown") == 1 and metric() == 5
    assert s.gateway.metric("postern_verdict_cache_age_seconds", quantile="0.5") < PATIENCE_S
    stats = verify(s, "stats")
    assert stats["cache"]["good"] == 1 and stats["cache"]["unknown"] == 1 and stats["cache"]["pinned"] == 1
    assert sum(stats["ages"].values()) == 2 and stats["waiting"] == 0
    domain, = [d for d in stats["domains"] if d["domain"] == "example.com"]
    assert (domain["good"], domain["unknown"], domain["pinned"], domain["mode"]) == (1, 1, 1, "unverified")
    assert domain["results"]["accepted"] == 2 and domain["results"]["unknown"] == 3
    assert domain["sources"] == {"pin": 1, "cache": 2, "probe": 2} == stats["sources"]
    text = s.gateway.cli("verify", "stats").stdout
    assert "example.com" in text and "unverified" in text and "hits" in text


def test_stats_of_shadow_mode(scene):
    s = scene(verify={"enforce": False})
    assert s.rcpt(BAD).code == 250 and s.rcpt(BAD).code == 250
    stats = verify(s, "stats")
    assert stats["would_have_refused"] == 2 and stats["results"]["shadow"] == 2
    assert show(s, BAD)["rcpt"]["would"] == "550 5.1.1"
    assert "would be 550 5.1.1" in s.gateway.cli("verify", "show", BAD).stdout


def test_shape_of_the_answers(scene):
    """Fields are an interface: a program reads them."""
    s = scene()
    assert s.rcpt(GOOD).code == 250
    record = {"verdict", "source", "pin", "suspect", "checked", "refused", "age_s"}
    assert set(show(s, GOOD)) == record | {"address", "key", "local", "mode", "enforce", "rules", "age", "fresh_until", "kept_until", "listed",
                                           "backend", "rcpt"}
    assert set(verify(s, "probe", GOOD)) == {"address", "result", "said", "why", "before", "after", "reply", "ms", "stored", "dialogue"}
    assert set(verify(s, "pin", GOOD, "good")) == {"key", "before", "after", "durable", "error", "note"}
    assert set(exported(s)[0]) == record | {"address"}
    assert set(verify(s, "stats")) == {"cache", "store", "ages", "waiting", "queued", "would_have_refused", "results", "sources", "domains"}
    assert set(verify(s, "backends")[0]) == {"key", "worker", "state", "trial", "state_for_s", "failures", "retry_at", "connections",
                                             "connections_max", "in_flight", "queued", "queued_max", "batch", "refusals", "rate", "sender", "relay",
                                             "last_reply", "why", "domains"}


def test_stop_while_an_operator_waits_for_a_probe(scene):
    s = scene()
    s.backend.hold = threading.Event()
    p = subprocess.Popen([str(BIN / "postern"), "-s", str(s.gateway.socket), "verify", "probe", GOOD], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    eventually(lambda: s.backend.probes() == 1)
    assert s.gateway.stop() == 0
    s.backend.hold.set()
    p.communicate(timeout=PATIENCE_S)
