"""Who alerts are sent to: a webhook and a mailbox, on loopback, in this process."""

import email
import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """A server that runs for the length of a `with`."""

    def __init__(self, server):
        self.server = server
        self.port = server.server_address[1]
        self.thread = threading.Thread(target=server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Webhook(Receiver):
    """Keeps what is posted to it, and answers with `status`."""

    def __init__(self):
        self.posts = []  # path, headers by lower-case name, body
        self.status = 204
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                webhook.posts.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                self.send_response(webhook.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        self.url = f"http://127.0.0.1:{self.port}"

    def bodies(self):
        return [json.loads(body) for _, _, body in self.posts]


class Mailbox(Receiver):
    """Takes mail as SMTP has it, without TLS and login."""

    def __init__(self):
        self.mails = []  # receivers, message
        mailbox = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, text):
                self.wfile.write(f"{text}\r\n".encode())

            def handle(self):
                self.say("220 mailbox")
                receivers = []
                while line := self.rfile.readline().decode().strip():
                    match line.split(":")[0].split(" ")[0].upper():
                        case "RCPT":
                            receivers.append(line.split("<")[1].split(">")[0])
                            self.say("250 ok")
                        case "DATA":
                            self.say("354 go on")
                            lines = iter(self.rfile.readline, b".\r\n")
                            mailbox.mails.append((receivers, email.message_from_bytes(b"".join(lines))))
                            self.say("250 taken")
                        case "QUIT":
                            self.say("221 bye")
                            return
                        case _:
                            self.say("250 ok")

        socketserver.ThreadingTCPServer.daemon_threads = True
        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))
