"""Hostile strangers: those that talk early, are on a list, come too often, or are too slow; and the edge, which feels nothing."""
import os
import shutil
import socket
import time

import pytest

from conftest import EDGE, Gateway, INTERNAL, PATIENCE_S, Process, Sink, STRANGER, Smtp, eventually, free_port


def served(sink, **more):
    return {"domains": [{"name": "example.com", "local": True, "route": {"hosts": [f"{INTERNAL}:{sink.port}"]}}],
            "edge_networks": [EDGE], **more}


def deliver(gateway, source):
    c = gateway.smtp(source)
    for line in ("EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<bob@example.com>"):
        assert c.say(line).code == 250
    assert c.say("DATA").code == 354
    assert c.say("Subject: x\r\n\r\nhello\r\n.").code == 250
    c.file.close(), c.sock.close()


def raw(gateway, source=STRANGER):
    return Smtp("127.0.0.1", gateway.port, source, greeting=False)


@pytest.mark.sanitized
def test_who_talks_before_the_greeting_is_refused_and_the_edge_does_not_wait(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"early": "refuse", "greet_delay": "60s"}))
    deliver(gateway, EDGE)
    deliver(gateway, INTERNAL)
    c = raw(gateway)
    c.write("EHLO spam\r\n")
    assert c.reply().startswith("554 5.5.1") and c.reply().code == 0
    assert gateway.metric("postern_early_talkers_total", when="greeting") == 1
    said = eventually(lambda: gateway.events("early_talker"), "logged")[0]
    assert (said["when"], said["refused"]) == ("greeting", "yes")
    assert eventually(lambda: [e for e in gateway.events("session") if e["reason"] == "early"])
    waiting = raw(gateway)  # still waits for its greeting when we stop
    gateway.stop()
    assert waiting.reply().code == 421


def test_a_late_greeting_comes_and_what_was_said_before_is_heard(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"early": "log", "greet_delay": "200ms"}))
    deliver(gateway, STRANGER)
    c = raw(gateway)
    c.write("EHLO x\r\n")
    assert c.reply().code == 220 and c.reply().code == 250
    assert gateway.metric("postern_early_talkers_total", when="greeting") == 1


def test_what_is_pipelined_behind_ehlo(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"early": "log"}))
    for source, seen in ((STRANGER, 1), (EDGE, 1), (INTERNAL, 1)):
        c = gateway.smtp(source)
        c.write("EHLO x\r\nMAIL FROM:<a@example.net>\r\n")
        assert c.reply().code == 250 and c.reply().code == 250
        assert gateway.metric("postern_early_talkers_total", when="ehlo") == seen
    gateway.configure(strangers={"early": "refuse"})
    gateway.cli("reload")
    c = gateway.smtp()
    c.write("EHLO x\r\nMAIL FROM:<a@example.net>\r\n")
    assert c.reply().code == 250 and c.reply().startswith("554 5.5.1") and c.reply().code == 0
    gateway.configure(strangers={"early": "off"})
    gateway.cli("reload")
    c = gateway.smtp()
    c.write("EHLO x\r\nMAIL FROM:<a@example.net>\r\n")
    assert c.reply().code == 250 and c.reply().code == 250
    assert gateway.metric("postern_early_talkers_total", when="ehlo") == 2


@pytest.mark.sanitized
def test_what_is_pipelined_behind_data(run):
    """Content in front of 354 is what those say who do not listen, and how mail is smuggled that another server takes for commands."""
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"early": "log"}))
    blind = "DATA\r\nSubject: x\r\n\r\nhello\r\n.\r\n"

    def in_transaction(source):
        c = gateway.smtp(source)
        c.ehlo(), c.say("MAIL FROM:<a@example.net>"), c.say("RCPT TO:<bob@example.com>")
        return c

    for source in (STRANGER, EDGE, INTERNAL):
        c = in_transaction(source)
        c.write(blind)
        assert c.reply().code == 354 and c.reply().code == 250
        assert gateway.metric("postern_early_talkers_total", when="data") == 1
    gateway.configure(strangers={"early": "refuse"})
    gateway.cli("reload")
    c = in_transaction(STRANGER)
    c.write(blind + "MAIL FROM:<b@example.net>\r\n")
    assert c.reply().code == 354 and c.reply().startswith("554 5.5.1") and c.reply().code == 0
    deliver(gateway, STRANGER)
    c = in_transaction(EDGE)
    c.write(blind)
    assert c.reply().code == 354 and c.reply().code == 250
    sink.wait_for(5)
    assert [e["when"] for e in gateway.events("early_talker")] == ["data", "data"]


