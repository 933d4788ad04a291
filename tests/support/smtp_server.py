"""A real SMTP server for tests: aiosmtpd, told by its arguments how to behave.

It prints `listening PORT` when it listens, and ends when its standard input does, so it never outlives the test
that started it. Every message whose content was sent is written to `--directory`, in order, as
`NNN-accepted.json` or `NNN-refused.json`: {"mail_from", "rcpt_to", "headers": [[name, value], ...],
"parts": [{"type", "content"}, ...], "raw", "tls", "user", "ehlo"}.
"""

import argparse
import email
import email.policy
import json
import logging
import os
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Keeper:
    def __init__(self, options):
        self.options = options
        self.seen = 0

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if self.options.reject:
            return "550 5.1.1 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.seen += 1
        refused = self.seen <= self.options.greylist
        self.keep(session, envelope, "refused" if refused else "accepted")
        return "451 4.7.1 greylisted, come again" if refused else "250 2.0.0 queued"

    def keep(self, session, envelope, fate):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        record = {
            "mail_from": envelope.mail_from,
            "rcpt_to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in message.items()],
            "parts": [
                {"type": part.get_content_type(), "content": part.get_content()}
                for part in message.walk()
                if not part.is_multipart()
            ],
            "type": message.get_content_type(),
            "defects": [repr(d) for part in message.walk() for d in part.defects],
            "raw": envelope.content.decode("utf-8", "surrogateescape"),
            "tls": session.ssl is not None,
            "user": (session.auth_data or {}).get("user"),
            "ehlo": session.host_name,
        }
        path = os.path.join(self.options.directory, f"{self.seen:03}-{fate}.json")
        with open(path + ".new", "w") as file:
            json.dump(record, file)
        os.rename(path + ".new", path)


def authenticator(expected):
    def check(server, session, envelope, mechanism, data):
        given = f"{data.login.decode()}:{data.password.decode()}"
        if given != expected:
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data={"user": data.login.decode()})

    return check


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", required=True, help="where messages are written")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--reject", action="store_true", help="refuse every recipient for good (550)")
    parser.add_argument("--greylist", type=int, default=0, help="refuse so many messages for now (451)")
    parser.add_argument("--certificate", help="PEM of certificate and key")
    parser.add_argument("--tls", choices=["starttls", "implicit"], help="needs --certificate")
    parser.add_argument("--user", help="NAME:PASSWORD, asked for before mail is taken")
    options = parser.parse_args()

    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate)
    settings = {"ident": "test", "enable_SMTPUTF8": False, "server_hostname": "mail.test"}
    if options.tls == "starttls":
        settings.update(tls_context=context, require_starttls=True)
    if options.user:
        settings.update(authenticator=authenticator(options.user), auth_required=True)
        settings.update(auth_require_tls=options.tls == "starttls")

    # Clients that leave in the middle of a handshake are part of the tests.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL + 1)
    controller = Controller(
        Keeper(options),
        hostname=options.host,
        port=options.port or free_port(options.host),
        ssl_context=context if options.tls == "implicit" else None,
        **settings,
    )
    controller.start()
    print("listening", controller.server.sockets[0].getsockname()[1], flush=True)
    sys.stdin.read()
    controller.stop()


def free_port(host):
    """The controller connects to its own port when it starts, so it wants a number."""
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
