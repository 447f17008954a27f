"""An internal server that does what a test wants: answers by recipient, refuses at any stage, is slow, counts what it is asked."""
import base64
import socket
import threading
import time


class Backend:
    """A small SMTP (or LMTP) server in threads. What it says may be changed while it runs.

    users: whom it takes; None: everybody. rcpt: a function of the address that gives a reply, or None for the usual one.
    A reply of "close" hangs up, "half" does so in the middle of one, "bytes" is nothing that anybody could read, 421 hangs up after it.
    banner, helo, mail: replies instead of the usual ones (mail: or a function of the sender); ehlo: to EHLO only. hold: an Event that RCPT
    replies wait for, banner_wait: one that the greeting waits for. byte_s: replies come a byte at a time, so far apart.
    """

    def __init__(self, address, port, users=(), lmtp=False):
        self.address, self.port = address, port
        self.users = None if users is None else {u.lower() for u in users}
        self.banner, self.helo, self.mail, self.rcpt, self.dot = "220 inside.local ESMTP", None, None, None, "250 2.0.0 taken"
        self.extensions = ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE"]
        self.hold, self.delay_s, self.banner_wait, self.byte_s, self.ehlo = None, 0, None, 0, None
        self.lock = threading.Lock()
        self.asked, self.senders, self.messages, self.connections, self.open, self.open_max, self.helos = [], [], [], 0, 0, 0, []
        self.unanswered, self.unanswered_max = 0, 0
        self.sockets = set()
        self.tls = None  # an ssl.SSLContext: STARTTLS is offered, and needed for MAIL unless tls_needed is false
        self.tls_needed = True
        self.login = None  # ("PLAIN LOGIN", user, password): AUTH is offered, and needed for MAIL
        self.handshakes, self.logins, self.heard_in_clear = [], [], []
        self.listener = None
        self.start()

    def start(self):
        self.listener = socket.create_server((self.address, self.port), backlog=512, reuse_port=False)
        self.thread = threading.Thread(target=self.accept, args=(self.listener,), daemon=True)
        self.thread.start()
        return self

    def stop(self):
        """Dead: nobody listens, and all connections are gone."""
        if not self.listener:
            return
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        self.listener = None
        with self.lock:
            for s in self.sockets:
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    kill = stop  # for the fixture

    def running(self):
        return self.listener is not None

    def accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self.open += 1
                self.open_max = max(self.open_max, self.open)
                self.sockets.add(s)
            threading.Thread(target=self.serve, args=(s,), daemon=True).start()

    def serve(self, s):
        try:
            self.session(s, s.makefile("rb"))
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open -= 1
                self.sockets.discard(s)
            s.close()

    def judge(self, address):
        reply = self.rcpt(address) if self.rcpt else None
        if reply:
            return reply
        known = self.users is None or address.lower() in self.users
        return "250 2.1.5 Ok" if known else f"550 5.1.1 <{address}>: Recipient address rejected: User unknown in virtual mailbox table"

    def on_rcpt(self, address):
        with self.lock:
            self.asked.append(address)
            self.unanswered += 1
            self.unanswered_max = max(self.unanswered_max, self.unanswered)
        hold = self.hold
        if hold:
            hold.wait(60)
        if self.delay_s:
            time.sleep(self.delay_s)
        with self.lock:
            self.unanswered -= 1
        return self.judge(address)

    def secure(self, raw):
        names = []
        self.tls.sni_callback = lambda sock, name, context: names.append(name)
        s = self.tls.wrap_socket(raw, server_side=True)
        with self.lock:
            self.sockets.add(s)
            self.handshakes.append({"version": s.version(), "name": names[0] if names else None, "shown": s.getpeercert(binary_form=True),
                                    "resumed": s.session_reused})
        return s, s.makefile("rb")

    def authenticate(self, line, f, say):
        def ask(challenge):
            say(f"334 {challenge}")
            return base64.b64decode(f.readline())

        _, mechanism, *given = line.split(" ")
        if mechanism == "PLAIN":
            got = tuple(base64.b64decode(given[0]).decode().split("\0")[1:])
        elif mechanism == "LOGIN":
            got = (ask("VXNlcm5hbWU6").decode(), ask("UGFzc3dvcmQ6").decode())
        else:
            got = ("" if given == ["="] else base64.b64decode(given[0]).decode(), None)
        with self.lock:
            self.logins.append((mechanism, *got))
        return got == self.login[1:]

    def session(self, s, f):
        def say(reply):
            line = b"\0\xff\x80 what?\r\n" if reply == "bytes" else reply.encode() + b"\r\n"
            if not self.byte_s:
                s.sendall(line)
                return
            for i in range(len(line)):
                s.sendall(line[i:i + 1])
                time.sleep(self.byte_s)

        if self.banner_wait:
            self.banner_wait.wait(60)
        say(self.banner)
        if not self.banner.startswith("220"):
            return
        accepted, secure, known = [], False, False
        while True:
            line = f.readline()
            if not line.endswith(b"\r\n"):
                return
            if not secure:
                self.heard_in_clear.append(line.decode().strip())
            if line.startswith(b"STARTTLS") and self.tls:
                say("220 2.0.0 go")
                s, f, secure = *self.secure(s), True
                continue
            if line.startswith(b"AUTH ") and self.login:
                known = self.authenticate(line.decode().strip(), f, say)
                say("235 2.7.0 welcome" if known else "535 5.7.8 no")
                continue
            if line.startswith(b"MAIL") and (self.tls and self.tls_needed and not secure or self.login and not known):
                say("530 5.7.0 not like this")
                continue
            line = line.decode("utf-8").rstrip("\r\n")
            verb = line.split(" ")[0].upper()
            if verb == "EHLO" and self.ehlo:
                say(self.ehlo)
            elif verb in ("EHLO", "LHLO", "HELO"):
                with self.lock:
                    self.helos.append(line[5:])
                say(self.helo or "\r\n".join(["250-inside.local"] + [f"250-{e}" for e in self.extensions]
                                             + (["250-STARTTLS"] if self.tls and not secure else [])
                                             + ([f"250-AUTH {self.login[0]}"] if self.login else []) + ["250 ENHANCEDSTATUSCODES"]))
            elif verb == "MAIL":
                sender = line.split("<", 1)[1].split(">", 1)[0]
                with self.lock:
                    self.senders.append(sender)
                accepted = []
                say((self.mail(sender) if callable(self.mail) else self.mail) or "250 2.1.0 Ok")
            elif verb == "RCPT":
                address = line.split("<", 1)[1].split(">", 1)[0]
                reply = self.on_rcpt(address)
                if reply == "close":
                    return
                if reply == "half":
                    s.sendall(b"250 2.1")
                    return
                if reply.startswith("2"):
                    accepted.append(address)
                say(reply)
                if reply.startswith("421"):
                    return
            elif verb == "DATA":
                if not accepted:
                    say("554 5.5.1 no valid recipients")
                    continue
                say("354 go on")
                content = b""
                while True:
                    line = f.readline()
                    if not line:
                        return
                    if line == b".\r\n":
                        break
                    content += line
                if self.dot.startswith("2"):
                    with self.lock:
                        self.messages.append((accepted, content))
                say(self.dot)
                accepted = []
            elif verb in ("RSET", "NOOP"):
                say("250 2.0.0 Ok")
            elif verb == "QUIT":
                say("221 2.0.0 bye")
                return
            else:
                say("502 5.5.1 not here")

    def probes(self, address=None):
        with self.lock:
            return len(self.asked) if address is None else self.asked.count(address)
