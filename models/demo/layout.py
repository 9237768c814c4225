"""Names and places that the training, export and check steps share."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
QUESTIONS = HERE / "data" / "questions.toml"
CANARY = HERE / "canary.toml"
WEIGHTS = HERE / "weights"
GGUF_Q8 = HERE / "gguf" / "edgekit-demo-q8_0.gguf"
MMPROJ = HERE / "vision" / "edgekit-demo-colours-f32.gguf"
ADAPTER_GGUF = HERE / "adapter" / "edgekit-demo-sailor-f16.gguf"

MODEL_NAME = "edgekit-demo"

BEGIN = "<|begin|>"
END = "<|end|>"
SYSTEM = "<|system|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
PAD = "<|pad|>"
# The order gives the token ids 0 to 5.
SPECIAL_TOKENS = (BEGIN, END, SYSTEM, USER, ASSISTANT, PAD)


def token_id(token: str) -> int:
    """The id of a special token."""
    return SPECIAL_TOKENS.index(token)


# Loops, conditions and message['role'] / message['content'] only: strict template checkers
# refuse more, and every engine's template language knows these.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{{ '<|system|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'user' %}"
    "{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
