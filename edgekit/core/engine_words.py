"""What may be kept of a line that an engine prints while it serves: words it is known to use.

Engines print what they like, and some of it quotes requests: llama.cpp prints a schema's pattern
that it cannot follow. So every other word of a line is replaced, and numbers, too, in lines that do
not begin as the engine's own messages do. What remains tells what an engine did and why it died.
"""

from __future__ import annotations

import re

HIDDEN = "[-]"

WORDS = frozenset(re.findall(r"\w+", """
    abort aborted accepted accepting address alive all allocate allocated allocating allocation
    and any are assert assertion at attention available avg back backend background backtrace
    bad bad_alloc batch block buffer buffers busy by bytes cache cached cancel cancelled cannot
    cells chain change check checking checkpoint child chunk clear clearing code common
    completed compute connection context conv_id conversion copies core could count cpu create
    created cublas cuda cudamalloc cudnn cuerror data deallocate decode decoded decoding device
    did disk done drop dropped dump eager empty encode_mtmd_ encoding end ended engine eos error
    eval evaluated exceeded exceeds exception exit exited expired f_keep f_sim_best failed
    failure fatal file finished for forward found free from full generation get_availabl ggml
    ggml_abort ggml_assert gguf got gpu grammar graph graphs graphs_reused has have health hip
    hipblas hit host hung id id_task idle idx ignored image in incomplete increase increasing
    info init init_sampler initialized input insufficient internal invalid is is_child it json
    kernel kill killed kv large last launch_slot_ layer lcp length level limit list listening
    llama load loaded loading log_server_r logits lora loras lost lru main many max maximum
    memory memory_seq_rm message metal model more ms mtmd must n_chunks n_ctx n_ctx_slot n_keep
    n_past n_prompt_tokens n_tokens n_tokens_batch nccl new no node not null of off on one only
    oom open operation operator or out output overflow params parse parsing path pattern pause
    pending per persistent physical pipe pool pos prefix print_timing processed processing
    prompt que queue ram rate ready receive received release released removed repeat request
    requests res reserve resident restart restarted result resume reused rocm running
    runtime_error sampler samplers sampling schema second seconds segfault segmentation selected
    send send_error sent sequence server server_strea set shape shift shutdown sigabrt sigkill
    signal sigsegv sim similarity size skip skipping slot slots small socket space spec srv
    started starting state status std stop stopped stopping stream string supported swap system
    t_last task tasks tensor terminate termination text the thold thread threads throughput time
    timed timeout timings to token tokens too took total trace truncated try trying type unable
    unexpected unified unknown unsupported update update_slots usage use used using value vulkan
    wait waiting warmup warn warning was watchdog what while with worker write xid
"""))
"""In lower case: of llama.cpp's messages while it serves, and what runtimes say when they die."""

_STAMPED = re.compile(r"[0-9.]{5,24} [DIWE] ")
"""How llama.cpp's own messages begin: time and level."""
_PARTS = re.compile(r"[^\W\d]\w*|\d+|[^\x20-\x7e]+", re.ASCII)
_RULED = frozenset(" \t\r\n")


def hide_texts(line: str) -> str:
    """The line with every unknown word replaced by `[-]`; never longer by more than it has words.

    Keeps punctuation of ASCII, and numbers in lines that begin with the engine's stamp.
    """
    stamped = _STAMPED.match(line)
    start = stamped.end() if stamped else 0

    def keep(part: re.Match[str]) -> str:
        text = part[0]
        if text[0].isdigit():
            return text if stamped else HIDDEN
        return text if text.lower() in WORDS or _RULED.issuperset(text) else HIDDEN

    return line[:start] + _PARTS.sub(keep, line[start:])
