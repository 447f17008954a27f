"""What the scanners that people point at mail servers say of a gateway: with an ECDSA key, an RSA key, and both side by side."""
import json
import re
import shutil
import subprocess

import pytest
from certs import certificates

PATH = "/usr/sbin:/usr/bin:/bin"
SCAN_S = 600  # they open hundreds of connections, one after the other
KEYS = pytest.mark.parametrize("kinds", [["ec"], ["rsa"], ["ec", "rsa"]], ids=" and ".join)


def program(name):
    found = shutil.which(name, path=PATH)
    assert found, f"{name} is not installed"
    return found


@pytest.fixture
def scanned(scene, made):
    def start(kinds):
        keys = [made(kind, "gw.example.com", kind=kind) for kind in kinds]
        gateway, _, _ = scene(certificates(*keys), limits={"sessions_per_client": 0})
        return gateway
    return start


def still_serves(gateway):
    s = gateway.smtp()
    assert "STARTTLS" in s.ehlo()
    s.close()


@KEYS
def test_sslscan_finds_nothing_weak(scanned, kinds):
    gateway = scanned(kinds)
    text = subprocess.run([program("sslscan"), "--no-colour", "--starttls-smtp", f"127.0.0.1:{gateway.port}"], capture_output=True, text=True,
                          timeout=SCAN_S).stdout
    protocols = dict(re.findall(r"^(SSLv2|SSLv3|TLSv1\.\d) +(enabled|disabled)$", text, re.M))
    assert protocols == {"SSLv2": "disabled", "SSLv3": "disabled", "TLSv1.0": "disabled", "TLSv1.1": "disabled", "TLSv1.2": "enabled",
                         "TLSv1.3": "enabled"}, text
    taken = set(re.findall(r"^(?:Preferred|Accepted) +TLSv1\.\d +\d+ bits +(\S+)", text, re.M))
    wanted = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
    for key in {"ec": ["ECDSA"], "rsa": ["RSA"], "ec rsa": ["ECDSA", "RSA"]}[" ".join(kinds)]:
        wanted |= {f"ECDHE-{key}-AES128-GCM-SHA256", f"ECDHE-{key}-AES256-GCM-SHA384", f"ECDHE-{key}-CHACHA20-POLY1305"}
    assert taken == wanted, text
    assert ("RSA Key Strength:    2048" in text) if kinds == ["rsa"] else ("ECC Curve Name:      prime256v1" in text), text
    assert {"TLSv1.2 not vulnerable", "TLSv1.3 not vulnerable"} == set(re.findall("(.+ vulnerable) to heartbleed", text)), text
    assert not re.search("insecure|compression enabled", text, re.I), text
    groups = set(re.findall(r"^TLSv1\.\d +\d+ bits +(secp\w+|x\d+|ffdhe\d+)", text, re.M))
    assert groups == {"secp256r1", "secp384r1", "x25519"}, text
    still_serves(gateway)


@KEYS
def test_testssl_finds_no_weakness(scanned, kinds, tmp_path):
    """Protocols, classes of ciphers, forward secrecy, and all vulnerabilities that it knows."""
    gateway = scanned(kinds)
    subprocess.run([program("testssl"), "--starttls", "smtp", "-p", "-s", "-f", "-U", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1",
                    "--jsonfile", tmp_path / "found.json", f"gw.example.com:{gateway.port}"], capture_output=True, timeout=SCAN_S, stdin=subprocess.DEVNULL)
    found = {e["id"]: e for e in json.loads((tmp_path / "found.json").read_text()) if e["id"] != "engine_problem"}  # that is of the scanner's own
    assert all(found[old]["finding"] == "not offered" for old in ("SSLv2", "SSLv3", "TLS1", "TLS1_1")), found
    assert all(found[new]["finding"].startswith("offered") for new in ("TLS1_2", "TLS1_3")), found
    assert {"heartbleed", "CCS", "ROBOT", "secure_client_renego", "CRIME_TLS", "POODLE_SSL", "SWEET32", "FREAK", "DROWN", "LOGJAM", "BEAST", "LUCKY13", "RC4",
            "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW", "cipherlist_3DES_IDEA"} <= set(found), found
    assert not [e for e in found.values() if e["severity"] not in ("OK", "INFO")], found
    still_serves(gateway)
