"""Requests that together use every field of every endpoint, for those who describe and test them.

`model` is left out: who uses an example puts in a model's name.
"""

from __future__ import annotations

from typing import Any

_SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 7,
    "stop": ["\n\n"],
    "max_tokens": 32,
}
_STREAMING = {"stream": True, "stream_options": {"include_usage": True}}
# one red pixel
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
_PICTURE = f"data:image/png;base64,{_PIXEL}"
_PARAMETERS = {"type": "object", "properties": {"place": {"type": "string"}}}
_FUNCTION = {"name": "look_up", "description": "look a place up", "parameters": _PARAMETERS}
_TOOL = {"type": "function", "function": _FUNCTION}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"place": "bridge"}'},
}
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}}
_CHAT = {
    "messages": [
        {"role": "system", "content": "be short"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "where is the bridge?"},
                {"type": "image_url", "image_url": {"url": _PICTURE, "detail": "low"}},
            ],
        },
        {"role": "assistant", "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "in the north"},
    ],
    "tools": [_TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    **_SAMPLING,
    "max_completion_tokens": 32,
    "n": 2,
    "logit_bias": {"5": -10},
    **_STREAMING,
}
_CHAT_JSON = {
    "messages": [{"role": "user", "content": "where is the bridge?"}],
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": _SCHEMA},
    },
}
_RESPONSES = {
    "instructions": "be short",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "where is the bridge?"},
                {"type": "input_image", "image_url": _PICTURE, "detail": "auto"},
            ],
        },
        {
            "type": "function_call",
            "call_id": "call_1",
            "name": "look_up",
            "arguments": '{"place": "bridge"}',
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "in the north"},
        {"type": "reasoning", "summary": []},
    ],
    "tools": [{"type": "function", **_FUNCTION}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": _SCHEMA}},
    "reasoning": {"effort": "low"},
}
_CONVERSATION = {
    "system": [{"type": "text", "text": "be short"}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "where is the bridge?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": _PIXEL},
                },
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {
                    "type": "tool_use",
                    "id": "call_1",
                    "name": "look_up",
                    "input": {"place": "bridge"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1",
                    "content": [{"type": "text", "text": "in the north"}],
                    "is_error": False,
                }
            ],
        },
    ],
    "tools": [{"name": "look_up", "description": "look a place up", "input_schema": _PARAMETERS}],
    "tool_choice": {"type": "tool", "name": "look_up", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}},
}
_OPTIONS = {
    "temperature": 0.5,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "repeat_penalty": 1.1,
    "repeat_last_n": 64,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "seed": 7,
    "stop": ["\n\n"],
    "num_predict": 32,
}
_OLLAMA: dict[str, Any] = {
    "stream": False,
    "keep_alive": "5m",
    "think": True,
    "format": _SCHEMA,
    "logprobs": True,
    "top_logprobs": 2,
    "options": _OPTIONS,
}

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [_CHAT, _CHAT_JSON],
    "/v1/completions": [
        {
            "prompt": "the bridge is",
            **_SAMPLING,
            "logprobs": 2,
            "logit_bias": {"5": -10},
            "n": 2,
            **_STREAMING,
        },
        {"prompt": "the bridge is in the", "suffix": "of the ship"},
    ],
    "/v1/responses": [
        {
            **_RESPONSES,
            "max_output_tokens": 32,
            "temperature": 0.5,
            "top_p": 0.9,
            "stream": True,
        },
        {"input": "where is the bridge?"},
    ],
    "/v1/responses/input_tokens": [_RESPONSES, {"input": "where is the bridge?"}],
    "/v1/messages": [
        {
            **_CONVERSATION,
            "max_tokens": 32,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 40,
            "stop_sequences": ["\n\n"],
            "stream": True,
        }
    ],
    "/v1/messages/count_tokens": [_CONVERSATION],
    "/v1/embeddings": [
        {"input": ["a bridge", "a ford"], "dimensions": 64, "encoding_format": "base64"}
    ],
    "/v1/rerank": [
        {
            "query": "where is the bridge?",
            "documents": ["it is in the north", {"text": "a ford is shallow"}],
            "top_n": 1,
            "return_documents": True,
        }
    ],
    "/tokenize": [
        {"prompt": "a bridge", "add_special_tokens": False, "return_token_strs": True}
    ],
    "/detokenize": [{"tokens": [5, 6]}],
    "/api/chat": [
        {
            **_OLLAMA,
            "messages": [
                {"role": "user", "content": "where is the bridge?", "images": [_PIXEL]},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "function": {"name": "look_up", "arguments": {"place": "bridge"}},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "in the north"},
            ],
            "tools": [_TOOL],
        }
    ],
    "/api/generate": [
        {
            **_OLLAMA,
            "prompt": "where is the bridge?",
            "system": "be short",
            "images": [_PIXEL],
        },
        {"prompt": "the bridge is", "raw": True},
        {"prompt": "the bridge is in the", "suffix": "of the ship"},
        {"prompt": "and the mess?", "context": [*b'[["user","where is the bridge?"]]']},
    ],
    "/api/embed": [
        {
            "input": ["a bridge", "a ford"],
            "dimensions": 64,
            "truncate": False,
            "keep_alive": "5m",
        }
    ],
    "/api/embeddings": [{"prompt": "a bridge", "keep_alive": 300}],
}
