"""postern-source and postern-sink by themselves: what a bench concludes is only as right as they are."""
import json
import re
import signal
import smtplib
import subprocess

import pytest

from conftest import INTERNAL, Sink, eventually, source

pytestmark = pytest.mark.sanitized


def sink_counters(sink):
    lines = len(re.findall(r"^connections=", sink.log(), re.M))
    sink.signal(signal.SIGUSR1)
    eventually(lambda: len(re.findall(r"^connections=.*\n", sink.log(), re.M)) > lines, "the sink's counters")
    return {k: float(v) for k, v in re.findall(r"(\w+)=([\d.]+)", sink.log().splitlines()[-1])}


def load(sink, *options):
    r = subprocess.run([source_program(), "--json", *map(str, options), f"{sink.address}:{sink.port}"], capture_output=True, text=True)
    return json.loads(r.stdout), r


def source_program():
    from conftest import BIN
    return str(BIN / "postern-source")


def test_a_share_of_recipients_is_unknown_and_refused(run):
    sink = run(Sink, "--fail", "rcpt *<unknown* 550 5.1.1 no such user", "--check", address=INTERNAL, keep=False)
    got, r = load(sink, "-s", 5, "-m", 500, "-p", 7, "--unknown", 30, "-t", "user%@example.com", "-l", "600:2,3000:1", "-T", 2)
    assert r.returncode == 0, r.stderr
    assert got["messages"] + got["turned_away"] == 500 and 100 < got["turned_away"] < 200
    assert got["rcpt_taken"] == got["messages"] and got["rcpt_refused"] == got["turned_away"] and got["rcpt_wrong"] == 0
    came = sink_counters(sink)
    assert came["messages"] == came["checked"] == got["messages"] and came["damaged"] == came["copies"] == 0
    assert came["refused"] == got["turned_away"]
    assert len(set(sink.ids())) == got["messages"]


def test_wrong_answers_are_seen(run):
    sink = run(Sink, "--fail", "rcpt *user1* 550 5.1.1 no such user", address=INTERNAL, keep=False)
    got, r = load(sink, "-m", 3, "-t", "user%@example.com")
    assert r.returncode == 1 and got["refused"] == got["rcpt_wrong"] == 1, "a known one was refused"
    got, r = load(sink, "-m", 4, "--unknown", 100)
    assert got["rcpt_wrong"] == 4, "unknown ones were taken"


def test_recipients_only(run):
    sink = run(Sink, "--fail", "rcpt 10% 450 4.2.0 later", address=INTERNAL, keep=False)
    for pipelining in (["--pipeline", 3], ["--no-pipelining"], []):
        before = sink_counters(sink)
        got, r = load(sink, "--until", "rcpt", "-s", 2, "-m", 20, "-p", 5, "-r", 10, "-t", "u%@example.com", "--recipient-set", 50, *pipelining)
        came = sink_counters(sink)
        assert r.returncode == 0 and got["messages"] == 20 and got["rcpt_taken"] == 180 and got["rcpt_deferred"] == 20
        assert came["rcpts"] - before["rcpts"] == 200 and came["messages"] == 0
        assert got["stages"]["rcpt"]["count"] == 200 and "dot" not in got["stages"]


def test_a_rate_counts_from_when_a_message_was_due(run):
    """One session at a server that takes 50 ms: at 100/s each message waits longer than the one before. A closed loop would say 50 ms."""
    sink = run(Sink, "--delay", "dot=50", address=INTERNAL, keep=False)
    got, r = load(sink, "-m", 20, "--rate", 100, "-p", 20)
    assert r.returncode == 0 and got["messages"] == 20
    stages = got["stages"]
    assert stages["dot"]["p50_ms"] >= 50 and stages["start"]["count"] == 20
    assert stages["message"]["max_ms"] >= 20 * 50 - 200, "the last was due after 190 ms and left after a second"
    assert stages["message"]["max_ms"] >= stages["start"]["max_ms"] > stages["start"]["p50_ms"]


def test_delays_and_failures_by_stage(run):
    sink = run(Sink, "--delay", "connect=20", "--delay", "rcpt=20", "--fail", "dot 50% 451 4.3.0 no", "--fail", "mail *<bad@* 550 5.7.1 no",
               address=INTERNAL, keep=False)
    got, r = load(sink, "-m", 4, "-p", 4)
    assert (got["messages"], got["refused"]) == (2, 2) and "451 4.3.0 no" in r.stderr
    assert got["stages"]["greeting"]["max_ms"] >= 20 and got["stages"]["rcpt"]["p50_ms"] >= 20
    got, r = load(sink, "-m", 1, "-f", "bad@example.net")
    assert got["refused"] == 1 and "550 5.7.1" in r.stderr


def test_the_sink_sees_damage_and_copies(run):
    sink = run(Sink, "--check", "--dsn", address=INTERNAL)
    load(sink, "-m", 1)
    kept = sink.wait_for(1)[0].raw
    assert kept.startswith(b"Message-ID: <")
    for content, wanted in ((b"Received: from a relay\r\n" + kept, (2, 0, 1)), (kept.replace(b"quick", b"quack"), (3, 1, 2)),
                            (b"Subject: not ours\r\n\r\nhello\r\n", (3, 1, 2))):
        with smtplib.SMTP(sink.address, sink.port, timeout=60) as s:
            s.sendmail("a@example.net", ["b@example.com"], content)
        came = sink_counters(sink)
        assert (came["checked"], came["damaged"], came["copies"]) == wanted
    assert came["messages"] == 4


def test_tls_and_held_sessions(run, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=sink",
                    "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")], check=True, capture_output=True)
    sink = run(Sink, "--tls", f"{tmp_path}/cert.pem,{tmp_path}/key.pem", "--check", address=INTERNAL, keep=False)
    got, r = load(sink, "--tls", "-s", 3, "-m", 20, "-p", 4, "-l", 100000)
    assert r.returncode == 0 and got["tls_handshakes"] == got["connections"] == got["stages"]["tls"]["count"] >= 5, r.stderr
    came = sink_counters(sink)
    assert came["handshakes"] == got["connections"] and came["checked"] == 20 and came["damaged"] == 0
    got, r = load(sink, "--tls", "--until", "ehlo", "-s", 2, "-m", 6)
    assert got["messages"] == got["tls_handshakes"] == 6
    r = source(sink.port, "-s", 1)  # nobody listens on 127.0.0.1
    assert r.returncode == 1 and "refused" in r.stderr
    r = subprocess.run([source_program(), "-s", "300", "--hold", "1", f"{sink.address}:{sink.port}"], capture_output=True, text=True)
    assert r.stdout.startswith("held=300\n") and "connections=300" in r.stdout


def test_bad_options_are_named():
    for words, said in ((["--rate", "-3"], "-3"), (["-l", "10:x"], "10:x"), (["--until", "data"], "data"), (["-m", "0"], "0")):
        r = subprocess.run([source_program(), *words, "127.0.0.1:1"], capture_output=True, text=True)
        assert r.returncode == 64 and said in r.stderr, r.stderr
