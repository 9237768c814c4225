"""Engines as programs, for the supervisor: a fake one here, the real one where it is installed.

python engine_program.py fake SOCKET MODE
python engine_program.py real SOCKET WEIGHTS
python engine_program.py embedding SOCKET WEIGHTS
python engine_program.py rerank SOCKET WEIGHTS
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time


class FakeServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    mode = "good"
    started = time.monotonic()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None: ...

    def reply(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        loading = time.monotonic() - self.started < 0.5 or self.mode == "never-ready"
        self.reply(503 if loading else 200, {"status": "ok"})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.mode == "hang":
            time.sleep(3600)
        wrong = self.mode == "wrong"
        text = "no idea" if wrong else f"the answer to {request['messages'][0]['content']} is 42"
        self.reply(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})


def fake(path: str, mode: str) -> None:
    if mode == "dies":
        sys.exit(7)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "forks" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(3600)
    if mode == "environment":
        with open(path + ".env", "w", encoding="ascii") as file:  # noqa: PTH123
            json.dump(dict(os.environ), file)
    Handler.mode = mode
    with FakeServer(path, Handler) as server:
        server.serve_forever()


def embedding(path: str, weights: str) -> None:
    real(path, weights, pooling="MEAN")


def rerank(path: str, weights: str) -> None:
    real(path, weights, pooling="RANK")


def real(path: str, weights: str, *, pooling: str = "") -> None:
    import xllamacpp  # noqa: PLC0415

    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.hostnames = [path]
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 2048, 4, 1
    params.endpoint_metrics = True
    params.cache_ram_mib, params.fit_params, params.warmup, params.ui = 0, False, False, False
    if pooling:
        kinds = xllamacpp.llama_pooling_type
        params.embedding = True
        params.pooling_type = getattr(kinds, f"LLAMA_POOLING_TYPE_{pooling}")
    server = xllamacpp.Server(params)
    print("listening on", server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    modes = {"fake": fake, "real": real, "embedding": embedding, "rerank": rerank}
    modes[sys.argv[1]](*sys.argv[2:])
