"""pyftpdlib serving one folder to one user, for the tests. Called by `serve` only; the password comes on stdin."""

import _strptime  # noqa: F401  (loaded before the user changes: the folder may be closed to it)
import logging
import os
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

tls, address, port, first, last, root, certificate, uid = sys.argv[1:9]
logging.basicConfig(level=logging.INFO)
authorizer = DummyAuthorizer()
authorizer.add_user("haul", sys.stdin.readline().strip(), root, perm="elradfmwMT")
handler = FTPHandler
if tls == "tls":
    handler = TLS_FTPHandler
    handler.certfile = certificate
    handler.tls_control_required = True
    handler.tls_data_required = True
handler.authorizer = authorizer
handler.passive_ports = range(int(first), int(last) + 1)
handler.auth_failed_timeout = 0
server = FTPServer((address, int(port)), handler)
if os.getuid() == 0:
    # The certificate is read at login, as root's; so load it before.
    if tls == "tls":
        handler.get_ssl_context()
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
server.serve_forever()
