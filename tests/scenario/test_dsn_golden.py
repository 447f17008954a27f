"""The golden delivery reports, read by somebody else's MIME parser."""
import email
import email.policy
from pathlib import Path

import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "dsn"
FILES = sorted(GOLDEN.glob("*.eml"))


KINDS = {"delayed": "delayed", "relayed": "relayed", "delivered": "delivered"}  # failed are all others
SUBJECTS = {
    "failed": {"Undelivered Mail Returned to Sender", "Undelivered Mail Without a Sender to Tell"},
    "delayed": {"Delayed Mail (still being tried)"},
    "relayed": {"Mail Passed On"},
    "delivered": {"Mail Delivered"},
}


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
    assert m["Subject"] in SUBJECTS[KINDS.get(path.stem, "failed")]
    assert m["Auto-Submitted"] == "auto-replied"
    assert m["MIME-Version"] == "1.0"
    assert m["Message-ID"] and m["Date"].datetime
    parts = m.get_payload()
    assert len(parts) == 3
    assert parts[0].get_content_type() == "text/plain"
    assert parts[1].get_content_type() in ("message/delivery-status", "message/global-delivery-status")
    assert parts[2].get_content_type() in ("text/rfc822-headers", "message/global-headers", "message/rfc822")
    assert about_message["reporting-mta"] == "dns; gw.example"
    assert about_message["arrival-date"]
    assert about_rcpts
    for rcpt in about_rcpts:
        assert path.stem == "mixed" or rcpt["action"] == KINDS.get(path.stem, "failed")
        assert rcpt["status"][0] in {"failed": "45", "delayed": "4"}.get(rcpt["action"], "2")
        assert ("will-retry-until" in rcpt) == (rcpt["action"] == "delayed")
        kind, address = rcpt["final-recipient"].split("; ", 1)
        assert kind in ("rfc822", "utf-8") and "@" in address
        assert rcpt["status"].count(".") == 2
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


def human(path):
    return report(path)[0].get_payload()[0].get_content()


def test_delayed():
    _, _, rcpts = report(GOLDEN / "delayed.eml")
    assert rcpts == [
        {
            "original-recipient": "rfc822; o+x@y.example",
            "final-recipient": "rfc822; x@y.example",
            "action": "delayed",
            "status": "4.7.1",
            "remote-mta": "dns; mx.y.example",
            "diagnostic-code": "smtp; 451 4.7.1 Greylisted, come again",
            "last-attempt-date": "Tue, 24 Nov 2026 04:14:20 +0000",
            "will-retry-until": "Sat, 28 Nov 2026 04:14:26 +0000",
        },
        {
            "final-recipient": "rfc822; z@y.example",
            "action": "delayed",
            "status": "4.0.0",
            "diagnostic-code": "X-Postern; mx.y.example[192.0.2.1]:25: timed out (greeting)",
            "last-attempt-date": "Tue, 24 Nov 2026 04:14:21 +0000",
            "will-retry-until": "Sat, 28 Nov 2026 04:14:26 +0000",
        },
    ]
    assert "It is tried until Sat, 28 Nov 2026 04:14:26 +0000." in human(GOLDEN / "delayed.eml")


def test_relayed():
    _, about_message, rcpts = report(GOLDEN / "relayed.eml")
    assert about_message["original-envelope-id"] == "QQ+314"
    assert rcpts[0]["original-recipient"] == "rfc822; list name@y.example"
    assert rcpts[0]["action"] == "relayed" and rcpts[0]["status"] == "2.0.0"


def test_delivered():
    _, _, rcpts = report(GOLDEN / "delivered.eml")
    assert [r["status"] for r in rcpts] == ["2.1.5", "2.0.0"]
    assert set(rcpts[1]) == {"final-recipient", "action", "status"}


def test_mixed():
    _, _, rcpts = report(GOLDEN / "mixed.eml")
    assert [r["action"] for r in rcpts] == ["relayed", "delayed", "failed"]
    text = human(GOLDEN / "mixed.eml")
    assert text.index("x@y.example") < text.index("late@y.example") < text.index("gone@y.example"), "the worst comes first"


def test_for_the_postmaster():
    assert "nobody else can be" in human(GOLDEN / "double-bounce.eml")
    assert "<evil@nowhere.example>" in human(GOLDEN / "unreachable-sender.eml")


def test_original_recipient_in_utf8():
    _, _, rcpts = report(GOLDEN / "utf8-original-recipient.eml")
    assert rcpts[0]["original-recipient"] == "utf-8; j\u00f6rg\\x{2B}x@y.example"


def test_the_whole_message():
    m, _, _ = report(GOLDEN / "whole.eml")
    original = m.get_payload()[2].get_payload()[0]
    assert original["Subject"] == "hello"
    text = original.get_payload(decode=True)
    assert b".stuffed\r\n" in text and b"..stuffed" not in text and b"--=_report_000000000000002b_0--" in text
    assert m.get_boundary() == "=_report_000000000000002b_1"