class Lists:
    """unbound, with one client on the list bl.test; dead.example.net is asked of nobody who answers."""

    def __init__(self, directory):
        self.port = free_port()
        self.directory, self.conf = directory, directory / "lists.conf"
        self.conf.write_text(f"""server:
  interface: 127.0.0.1@{self.port}
  port: {self.port}
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "{directory}"
  pidfile: ""
  use-syslog: no
  do-not-query-localhost: no
  local-zone: "bl.test." static
  local-data: "1.0.0.127.bl.test. 300 IN A 127.0.0.2"
  local-data: "3.0.0.127.bl.test. 300 IN A 127.0.0.2"
  local-zone: "clean.test." static
  local-zone: "broken.test." static
  local-data: "1.0.0.127.broken.test. 300 IN A 127.255.255.254"
forward-zone:
  name: "dead.example.net."
  forward-addr: 127.0.0.1@9
""")
        self.start()

    def start(self):
        self.process = Process(shutil.which("unbound") or "/usr/sbin/unbound", "-d", "-c", self.conf, log=self.directory / "unbound.log")
        eventually(lambda: self.answers() or not self.process.running(), "unbound answers")
        assert self.process.running(), self.process.log()

    def forward(self, zone, port):
        self.kill()
        self.conf.write_text(self.conf.read_text() + f'forward-zone:\n  name: "{zone}."\n  forward-addr: 127.0.0.1@{port}\n')
        self.start()

    def answers(self):
        question = bytes.fromhex("abcd01000001000000000000") + b"\x05clean\x04test\x00\x00\x01\x00\x01"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.5)
            try:
                s.connect(("127.0.0.1", self.port))
                s.send(question)
                return bool(s.recv(512))
            except OSError:
                return False

    def kill(self):
        return self.process.kill()


@pytest.fixture
def lists(tmp_path):
    if not (shutil.which("unbound") or os.path.exists("/usr/sbin/unbound")):
        pytest.skip("no unbound here")
    server = Lists(tmp_path)
    yield server
    server.kill()


def listed_gateway(run, lists, zones):
    sink = run(Sink)
    return run(Gateway, **served(sink, strangers={"dnsbl": zones}, dns={"resolver": f"127.0.0.1:{lists.port}", "timeout": "2s"}))


@pytest.mark.sanitized
def test_who_is_listed_is_refused_by_name_and_never_the_edge(run, lists):
    gateway = listed_gateway(run, lists, ["clean.test", "bl.test"])
    c = gateway.smtp()
    assert c.say("EHLO x").code == 250 and c.say("MAIL FROM:<a@example.net>").code == 250
    for _ in range(2):
        said = c.say("RCPT TO:<bob@example.com>")
        assert said.startswith("550 5.7.1") and "bl.test" in said, said
    assert c.say("RCPT TO:<postmaster@example.com>").code == 250
    assert c.say("RCPT TO:<bob@example.org>").startswith("554 5.7.1"), "relaying is refused for what it is"
    deliver(gateway, EDGE)  # 127.0.0.3 is on the list
    assert gateway.metric("postern_dnsbl_total", result="listed") == 1
    said = eventually(lambda: gateway.events("dnsbl"), "logged")[0]
    assert (said["zone"], said["answer"], said["result"]) == ("bl.test", "127.0.0.2", "listed")


