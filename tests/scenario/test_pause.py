"""`postern queue pause` and `resume`: nothing is sent, everything is taken in."""
import json

import pytest

from conftest import EDGE, INTERNAL, PATIENCE_S, Sink, eventually, message

REASON = "paused by the administrator"


def send(gateway, subject, to="bob@example.com", client=None):
    smtp = gateway.smtp(*client or [])
    smtp.ehlo()
    assert smtp.send("alice@example.net", to, message(subject))[-1].code == 250
    smtp.close()


def reasons(gateway):
    return [m["reason"] for m in json.loads(gateway.cli("--json", "queue", "list").stdout)["messages"]]


@pytest.mark.sanitized
def test_one_destination_paused_the_others_go_on(pair):
    gateway, internal, edge = pair
    key = f"{INTERNAL}:{internal.port}"
    said = gateway.cli("queue", "pause", "--destination", key)
    assert "is paused" in said.stdout and "No destination of this name is in use now" in said.stderr
    assert "already paused" in gateway.cli("queue", "pause", "--destination", key).stdout
    send(gateway, "waits")
    send(gateway, "goes", "carol@example.org", [INTERNAL])
    edge.wait_for(1)
    eventually(lambda: reasons(gateway) == [REASON], "the message says why it waits")
    assert internal.messages() == []
    assert key in gateway.cli("status").stdout
    assert json.loads(gateway.cli("--json", "status").stdout)["paused"]["destinations"][0]["by"].find("uid:") >= 0
    assert gateway.metric("postern_destination_paused", destination=key) == 1
    assert "paused" in gateway.cli("destinations").stdout
    eventually(lambda: [e["what"] for e in gateway.events("admin")] == [f"pause {key}"] * 2, "it is logged, each time")
    assert "is resumed" in gateway.cli("queue", "resume", "--destination", key).stdout
    internal.wait_for(1)
    assert "not paused" in gateway.cli("queue", "resume", "--destination", key).stdout


def test_a_pause_of_all_survives_a_restart(pair):
    gateway, internal, edge = pair
    gateway.cli("queue", "pause")
    gateway.cli("queue", "pause", "--destination", f"{EDGE}:{edge.port}")
    send(gateway, "before")
    gateway.kill()
    gateway.start()
    assert "all sending is paused" in gateway.log()
    send(gateway, "after")
    eventually(lambda: reasons(gateway) == [REASON, REASON], "both wait")
    eventually(lambda: gateway.metric("postern_queue_messages") == 2, "what was recovered is counted once")
    assert gateway.metric("postern_queue_recipients") == 2
    assert gateway.metric("postern_paused") == 1
    said = gateway.cli("queue", "resume").stdout
    assert "is resumed" in said and f"paused: {EDGE}:{edge.port}" in said, "what was paused by itself stays so"
    internal.wait_for(2)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "all": true, "destinations": {}}',
                                  '{"version": 1, "all": null, "destinations": {"x": {"since": 1}}}'])
def test_a_damaged_file_is_put_aside_and_told(pair, text):
    gateway, internal, _ = pair
    gateway.cli("queue", "pause")
    gateway.stop()
    path = gateway.directory / "spool" / "paused"
    path.write_text(text)
    gateway.start()
    assert "paused.damaged" in gateway.log()
    assert path.with_name("paused.damaged").read_text() == text
    send(gateway, "passes")
    internal.wait_for(1)


def test_what_cannot_be_kept_is_not_done(pair):
    gateway, internal, _ = pair
    (gateway.directory / "spool" / "paused.new").mkdir()
    r = gateway.cli("queue", "pause", check=False)
    assert r.returncode == 1 and "nothing was changed" in r.stderr
    send(gateway, "passes")
    internal.wait_for(1)


def test_usage(pair):
    gateway, *_ = pair
    assert gateway.cli("status", "--destination", "x", check=False).returncode == 2
    assert gateway.cli("queue", "pause", "--destination", "", check=False).returncode == 2
    assert gateway.cli("queue", "pause", "--destination", "a b", check=False).returncode == 1
