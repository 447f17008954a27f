"""One destination in trouble, and what the others notice of it."""
import json
import socket
import time

import pytest

from conftest import EDGE, INTERNAL, Gateway, Sink, eventually, message, routes, source

CROWD = 22000  # more than may be active at a time


@pytest.fixture
def silent():
    """A server that takes connections and never says a word."""
    with socket.socket() as s:
        s.bind((INTERNAL, 0))
        s.listen(1000)
        yield s


def connections_to(gateway, port):
    destinations = json.loads(gateway.cli("--json", "destinations").stdout)
    return sum(d["connections"] for d in destinations if d["key"].endswith(f":{port}"))


def test_a_silent_server_with_all_the_queue_holds_nobody_up(run, silent):
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    port = silent.getsockname()[1]
    settings = routes(internal, edge)
    settings["domains"].append({"name": "silent.example", "local": True, "route": {"hosts": [INTERNAL], "port": port}})
    gateway = run(Gateway, workers=1, spool={"ring_size": "256MiB"}, **settings)
    assert source(gateway.port, "-m", CROWD, "-s", 20, "-p", 10, "-l", 200, "-t", "user%@silent.example").returncode == 0
    smtp = gateway.smtp()
    smtp.ehlo()
    assert smtp.send("alice@example.net", "bob@example.com", message("passes"))[-1].code == 250
    internal.wait_for(1)
    assert gateway.queued() == CROWD
    assert gateway.metric("postern_queue_aside") > 0
    assert connections_to(gateway, port) <= 3, "a server of which nothing is known gets no more"

    # The same after a crash, when nothing is known of anybody and the whole queue is due at once.
    internal.kill()
    smtp = gateway.smtp()
    smtp.ehlo()
    assert smtp.send("alice@example.net", "carol@example.com", message("passes again"))[-1].code == 250
    gateway.kill()
    run(Sink, address=INTERNAL, name="internal", port=internal.port)
    gateway.start()
    internal.wait_for(2)
    eventually(lambda: gateway.queued() == CROWD, "only the silent server's mail is left")
    assert connections_to(gateway, port) <= 3


def test_a_rate_is_of_all_workers_together(run):
    """A lower bound on time: a slow machine only makes it longer."""
    internal, edge = run(Sink, address=INTERNAL, name="internal"), run(Sink, address=EDGE, name="edge")
    settings = routes(internal, edge)
    settings["domains"][0]["route"]["rate"] = "20/s"
    gateway = run(Gateway, workers=2, **settings)
    begin = time.monotonic()
    assert source(gateway.port, "-m", 60, "-s", 10, "-t", "user%@example.com").returncode == 0
    internal.wait_for(60)
    assert time.monotonic() - begin >= 59 / 20 - 0.1
