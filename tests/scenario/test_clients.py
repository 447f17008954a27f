"""What people send mail with: each program once in the clear and once over STARTTLS with a certificate that it checks."""
import os
import re
import shutil
import smtplib
import ssl
import subprocess

import pytest

from certs import Certificate
from conftest import PATIENCE_S, eventually

PATH = "/usr/sbin:/usr/bin:/bin"
BODY = "first line\n.dot\n..two dots\nlast line, über\n"
RAW = "From: a@example.net\nTo: bob@example.com\nSubject: {name}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n" + BODY


def tool(name):
    found = shutil.which(name, path=PATH)
    assert found, f"{name} is not installed"
    return found


def run_tool(*command, text="", **env):
    r = subprocess.run([str(c) for c in command], input=text, capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **env})
    assert r.returncode == 0, r.stdout + r.stderr


def curl(port, ca, directory):
    name = directory / "mail"
    name.write_text(RAW.format(name="curl").replace("\n", "\r\n"))
    tls = ["--ssl-reqd", "--cacert", ca, "--connect-to", f"gw.example.com:{port}:127.0.0.1:{port}"] if ca else []
    run_tool(tool("curl"), "-sS", *tls, "--url", f"smtp://{'gw.example.com' if ca else '127.0.0.1'}:{port}/client.example.net", "--mail-from", "a@example.net",
             "--mail-rcpt", "bob@example.com", "--upload-file", name)


def msmtp(port, ca, directory):
    config = directory / "msmtprc"
    tls = f"tls on\ntls_starttls on\ntls_trust_file {ca}\ntls_host_override gw.example.com\n" if ca else "tls off\n"
    config.write_text(f"account default\nhost 127.0.0.1\nport {port}\nfrom a@example.net\ndomain client.example.net\n{tls}")
    config.chmod(0o600)
    run_tool(tool("msmtp"), "-C", config, "bob@example.com", text=RAW.format(name="msmtp"))


def s_nail(port, ca, directory):
    tls = ["-S", "smtp-use-starttls", "-S", f"tls-ca-file={ca}", "-S", "tls-ca-no-defaults", "-S", "tls-verify=strict"] if ca else []
    host = "localhost" if ca else "127.0.0.1"  # it checks the name that it connects to
    run_tool(tool("s-nail"), "-:/", "-S", "v15-compat", "-S", f"mta=smtp://{host}:{port}", "-S", "smtp-auth=none", "-S", "nosave", "-S", "from=a@example.net",
             "-S", "hostname=client.example.net", "-S", "ttycharset=utf-8", "-S", "sendcharsets=utf-8", "-S", "sendwait", *tls, "-s", "s-nail", "bob@example.com",
             text=BODY, HOME=str(directory), LC_ALL="C.UTF-8")


def python(port, ca, directory):
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.net", timeout=PATIENCE_S) as s:
        if ca:
            context = ssl.create_default_context(cafile=ca)
            context.check_hostname = False  # it has no name to check
            s.starttls(context=context)
        assert s.sendmail("a@example.net", ["bob@example.com"], RAW.format(name="python").replace("\n", "\r\n").encode(), mail_options=["BODY=8BITMIME"]) == {}


NODE = """
const [port, ca] = process.argv.slice(1);
const fs = require('fs');
const tls = ca ? {servername: 'gw.example.com', ca: fs.readFileSync(ca)} : undefined;
const transport = require('nodemailer').createTransport({host: '127.0.0.1', port, name: 'client.example.net', secure: false, requireTLS: !!ca,
                                                         ignoreTLS: !ca, tls});
transport.sendMail({from: 'a@example.net', to: 'bob@example.com', subject: 'nodemailer', text: fs.readFileSync(0, 'utf8')},
                   e => { if (e) { console.error(e); process.exit(1); } });
"""


def nodemailer(port, ca, directory):
    run_tool(tool("node"), "-e", NODE, port, *([ca] if ca else []), text=BODY, NODE_PATH="/usr/share/nodejs:/usr/lib/nodejs")


def swaks(port, ca, directory):
    tls = ["--tls", "--tls-ca-path", ca, "--tls-verify"] if ca else []
    run_tool(tool("swaks"), "--server", "127.0.0.1", "--port", port, "--from", "a@example.net", "--to", "bob@example.com", "--helo", "client.example.net", *tls,
             "--data", "-", text=RAW.format(name="swaks"))


CLIENTS = [curl, msmtp, s_nail, python, nodemailer, swaks]


@pytest.mark.parametrize("secured", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("client", CLIENTS, ids=lambda f: f.__name__)
def test_client(pair, tmp_path, client, secured):
    gateway, internal, _ = pair
    ca = None
    if secured:
        certificate = Certificate(tmp_path, "gw", "gw.example.com", "localhost")
        ca = certificate.cert
        gateway.configure(tls={"certificates": [certificate.files]})
        gateway.cli("reload")
        eventually(lambda: "STARTTLS" in gateway.smtp().ehlo(), "TLS is offered")
    client(gateway.port, ca, tmp_path)
    mail = internal.wait_for(1)[0]
    assert mail.sender == "a@example.net" and mail.recipients == ["bob@example.com"]
    text = mail.parsed.get_content()
    assert [l.rstrip() for l in text.splitlines()][:4] == BODY.splitlines()
    received = mail.parsed["Received"]
    assert re.search(r"with (UTF8)?(E?SMTP)S?\b", received), received
    assert ("(version=TLSv1.3 " in received) == secured, received
