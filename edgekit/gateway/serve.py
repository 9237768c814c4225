"""The hot path: one generation from admission to its last byte, in the order that audit needs.

    G1 a slot of the engine, and the engine in memory, or 503
    G2 the request record is durable, or 503 and the engine is never called
    G3 the engine is asked
    G4 its answer is translated as it comes
    G5 the response record is durable
    G6 the last byte (for a whole answer: any byte) is sent

A client that leaves at any point ends the engine's work at once; G5 happens all the same.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import AuditUnavailableError, EngineError, EngineNotReadyError
from edgekit.gateway.admission import Admission
from edgekit.gateway.dialects import (
    OUT_OF_RANGE,
    TOO_LONG_TYPE,
    for_vllm,
    from_vllm,
    refusal_from_vllm,
    speaks_vllm,
)
from edgekit.gateway.engine_client import EngineClient, EngineConnection, EngineResponse
from edgekit.gateway.http import (
    JSON,
    ClientGoneError,
    Receive,
    Send,
    answer,
    answer_problem,
    start_answer,
)
from edgekit.gateway.job import PROVING, Job
from edgekit.gateway.journal import CLIENT_GONE, Caller, Journal
from edgekit.gateway.outcome import Outcome
from edgekit.gateway.problems import (
    ApiError,
    audit_unavailable,
    engine_unavailable,
    surface_of,
)
from edgekit.gateway.residence import Residence
from edgekit.gateway.sse import SseParser
from edgekit.gateway.surfaces.translator import Translator, encode
from edgekit.gateway.templates import ChatStream, as_chat, as_text
from edgekit.gateway.truncate import cut_texts

GENERATION_TIMEOUT_S = 3600.0
TOO_LONG = "context_length_exceeded"
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is .*?size:? \(?(\d+)")
"""llama.cpp's refusal of a text to embed that does not fit."""
_DECODER = json.JSONDecoder()  # `json.loads` looks at every payload for its encoding


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine as the gateway sees it."""

    name: str
    client: EngineClient
    admission: Admission
    residence: Residence

    @property
    def on_demand(self) -> bool:
        """Whether it is in memory only while somebody asks for it."""
        return self.residence.knows(self.name)

    @property
    def loaded(self) -> bool:
        """Whether it is in memory now."""
        return self.residence.loaded(self.name)

    async def rests(self) -> bool:
        """Whether it is not in memory, and can be asked for."""
        return self.on_demand and await self.residence.rests(self.name)


class Generation:
    """One generation on its way through G1 to G6."""

    def __init__(
        self,
        job: Job,
        caller: Caller,
        translator: Callable[[Job, Outcome], Translator],
        *,
        engine: Engine,
        journal: Journal,
        send: Send,
        on_tokens: Callable[[str, int], None],
    ) -> None:
        self._on_tokens = on_tokens
        self._job = job
        self._caller = caller
        self._engine = engine
        self._journal = journal
        self._send = send
        self._outcome = Outcome(journal.digest(), journal.mode(caller, job).keeps_text)
        self._translator = translator(job, self._outcome)
        self._key_id = caller.key.id if caller.key else ""
        self._streaming = False
        self._unsent = b""

    @property
    def outcome(self) -> Outcome:
        """What has become of it so far."""
        return self._outcome

    async def serve(self, receive: Receive, bytes_in: int) -> None:
        """Answer the client, and stop working for it the moment it leaves."""
        task = asyncio.current_task()
        assert task is not None
        left = False

        def leave(_: object) -> None:
            nonlocal left
            left = True
            task.cancel()

        gone = asyncio.ensure_future(_until_gone(receive))
        gone.add_done_callback(leave)
        try:
            await self._answer(bytes_in)
        except asyncio.CancelledError:
            if not left or task.uncancel():
                raise  # this very task is to end, and has ended its work
        finally:
            gone.remove_done_callback(leave)
            gone.cancel()

    async def _answer(self, bytes_in: int) -> None:
        try:
            engine = self._engine
            async with (
                engine.admission.slot(self._key_id),  # G1
                engine.residence.using(engine.name, self._job.keep_s),
            ):
                await self._recorded(bytes_in)
        except AuditUnavailableError:
            await self._refuse(audit_unavailable())
        except ApiError as error:
            await self._journal.denied(self._caller, error, "POST", self._job.endpoint)
            await self._refuse(error)

    async def _recorded(self, bytes_in: int) -> None:
        """G2 to G6. Whatever happens after G2, one response record is written."""
        # a connection is not a call: it is made while the record becomes durable
        client = self._engine.client
        connection = client.kept()
        connecting = None if connection else asyncio.ensure_future(client.connect())
        try:
            await self._journal.begin(self._caller, self._job, bytes_in)
        except BaseException:
            if connection:
                connection.abandon()
            if connecting:
                connecting.add_done_callback(_abandon)
            raise
        try:
            async with asyncio.timeout(GENERATION_TIMEOUT_S):
                last = await self._generate(connection, connecting)
        except ApiError as error:
            await self._end(error.status, error=error.code)
            await self._refuse(error)
        except (asyncio.CancelledError, ClientGoneError):
            await self._end(CLIENT_GONE, error="client_gone", aborted=True)
            raise
        except TimeoutError:
            await self._end(504, error="timeout")
            await self._refuse(ApiError(504, "timeout", "the generation took too long"))
        else:
            await self._end(200)  # G5
            await self._finish(last)  # G6

    async def _generate(
        self,
        connection: EngineConnection | None,
        connecting: asyncio.Future[EngineConnection] | None,
    ) -> bytes:
        """G3 and G4; the bytes that may be sent only after G5."""
        answers = []
        try:
            if connecting:
                connection = await connecting
            for number in range(self._job.count):
                answers.append(await self._ask_fitting(number, connection))
                connection = None
            return self._translator.last() if self._job.stream else self._whole(answers)
        except EngineNotReadyError as error:
            raise engine_unavailable() from error
        except EngineError as error:
            raise ApiError(502, "engine_failed", "the engine broke off its answer") from error

    def _whole(self, answers: list[tuple[dict[str, Any], str]]) -> bytes:
        whole, text = answers[0]
        if len(answers) > 1:
            whole["choices"] = [choice for other, _ in answers for choice in other["choices"]]
        return self._translator.whole(whole, text)

    async def _ask_fitting(
        self, number: int, connection: EngineConnection | None
    ) -> tuple[dict[str, Any], str]:
        """The answer; of texts to embed that are too long, where the client wants them cut, too."""
        job = self._job
        try:
            return await self._ask(number, connection, job.body)
        except ApiError as error:
            if error.code != TOO_LONG or not job.truncate:
                raise
        texts = await cut_texts(self._engine.client, job.body["input"], job.model.context)
        return await self._ask(number, None, {**job.body, "input": texts})

    async def _ask(
        self, number: int, connection: EngineConnection | None, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], str]:
        """One answer of `count`: forwarded as it comes, or given back whole with its text."""
        self._outcome.begin()
        fields = {**body}
        if number and "seed" in fields:
            fields["seed"] += number
        if self._job.stream:
            # usage is always asked for: the audit record wants the counts, whoever else does
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        target, is_vllm = self._job.target, speaks_vllm(self._job)
        if self._job.rendered:
            target, fields = await as_text(self._job, fields, self._engine.client, connection)
            connection = None
        if is_vllm:
            target, fields = for_vllm(self._job, fields)
        response = await self._engine.client.request("POST", target, encode(fields), connection)
        try:
            if response.status != 200:
                refusal = await response.read()
                if is_vllm:
                    refusal = refusal_from_vllm(self._job, refusal)
                raise engine_problem(response.status, refusal)
            if self._job.stream:
                await self._translate(response, number)
                return {}, ""
            answer_ = _numbered(load_event(await response.read()), number)
            if is_vllm:
                answer_ = from_vllm(self._job, answer_)
            if self._job.rendered:
                answer_ = as_chat(self._job, answer_)
        finally:
            response.close()
        text = self._outcome.observe(answer_)
        if self._job.target in PROVING:
            self._on_tokens(self._job.model.engine, self._outcome.tokens_out or 0)
        return answer_, text

    async def _translate(self, response: EngineResponse, number: int) -> None:
        parser, ended = SseParser(), False
        chat = ChatStream(self._job) if self._job.rendered else None
        async for data in response.chunks():
            payloads = parser.feed(data)
            ended = ended or b"[DONE]" in payloads
            # nothing here may keep a list of events alive until the next one: a sixth of the speed
            await self._forward(_events(payloads, number, chat))
        if not ended:
            raise EngineError("the engine's stream has no end")

    async def _forward(self, events: list[dict[str, Any]]) -> None:
        """Send everything that arrived together as one piece.

        How an answer begins goes out with its first token: each piece costs a system call, and the
        engine says both in the same moment.
        """
        pieces, before = [], self._outcome.pieces
        for event in events:
            if "error" in event:
                raise engine_problem(500, encode(event))
            pieces.append(self._translator.event(event, self._outcome.observe(event)))
        if self._outcome.pieces > before:
            self._on_tokens(self._job.model.engine, self._outcome.pieces - before)
        self._unsent += b"".join(pieces)
        outcome = self._outcome
        if self._unsent and (outcome.pieces or outcome.finish_reason is not None):
            await self._start_stream()
            data, self._unsent = self._unsent, b""
            await self._write(data, more=True)

    async def _start_stream(self) -> None:
        if not self._streaming:
            self._streaming = True
            await start_answer(
                self._send, 200, self._translator.content_type, self._caller.request_id
            )

    async def _write(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _finish(self, last: bytes) -> None:
        if self._job.stream:
            await self._start_stream()
            await self._write(self._unsent + last, more=False)
        else:
            await answer(self._send, 200, last, self._caller.request_id, content_type=JSON)

    async def _refuse(self, error: ApiError) -> None:
        """Tell the client: as a status while there is still one to choose, else in the stream."""
        self._outcome.status = error.status
        if self._streaming:
            await self._write(self._translator.broken(error), more=False)
        else:
            surface = surface_of(self._job.endpoint)
            await answer_problem(self._send, error, self._caller.request_id, surface)

    async def _end(self, status: int, *, error: str | None = None, aborted: bool = False) -> None:
        self._outcome.status = status
        # shielded: a client that leaves now must not leave the log without the record
        await asyncio.shield(
            self._journal.end(
                self._caller, self._job, self._outcome, status, error=error, aborted=aborted
            )
        )


def _events(payloads: list[bytes], number: int, chat: ChatStream | None) -> list[dict[str, Any]]:
    """What a stream says. Raises EngineError."""
    events = [_numbered(load_event(p), number) for p in payloads if p != b"[DONE]"]
    return [told for event in events for told in chat.events(event)] if chat else events


def _numbered(event: dict[str, Any], number: int) -> dict[str, Any]:
    """The event as part of the answer with this number."""
    if number:
        for choice in event.get("choices") or ():
            choice["index"] = number
    return event


def load_event(payload: bytes) -> dict[str, Any]:
    """One JSON object of the engine. Raises EngineError."""
    try:
        event = _DECODER.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise EngineError("the engine sent something that is not JSON") from error
    if not isinstance(event, dict) or not _well_formed(event.get("choices")):
        raise EngineError("the engine sent an event of unknown shape")
    return event


def _well_formed(choices: object) -> bool:
    return choices is None or (
        isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)
    )


def engine_problem(status: int, body: bytes) -> ApiError:
    """The engine's refusal as ours. Its texts stay inside: they may quote prompts and paths."""
    try:
        details = json.loads(body)["error"]
        kind = details.get("type", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        details, kind = {}, ""
    if kind == TOO_LONG_TYPE:
        return _too_long(details.get("n_prompt_tokens"), details.get("n_ctx"), "messages")
    if too_large := _TOO_LARGE.match(str(details.get("message", ""))):
        return _too_long(too_large[1], too_large[2], "input")
    if OUT_OF_RANGE in str(details.get("message", "")):
        return ApiError(400, "invalid_value", "tokens: a number is no token's", param="tokens")
    if status == 503:
        return engine_unavailable()
    if status in (400, 501) or kind in ("invalid_request_error", "not_supported_error"):
        return ApiError(400, "engine_refused", "the engine cannot serve this request as asked")
    return ApiError(502, "engine_failed", "the engine failed to answer")


def _too_long(found: object, limit: object, param: str) -> ApiError:
    # Anthropic's words: LangChain, LiteLLM and others look for them
    text = f"prompt is too long: {found} tokens > {limit} maximum"
    return ApiError(400, TOO_LONG, text, param=param)


def _abandon(connecting: asyncio.Future[EngineConnection]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().abandon()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
