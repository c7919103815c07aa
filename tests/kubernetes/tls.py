"""Certificates as cert-manager would make them, by openssl: an authority and the three Secrets of
k8s/components/tls."""

import base64
import subprocess
from pathlib import Path

from kubectl import NAMESPACE

ROLES = ("coordinator", "encoder", "decoder")


class Authority:
    """A certificate authority in the directory `scratch`."""

    def __init__(self, scratch):
        self.directory = Path(scratch)
        self._request("ca", "ca.crt", "baton-suite", "-x509", "-days", "2")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def _request(self, key, file, name, *kind):
        """A new key, and in `file` a request for its certificate, or of another `kind`."""
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        place = ("-keyout", f"{key}.key", "-out", file)
        self._openssl("req", *kind, *curve, "-nodes", *place, "-subj", f"/CN={name}")

    def issue(self):
        """New Secrets for all roles."""
        return [self._secret(role) for role in ROLES]

    def _secret(self, role):
        self._request(role, f"{role}.csr", f"baton-{role}")
        usage = "clientAuth" if role == "coordinator" else "serverAuth,clientAuth"
        extensions = f"subjectAltName=DNS:baton-{role},DNS:baton-worker\nextendedKeyUsage={usage}\n"
        (self.directory / "extensions").write_text(extensions)
        self._openssl(
            "x509",
            "-req",
            "-in",
            f"{role}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            f"{role}.crt",
            "-extfile",
            "extensions",
        )
        files = {"tls.crt": f"{role}.crt", "tls.key": f"{role}.key", "ca.crt": "ca.crt"}
        data = {key: self._encoded(file) for key, file in files.items()}
        metadata = {"name": f"baton-{role}-tls", "namespace": NAMESPACE}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}

    def _encoded(self, file):
        return base64.b64encode((self.directory / file).read_bytes()).decode()
