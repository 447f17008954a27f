"""Files of recipients: taken when they change, refused when they lose too much, also over a restart."""
import json
import os

import pytest

from conftest import EDGE, INTERNAL, Gateway, Sink, eventually
from test_verify import ALSO, BAD, GOOD

pytestmark = pytest.mark.sanitized
CROWD = [f"user{i}@example.com" for i in range(20)]


class Scene:
    def __init__(self, run, tmp_path):
        self.file = tmp_path / "lists" / "recipients"
        self.file.parent.mkdir()
        self.write([*CROWD, GOOD])
        edge = run(Sink, address=EDGE, name="edge")
        self.gateway = run(Gateway, destination={"mode": "edge", "host": EDGE, "port": edge.port}, verify={"mode": "listed", "list": str(self.file)},
                           domains=[{"name": "example.com", "local": True, "route": {"hosts": [INTERNAL], "port": 1}}])

    def write(self, addresses, file=None):
        (file or self.file).write_text("".join(f"{a}\n" for a in addresses))

    def replace(self, addresses):
        """As editors do."""
        fresh = self.file.with_suffix(".new")
        self.write(addresses, fresh)
        fresh.rename(self.file)

    def rcpt(self, address):
        s = self.gateway.smtp()
        s.ehlo()
        s.say("MAIL FROM:<alice@example.net>")
        reply = s.say(f"RCPT TO:<{address}>")
        s.close()
        return reply


@pytest.fixture
def scene(run, tmp_path):
    return Scene(run, tmp_path)


def test_a_changed_file_is_taken_without_a_command(scene):
    assert scene.rcpt(GOOD).code == 250 and scene.rcpt(ALSO).startswith("550 5.1.1")
    scene.write([*CROWD, GOOD, ALSO])
    eventually(lambda: scene.rcpt(ALSO).code == 250, "written in place")
    scene.replace([*CROWD, ALSO, BAD])
    eventually(lambda: scene.rcpt(BAD).code == 250, "renamed over it")
    assert scene.rcpt(GOOD).code == 550
    loaded = scene.gateway.events("list_loaded")
    assert loaded[-1]["file"] == str(scene.file) and loaded[-1]["entries"] == "22"
    assert scene.gateway.metric("postern_recipient_list_entries") == 22


def test_a_link_that_leads_elsewhere(scene, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        scene.write([*CROWD, GOOD if folder == one else ALSO], folder / "list")
    scene.file.unlink()
    scene.file.symlink_to(one / "list")
    scene.gateway.cli("reload")
    assert scene.rcpt(ALSO).code == 550
    scene.write([*CROWD, GOOD, BAD], one / "list")
    eventually(lambda: scene.rcpt(BAD).code == 250, "the file behind the link changed")
    fresh = scene.file.with_suffix(".new")
    fresh.symlink_to(two / "list")
    fresh.rename(scene.file)
    eventually(lambda: scene.rcpt(ALSO).code == 250, "the link changed")


def test_a_file_that_lost_much_is_refused(scene):
    gateway = scene.gateway
    scene.write([GOOD])
    eventually(lambda: gateway.events("list_refused"), "it is told")
    assert gateway.metric("postern_recipient_lists_held_back") == 1
    assert scene.rcpt(CROWD[0]).code == 250, "the old one stays"
    assert gateway.cli("reload", check=False).returncode != 0
    gateway.cli("reload", "shrunk-lists")
    assert scene.rcpt(CROWD[0]).code == 550 and scene.rcpt(GOOD).code == 250
    assert gateway.metric("postern_recipient_lists_held_back") == 0


def test_a_file_that_goes_away_stays_in_force(scene):
    scene.file.unlink()
    scene.write([], scene.file.parent / "something-else")
    eventually(lambda: scene.gateway.events("list_refused"), "it is told")
    assert scene.rcpt(GOOD).code == 250 and scene.rcpt(BAD).code == 550
    scene.write([*CROWD, GOOD, BAD])
    eventually(lambda: scene.rcpt(BAD).code == 250)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_file_that_lost_much_while_nobody_looked(scene, end):
    """Nobody real is refused for good because of half a file."""
    gateway = scene.gateway
    getattr(gateway, end)()
    scene.write([GOOD])
    gateway.start()
    assert scene.rcpt(GOOD).code == 250
    assert scene.rcpt(CROWD[0]).startswith("450 4.1.1")
    eventually(lambda: gateway.metric("postern_recipient_lists_held_back") == 1 and gateway.events("list_refused"), "it is held back, and logged")
    gateway.stop()
    gateway.start()
    assert scene.rcpt(CROWD[0]).startswith("450 4.1.1"), "it is not forgotten by another restart"
    scene.replace([*CROWD, GOOD])
    eventually(lambda: scene.rcpt(CROWD[0]).code == 250, "it is whole again")
    assert scene.rcpt(BAD).code == 550
    gateway.stop()
    scene.write([GOOD])
    gateway.start()
    assert scene.rcpt(BAD).code == 450
    gateway.cli("reload", "shrunk-lists")
    assert scene.rcpt(BAD).code == 550, "it is meant"
    gateway.stop()
    gateway.start()
    assert scene.rcpt(BAD).code == 550


def test_what_is_remembered_is_damaged(scene):
    gateway = scene.gateway
    remembered = gateway.directory / "spool" / "recipient-lists.json"
    assert json.loads(remembered.read_text())["lists"][0]["entries"] == 21
    gateway.stop()
    for text in ("", "{", "[]", '{"version": 1, "lists": [7, {"path": 1}, null, {"entries": "x"}]}', os.urandom(64)):
        remembered.write_bytes(text if isinstance(text, bytes) else text.encode())
        gateway.start()
        assert scene.rcpt(GOOD).code == 250 and scene.rcpt(BAD).code == 550
        gateway.stop()
    assert json.loads(remembered.read_text())["lists"][0]["entries"] == 21


def test_one_refused_file_does_not_hold_up_another(scene, tmp_path):
    gateway, other = scene.gateway, tmp_path / "lists" / "other"
    scene.write([*CROWD, "x@example.org"], other)
    gateway.configure(domains=gateway.settings["domains"] + [
        {"name": "example.org", "local": True, "route": {"hosts": [INTERNAL], "port": 1}, "verify": {"mode": "listed", "list": str(other)}}])
    gateway.cli("reload")
    assert scene.rcpt("y@example.org").code == 550
    scene.write([GOOD])
    eventually(lambda: gateway.metric("postern_recipient_lists_held_back") == 1)
    scene.write([*CROWD, "x@example.org", "y@example.org"], other)
    eventually(lambda: scene.rcpt("y@example.org").code == 250)
    assert scene.rcpt(CROWD[0]).code == 250
