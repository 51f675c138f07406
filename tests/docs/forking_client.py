"""``python -SEs forking_client.py ADDRESS ARGUMENT...``: ask ``forking_server.py`` to run cyclegan.

It begins in hundredths of a second: it imports next to nothing.
"""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    request = {"arguments": sys.argv[2:], "folder": os.getcwd(), "environment": dict(os.environ)}
    text = json.dumps(request).encode() + b"\n"
    sent = socket.send_fds(server, [text], [0, 1, 2])
    server.sendall(text[sent:])
    code = server.recv(1)
sys.exit(code[0] if code else 1)