@pytest.mark.parametrize("known_by", ["proxy", "xclient"])
def test_lists_are_asked_about_the_real_client(run, lists, known_by):
    """Who is listed (127.0.0.1) is refused behind a balancer or an edge that says so, and others that they name are not."""
    sink, port = run(Sink), free_port()
    gateway = run(Gateway, **served(sink, strangers={"dnsbl": ["bl.test"]}, dns={"resolver": f"127.0.0.1:{lists.port}", "timeout": "2s"},
                                    listeners=[{"address": "127.0.0.1:0"}, {"address": f"127.0.0.1:{port}", "proxy": ["127.0.0.4"]}]))

    def ask(client):
        if known_by == "proxy":
            c = Smtp("127.0.0.1", port, "127.0.0.4", greeting=False)
            c.write(f"PROXY TCP4 {client} 192.0.2.1 40001 25\r\n")
            assert c.reply().code == 220
        else:
            c = Smtp("127.0.0.1", port, EDGE)
            assert c.say(f"XCLIENT ADDR={client}").code == 220
        c.say("EHLO x"), c.say("MAIL FROM:<a@example.net>")
        return c.say("RCPT TO:<bob@example.com>")

    assert ask("198.51.100.7").code == 250
    assert "bl.test" in ask(STRANGER)
    assert eventually(lambda: gateway.events("dnsbl"), "logged")[0]["client"] == STRANGER


def test_a_list_that_does_not_answer_lists_nobody(run, lists):
    gateway = listed_gateway(run, lists, ["dead.example.net", "broken.test", "clean.test"])
    deliver(gateway, STRANGER)
    assert gateway.metric("postern_dnsbl_total", result="failed") == 2 and gateway.metric("postern_dnsbl_total", result="clean") == 1


def test_lists_are_asked_at_once_and_the_first_that_has_him_decides(run, lists):
    """One list never answers, within any time that this test would wait for."""
    sink = run(Sink)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        lists.forward("silent.example.net", silent.getsockname()[1])
        gateway = run(Gateway, **served(sink, strangers={"dnsbl": ["silent.example.net", "bl.test"]}, timeouts={"shutdown": "1s"},
                                        dns={"resolver": f"127.0.0.1:{lists.port}", "timeout": "300s"}))
        c = gateway.smtp()
        c.say("EHLO x"), c.say("MAIL FROM:<a@example.net>")
        said = c.say("RCPT TO:<bob@example.com>")
        assert said.startswith("550 5.7.1") and "bl.test" in said, said
        c.close()
        assert gateway.stop() == 0


def test_a_question_that_is_out_when_its_client_is_gone_and_we_stop(run):
    sink = run(Sink)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        gateway = run(Gateway, **served(sink, strangers={"dnsbl": ["list.example.net"]}, timeouts={"shutdown": "2s"},
                                        dns={"resolver": f"127.0.0.1:{silent.getsockname()[1]}", "timeout": "30s"}))
        gone, stays = gateway.smtp(), gateway.smtp()
        gone.file.close(), gone.sock.close()
        stays.say("EHLO x"), stays.say("MAIL FROM:<a@example.net>")
        stays.write("RCPT TO:<bob@example.com>\r\n")  # waits for its answer
        assert gateway.stop() == 0
        assert stays.reply().code in (421, 250)


def test_a_resolver_that_never_answers_costs_only_so_much(run):
    """Who comes and goes leaves questions behind. They are bounded, and who comes then does not wait for a list that is not asked."""
    sink = run(Sink)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        gateway = run(Gateway, **served(sink, workers=1, strangers={"dnsbl": ["list.example.net"]}, limits={"sessions_per_client": 0},
                                        dns={"resolver": f"127.0.0.1:{silent.getsockname()[1]}", "timeout": "300s"}))
        for _ in range(300):
            gateway.smtp().close()
        deliver(gateway, STRANGER)
        assert gateway.metric("postern_dnsbl_total", result="skipped") >= 1
        assert gateway.stop() == 0


def test_rates_of_one_address(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, workers=1, strangers={"connections": "3/h", "messages": "2/h"}))
    first = gateway.smtp()
    assert first.say("EHLO x").code == 250
    for _ in range(2):
        assert first.say("MAIL FROM:<a@example.net>").code == 250 and first.say("RSET").code == 250
    assert first.say("MAIL FROM:<a@example.net>").startswith("450 4.7.1")
    gateway.smtp()
    eventually(lambda: raw(gateway).reply().startswith("421 4.7.0"), "the share is used up")
    for source in (EDGE, INTERNAL):
        for _ in range(4):
            deliver(gateway, source)
    assert gateway.metric("postern_rate_limited_total", what="messages") == 1
    assert gateway.metric("postern_rate_limited_total", what="connections") >= 1


