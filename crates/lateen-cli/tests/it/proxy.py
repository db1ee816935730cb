#!/usr/bin/env python3
"""A stand-in for the proxy: answers every request with where its connection was meant to go."""

import http.server
import os
import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        original = self.connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, = struct.unpack("!H", original[2:4])
        body = f"{self.server.name} for {socket.inet_ntoa(original[4:8])}:{port}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Ready(Handler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz/ready" else 404)
        self.end_headers()


print("arguments", *sys.argv[1:])
for path in ["/var/run/secrets/tokens/istio-token", "/var/run/secrets/istio/root-cert.pem"]:
    print(open(path).read())
print("mark", os.environ.get("LATEEN_SOCKET_MARK"))
print(next(line for line in open("/proc/self/status") if line.startswith("CapEff")), flush=True)
for name, port, handler in [("inbound", 15006, Handler), ("outbound", 15001, Handler), ("ready", 15021, Ready)]:
    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), handler)
    server.name = name
    threading.Thread(target=server.serve_forever).start()
