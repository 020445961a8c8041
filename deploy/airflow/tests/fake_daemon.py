"""Stands in for the daemon's `POST /api/v1/feedback`: in this process, and as contrary as it is told to be."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()

# Longer than anything takes; nothing is asserted about it.
PATIENCE_SECONDS = 30


class Daemon:
    """What it is told to answer, and what it was sent."""

    def __init__(self, port=0):
        self.answers = []  # (status, headers) for the next posts, then 204
        self.taken = []  # events answered with 2xx, in order
        self.posts = []  # all posts
        self.problems = []
        self.hold = threading.Event()  # set: answers are given
        self.hold.set()
        self.asked = threading.Event()
        self.changed = threading.Condition()
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                daemon.asked.set()
                daemon.hold.wait(PATIENCE_SECONDS)
                with daemon.changed:
                    status, headers = daemon.answers.pop(0) if daemon.answers else (204, {})
                    event = daemon.check(self, body)
                    daemon.posts.append(event)
                    if status < 300:
                        daemon.taken.append(event)
                    daemon.changed.notify_all()
                said = b"" if status == 204 else b'{"code":"DW0899","detail":"as told"}'
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def check(self, request, body):
        """Return the event; note whatever is wrong with the post."""
        event = json.loads(body)
        headers = request.headers
        if request.path != "/api/v1/feedback" or headers["content-type"] != "application/json":
            self.problems.append((request.path, headers["content-type"]))
        message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
        digest = hmac.new(KEY, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        if headers["webhook-signature"].split()[0] != f"v1,{base64.b64encode(digest).decode()}":
            self.problems.append("signature")
        if message_id != event["id"] or abs(time.time() - int(timestamp)) > 60:
            self.problems.append((message_id, event["id"], timestamp))
        return event

    def wait_taken(self, count):
        """Return the events taken, once there are so many."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.taken) >= count, PATIENCE_SECONDS)
            assert len(self.taken) >= count, f"{len(self.taken)} of {count} events"
            return list(self.taken)

    def wait_posts(self, count):
        """Return all posts, once there are so many."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.posts) >= count, PATIENCE_SECONDS)
            assert len(self.posts) >= count, f"{len(self.posts)} of {count} posts"
            return list(self.posts)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        assert not self.problems
