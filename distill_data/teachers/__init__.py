"""Teachers: `base` says what one is, `rendering` turns prompts into token ids, `vllm_engine` and `replay` are the
two kinds, `worker` owns one teacher in a process of its own, `pool` starts workers and hands them shards;
`vllm_reasoning` splits what was said with vLLM's own reasoning parsers.
"""
