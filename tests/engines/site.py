"""Child process: runs the embedded server, plain and over TLS, until its input ends; prints its URLs as JSON."""

from __future__ import annotations

import json
import ssl
import sys
from urllib.parse import urlsplit

import trustme

from tests.limits import LONG
from tests.runtime.tls_relay import TlsRelay
from webchat_fsm.server import ChatServer, ServerOptions
from webchat_fsm.server.front import HttpFront

if __name__ == "__main__":
    authority = trustme.CA()
    authority.cert_pem.write_to_path(sys.argv[1])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with HttpFront(ChatServer(ServerOptions(connect_timeout=LONG))) as front:
        plain = urlsplit(front.sessions_url)
        relay = TlsRelay(plain.port or 80, context)
        urls = {"v2": front.data_url(), "comet": front.comet_url, "files": front.comet_files_url}
        safe = {
            name: url.replace(f"http://{plain.netloc}", f"https://127.0.0.1:{relay.port}") for name, url in urls.items()
        }
        print(json.dumps({"plain": urls, "tls": safe}), flush=True)
        sys.stdin.read()
        relay.close()
