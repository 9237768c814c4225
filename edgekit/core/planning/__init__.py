"""From facts to a decision: which engine, variant, context and devices serve a model, and why.

    shape    what a variant's header says            llama_shape, vllm_memory
    memory   what a way to serve it needs            llama_memory, compute_buffer, vllm_memory
    devices  what the host offers to a pack          devices
    rungs    which way is tried after which          rungs, candidates
    select   the first that fits, and all the rest   select, explain
"""
