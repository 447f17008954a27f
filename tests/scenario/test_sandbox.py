"""The daemon in its sandbox: what it gave up, that it serves, reloads and is started in the ways that it can be."""
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys

import pytest

from conftest import BIN, Gateway, INTERNAL, Sink, eventually, free_port

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def status_of(pid):
    return dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)


def threads_of(gateway):
    pid = gateway.process.p.pid
    return [status_of(f"{pid}/task/{tid}") for tid in os.listdir(f"/proc/{pid}/task")]


def deliver(gateway, sender="a@example.net", to="bob@example.com"):
    c = gateway.smtp()
    for line in ("EHLO x", f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>"):
        assert c.say(line).code == 250
    assert c.say("DATA").code == 354
    assert c.say("Subject: x\r\n\r\nhello\r\n.").code == 250


def domains(sink):
    return [{"name": "example.com", "local": True, "route": {"hosts": [f"{INTERNAL}:{sink.port}"]}}]


@pytest.mark.sanitized
def test_every_thread_has_given_up_what_serving_does_not_need(run):
    sink = run(Sink)
    gateway = run(Gateway, domains=domains(sink))
    said = gateway.events("sandbox")[0]
    assert (said["landlock"], said["seccomp"], said["rings"]) == ("on", "on", "on")
    threads = threads_of(gateway)
    assert len(threads) > 3
    for t in threads:
        assert (t["Seccomp"], t["NoNewPrivs"]) == ("2", "1"), t["Name"]
        assert int(t["CapEff"], 16) == int(t["CapPrm"], 16) == int(t["CapAmb"], 16) == 0, t["Name"]
    deliver(gateway)
    eventually(lambda: gateway.metric("postern_messages_delivered_total") == 1, "delivered")
    gateway.cli("queue", "list")
    assert gateway.stop() == 0


def test_sandbox_off_says_so(run):
    sink = run(Sink)
    gateway = run(Gateway, sandbox="off", domains=domains(sink))
    assert "sandbox: off" in gateway.log()
    assert gateway.events("sandbox")[0]["seccomp"] == "off"
    assert status_of(gateway.process.p.pid)["Seccomp"] == "0"


def test_reload_reads_what_it_may_and_says_restart_for_the_rest(run, tmp_path):
    sink = run(Sink)
    inside, outside = tmp_path / "recipients", tmp_path / "elsewhere"
    gateway = run(Gateway, domains=domains(sink))
    # Renamed over the old one, as editors do; the list is new, and beside the configuration.
    inside.write_text("bob@example.com\n")
    gateway.configure(verify={"mode": "listed", "list": str(inside)})
    os.rename(shutil.copy(gateway.config_path, tmp_path / "new.yaml"), gateway.config_path)
    assert gateway.cli("reload", check=False).returncode == 0
    deliver(gateway)
    c = gateway.smtp()
    c.say("EHLO x"), c.say("MAIL FROM:<a@example.net>")
    assert c.say("RCPT TO:<eve@example.com>").code == 550
    # A directory that the process did not know when it started.
    gateway.configure(verify={"list": "/var/lib/dpkg/status"})
    said = gateway.cli("reload", check=False)
    assert said.returncode != 0 and "/var/lib/dpkg/status" in said.stdout + said.stderr, said
    assert "restart posternd" in said.stdout + said.stderr and re.search(r"postern.yaml:\d+:\d+: error", said.stdout + said.stderr)
    deliver(gateway)  # the old one is in force
    gateway.configure(verify={"list": str(outside / "none")})
    said = gateway.cli("reload", check=False)
    assert said.returncode != 0 and "restart posternd" not in said.stdout + said.stderr, "that it is not there is what is wrong"


def test_a_list_that_is_a_link_out_of_the_sandbox(run, tmp_path_factory):
    """Where it leads to when the process starts may be read; where somebody has it lead later, after a restart."""
    first, second = (tmp_path_factory.mktemp(name) / "list" for name in ("first", "second"))
    link = tmp_path_factory.mktemp("links") / "recipients"
    first.write_text("bob@example.com\n"), second.write_text("bob@example.com\ncarol@example.com\n")
    link.symlink_to(first)
    sink = run(Sink)
    gateway = run(Gateway, domains=domains(sink), verify={"mode": "listed", "list": str(link)})
    deliver(gateway)
    first.write_text("bob@example.com\ndave@example.com\n")
    gateway.cli("reload")
    deliver(gateway, to="dave@example.com")
    other = link.with_suffix(".new")
    other.symlink_to(second)
    other.rename(link)
    said = gateway.cli("reload", check=False)
    assert said.returncode != 0 and f"{link}, a link to {second}" in said.stdout + said.stderr, said
    assert "restart posternd" in said.stdout + said.stderr
    deliver(gateway, to="dave@example.com")  # the old one is in force
    assert gateway.stop() == 0
    gateway.start()
    deliver(gateway, to="carol@example.com")


@AS_ROOT
def test_root_becomes_the_user_and_the_files_are_his(run, tmp_path):
    nobody = pwd.getpwnam("nobody")
    for parent in [tmp_path, *tmp_path.parents]:  # pytest makes its directories for their owner only
        if os.stat(parent).st_uid == 0 and parent.as_posix().count("/") > 1:
            os.chmod(parent, os.stat(parent).st_mode | 0o755)
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    sink = run(Sink)
    gateway = run(Gateway, user="nobody", domains=domains(sink))
    for t in threads_of(gateway):
        assert set(t["Uid"].split()) == {str(nobody.pw_uid)} and set(t["Gid"].split()) == {str(nobody.pw_gid)}
    for made in ("spool", "spool/lock", "admin.sock"):
        assert os.stat(tmp_path / made).st_uid == nobody.pw_uid, made
    deliver(gateway)
    eventually(lambda: gateway.metric("postern_messages_delivered_total") == 1, "delivered")
    assert gateway.stop() == 0
    os.chown(tmp_path / "spool", 0, 0)
    gateway.start(wait=False)
    assert gateway.process.p.wait(60) == 73
    assert "chown -R nobody" in gateway.log()


def test_a_user_that_does_not_exist_is_said(tmp_path):
    gateway = Gateway(tmp_path, user="no-such-user")
    r = subprocess.run([BIN / "posternd", "-c", gateway.config_path], capture_output=True, text=True, timeout=60)
    assert r.returncode == 78 and "useradd --system no-such-user" in r.stderr


def activate(gateway, sockets):
    """Starts it as systemd would: the sockets are 3, 4, ... and LISTEN_PID is its own."""
    code = ("import os, sys\nfds = [int(x) for x in sys.argv[1].split(',')]\n"
            "spare = [os.dup2(fd, 100 + i) for i, fd in enumerate(fds)]\n"
            "for i, fd in enumerate(spare): os.dup2(fd, 3 + i)\n"
            "for fd in spare: os.close(fd)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))\nos.execv(sys.argv[2], sys.argv[2:])")
    fds = [s.fileno() for s in sockets]
    log = open(gateway.log_path, "ab")
    return subprocess.Popen([sys.executable, "-c", code, ",".join(map(str, fds)), str(BIN / "posternd"), "-c", str(gateway.config_path)],
                            stdout=log, stderr=log, pass_fds=fds)


def passed_socket(port, host="127.0.0.1"):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, port))
    s.listen()
    return s


def test_sockets_from_systemd_are_served_by_all_workers(tmp_path):
    gateway = Gateway(tmp_path, domains=[{"name": "example.com", "local": True, "route": {"hosts": ["127.0.0.1:9"]}}])
    with passed_socket(gateway.port) as s:
        process = activate(gateway, [s])
        try:
            early = gateway.smtp()  # it came while nobody served: systemd's socket holds it
            assert early.say("EHLO x").code == 250
            for _ in range(8):
                deliver(gateway)
            process.terminate()
            assert process.wait(60) == 0, gateway.log()
        finally:
            process.poll() is None and process.kill()
            process.wait()
        socket.create_connection(("127.0.0.1", gateway.port)).close()  # still there for the next start


def test_a_passed_socket_that_is_no_listener_is_an_error(tmp_path):
    gateway = Gateway(tmp_path)
    other = free_port()
    with passed_socket(other) as s:
        process = activate(gateway, [s])
        assert process.wait(60) == 69
    assert f"127.0.0.1:{other}" in gateway.log() and "ListenStream=" in gateway.log()
