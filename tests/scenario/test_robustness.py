"""What operators, kernels and attackers do to a gateway: boots that cannot work, signals at the wrong moment, full pipes, dead resolvers."""
import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from conftest import BIN, EDGE, INTERNAL, PATIENCE_S, Gateway, Process, Sink, accepts, eventually, free_port, message, routes


def boot(gateway, **settings):
    """posternd that cannot start: (status, standard error)."""
    gateway.configure(**settings)
    r = subprocess.run([str(BIN / "posternd"), "-c", str(gateway.config_path)], capture_output=True, text=True, timeout=PATIENCE_S)
    return r.returncode, r.stderr


@pytest.fixture
def idle(tmp_path):
    return Gateway(tmp_path)


@pytest.fixture
def taken():
    """A port where another server listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


# --- boot ---

@pytest.mark.parametrize("settings,status,text", [
    ({"listeners": [{"address": "127.0.0.1:{taken}"}]}, 69, "cannot listen on 127.0.0.1:{taken}: Address already in use"),
    ({"listeners": [{"address": "192.0.2.77:2525"}]}, 69, "this machine has no such address"),
    ({"admin": {"listen": "127.0.0.1:{taken}"}}, 69, "admin.listen 127.0.0.1:{taken}"),
    ({"admin": {"socket": "{dir}/none/admin.sock"}}, 69, "its directory does not exist"),
    ({"admin": {"socket": "{dir}/postern.yaml"}}, 69, "not a socket"),
    ({"spool": {"directory": "{dir}/none/spool"}}, 73, "spool.directory: cannot make"),
    ({"spool": {"directory": "{dir}/postern.yaml"}}, 73, "Not a directory"),
    ({"spool": {"ring_size": "8TiB"}}, 73, "ring-00"),
    ({"log": {"file": "{dir}/none/log"}}, 73, "log.file: cannot open"),
    ({"tls": {"certificates": [{"chain": "{dir}/none.pem", "key": "{dir}/none.pem"}]}}, 78, "none.pem"),
])
def test_boot_that_cannot_work_says_why(idle, taken, settings, status, text):
    settings = json.loads(json.dumps(settings).replace("{taken}", str(taken)).replace("{dir}", str(idle.directory)))
    got, said = boot(idle, **settings)
    last = said.splitlines()[-1]
    assert got == status, said
    assert text.replace("{taken}", str(taken)) in last, said
    assert said.count("boot_failed") <= 1, "notes are not failures"
    assert not idle.socket.exists()


def test_boot_failure_is_told_to_whoever_starts_us_when_the_log_is_a_file(idle, taken):
    log = idle.directory / "events.log"
    status, said = boot(idle, listeners=[{"address": f"127.0.0.1:{taken}"}], log={"file": str(log)})
    assert status == 69 and said.startswith("posternd: cannot listen on")
    assert "event=boot_failed" in log.read_text()


def test_port_of_another_gateway_is_not_shared(pair, tmp_path_factory):
    """SO_REUSEPORT would let two processes of one user take turns."""
    gateway, _, _ = pair
    status, said = boot(Gateway(tmp_path_factory.mktemp("second")), listeners=[{"address": f"127.0.0.1:{gateway.port}"}])
    assert status == 69 and "another server is there" in said


def test_port_0_is_the_same_for_all_workers(run):
    gateway = run(Gateway, workers=3, listeners=[{"address": "127.0.0.1:0"}])
    port = int(gateway.events("listening")[0]["address"].rsplit(":", 1)[1])
    assert port and all(accepts("127.0.0.1", port) for _ in range(8))
    assert len([l for l in open("/proc/net/tcp") if f"0100007F:{port:04X} 00000000:0000 0A" in l]) == 3


def silent_resolver():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 0))
    s.settimeout(PATIENCE_S)
    return s


def test_sigterm_ends_a_boot_that_waits(idle):
    with silent_resolver() as resolver:
        idle.configure(trusted_networks=["mail.internal.example"], dns={"resolver": f"127.0.0.1:{resolver.getsockname()[1]}", "timeout": "5m"})
        idle.start(wait=False)
        resolver.recv(512)
        assert idle.stop() == -signal.SIGTERM


# --- ending ---

def test_shutdown_does_not_wait_for_dns(run):
    """A lookup of five minutes is in the air; its answer must find no loop that has gone."""
    with silent_resolver() as resolver:
        gateway = run(Gateway, destination={"mode": "dns"}, timeouts={"shutdown": "1s"},
                      dns={"resolver": f"127.0.0.1:{resolver.getsockname()[1]}", "timeout": "5m"})
        s = gateway.smtp(INTERNAL)
        s.ehlo()
        assert s.send("alice@example.com", "bob@elsewhere.example", message("waits"))[-1].code == 250
        resolver.recv(512)
        assert gateway.stop() == 0
        assert gateway.events("stopped")[0]["queued"] == "1"


def test_second_sigterm_ends_the_wait(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = run(Gateway, timeouts={"shutdown": "1h"}, **routes(internal, edge))
    s = gateway.smtp()
    s.ehlo()
    s.say("MAIL FROM:<alice@example.net>"), s.say("RCPT TO:<bob@example.com>")
    assert s.say("DATA").code == 354
    gateway.process.signal(signal.SIGTERM)
    eventually(lambda: gateway.events("drain"), "the drain begins")
    assert gateway.status()["draining"], "a drain can be watched"
    gateway.process.signal(signal.SIGTERM)
    assert s.reply().startswith("421")
    assert gateway.process.p.wait(timeout=PATIENCE_S) == 0


def test_second_sigterm_gives_up_a_delivery(run):
    """The next hop takes the connection and never says a word."""
    with socket.socket() as hop:
        hop.bind((INTERNAL, 0))
        hop.listen()
        gateway = run(Gateway, timeouts={"shutdown": "1h"},
                      domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": hop.getsockname()[1]}}])
        s = gateway.smtp()
        s.ehlo()
        assert s.send("alice@example.net", "bob@example.com", message("stuck"))[-1].code == 250
        connection, _ = hop.accept()
        gateway.process.signal(signal.SIGTERM)
        eventually(lambda: gateway.events("drain"), "the drain begins")
        gateway.process.signal(signal.SIGTERM)
        assert gateway.process.p.wait(timeout=PATIENCE_S) == 0
        connection.close()


# --- the log ---



def test_log_that_nobody_reads_stops_nothing(run, tmp_path):
    internal = run(Sink, address=INTERNAL, name="internal", keep=False)
    gateway = Gateway(tmp_path, workers=1, log={"level": "debug"}, limits={"errors": 100000, "junk_commands": 100000}, strangers={"errors": 0},
                      domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": internal.port}}])
    read_fd, write_fd = os.pipe()
    gateway.process = Process(BIN / "posternd", "-c", gateway.config_path, log=gateway.log_path, preexec_fn=lambda: os.dup2(write_fd, 2))
    os.close(write_fd)
    try:
        eventually(lambda: accepts("127.0.0.1", gateway.port), "the gateway listens")
        s = gateway.smtp()
        s.ehlo()
        while gateway.metric("postern_log_dropped_total") == 0:
            for _ in range(200):
                s.write("MAIL FROM:<alice@example.net>\r\n" + f"RCPT TO:<{'x' * 60}@nowhere.example>\r\n" * 9 + "RSET\r\n")
                assert [s.reply().code for _ in range(11)] == [250] + [554] * 9 + [250]
        assert gateway.status()["queue"]["messages"] == 0
        assert gateway.stop() == 0
    finally:
        gateway.kill()
        os.close(read_fd)


def test_log_on_a_full_disk_stops_nothing(run):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    gateway = Gateway(internal.maildir.parent, log={"file": "/dev/full"}, **routes(internal, edge))
    gateway.start(wait=False)
    try:
        eventually(lambda: accepts("127.0.0.1", gateway.port), "the gateway listens")
        s = gateway.smtp()
        s.ehlo()
        assert s.send("alice@example.net", "bob@example.com", message("full"))[-1].code == 250
        internal.wait_for(1)
        eventually(lambda: gateway.metric("postern_log_dropped_total") > 0, "lost lines are counted")
        assert gateway.stop() == 0
    finally:
        gateway.kill()


# --- reload ---

def test_storm_of_reloads_with_open_transactions(pair):
    """More generations are in use than a worker keeps: the newest is taken all the same, once it can be."""
    gateway, internal, _ = pair
    gateway.configure(workers=1, limits={"sessions_per_client": 0})
    gateway.stop()
    gateway.start()
    base, open_sessions = gateway.settings["domains"], []
    for n in range(80):
        s = gateway.smtp()
        s.ehlo()
        s.say("MAIL FROM:<a@example.net>")
        open_sessions.append(s)
        gateway.configure(domains=base + [{"name": f"d{n}.example", "local": True, "route": {"hosts": [INTERNAL], "port": internal.port}}])
        gateway.cli("reload")
    for s in open_sessions:
        s.say("RSET")

    def newest_is_in_force():
        s = gateway.smtp()
        s.ehlo()
        s.say("MAIL FROM:<a@example.net>")
        return s.say("RCPT TO:<x@d79.example>").code == 250

    eventually(newest_is_in_force, "the last reload holds")


def test_storm_of_sighups_under_load(pair):
    gateway, internal, _ = pair
    done = threading.Event()

    def storm():
        while not done.is_set():
            gateway.process.signal(signal.SIGHUP)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for n in range(100):
            s = gateway.smtp()
            s.ehlo()
            assert s.send("alice@example.net", "bob@example.com", message(f"storm {n}"))[-1].code == 250
            s.say("QUIT")
    finally:
        done.set()
        thread.join()
    internal.wait_for(100)
    assert gateway.events("reload") and not gateway.events("internal")
    assert gateway.stop() == 0


def certificate(directory, name):
    key, cert = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
                    "-days", "2", "-subj", f"/CN={name}"], check=True, capture_output=True)
    return {"certificates": [{"chain": str(cert), "key": str(key)}]}


def test_reload_changes_the_certificate_and_leaves_open_sessions_theirs(pair, tmp_path):
    import ssl
    gateway, _, _ = pair
    gateway.configure(tls=certificate(tmp_path, "first.example"))
    gateway.cli("reload")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def start_tls():
        s = gateway.smtp()
        s.ehlo()
        assert s.say("STARTTLS").code == 220
        s.sock = context.wrap_socket(s.sock)
        s.file = s.sock.makefile("rb")
        s.ehlo()
        return s, s.sock.getpeercert(binary_form=True)

    old, first = eventually(lambda: "STARTTLS" in gateway.smtp().ehlo() and start_tls(), "TLS is offered")
    old.say("MAIL FROM:<alice@example.net>")
    gateway.configure(tls=certificate(tmp_path, "second.example"))
    gateway.cli("reload")
    eventually(lambda: start_tls()[1] != first, "new sessions get the new certificate")
    old.say("RCPT TO:<bob@example.com>")
    assert old.say("DATA").code == 354
    old.write(message("old certificate").encode() + b".\r\n")
    assert old.reply().code == 250
    gateway.configure(tls={"certificates": [{"chain": "/nonexistent", "key": "/nonexistent"}]})
    assert gateway.cli("reload", check=False).returncode == 1
    start_tls()


@pytest.mark.skipif(not shutil.which("unbound"), reason="needs unbound")
def test_networks_known_by_name_stay_when_the_resolver_dies(run, tmp_path):
    """A reload while DNS is down must not turn the internal network into strangers, whose mail gets 554."""
    port = free_port()
    (tmp_path / "unbound.conf").write_text(
        f"server:\n  interface: 127.0.0.1\n  port: {port}\n  directory: \"{tmp_path}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n"
        "  do-daemonize: no\n  use-syslog: no\n  module-config: \"iterator\"\n  local-zone: \"test.\" static\n"
        f"  local-data: \"mail.test. 1 A {INTERNAL}\"\nremote-control:\n  control-enable: no\n")
    unbound = Process(shutil.which("unbound"), "-c", tmp_path / "unbound.conf", log=tmp_path / "unbound.log")
    try:
        eventually(lambda: accepts("127.0.0.1", port), "the resolver listens")
        gateway = run(Gateway, workers=1, trusted_networks=["mail.test"], dns={"resolver": f"127.0.0.1:{port}", "timeout": "1s"})

        def is_trusted():
            s = gateway.smtp(INTERNAL)
            s.ehlo()
            s.say("MAIL FROM:<alice@example.com>")
            return s.say("RCPT TO:<bob@elsewhere.example>").code == 250

        eventually(lambda: is_trusted() or gateway.cli("reload") is None, "the name is known")
        unbound.kill()

        def reload_without_dns():
            gateway.cli("reload")
            return "mail.test cannot be looked up now" in gateway.log()

        eventually(reload_without_dns, "the cached answer is too old")
        assert is_trusted()
    finally:
        unbound.kill()


# --- many and slow clients ---

def test_slow_admin_clients_do_not_lock_the_scraper_out(pair):
    """They send a byte now and then, so that no time-out for silence ends them."""
    gateway, _, _ = pair
    slow = [socket.create_connection(("127.0.0.1", gateway.metrics_port)) for _ in range(80)]
    done = threading.Event()

    def drip():
        while not done.wait(0.2):
            for s in slow:
                try:
                    s.send(b"G")
                except OSError:
                    pass

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        assert "postern_build_info" in gateway.metrics_text()
    finally:
        done.set()
        thread.join()
    assert gateway.status()["hostname"]
    assert gateway.stop() == 0, "nor the end"


@pytest.mark.parametrize("request_text", [
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
    b"POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /api/v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"\x16\x03\x01" + bytes(range(256)) * 10,
    b"GET /api/v1/queue?limit=999999999999999999999 HTTP/1.0\r\n\r\n",
], ids=["path", "headers", "length", "chunk", "tls", "number"])
def test_bad_admin_requests_are_survived(pair, request_text):
    gateway, _, _ = pair
    with socket.create_connection(("127.0.0.1", gateway.metrics_port), timeout=PATIENCE_S) as s:
        try:
            s.sendall(request_text)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except OSError:
            pass
    assert gateway.status()["hostname"] == "gw.example.com"
    assert not gateway.events("reload")


# --- figures ---

def test_age_of_the_queue_is_a_metric(pair):
    gateway, internal, _ = pair
    assert gateway.metric("postern_queue_oldest_seconds") == 0
    internal.kill()
    s = gateway.smtp()
    s.ehlo()
    assert s.send("alice@example.net", "bob@example.com", message("old"))[-1].code == 250
    first = eventually(lambda: gateway.metric("postern_queue_oldest_seconds"), "the queue has an age")
    eventually(lambda: gateway.metric("postern_queue_oldest_seconds") > first, "which grows")
    text = gateway.metrics_text()
    r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def test_idle_sessions_cost_two_kibibytes_of_ours(run, tmp_path):
    """What the allocator has given out, between 500 and 2500 sessions; pages that it keeps for later would blur the figure."""
    gateway = run(Gateway, workers=1, limits={"sessions_per_client": 0})
    sessions = []

    def allocated_bytes(count):
        while len(sessions) < count:
            sessions.append(gateway.smtp(f"127.1.{len(sessions) // 250}.{len(sessions) % 250 + 1}"))
        eventually(lambda: gateway.metric("postern_sessions_open") == count, "all are counted")
        return gateway.metric("postern_memory_bytes", state="allocated")

    if "jemalloc" not in gateway.events("boot")[0]["malloc"]:
        pytest.skip("sanitizers need memory of their own")
    few = allocated_bytes(500)
    many = allocated_bytes(2500)
    assert (many - few) / 2000 <= 2048