@pytest.mark.sanitized
def test_errors_slow_strangers_down(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"errors": 3, "error_delay": "100ms"}))
    c = gateway.smtp()
    c.write("EHLO x\r\n" + "FROB\r\n" * 5 + "NOOP\r\n")
    assert [c.reply().code for _ in range(7)] == [250] + [500] * 5 + [250]
    assert gateway.metric("postern_commands_delayed_total") == 3
    for source in (EDGE, INTERNAL):
        c = gateway.smtp(source)
        c.write("EHLO x\r\n" + "FROB\r\n" * 15)
        assert [c.reply().code for _ in range(16)] == [250] + [500] * 15
    assert gateway.metric("postern_commands_delayed_total") == 3, "never the edge, nor the inside"
    gateway.configure(strangers={"error_delay": "1m"})
    gateway.cli("reload")
    waits = gateway.smtp()
    waits.write("FROB\r\n" * 4)
    assert [waits.reply().code for _ in range(3)] == [500] * 3
    eventually(lambda: gateway.metric("postern_commands_delayed_total") == 4)
    gone = gateway.smtp()
    gone.write("FROB\r\n" * 4)
    eventually(lambda: gateway.metric("postern_commands_delayed_total") == 5)
    gone.close()
    assert gateway.stop() == 0
    assert waits.reply().code == 421


def test_limits_of_one_address_are_those_of_all_workers(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, workers=4, strangers={"messages": "3/h"}, limits={"sessions_per_client": 5}))
    held = [raw(gateway) for _ in range(40)]
    greeted = [c for c in held if c.reply().code == 220]
    assert len(greeted) == 5
    said = []
    for c in greeted:
        c.ehlo()
        for _ in range(2):
            said.append(c.say("MAIL FROM:<a@example.net>").code)
            c.say("RSET")
    assert (said.count(250), said.count(450)) == (3, 7)
    for c in held:
        c.close()
    eventually(lambda: gateway.metric("postern_sessions_open") == 0, "all are gone")
    deliver(gateway, EDGE)
    gateway.configure(strangers={"messages": "none", "connections": "6/h"}, limits={"sessions_per_client": 0})
    gateway.cli("reload")
    said = [raw(gateway).reply().code for _ in range(40)]
    assert (said.count(220), said.count(421)) == (6, 34)


def dribble(c, data, patience_s=PATIENCE_S):
    """One byte now and then until the other side has had enough; returns what it says."""
    c.sock.settimeout(0.1)
    until = time.monotonic() + patience_s
    for i in range(100000):
        assert time.monotonic() < until, "it may go on for ever"
        try:
            c.sock.sendall(data[i % len(data):][:1])
            got = c.sock.recv(4096)
            return got
        except TimeoutError:
            continue
        except OSError:
            return b""


def test_slow_senders_use_up_their_time(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, timeouts={"command": "2s", "data_block": "2s"}))
    assert dribble(gateway.smtp(), b"NOOP ").startswith(b"421 4.4.2")
    c = gateway.smtp()
    for line in ("EHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<bob@example.com>"):
        c.say(line)
    assert c.say("DATA").code == 354
    assert dribble(c, b"x" * 60 + b"\r\n").startswith(b"421 4.4.2")
    c = gateway.smtp()  # as slow between its commands, but these are whole
    for _ in range(4):
        time.sleep(0)
        assert c.say("NOOP").code == 250


def test_who_sends_and_never_reads_is_cut(run):
    sink = run(Sink)
    gateway = run(Gateway, **served(sink, strangers={"min_rate": 100000}, limits={"junk_commands": 100000}, timeouts={"command": "2s"}))
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.bind((STRANGER, 0))
        s.connect(("127.0.0.1", gateway.port))
        s.settimeout(PATIENCE_S)
        s.sendall(b"EHLO x\r\n" + b"NOOP\r\n" * 6000)
        s.settimeout(0.1)

        def cut():
            try:
                s.send(b"NOOP\r\n")  # a command now and then renews nothing
            except OSError:
                pass
            return [e for e in gateway.events("session") if e["reason"] == "timeout"]

        eventually(cut, "the client is cut")
    deliver(gateway, EDGE)
