"""Certificates for the scenarios, made with openssl."""
import hashlib
import ssl
import subprocess
from pathlib import Path


def openssl(*args, text=None):
    r = subprocess.run(["openssl", *map(str, args)], capture_output=True, input=text)
    assert r.returncode == 0, r.stderr.decode()
    return r.stdout


def certificates(*some):
    """The `tls` section with these."""
    return {"certificates": [c.files for c in some]}


class Certificate:
    """A key pair with a certificate, signed by `by` or by itself. kind: ec or rsa; days may be negative: it has ended."""

    def __init__(self, directory, label, *names, kind="ec", by=None, days=30, is_ca=False):
        self.cert, self.key = Path(directory) / f"{label}.pem", Path(directory) / f"{label}.key"
        algorithm = ["-newkey", "rsa:2048"] if kind == "rsa" else ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        request = Path(directory) / f"{label}.csr"
        openssl("req", "-new", *algorithm, "-nodes", "-subj", f"/CN={label}", "-keyout", self.key, "-out", request)
        extensions = Path(directory) / f"{label}.ext"
        extensions.write_text(("basicConstraints = critical,CA:TRUE\n" if is_ca else "") +
                              (f"subjectAltName = {','.join('DNS:' + n for n in names)}\n" if names else ""))
        signer = ["-CA", by.cert, "-CAkey", by.key, "-CAcreateserial"] if by else ["-signkey", self.key]
        # A certificate that has ended: openssl 3.0 has no -not_after, but takes negative days.
        openssl("x509", "-req", "-in", request, *signer, "-days", days, "-extfile", extensions, "-out", self.cert)

    @property
    def files(self):
        return {"chain": str(self.cert), "key": str(self.key)}

    @property
    def der(self):
        return ssl.PEM_cert_to_DER_cert(self.cert.read_text())

    @property
    def cert_pin(self):
        return "cert:" + hashlib.sha256(self.der).hexdigest()

    @property
    def key_pin(self):
        public = openssl("x509", "-in", self.cert, "-noout", "-pubkey")
        return "spki:" + hashlib.sha256(openssl("pkey", "-pubin", "-outform", "der", text=public)).hexdigest()
