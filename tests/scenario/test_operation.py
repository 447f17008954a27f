"""What an administrator sees and does: check, reload, status, metrics, logs, version."""
import json
import signal
import subprocess

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, Gateway, Sink, eventually, message, routes, source

pytestmark = pytest.mark.sanitized


def posternd(*args):
    return subprocess.run([str(BIN / "posternd"), *map(str, args)], capture_output=True, text=True, timeout=PATIENCE_S)


def test_check_names_file_line_column_and_what_to_write(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text('hostname: gw.example.com\nlistners: [ { address: "127.0.0.1:2525" } ]\nspool: { ring_size: lots }\n'
                   "destination: { mode: edge, host: 192.0.2.1 }\ntrusted_networks: [192.0.2.0/24]\n"
                   "domains:\n  - { name: example.com, local: true }\n")
    r = posternd("--check", bad)
    assert r.returncode == 78
    assert f"{bad}:2:1: error:" in r.stderr and "listeners" in r.stderr
    assert f"{bad}:3:" in r.stderr and "MiB" in r.stderr


def test_check_refuses_what_would_loop_or_open_the_relay(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text('hostname: gw.example.com\nlisteners: [ { address: "127.0.0.1:2525" } ]\n'
                   "destination: { mode: edge, host: 192.0.2.1 }\ntrusted_networks: [192.0.2.0/24]\n"
                   "domains:\n  - { name: example.com, local: true }\n  - { name: b.example, local: true, route: { hosts: [127.0.0.1], port: 2525 } }\n")
    r = posternd("--check", bad)
    assert r.returncode == 78
    lines = r.stderr.splitlines()
    assert any(l.startswith(f"{bad}:6:") and "example.com" in l for l in lines), r.stderr
    assert any(l.startswith(f"{bad}:4:") and "edge" in l for l in lines), r.stderr
    assert any(l.startswith(f"{bad}:7:") for l in lines), r.stderr


def test_empty_policy_is_said_plainly_at_boot(run):
    gateway = run(Gateway, trusted_networks=[], destination={"mode": "dns"})
    text = gateway.log()
    assert "nothing comes in" in text and "nothing goes out" in text
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<a@example.net>")
    assert s.say("RCPT TO:<bob@example.com>").startswith("554 5.7.1")


@pytest.mark.parametrize("how", ["signal", "command"])
def test_reload_swaps_or_refuses(pair, how):
    gateway, internal, edge = pair

    def reload():
        if how == "command":
            return gateway.cli("reload", check=False)
        count = len(gateway.events("reload")) + len(gateway.events("reload_refused"))
        gateway.process.signal(signal.SIGHUP)
        eventually(lambda: len(gateway.events("reload")) + len(gateway.events("reload_refused")) > count, "the reload is logged")

    def asked(domain):
        s = gateway.smtp()
        s.ehlo()
        s.say("MAIL FROM:<a@example.net>")
        return s.say(f"RCPT TO:<x@{domain}>").code

    open_session = gateway.smtp()
    open_session.ehlo()
    assert asked("new.example") == 554
    domains = gateway.settings["domains"] + [{"name": "new.example", "local": True, "route": {"hosts": [f"{INTERNAL}:{internal.port}"]}}]
    gateway.configure(domains=domains)
    reload()
    eventually(lambda: asked("new.example") == 250, "the new domain is taken")
    open_session.say("MAIL FROM:<a@example.net>")
    assert open_session.say("RCPT TO:<x@new.example>").code == 250, "a session between transactions sees the new configuration"

    gateway.config_path.write_text("hostname: [oops")
    r = reload()
    if how == "command":
        assert r.returncode == 1 and "postern.yaml:" in r.stdout + r.stderr
    eventually(lambda: gateway.events("reload_refused"), "the refusal is logged")  # the log has a thread of its own
    assert asked("new.example") == 250, "the old configuration stays"
    assert gateway.metric("postern_config_reloads_total", result="refused") == 1


def test_status_queue_and_destinations(pair):
    gateway, internal, _ = pair
    internal.kill()
    s = gateway.smtp()
    s.ehlo()
    queue_id = s.send("alice@example.net", "bob@example.com", message("waits"))[-1].rsplit(" ", 1)[1]
    eventually(lambda: gateway.events("dest_down"), "the destination is found down")
    status = gateway.status()
    assert status["queue"]["messages"] == 1 and status["hostname"] == "gw.example.com" and len(status["workers"]) == 2
    assert "gw.example.com" in gateway.cli("status").stdout
    listed = json.loads(gateway.cli("--json", "queue", "list").stdout)["messages"]
    assert [m["id"] for m in listed] == [queue_id] and listed[0]["pending"] == 1
    text = gateway.cli("queue", "list").stdout
    assert queue_id in text and "refused" in text.lower()
    assert f"{INTERNAL}:{internal.port}" in gateway.cli("destinations").stdout


def test_cli_says_what_to_do_when_nobody_answers(tmp_path):
    r = subprocess.run([str(BIN / "postern"), "-s", str(tmp_path / "nothing.sock"), "status"], capture_output=True, text=True)
    assert r.returncode == 69 and "posternd" in r.stderr and "nothing.sock" in r.stderr


def test_cli_names_the_whole_command_that_it_does_not_know():
    r = subprocess.run([str(BIN / "postern"), "queue", "shwo"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert r.returncode == 2 and 'no command "queue shwo"' in r.stderr


def test_metrics_pass_promtool_and_count(pair):
    gateway, internal, edge = pair
    for client, rcpt in ((EDGE, "bob@example.com"), (INTERNAL, "carol@elsewhere.example")):
        s = gateway.smtp(client)
        s.ehlo()
        s.send("alice@example.net", rcpt, message(client))
        s.say("QUIT")
    internal.wait_for(1), edge.wait_for(1)
    eventually(lambda: gateway.metric("postern_deliveries_total", result="sent") == 2, "both deliveries are counted")
    text = gateway.metrics_text()
    r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    assert gateway.metric("postern_sessions_total", **{"class": "edge"}) == 1
    assert gateway.metric("postern_messages_accepted_total", **{"class": "trusted"}) == 1
    assert gateway.metric("postern_smtp_replies_total", code="354") == 2
    assert gateway.metric("postern_queue_commits_total") >= 1
    for family in ("postern_queue_commit_seconds", "postern_queue_commit_messages", "postern_loop_seconds", "postern_delivery_delay_seconds"):
        assert f"# TYPE {family} histogram" in text


def test_log_lines_tell_the_story_of_a_message(pair):
    gateway, internal, _ = pair
    s = gateway.smtp()
    s.ehlo("client.example.net")
    assert s.send('"evil event=x to=y"@example.net', "bob@example.com", message("log"))[-1].code == 250
    queue_id = s.send("alice@example.net", ["bob@example.com"], message("log"))[-1].rsplit(" ", 1)[1]
    s.say("QUIT")
    internal.wait_for(2)
    eventually(lambda: gateway.events("session"), "the session is logged")
    assert [e["to"] for e in gateway.events("rcpt") if e.get("reply") == "250"] == ["bob@example.com"] * 2
    assert gateway.events("message")[1]["id"] == queue_id
    assert gateway.events("rcpt")[1]["id"] == queue_id and gateway.events("session")[0]["id"] == queue_id
    delivery = eventually(lambda: [e for e in gateway.events("delivery") if e["id"] == queue_id], "the delivery is logged")[0]
    assert delivery["id"] == queue_id and delivery["result"] == "sent" and delivery["relay"].startswith(INTERNAL)
    assert gateway.events("session")[0]["reason"] == "quit"


def test_json_log(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, log={"format": "json"}, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo('weird"name')
    s.send("alice@example.net", "bob@example.com", message("json"))
    s.say("QUIT")
    internal.wait_for(1)
    eventually(lambda: '"event":"session"' in gateway.log().replace(" ", ""), "the session is logged")
    lines = [json.loads(l) for l in gateway.log().splitlines()]
    assert {"boot", "ready", "message", "session"} <= {l["event"] for l in lines}


def test_version_and_reference():
    r = posternd("--version")
    assert r.returncode == 0 and "BoringSSL" in r.stdout
    reference = posternd("--config-reference").stdout
    for key in ("hostname", "trusted_networks", "edge_networks", "message_size", "ring_size"):
        assert key in reference


def test_no_second_tls_library_in_the_process(pair):
    """OpenSSL's symbols clash with BoringSSL's: nothing may bring libssl or libcrypto in but BoringSSL itself."""
    gateway, _, _ = pair
    mapped = {l.split()[-1] for l in open(f"/proc/{gateway.process.p.pid}/maps") if ".so" in l}
    tls = [p for p in mapped if "/libssl" in p or "/libcrypto" in p]
    assert tls and all("/android/" in p for p in tls), tls


def refuse_io_uring():
    """In the child: a seccomp filter that answers io_uring_setup (425 everywhere) with ENOSYS, as a kernel without it does."""
    import ctypes
    import struct
    load, jump_if_equal, ret = 0x20, 0x15, 0x06
    program = b"".join(struct.pack("HBBI", *i) for i in [(load, 0, 0, 0), (jump_if_equal, 0, 1, 425), (ret, 0, 0, 0x00050000 | 38), (ret, 0, 0, 0x7FFF0000)])
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    filter = Program(4, ctypes.cast(buffer, ctypes.c_void_p))
    assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0


def test_kernel_without_io_uring_gets_a_clear_error(tmp_path):
    (tmp_path / "postern.yaml").write_text(f'hostname: gw.example.com\nlisteners: [ {{ address: "127.0.0.1:0" }} ]\nspool: {{ directory: {tmp_path}/spool, ring_size: 16MiB }}\n'
                                           f"admin: {{ socket: {tmp_path}/admin.sock }}\n")
    r = subprocess.run([str(BIN / "posternd"), "-c", str(tmp_path / "postern.yaml")], capture_output=True, text=True, timeout=PATIENCE_S,
                       preexec_fn=refuse_io_uring)
    assert r.returncode == 78, (r.returncode, r.stderr)
    assert "io_uring" in r.stderr


def test_configuration_reference_in_the_docs_is_the_programs_own():
    from conftest import ROOT
    assert (ROOT / "docs" / "configuration.md").read_text() == posternd("--config-reference").stdout
