#!/usr/bin/env python3
"""A stand-in for the control plane: the part of its API that the node uses, for manifests written as JSON."""

import glob
import http.server
import json
import os
import socket
import socketserver
import sys
import threading
import time

ROOT = "-----BEGIN CERTIFICATE-----\nstand-in\n-----END CERTIFICATE-----\n"


def arguments():
    state, files = None, []
    rest = sys.argv[1:]
    while rest:
        name = rest.pop(0)
        value = rest.pop(0)
        if name == "--state-dir":
            state = value
        elif name == "-f":
            files.append(value)
    return state, files


STATE, FILES = arguments()
ADDRESSES = {}


def read(path):
    try:
        with open(path) as file:
            objects = json.load(file)
    except (OSError, ValueError):
        return []
    return objects["items"] if objects.get("kind") == "List" else [objects]


def objects():
    found = {}
    for path in FILES + sorted(glob.glob(os.path.join(STATE, "pods", "*.yaml"))):
        for item in read(path):
            meta = item["metadata"]
            meta.setdefault("namespace", "default")
            meta.setdefault("annotations", {}).setdefault("lateen.dev/origin", f"{os.path.basename(path)}:1")
            key = (item["kind"], meta["namespace"], meta["name"])
            if item["kind"] == "Service" and "clusterIP" not in item["spec"]:
                item["spec"]["clusterIP"] = ADDRESSES.setdefault(key, f"10.96.0.{len(ADDRESSES) + 1}")
            found[key] = item
    return found


def inject(pod):
    if pod["metadata"].get("labels", {}).get("sidecar.istio.io/inject") != "true":
        return {"pod": pod, "injected": False, "reason": "it does not ask for it"}
    spec = pod["spec"]
    spec["initContainers"] = [{"name": "istio-init", "image": "lateen/init:test", "args": ["apply"]}]
    spec["containers"].append({"name": "istio-proxy", "image": "lateen/proxy:test", "args": ["sidecar"]})
    return {"pod": pod, "injected": True}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass

    def answer(self, value, kind="application/json"):
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/api/v1/root":
            self.answer(ROOT, "text/plain")
        elif path == "/api/v1/diagnostics":
            self.answer([])
        elif path == "/api/v1/watch":
            self.watch()
        else:
            self.send_error(404)

    def watch(self):
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        known = {}
        synced = False
        while True:
            now = objects()
            lines = [{"type": "MODIFIED" if key in known else "ADDED", "revision": 1, "object": item}
                     for key, item in now.items() if known.get(key) != item]
            lines += [{"type": "DELETED", "revision": 1, "object": item}
                      for key, item in known.items() if key not in now]
            if not synced:
                lines.append({"type": "SYNCED", "revision": 1})
            known, synced = now, True
            for line in lines:
                data = (json.dumps(line) + "\n").encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(0.02)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/api/v1/inject":
            self.answer(inject(body))
        elif self.path == "/api/v1/token":
            self.answer({"token": f"token of {body['namespace']}/{body['pod']}", "expires": "2100-01-01T00:00:00Z"})
        else:
            self.send_error(404)


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


if __name__ == "__main__":
    Server(os.path.join(STATE, "lateend.sock"), Handler).serve_forever()
