"""The golden delivery reports, read by somebody else's MIME parser."""
import email
import email.policy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "dsn"
FILES = sorted(GOLDEN.glob("*.eml"))


def unstuffed(path):
    """As it stands in the recipient's mailbox."""
    lines = path.read_bytes().split(b"\r\n")
    assert lines.pop() == b"" and b"." not in lines
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines) + b"\r\n"


def fields(block):
    return {name.lower(): value for name, value in email.message_from_string(block).items()}


def report(path):
    """The message, its per-message fields, its per-recipient fields."""
    m = email.message_from_bytes(unstuffed(path), policy=email.policy.SMTPUTF8)
    status = m.get_payload()[1]
    if status.get_content_type() == "message/delivery-status":
        blocks = [dict((k.lower(), str(v)) for k, v in b.items()) for b in status.get_payload()]
    else:  # the parser takes message/global-delivery-status for a message: its first block is headers, the rest body
        inner = status.get_payload()[0]
        body = inner.get_payload(decode=True).decode("utf-8")
        blocks = [dict((k.lower(), str(v)) for k, v in inner.items())] + [fields(b) for b in body.split("\r\n\r\n")]
    blocks = [b for b in blocks if b]
    return m, blocks[0], blocks[1:]


def test_there_are_golden_reports():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_structure(path):
    m, about_message, about_rcpts = report(path)
    assert not m.defects
    assert m.get_content_type() == "multipart/report"
    assert m.get_param("report-type") == "delivery-status"
    assert m["From"] == "Mail Delivery System <MAILER-DAEMON@gw.example>"
    assert m["Subject"] == "Undelivered Mail Returned to Sender"
    assert m["Auto-Submitted"] == "auto-replied"
    assert m["MIME-Version"] == "1.0"
    assert m["Message-ID"] and m["Date"].datetime
    parts = m.get_payload()
    assert len(parts) == 3
    assert parts[0].get_content_type() == "text/plain"
    assert parts[1].get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    assert parts[2].get_content_type() in ("text/rfc822-headers", "message/global-headers")
    assert about_message["reporting-mta"] == "dns; gw.example"
    assert about_message["arrival-date"]
    assert about_rcpts
    for rcpt in about_rcpts:
        assert rcpt["action"] == "failed"
        kind, address = rcpt["final-recipient"].split("; ", 1)
        assert kind in ("rfc822", "utf-8") and "@" in address
        assert rcpt["status"].count(".") == 2 and rcpt["status"][0] in "45"
        if kind == "rfc822":
            assert f"<{address}>" in parts[0].get_content()


def test_one_recipient():
    _, _, rcpts = report(GOLDEN / "unknown-user.eml")
    assert rcpts == [
        {
            "final-recipient": "rfc822; x@y.example",
            "action": "failed",
            "status": "5.1.1",
            "remote-mta": "dns; mx.y.example",
            "diagnostic-code": "smtp; 550 5.1.1 No such user here",
        }
    ]


def test_several_recipients():
    _, _, rcpts = report(GOLDEN / "several.eml")
    assert [r["status"] for r in rcpts] == ["5.2.2", "5.0.0", "4.4.2", "5.1.2", "5.0.0"]


def test_nothing_hostile_gets_out_of_its_field():
    m, about_message, rcpts = report(GOLDEN / "hostile.eml")
    assert len(rcpts) == 1
    assert not {"x-evil"} & (set(rcpts[0]) | set(about_message) | {k.lower() for k in m.keys()})
    assert b"\r\n.\r\n" not in (GOLDEN / "hostile.eml").read_bytes()
    assert "stuffed: y" in m.get_payload()[2].as_string()


def test_internationalised():
    m, _, rcpts = report(GOLDEN / "utf8.eml")
    assert rcpts[0]["final-recipient"] == "utf-8; j\u00f6rg\\x{2B}x@m\u00fcnchen.example"
    assert "Kein Postfach f\u00fcr j\u00f6rg" in m.get_payload()[0].get_content()
    assert "not the body" not in (GOLDEN / "utf8.eml").read_text("utf-8")
